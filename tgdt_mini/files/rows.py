"""Rows of numbers on disk: 2 bytes or 1 a number, mapped into memory, read where they are needed.

A mapped array looks like one in memory, but only the pages that a read touches are brought in.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from tgdt_mini.files.check import one_of

PRECISIONS = ("float16", "int8")


def encode_rows(rows: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(numbers (N, F), scales (N,)) that stand for float rows (N, F); float16 has no scales.

    int8: row = numbers x scale. A row's largest size is 127 steps, so that a number is off by at
    most 1 / 254 of it.
    Example: (1.0, -0.5) as int8 is (127, -64) with scale 1 / 127, which reads back (1.0, -0.504).
    """
    one_of("precision", precision, PRECISIONS)
    if precision == "float16":
        return rows.to("cpu", torch.float16), None
    rows = rows.to("cpu", torch.float32)
    scales = rows.abs().amax(1).clamp(min=1e-12) / 127  # (N,)
    return (rows / scales[:, None]).round().to(torch.int8), scales


def as_stored(rows: torch.Tensor, precision: str) -> torch.Tensor:
    """(N, F) the rows as they read back from storage: float16 or, from int8, float32."""
    return _decoded(*encode_rows(rows, precision))


def _decoded(numbers, scales):
    return numbers if scales is None else numbers * scales[:, None]


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file; OSError where not all of it could be written.

    np.save hands an open file to C, which tells nobody if the last 4 KB do not fit on the disk.
    """
    with path.open("wb") as file:
        through_python = SimpleNamespace(write=file.write)
        np.lib.format.write_array(through_python, np.ascontiguousarray(array), allow_pickle=False)


def map_array(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped; what is written to it does not reach the file.

    ValueError, by name, for a file that is missing, that holds less than it says, or anything but
    numbers row after row.
    """
    try:
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except OSError:  # for Linux this takes memory; where a file is larger than that, read only
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header that lies fails in many ways
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise ValueError(f"{path} holds no array ({why})") from None
    if array.ndim == 0 or array.dtype.kind not in "fiub" or not array.flags.c_contiguous:
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}, in another order")
    return array


class MappedRows:
    """Rows (N, F) of several arrays, as if they were one tensor. Scales go with int8 arrays.

    `index_select` reads rows: float16 or, if any array is int8, float32. `to` a device: the arrays
    stay where they are, what is read goes there.
    """

    def __init__(self, arrays: list[np.ndarray], scales: list | None = None, device="cpu"):
        self.arrays, self.scales = arrays, scales or [None] * len(arrays)
        self.device = torch.device(device)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.shape = (int(self.starts[-1]), arrays[0].shape[1])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "MappedRows":
        """The rows of a slice without a step, still on the disk."""
        start, stop, _ = rows.indices(len(self))
        parts = [slice(max(0, start - first), max(0, stop - first)) for first in self.starts[:-1]]
        scales = [scale if scale is None else scale[p] for scale, p in zip(self.scales, parts)]
        return MappedRows([a[p] for a, p in zip(self.arrays, parts)], scales, self.device)

    def to(self, device) -> "MappedRows":
        return MappedRows(self.arrays, self.scales, device)

    def index_select(self, dim: int, take: torch.Tensor) -> torch.Tensor:
        """(len(take), F) the rows `take`. dim is 0, as for a tensor."""
        rows = take.cpu().numpy()
        if len(self.arrays) == 1:
            return self._read(0, rows).to(self.device)
        order = np.argsort(rows, kind="stable")  # array by array, and forward in each
        number = np.searchsorted(self.starts, rows[order], side="right") - 1
        scaled = any(scale is not None for scale in self.scales)
        dtype = torch.float32 if scaled else getattr(torch, str(self.arrays[0].dtype))
        read = torch.empty(len(rows), self.shape[1], dtype=dtype)
        for i in np.unique(number):
            positions = order[number == i]
            read[positions] = self._read(i, rows[positions] - self.starts[i]).to(dtype)
        return read.to(self.device)

    def _read(self, i, rows):
        """(n, F) rows of array i."""
        scale = self.scales[i]
        scales = None if scale is None else torch.from_numpy(np.take(np.asarray(scale), rows))
        return _decoded(torch.from_numpy(np.take(np.asarray(self.arrays[i]), rows, axis=0)), scales)


