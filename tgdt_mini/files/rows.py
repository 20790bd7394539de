"""Rows of arrays on disk, mapped into memory: a read brings in the pages that it touches and no
more.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


class MappedRows:
    """Rows of several memory-mapped arrays as if they were one (N, F): what `index_select` takes
    out is float16 or, from int8, float32. `to` a device: the file stays where it is, what is taken
    out goes there.
    """

    def __init__(self, parts: list[np.ndarray], scale: torch.Tensor | None = None, device="cpu"):
        self.parts, self.scale, self.device = parts, scale, torch.device(device)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape = (int(self.starts[-1]), parts[0].shape[1])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "MappedRows":
        """The rows of a slice without a step, still on the disk."""
        start, stop, _ = rows.indices(len(self))
        ends = [(max(0, start - first), max(0, stop - first)) for first in self.starts[:-1]]
        parts = [part[first:last] for part, (first, last) in zip(self.parts, ends)]
        return MappedRows(
            parts, None if self.scale is None else self.scale[start:stop], self.device
        )

    def to(self, device) -> "MappedRows":
        return MappedRows(self.parts, self.scale, device)

    def index_select(self, dim: int, take: torch.Tensor) -> torch.Tensor:
        """(len(take), F) the rows `take`, read in the order in which they lie on the disk. dim: 0,
        as torch has it.
        """
        rows = take.cpu().numpy()
        ahead = np.argsort(rows, kind="stable")
        shard = np.searchsorted(self.starts, rows[ahead], side="right") - 1
        found = np.empty((len(rows), self.shape[1]), self.parts[0].dtype)
        for number in np.unique(shard):
            mine = ahead[shard == number]
            found[mine] = self.parts[number][rows[mine] - self.starts[number]]
        tensor = torch.from_numpy(found)
        if self.scale is not None:
            tensor = tensor * self.scale.index_select(0, torch.from_numpy(rows))
        return tensor.to(self.device)


@dataclass(frozen=True, eq=False)
class Segment:
    """Tokens (T, D) float16, or int8 with scales (T,) float32; offsets (g + 1,): item i owns rows
    offsets[i] to offsets[i + 1].
    """

    tokens: torch.Tensor
    offsets: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def of(
        cls, tokens: torch.Tensor, counts: torch.Tensor, precision: str = "float16"
    ) -> "Segment":
        """A segment of tokens (T, D), of which the items own counts (g,), one after the other.

        Example: int8 of the token (1.0, -0.5) is (127, -64) with scale 1 / 127, which reads back as
        (1.0, -0.504).
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
        return (
            tokens if self.scales is None else tokens * self.scales.index_select(0, rows)[:, None]
        )


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
        """The tokens of items ids (q, K), as (q, K, L, D), and which of them are real, (q, K, L);
        None if all are.
        """
        first, counts = self.offsets[ids], self.offsets[ids + 1] - self.offsets[ids]  # (q, K)
        place = torch.arange(int(counts.max()))  # (L,)
        rows = first[..., None] + torch.minimum(
            place, counts[..., None] - 1
        )  # a pad repeats the item's last token
        mask = (
            None if bool((counts == len(place)).all()) else place < counts[..., None]
        )  # (q, K, L)
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
