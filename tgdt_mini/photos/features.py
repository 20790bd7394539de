"""Token features on disk: computed once by an encoder, read a batch at a time by training.

A features folder holds the tokens of many items (pictures or captions) end to end, in shards that
are written whole or not at all, so that a run that was killed goes on after its last shard. A key
in manifest.json names the encoder, its
preprocessing and the data: a folder with another key is never read. Arrays are memory-mapped: a
data set may be larger than the memory. Detectors' features, such as the paper's, go into the same
folders.

It knows neither models nor data sets: a function makes the arrays of some items, another reads rows
back.
"""

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.files.rows import MappedRows
from tgdt_mini.files.whole import whole_folder, write_whole
from tgdt_mini.text_tokens import TextTokens

FORMAT = "tgdt_mini features 1"
PRECISIONS = ("float16", "int8")
SHARD = 500  # items
# of a shard's files, noted as they are written: what is damaged later is never signed anew
SUMS = "sums.json"


def write_features(
    folder: Path,
    key: str,
    items: list[str],
    make,
    about: dict | None = None,
    precision: str = "float16",
    shard: int = SHARD,
    progress: bool = True,
) -> None:
    """Fill a features folder; what an earlier run with the same key has done is kept.

    items: a name each. make(rows: range) -> {"features": (N, F) float, "counts": (len(rows),) rows
    of each item, and any other arrays with N rows or one row an item}. about: JSON values to keep
    in the manifest.
    precision: of the features; "int8" keeps a scale for each row, 127 steps up to its largest size
    either way, so a number is off by 1 / 254 of that at most.
    Raises ValueError for a folder that holds other features, or an array that does not fit.
    """
    from tqdm import tqdm

    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if not len(items):
        raise ValueError("items is empty; there is nothing to extract")
    folder, files = Path(folder), {}
    plan = {
        "format": FORMAT,
        "key": key,
        "precision": precision,
        "shard": shard,
        "items": list(items),
    }
    _begin(folder, plan)
    with tqdm(total=len(items), desc=folder.name, unit=" items", disable=not progress) as bar:
        for number, first in enumerate(range(0, len(items), shard)):
            rows, place = (
                range(first, min(first + shard, len(items))),
                folder / f"shard-{number:05d}",
            )
            sums = _sums(place)
            if sums is None:
                arrays = _packed(
                    {name: np.asarray(array) for name, array in make(rows).items()},
                    len(rows),
                    precision,
                )
                with whole_folder(place) as beside:
                    for name, array in arrays.items():
                        np.save(beside / f"{name}.npy", array)
                    sums = {
                        path.name: [path.stat().st_size, _crc32(path)]
                        for path in sorted(beside.iterdir())
                    }
                    write_whole(beside / SUMS, json.dumps(sums))
            files |= {f"{place.name}/{name}": sum_ for name, sum_ in sums.items()}
            bar.update(len(rows))
    write_whole(folder / "manifest.json", json.dumps(plan | {"about": about or {}, "files": files}))
    for left in folder.glob(".shard-*"):  # of runs that were killed while they wrote
        shutil.rmtree(left, ignore_errors=True)


def _begin(folder, plan):
    """Leave the same plan as it is, and write a new one; ValueError if the folder holds something
    else.
    """
    path = folder / "plan.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in plan if found.get(name) != plan[name]]
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete {folder} and extract again"
            ) from None
        if changed:
            raise ValueError(
                f"{folder} was begun with another {changed[0]}, so its features are stale; delete it, or choose another"
            )
    elif folder.exists() and any(not each.name.startswith(".plan") for each in folder.iterdir()):
        raise ValueError(
            f"{folder} holds files but no plan.json: it is not ours to fill; choose another folder"
        )
    else:
        write_whole(path, json.dumps(plan))


def _sums(place):
    """{file: [size, CRC-32]} of a shard as it was written; None if it is not there, or a file has
    another size.
    """
    try:
        sums = json.loads((place / SUMS).read_text(encoding="utf-8"))
        whole = all((place / name).stat().st_size == size for name, (size, _) in sums.items())
    except (OSError, ValueError):
        return None
    return sums if whole else None


def _packed(arrays, count, precision):
    features, counts = arrays["features"], arrays["counts"]
    if counts.shape != (count,) or int(counts.sum()) != len(features) or (counts < 1).any():
        raise ValueError(
            f"counts are {counts.tolist()[:5]}...; {count} numbers must add up to {len(features)} rows"
        )
    for name, array in arrays.items():
        if len(array) not in (count, len(features)):
            raise ValueError(
                f"{name} has {len(array)} rows; {count} items have {len(features)} rows of features"
            )
    if precision == "int8":
        scale = np.abs(features).max(axis=1, keepdims=True).astype(np.float32) / 127  # (N, 1)
        arrays["scale"] = np.maximum(scale, 1e-12)
        if np.isfinite(scale).all():
            arrays["features"] = np.rint(features / arrays["scale"]).astype(np.int8)
    else:
        with np.errstate(over="ignore"):  # found below
            arrays["features"] = features.astype(np.float16)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} hold NaN, infinity or more than {array.dtype} holds; the encoder made them"
            )
    return arrays


