"""Embeddings that nobody had to train, in any number, with which a shortlist has something to lose.

A region is one of 4,000 concepts, blurred. The pictures of a topic (about 100) share most of their
concepts, so that a picture has near neighbours. A caption speaks of some of a picture's regions,
blurred otherwise, and a third of its words are such as any caption has. Global tokens are the
blurred mean of the local ones. All of it is a hash of row
numbers: any rows can be made alone, the same each time. With 1,000 pictures a shortlist loses about
as much of the first ten answers as the shipped model's does on scenes. It shows how search behaves,
not how good a model is.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding

CONCEPTS, COMMON, TOPIC, SHARE = (
    4000,
    50,
    40,
    0.6,
)  # of all, for common words, of a topic, of regions from the topic
BLUR, GLOBAL_BLUR, BLURS = (
    0.6,
    0.25,
    4096,
)  # lengths of what is added to unit vectors; how many of it there are
BLOCK = 2000  # images made at once


@dataclass(frozen=True)
class Pictures:
    """`size` pictures of `regions` regions, and captions of them. Everything is unit vectors of
    `width` numbers.
    """

    size: int
    regions: int = 36
    width: int = 256
    seed: int = 0

    def __post_init__(self):
        draw = torch.Generator().manual_seed(self.seed)
        object.__setattr__(
            self, "concepts", normalize(torch.randn(CONCEPTS, self.width, generator=draw), dim=1)
        )
        object.__setattr__(
            self, "blurs", normalize(torch.randn(BLURS, self.width, generator=draw), dim=1)
        )

    def images(self, start: int = 0, end: int | None = None) -> Embedding:
        """The pictures of rows start to end, all their regions real."""
        rows = torch.arange(start, self.size if end is None else end)
        tokens = torch.empty(len(rows), self.regions, self.width)
        global_token = torch.empty(len(rows), self.width)
        for i in range(0, len(rows), BLOCK):
            some = rows[i : i + BLOCK, None]
            own = self._concept(some, torch.arange(self.regions))  # (b, R)
            tokens[i : i + BLOCK] = self._blurred(
                own, _hash(some, 1_000 + torch.arange(self.regions))
            )
            global_token[i : i + BLOCK] = self._mean(tokens[i : i + BLOCK], _hash(some, 5))
        return Embedding(global_token, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def captions(
        self, rows: torch.Tensor, words: int = 15, which: torch.Tensor | int = 0
    ) -> Embedding:
        """A caption for each picture of rows (C,). which: one number, or (C,), for another caption
        of the picture.
        """
        rows, place = (
            rows[:, None],
            torch.arange(words) + 10_000 * torch.as_tensor(which).view(-1, 1),
        )
        spoken = self._concept(rows, _hash(rows, 2_000 + place) % self.regions)  # (C, W)
        common = _hash(rows, 3_000 + place) % COMMON
        concepts = torch.where(_hash(rows, 4_000 + place) % 3 == 0, common, spoken)
        tokens = self._blurred(concepts, _hash(rows, 6_000 + place))  # (C, W, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Embedding(self._mean(tokens, _hash(rows, 6 + place)), tokens, mask)

    def _concept(self, rows, place):
        """The concept of a picture's region: (rows, 1) and (places,) or (rows, places) -> (rows,
        places).
        """
        topics = max(1, self.size // 100)
        of_topic = (_hash(rows, 7) % topics * 7919 + _hash(rows, 8 + 2 * place) % TOPIC) % CONCEPTS
        own = _hash(rows, 9 + 2 * place) % CONCEPTS
        return torch.where(_hash(rows, 7_000 + place) % 100 < 100 * SHARE, of_topic, own)

    def _blurred(self, concepts, blur):
        found = self.concepts.index_select(0, concepts.flatten())
        found.add_(self.blurs.index_select(0, (blur % BLURS).flatten()), alpha=BLUR)
        return normalize(found, dim=1).unflatten(0, concepts.shape)

    def _mean(self, tokens, blur):
        return normalize(
            normalize(tokens.mean(1), dim=1) + GLOBAL_BLUR * self.blurs[(blur % BLURS)[:, 0]], dim=1
        )


def _hash(rows, salt):
    """int64 >= 0 that look drawn at random: rows and salts that differ a little give numbers that
    share nothing.
    """
    mixed = (
        rows * 6_364_136_223_846_793_005 + torch.as_tensor(salt) * 1_442_695_040_888_963_407
    )  # int64 wraps around
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 29)) * 3_202_034_522_624_059_733
    return (mixed ^ (mixed >> 32)) & (2**62 - 1)