@dataclass(frozen=True, eq=False)
class RaggedRows:
    """Items of any number of rows each: item i owns rows starts[i] to starts[i + 1]."""

    rows: MappedRows
    starts: torch.Tensor  # (I + 1,)

    @classmethod
    def of(cls, rows: MappedRows, counts: torch.Tensor) -> "RaggedRows":
        """Items that lie one after the other; counts (I,) says how many rows each has."""
        return cls(rows, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))

    @cached_property
    def longest(self) -> int:
        """The most rows that an item has."""
        return int(self.starts.diff().max())

    def fetch(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows of items ids (q, K), as (q, K, L, F), and which of them are real, (q, K, L).

        The second is None if all are. An item with fewer rows than L repeats its last one. Do not
        write to the rows: they may be the stored ones themselves.
        """
        numbers, scales, mask = self.fetch_stored(ids)
        return (numbers if scales is None else numbers * scales[..., None]), mask

    def fetch_stored(self, ids: torch.Tensor):
        """(numbers (q, K, L, F), scales (q, K, L) or None, mask as `fetch` gives it) of items.

        The numbers are as they are stored, to be multiplied by the scales where there are any.
        """
        rows, starts = self.rows, self.starts.numpy()
        items = ids.flatten().numpy()
        first = starts[items]
        counts = starts[items + 1] - first
        arrays = np.searchsorted(rows.starts, first, side="right") - 1  # an item lies in one array
        parts = arrays, first - rows.starts[arrays], counts
        used = set(arrays.tolist())
        kinds = {rows.arrays[i].dtype for i in used}
        scales = None
        if len(kinds) == 1:
            numbers = _pieces({i: rows.arrays[i] for i in used}, *parts)
            if rows.scales[arrays[0]] is not None:
                scales = _pieces({i: rows.scales[i] for i in used}, *parts).unflatten(0, ids.shape)
        else:  # of several precisions, which float32 holds
            slots = np.minimum(np.arange(counts.max()), counts[:, None] - 1) + first[:, None]
            numbers = rows.index_select(0, torch.from_numpy(slots.flatten())).float()
            numbers = numbers.unflatten(0, slots.shape)
        mask = torch.from_numpy(np.arange(counts.max()) < counts[:, None]).unflatten(0, ids.shape)
        return numbers.unflatten(0, ids.shape), scales, None if bool(mask.all()) else mask


def _pieces(arrays, which, starts, counts):
    """(n, L, ...) for each piece (array, start, count) its rows, the last one again up to L.

    Items of one length in one array are rows of a table, which are copied at once, or, where they
    lie side by side, not at all. Else there is one copy for each piece: 0.25 instead of 0.88 ms for
    100 items of 36 x 256 in ten arrays.
    """
    arrays = {i: np.asarray(array) for i, array in arrays.items()}  # a mapped array is slow to cut
    example, longest = next(iter(arrays.values())), int(counts.max())
    if len(arrays) == 1 and counts.min() == longest and not (starts % longest).any():
        whole = len(example) - len(example) % longest
        table = example[:whole].reshape(-1, longest, *example.shape[1:])
        rows = starts // longest
        if table.flags.writeable and (np.diff(rows) == 1).all():  # side by side: no copy
            return torch.from_numpy(table[rows[0] : rows[-1] + 1])
        return torch.from_numpy(table[rows])
    copied = np.empty((len(starts), longest, *example.shape[1:]), example.dtype)
    for target, i, start, count in zip(copied, which.tolist(), starts.tolist(), counts.tolist()):
        target[:count] = arrays[i][start : start + count]
        if count < longest:
            target[count:] = target[count - 1]
    return torch.from_numpy(copied)
