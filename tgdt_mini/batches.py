"""Which pairs each batch of an epoch holds, and who carries out a step with it.

Every image is in an epoch at most once, with one of its captions. The batches depend on the data,
the seed and the epoch alone: so a run can be stopped and resumed anywhere. An epoch's last,
incomplete batch is left out; the next epoch has another order.

I images, C captions of a training set.
"""

from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tgdt_mini.checkpoint import random_state
from tgdt_mini.data import TokenSet
from tgdt_mini.files.check import typed, whole_number

MIX_LENGTHS = 4.0  # tokens of noise when captions are sorted into batches of about one length
# dynamic: each batch is as long as its longest item. On a GPU one analysis of torch 2.11's compiler
# stops at such lengths, at an assertion of its own
COMPILING = {"dynamic": True, "options": {"triton.coalesce_tiling_analysis": False}}


class Batches:
    """The batches of every epoch of a training set: `len` of them an epoch, of `batch` pairs."""

    @typed
    def __init__(self, tokens: TokenSet, batch: int, seed: int):
        batch = whole_number("batch", batch, 1)
        if batch > tokens.image_count:
            raise ValueError(
                f"batch is {batch}, but there are {tokens.image_count} images; choose a smaller one"
            )
        self.batch, self.seed = batch, seed
        self.captions_of = _captions_of(tokens)  # (I, most captions), on the CPU
        self.regions = tokens.starts.diff().cpu()  # (I,)
        self.lengths = tokens.text.mask.sum(dim=1).cpu()  # (C,) tokens
        hard = tokens.hard or tokens.text[:0]
        self.hard_lengths = hard.mask.sum(dim=1).cpu()  # (C,) tokens, or (0,)
        self.has_hard = hard.word_mask.any(dim=1).cpu()

    def __len__(self) -> int:
        return len(self.captions_of) // self.batch

    def of(self, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """An epoch's batches: (rows, captions) tensors on the CPU, `batch` int64 each."""
        draw = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        rows = torch.randperm(len(self.captions_of), generator=draw)
        count = (self.captions_of >= 0).sum(dim=1)  # (I,)
        # captions of an image take turns over the epochs, from a random start: all are read
        # equally often
        once = torch.Generator().manual_seed(self.seed)
        start = torch.randint(0, 10_000, count.shape, generator=once)
        captions = self.captions_of[torch.arange(len(count)), (start + epoch) % count][rows]
        kept = len(self) * self.batch
        rows, captions = rows[:kept], captions[:kept]
        # captions of about one length share a batch, so that little of it is padding; the noise
        # keeps batches varied
        length = self.lengths[captions] + MIX_LENGTHS * torch.rand(kept, generator=draw)
        by_length = length.argsort(stable=True).split(self.batch)
        order = torch.randperm(len(self), generator=draw).tolist()
        return [(rows[by_length[i]], captions[by_length[i]]) for i in order]

    def epoch_batches(self, epoch: int, hard_share: float = 0.0, device="cpu") -> list[tuple]:
        """The batches of `of` as (rows, captions, hard_rows, longest), tensors on a device.

        With the sizes known before, a step never asks a GPU for a number, and so never waits.

        hard_rows: positions in the batch whose caption has a hard negative, the first ones, at most
        hard_share of the batch. longest: the most regions of an image, the most tokens of a
        caption, and those of a hard negative.
        """
        batches = []
        for rows, captions in self.of(epoch):
            count = round(hard_share * len(captions))
            hard_rows = self.has_hard[captions].nonzero()[:count, 0] if count else captions[:0]
            hard = int(self.hard_lengths[captions[hard_rows]].max()) if len(hard_rows) else 0
            longest = int(self.regions[rows].max()), int(self.lengths[captions].max()), hard
            tensors = (tensor.to(device) for tensor in (rows, captions, hard_rows))
            batches.append((*tensors, longest))
        return batches


def _captions_of(tokens):
    """(I, most) int64: the rows of each image's captions, -1 where there are no more."""
    caption_image = tokens.caption_image.cpu()  # (C,)
    count = torch.bincount(caption_image, minlength=tokens.image_count)  # (I,)
    if (count == 0).any():
        without = tokens.image_ids[int((count == 0).nonzero()[0])]
        raise ValueError(f"image {without!r} has no caption to train on; leave it out")
    order = torch.argsort(caption_image, stable=True)  # captions of one image side by side
    image = caption_image[order]
    column = torch.arange(len(order)) - (count.cumsum(0) - count)[image]
    table = torch.full((tokens.image_count, int(count.max())), -1)
    table[image, column] = order
    return table


@contextmanager
def in_precision(precision: torch.dtype, device: torch.device):
    """Inside, a model multiplies in this number format; scores and losses stay in float32.

    Without cuDNN's attention, which plans anew for each batch of another length: with it a step of
    the mini model in bfloat16 took 241 instead of 69 ms on an H200.
    """
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    half = precision != torch.float32
    with torch.autocast(device.type, precision, enabled=half), sdpa_kernel(kernels):
        yield


class Engine:
    """Who carries out a step: here, one model that embeds the whole batch at once.

    `scaling/distributed.py` has another, with the same methods.
    """

    rank = 0  # the process of rank 0 validates, writes and prints

    def start(self, trainer):
        """Called once, before there is an optimizer."""

    def seed(self, seed: int):
        torch.manual_seed(seed)

    def embed(self, embed, rows, captions, hard):
        """(embeddings of the batch, a function to call after the backward pass of their loss)."""
        return embed(rows, captions, hard), lambda: None

    def average(self, parameters):
        """Called when all parameters have their gradients."""

    def any(self, flag: bool) -> bool:
        return flag

    def wait(self):
        """Called while files are written: nobody goes on before they are there."""

    def first(self, make):
        return make()

    def random_states(self, device) -> list[dict]:
        return [random_state(device)]
