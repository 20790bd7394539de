"""Embeddings of generated pictures and captions, in any number, that need no training.

A region is one of 4,000 concepts, blurred. Pictures of one topic (about 100) share most of their
concepts, so that a picture has near neighbours. A caption names some regions of a picture, with
another blur, and a third of its words occur in captions of any picture. Global tokens are the
blurred mean of the local ones. Each number is a hash of its row, so any row can be made by itself.
With 1,000 pictures a shortlist loses about as many of the first ten answers as with the shipped
model on scenes. It shows how search behaves, not how good a model is.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding

CONCEPTS, COMMON = 4000, 50  # concepts in all, and those of common words
TOPIC, SHARE = 40, 0.6  # concepts of a topic, and the share of regions that show one of them
BLURS, BLUR, GLOBAL_BLUR = 4096, 0.6, 0.25  # vectors that are added, and how long they are
BLOCK = 2000  # images made at once


@dataclass(frozen=True)
class Pictures:
    """`size` pictures of `regions` regions, and captions of them: unit vectors, `width` wide."""

    size: int
    regions: int = 36
    width: int = 256
    seed: int = 0

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)
        for name, count in (("concepts", CONCEPTS), ("blurs", BLURS)):
            vectors = normalize(torch.randn(count, self.width, generator=generator), dim=1)
            object.__setattr__(self, name, vectors)  # frozen

    def images(self, start: int = 0, end: int | None = None) -> Embedding:
        """The pictures of rows start to end, all their regions real."""
        rows = torch.arange(start, self.size if end is None else end)
        regions = torch.arange(self.regions)
        tokens = torch.empty(len(rows), self.regions, self.width)
        global_token = torch.empty(len(rows), self.width)
        for i in range(0, len(rows), BLOCK):
            block = rows[i : i + BLOCK, None]  # (b, 1)
            local = self._blurred(self._concept(block, regions), _hash(block, 1_000 + regions))
            tokens[i : i + BLOCK] = local  # (b, R, D)
            global_token[i : i + BLOCK] = self._mean(local, _hash(block, 5))
        return Embedding(global_token, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def captions(
        self, rows: torch.Tensor, words: int = 15, which: torch.Tensor | int = 0
    ) -> Embedding:
        """A caption of each picture of rows (C,); which, a number or (C,): its first or another."""
        rows = rows[:, None]
        slots = torch.arange(words) + 10_000 * torch.as_tensor(which).view(-1, 1)  # (C or 1, W)
        shown = self._concept(rows, _hash(rows, 2_000 + slots) % self.regions)  # (C, W)
        common = _hash(rows, 3_000 + slots) % COMMON
        concepts = torch.where(_hash(rows, 4_000 + slots) % 3 == 0, common, shown)
        tokens = self._blurred(concepts, _hash(rows, 6_000 + slots))  # (C, W, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Embedding(self._mean(tokens, _hash(rows, 6 + slots)), tokens, mask)

    def _concept(self, rows, regions):
        """(rows, regions) the concept of a region; rows (N, 1), regions (R,) or (N, R)."""
        topics = max(1, self.size // 100)
        first = _hash(rows, 7) % topics * 7919
        of_topic = (first + _hash(rows, 8 + 2 * regions) % TOPIC) % CONCEPTS
        of_all = _hash(rows, 9 + 2 * regions) % CONCEPTS
        return torch.where(_hash(rows, 7_000 + regions) % 100 < 100 * SHARE, of_topic, of_all)

    def _blurred(self, concepts, blur):
        vectors = self.concepts.index_select(0, concepts.flatten())
        vectors.add_(self.blurs.index_select(0, (blur % BLURS).flatten()), alpha=BLUR)
        return normalize(vectors, dim=1).unflatten(0, concepts.shape)

    def _mean(self, tokens, blur):
        mean = normalize(tokens.mean(1), dim=1)
        return normalize(mean + GLOBAL_BLUR * self.blurs[(blur % BLURS)[:, 0]], dim=1)


def _hash(rows, salt):
    """int64 >= 0 that look drawn at random, also for rows and salts that differ by one."""
    mixed = rows * 6_364_136_223_846_793_005  # int64 wraps around
    mixed = mixed + torch.as_tensor(salt) * 1_442_695_040_888_963_407
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 29)) * 3_202_034_522_624_059_733
    return (mixed ^ (mixed >> 32)) & (2**62 - 1)