class Features:
    """A finished features folder, opened: what is small in memory, the features themselves mapped.

    key, items and about as they were written; starts (I + 1,): item i owns rows starts[i] to
    starts[i + 1].
    expect_key: another one is a ValueError, as is a file that is not what was written. check_all:
    read the features through, too, and compare their checksums; otherwise only their sizes are.
    """

    def __init__(self, folder: Path | str, expect_key: str | None = None, check_all: bool = False):
        folder = Path(folder)
        manifest = read_manifest(folder)
        self.folder, self.key, self.items = folder, manifest["key"], manifest["items"]
        self.about = manifest["about"]
        if expect_key is not None and expect_key != self.key:
            raise ValueError(
                f"{folder} holds features {self.key}, not {expect_key}: stale; extract them again"
            )
        for name, (size, crc) in manifest["files"].items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            small = path.name != "features.npy"  # and read in any case
            if found != size or ((small or check_all) and _crc32(path) != crc):
                raise ValueError(
                    f"{path} is missing or damaged; delete its folder and extract again"
                )
        count = -(-len(self.items) // manifest["shard"])
        self.shards = [folder / f"shard-{number:05d}" for number in range(count)]
        counts = self.array("counts")
        self.starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (I + 1,)
        parts = [np.load(shard / "features.npy", mmap_mode="r") for shard in self.shards]
        if len(widths := {part.shape[1] for part in parts}) > 1:
            raise ValueError(
                f"{folder} holds features of {sorted(widths)} numbers; extract all of one width"
            )
        self.rows = MappedRows(
            parts, self.array("scale") if manifest["precision"] == "int8" else None
        )

    def __len__(self):
        return len(self.items)

    def array(self, name: str) -> torch.Tensor:
        """One of the smaller arrays, all shards together, in memory. ValueError if there is none of
        that name.
        """
        if not (self.shards[0] / f"{name}.npy").is_file():
            raise ValueError(
                f"{self.folder} holds no {name}; it is of another kind, or of another version"
            )
        return torch.from_numpy(
            np.concatenate([np.load(shard / f"{name}.npy") for shard in self.shards])
        )


@dataclass(frozen=True)
class StoredText(TextTokens):
    """Tokenized captions whose features stay on disk: (all real tokens, F), read for the captions
    that are asked for.

    starts (C,): the row of each caption's first token; the others follow it.
    """

    starts: torch.Tensor | None = None

    @classmethod
    def open(cls, stored: "Features") -> "StoredText":
        """The captions of a features folder that has the arrays ids and words."""
        counts = stored.starts.diff()
        mask = torch.arange(int(counts.max())) < counts[:, None]  # (C, T)
        ids = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter_(mask, stored.array("ids"))
        words = torch.zeros_like(mask).masked_scatter_(mask, stored.array("words"))
        return cls(ids, mask, words, stored.rows, stored.starts[:-1])

    def take(self, rows, longest: int | None = None) -> TextTokens:
        some = TextTokens(self.ids, self.mask, self.words).take(rows, longest)
        first = self.starts[rows][:, None]  # (c, 1)
        places = torch.where(
            some.mask, first + torch.arange(some.mask.shape[1], device=first.device), first
        )  # (c, T)
        features = self.features.index_select(0, places.flatten()).unflatten(
            0, places.shape
        )  # (c, T, F)
        return TextTokens(some.ids, some.mask, some.words, features * some.mask[..., None])

    def part(self, rows) -> "StoredText":
        some = TextTokens(self.ids, self.mask, self.words)[rows]
        return StoredText(some.ids, some.mask, some.words, self.features, self.starts[rows])

    def to(self, device) -> "StoredText":
        moved = (
            part.to(device)
            for part in (self.ids, self.mask, self.words, self.features, self.starts)
        )
        return StoredText(*moved)


def read_manifest(folder: Path) -> dict:
    """What a finished features folder says of itself. ValueError if it is not finished, or
    damaged.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise KeyError(f"format {manifest['format']!r}")
        return manifest | {"files": dict(manifest["files"]), "items": list(manifest["items"])}
    except FileNotFoundError:
        begun = (
            "its extraction was stopped; run extract again to go on"
            if (folder / "plan.json").is_file()
            else ""
        )
        raise ValueError(
            f"{folder} holds no finished features; {begun or 'make them with extract'}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); extract again") from None


def _crc32(path):
    return zlib.crc32(np.memmap(path, np.uint8, "r"))
