"""One run on several processes: each embeds its share of a batch, all compare everything, one
gradient moves them all.

    torchrun --nproc-per-node N -m tgdt_mini train ...      one process a GPU (nccl), or N on a CPU
    (gloo)

Every process holds the whole model. Embeddings are gathered from all processes WITH their gradient,
so that each one
computes the loss of the whole batch: hardest negatives, captions of one image and the intra-modal
term are those of one process. Then the weights' gradients are averaged. In one process every
function here passes its argument through.

The common trick, gathered copies without gradient with one's own rows put back, gives 1/N of the
gradient after averaging (N processes): each process then knows what its loss says of its own rows,
and nobody what the others' losses say of them. An optimizer such as Adam hides the factor, clipping
and SGD do not.

Left out: parts of the model on several cards, and hiding communication behind the backward pass as
torch's DistributedDataParallel does; that one wraps a single forward pass from which every
parameter learns, which neither the staged recipe nor gradient caching is. Every process computes
the whole B x B table of scores.
"""

import os
import re
import signal
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from tgdt_mini.embedding import Embedding
from tgdt_mini.training_config import pick_device

PATIENCE = timedelta(
    hours=1
)  # that a process waits for another, say for the first one to judge a large validation set
_store = None  # where the processes leave notes for each other, also after one of them has died


class Lost(RuntimeError):
    """Another process of the run has ended, so this one cannot go on."""


def size() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0. Only 0 judges, writes and prints."""
    return dist.get_rank() if size() > 1 else 0


def launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, has started several
    processes.
    """
    return "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(device: str = "auto"):
    """The device of this process; inside, the processes that torchrun started are one run. Else
    just `pick_device`.
    """
    global _store
    if not launched():
        yield pick_device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    if device in ("auto", "cuda") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
                f"start torchrun with --nproc-per-node {torch.cuda.device_count()}, or use --device cpu"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    device = pick_device(device)
    _store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("run", _store),
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )
    before = signal.signal(signal.SIGTERM, _told_to_end)
    try:
        yield device
        # not after an error: others may be gone, and it would wait for them
        dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)


def speaks() -> bool:
    """Whether this process is the first of the run to say why it ends; always in one process. Ask
    once.
    """
    if _store is None:
        return True
    try:
        return _store.add("spoken", 1) == 1
    except RuntimeError:  # the store was in a process that has died
        return True


def share(count: int) -> slice:
    """The part of `count` things in order that is this process's. Shares differ by one thing at
    most.
    """
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def gather(*embeddings: Embedding) -> list[Embedding]:
    """The embeddings of all processes, in the order of their ranks, each item with its gradient.

    Each process may bring another number of items and another number of tokens: shapes (sum of B,
    max of L, D). All must bring the same number of embeddings. In the backward pass every item
    receives the sum of what the processes' losses say of it; with `average_gradients` that is the
    gradient of the mean of the losses.
    """
    if size() == 1:
        return list(embeddings)
    shapes = torch.tensor([embedding.mask.shape for embedding in embeddings])  # (E, 2)
    shapes = torch.stack(_all(shapes))  # (N, E, 2) items and tokens
    most = shapes.amax(0).clamp(min=1).tolist()
    padded = [_pad(embedding, *room) for embedding, room in zip(embeddings, most)]
    floats = _Gather.apply(
        *(part for each in padded for part in (each.global_token, each.local_tokens))
    )
    found = []
    for place, each in enumerate(padded):
        real = (
            torch.arange(len(each)) < shapes[:, place, :1]
        )  # (N, most of B), False for items of padding
        mask = torch.cat(_all(each.mask.byte())).bool()
        whole = Embedding(*floats[2 * place : 2 * place + 2], mask)
        found.append(whole if real.all() else whole[real.flatten().to(mask.device)])
    return found


class _Gather(torch.autograd.Function):
    """Rows of all processes; on the way back, this process's rows of the gradients' sum. One node
    for all tensors, so that every process communicates in the same order.
    """

    @staticmethod
    def forward(ctx, *tensors):
        ctx.set_materialize_grads(
            False
        )  # a tensor that no term reads has no gradient, which is not a gradient of 0
        return tuple(torch.cat(_all(tensor)) for tensor in tensors)

    @staticmethod
    def backward(ctx, *gradients):
        own = []
        for gradient in gradients:
            if gradient is not None:
                gradient = gradient.contiguous().clone()
                _together(dist.all_reduce, gradient)
                gradient = gradient.chunk(size())[rank()]
            own.append(gradient)
        return tuple(own)


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Put the mean over the processes in place of each gradient; every process must have the same
    ones.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = torch.cat(
        [gradient.flatten() for gradient in gradients]
    )  # one message instead of a hundred
    _together(dist.all_reduce, flat)
    for gradient, mean in zip(
        gradients, (flat / size()).split([gradient.numel() for gradient in gradients])
    ):
        gradient.copy_(mean.view_as(gradient))


def same_start(model: torch.nn.Module) -> None:
    """Put the first process's weights in the place of everyone's."""
    if size() > 1:
        for tensor in model.state_dict().values():
            _together(dist.broadcast, tensor, 0)


def from_first(make: Callable):
    """What make() returns in the first process, in every process; the others wait and do not call
    it.
    """
    if size() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    _together(dist.broadcast_object_list, box)
    return box[0]


def from_all(value) -> list:
    """Everyone's value, in the order of the ranks."""
    if size() == 1:
        return [value]
    values = [None] * size()
    _together(dist.all_gather_object, values, value)
    return values


def any_of(flag: bool) -> bool:
    """Whether the flag is True in any process; also the place where all wait for each other."""
    if size() == 1:
        return flag
    seen = torch.tensor(int(flag))
    _together(dist.all_reduce, seen, dist.ReduceOp.MAX)
    return bool(seen)


@contextmanager
def first_then_others():
    """The body runs in each machine's first process before the others': what it keeps in the cache
    is made once.
    """
    last = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if last:
        any_of(False)
    yield
    if not last:
        any_of(False)


def _all(tensor):
    """[tensor of process 0, of process 1 ...]: the same shape everywhere, and no gradient."""
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(size())]
    _together(dist.all_gather, parts, tensor.contiguous())
    return parts


def _pad(embedding, items, length):
    rows, tokens = items - len(embedding), length - embedding.mask.shape[1]
    pad = torch.nn.functional.pad
    return Embedding(
        pad(embedding.global_token, (0, 0, 0, rows)),
        pad(embedding.local_tokens, (0, 0, 0, tokens, 0, rows)),
        pad(embedding.mask, (0, tokens, 0, rows)),
    )


def _together(communicate, *arguments):
    try:
        return communicate(*arguments)
    except Lost:  # told to end while waiting
        raise
    except RuntimeError as error:
        why = re.sub(r"^\[\S+:\d+\] ", "", str(error).strip())  # a line of gloo's source
        raise Lost(_ended(re.split(r"\. |\n", why)[0])) from error


def _told_to_end(*_):
    raise Lost(_ended("told to end by SIGTERM"))


def _ended(why):
    return (
        f"one of the {size()} processes has ended, and the run with it ({why}); go on from the last epoch's end, if "
        "there was one, with --resume"
    )
