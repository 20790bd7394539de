"""What the processes of a run tell each other; in one process everything passes through.

A process that waits for one that has ended gets `Lost`, in one line.
"""

import os
import re
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.distributed as dist


class Lost(RuntimeError):
    """Another process of the run has ended, so this one cannot go on."""


def size() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0. Only 0 judges, writes and prints."""
    return dist.get_rank() if size() > 1 else 0


def broadcast(make: Callable):
    """What make() returns in the first process, in every process; the others do not call it."""
    if size() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    together(dist.broadcast_object_list, box)
    return box[0]


def all_gather(value) -> list:
    """Everyone's value, in the order of the ranks."""
    if size() == 1:
        return [value]
    values = [None] * size()
    together(dist.all_gather_object, values, value)
    return values


def any_true(flag: bool) -> bool:
    """Whether the flag is True in any process. All wait for each other here."""
    if size() == 1:
        return flag
    seen = torch.tensor(int(flag))
    together(dist.all_reduce, seen, dist.ReduceOp.MAX)
    return bool(seen)


def barrier() -> None:
    """Wait until all processes are here."""
    any_true(False)


@contextmanager
def first_then_others():
    """The body runs in each machine's first process before it runs in the others.

    So what it keeps in the cache is made once.
    """
    waits = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if waits:
        barrier()
    yield
    if not waits:
        barrier()


def all_tensors(tensor):
    """[tensor of process 0, of process 1 ...]: the same shape everywhere, and no gradient."""
    layout = torch.contiguous_format
    parts = [torch.empty_like(tensor, memory_format=layout) for _ in range(size())]
    together(dist.all_gather, parts, tensor.contiguous())
    return parts


def together(communicate, *arguments):
    """communicate(*arguments); `Lost` in place of an error of torch's, in one line."""
    try:
        return communicate(*arguments)
    except Lost:  # told to end while waiting
        raise
    except RuntimeError as error:
        why = re.sub(r"^\[\S+:\d+\] ", "", str(error).strip())  # a line of gloo's source
        raise Lost(ended(re.split(r"\. |\n", why)[0])) from error


def ended(why):
    return (
        f"one of the {size()} processes has ended, and the run with it ({why}); go on from the "
        "last epoch's end, if there was one, with --resume"
    )
