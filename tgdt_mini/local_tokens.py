"""The local tokens of a gallery as they are stored: end to end without padding, in one segment or several.

A segment is what was built at once; what is appended later is a further one. After `Gallery.load` its arrays are files
that are mapped into memory, so that a search brings in the pages that it touches and no more. Numbers are float16, or
int8 with one scale a token: half of the bytes, and an error of at most a 254th of the token's largest number.

G items, T tokens of a segment, L tokens of an item, D width.
"""

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True, eq=False)
class Segment:
    """Tokens (T, D) float16, or int8 with scales (T,) float32; offsets (g + 1,): item i owns rows offsets[i] to
    offsets[i + 1]."""

    tokens: torch.Tensor
    offsets: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def of(cls, tokens: torch.Tensor, counts: torch.Tensor, precision: str = "float16") -> "Segment":
        """A segment of tokens (T, D), of which the items own counts (g,), one after the other.

        Example: int8 of the token (1.0, -0.5) is (127, -64) with scale 1 / 127, which reads back as (1.0, -0.504).
        """
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (g + 1,)
        if precision == "float16":
            return cls(tokens.to("cpu", torch.float16), offsets)
        tokens = tokens.to("cpu", torch.float32)
        scales = tokens.abs().amax(1).clamp(min=1e-12) / 127  # (T,)
        return cls((tokens / scales[:, None]).round().to(torch.int8), offsets, scales)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, D) the tokens of rows (N,): float16 or, from int8, float32."""
        tokens = self.tokens.index_select(0, rows)
        return tokens if self.scales is None else tokens * self.scales.index_select(0, rows)[:, None]


@dataclass(frozen=True, eq=False)
class LocalTokens:
    """All segments of a gallery, in the order of its items."""

    segments: tuple[Segment, ...]

    @cached_property
    def offsets(self) -> torch.Tensor:
        """(G + 1,) item g owns rows offsets[g] to offsets[g + 1], counted over all segments."""
        counts = torch.cat([segment.offsets.diff() for segment in self.segments])  # (G,)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def longest(self) -> int:
        """The most tokens that an item has."""
        return int(self.offsets.diff().max())

    @cached_property
    def _starts(self):
        """(S,) the first row of each segment."""
        return torch.tensor([0] + [len(segment.tokens) for segment in self.segments[:-1]]).cumsum(0)

    def fetch(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens of items ids (q, K), as (q, K, L, D), and which of them are real, (q, K, L); None if all are."""
        first, counts = self.offsets[ids], self.offsets[ids + 1] - self.offsets[ids]  # (q, K)
        place = torch.arange(int(counts.max()))  # (L,)
        rows = first[..., None] + torch.minimum(place, counts[..., None] - 1)  # a pad repeats the item's last token
        mask = None if bool((counts == len(place)).all()) else place < counts[..., None]  # (q, K, L)
        return self._take(rows.flatten()).unflatten(0, rows.shape), mask  # (q, K, L, D)

    def _take(self, rows):
        """(N, D) the tokens of rows (N,), segment by segment."""
        if len(self.segments) == 1:
            return self.segments[0].take(rows)
        which = torch.bucketize(rows, self._starts, right=True) - 1  # (N,)
        found = torch.empty(len(rows), self.segments[0].tokens.shape[1])  # (N, D)
        for i in which.unique().tolist():
            mine = (which == i).nonzero()[:, 0]
            found[mine] = self.segments[i].take(rows[mine] - self._starts[i]).float()
        return found
