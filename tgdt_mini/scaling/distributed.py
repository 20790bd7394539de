"""One run on several processes: each embeds its share of a batch, all compare everything.

    torchrun --nproc-per-node N -m tgdt_mini train ...   one process a GPU (nccl), N on a CPU (gloo)

Every process holds the whole model. Embeddings are gathered from all processes WITH their gradient,
so that each one computes the loss of the whole batch: hardest negatives, captions of one image and
the intra-modal term are those of one process. Then the weights' gradients are averaged. In one
process every function here passes its argument through.

The common trick, gathered copies without gradient with one's own rows put back, gives 1/N of the
gradient after averaging (N processes): each process then knows what its own loss says of its rows,
and not what the others' losses say of them. Adam hides the factor; clipping and SGD do not.

Left out: parts of the model on several cards, and hiding communication behind the backward pass as
torch's DistributedDataParallel does. That one wraps a single forward pass from which every
parameter learns; neither the staged schedule nor gradient caching is one. Every process computes
the whole B x B table of scores.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from tgdt_mini.batches import Engine
from tgdt_mini.checkpoint import random_state
from tgdt_mini.config import pick_device
from tgdt_mini.embedding import Embedding
from tgdt_mini.scaling.communication import (
    Lost,
    all_gather,
    all_tensors,
    any_true,
    barrier,
    broadcast,
    ended,
    rank,
    size,
    together,
)
from tgdt_mini.scaling.gradient_cache import embed_in_chunks

# how long a process waits for another, say for the first one to judge a large validation set
PATIENCE = timedelta(hours=1)
# seconds in which gloo's threads let go of the last tensors. They need Python's lock for that, and
# one that waits for it while Python ends takes the process down by SIGABRT
LET_GO = 0.3
_store = None  # where the processes leave notes for each other, also after one of them has died


def launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, has started several."""
    return "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(device: str = "auto"):
    """The device of this process; inside, the processes that torchrun started are one run.

    Without torchrun it is `pick_device` and nothing else.
    """
    global _store
    if not launched():
        yield pick_device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    if device in ("auto", "cuda") and torch.cuda.is_available():
        cards = torch.cuda.device_count()
        if local >= cards:
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {cards}; start "
                f"torchrun with --nproc-per-node {cards}, or use --device cpu"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    device = pick_device(device)
    _store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("run", _store),
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )
    before = signal.signal(signal.SIGTERM, _told_to_end)
    try:
        yield device
        barrier()  # not after an error: others may be gone
        time.sleep(LET_GO)
        dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)


class Processes(Engine):
    """The engine of a `Trainer` on all processes of the run; see `batches.Engine`.

    chunk: pairs that a process embeds at a time (gradient_cache.py); 0: its whole share of a batch.
    All processes build the same trainer and run it; its batch counts the pairs of all together.
    """

    def __init__(self, chunk: int = 0):
        self.chunk, self.rank = chunk, rank()
        self.any, self.first, self.wait = any_true, broadcast, barrier
        self.average = average_gradients

    def start(self, trainer):
        """Everybody begins with the first process's weights. ValueError for too small a batch."""
        self.device = trainer.device
        if trainer.config.batch < size():
            raise ValueError(
                f"batch is {trainer.config.batch}; {size()} processes need one pair each at least"
            )
        same_start(trainer.model)

    def seed(self, seed: int):
        """Another seed in each process, or all would draw the same dropout."""
        torch.manual_seed(seed + 1_000_003 * rank())

    def embed(self, embed: Callable, rows, captions, hard):
        """(embeddings of all processes, what to call after their backward pass)."""
        rows, captions, hard = (part[share(len(part))] for part in (rows, captions, hard))
        chunks = rows.split(self.chunk or len(rows))
        parts = zip(chunks, captions.split(len(chunks[0])), hard.tensor_split(len(chunks)))
        embeddings, backward = embed_in_chunks(lambda part: embed(*part), list(parts), self.device)
        return gather(*embeddings), backward

    def random_states(self, device) -> list[dict]:
        """The state of each process's random generators, by rank."""
        return all_gather(random_state(device))


def first_to_report() -> bool:
    """Whether this process is the first of the run to say why it ends. Ask once.

    Always True in one process.
    """
    if _store is None:
        return True
    try:
        return _store.add("reported", 1) == 1
    except RuntimeError:  # the store was in a process that has died
        return True


def share(count: int) -> slice:
    """The part of `count` things in order that is this process's; shares differ by one at most."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def gather(*embeddings: Embedding) -> list[Embedding]:
    """The embeddings of all processes, in the order of their ranks, each item with its gradient.

    Each process may bring another number of items and of tokens: shapes (sum of B, max of L, D).
    All must bring the same number of embeddings. In the backward pass every item receives the sum
    of what the processes' losses say of it; with `average_gradients` that is the gradient of the
    mean of the losses.
    """
    if size() == 1:
        return list(embeddings)
    shapes = torch.tensor([embedding.mask.shape for embedding in embeddings])  # (E, 2)
    shapes = torch.stack(all_tensors(shapes))  # (N, E, 2) items and tokens
    most = shapes.amax(0).clamp(min=1).tolist()
    padded = [_pad(embedding, *room) for embedding, room in zip(embeddings, most)]
    floats = [part for item in padded for part in (item.global_token, item.local_tokens)]
    floats = _Gather.apply(*floats)
    gathered = []
    for number, item in enumerate(padded):
        real = torch.arange(len(item)) < shapes[:, number, :1]  # (N, most of B), False for padding
        mask = torch.cat(all_tensors(item.mask.byte())).bool()
        everyone = Embedding(*floats[2 * number : 2 * number + 2], mask)
        gathered.append(everyone if real.all() else everyone[real.flatten().to(mask.device)])
    return gathered


class _Gather(torch.autograd.Function):
    """Rows of all processes; on the way back, this process's rows of the gradients' sum.

    One node for all tensors, so that every process communicates in the same order.
    """

    @staticmethod
    def forward(ctx, *tensors):
        # a tensor that no term reads has no gradient, which is not a gradient of 0
        ctx.set_materialize_grads(False)
        return tuple(torch.cat(all_tensors(tensor)) for tensor in tensors)

    @staticmethod
    def backward(ctx, *gradients):
        shares = []
        for gradient in gradients:
            if gradient is not None:
                gradient = gradient.contiguous().clone()
                together(dist.all_reduce, gradient)
                gradient = gradient.chunk(size())[rank()]
            shares.append(gradient)
        return tuple(shares)


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Put the mean over the processes in place of each gradient; all must have the same ones."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message, not a hundred
    together(dist.all_reduce, flat)
    means = (flat / size()).split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means):
        gradient.copy_(mean.view_as(gradient))


def same_start(model: torch.nn.Module) -> None:
    """Put the first process's weights in the place of everyone's."""
    if size() > 1:
        for tensor in model.state_dict().values():
            together(dist.broadcast, tensor, 0)


def _pad(embedding, items, length):
    rows, tokens = items - len(embedding), length - embedding.mask.shape[1]
    pad = torch.nn.functional.pad
    return Embedding(
        pad(embedding.global_token, (0, 0, 0, rows)),
        pad(embedding.local_tokens, (0, 0, 0, tokens, 0, rows)),
        pad(embedding.mask, (0, tokens, 0, rows)),
    )


def _told_to_end(*_):
    raise Lost(ended("told to end by SIGTERM"))
