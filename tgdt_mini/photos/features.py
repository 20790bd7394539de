"""Token features on disk: an encoder makes them once, training reads a batch of them at a time.

A features folder holds the tokens of many items (pictures or captions) as a store, `files/store.py`
tells how, with features as its rows. Its manifest grows shard by shard, so that a run that was
killed goes on after its last shard. The manifest holds a key, which stands for the encoder, its
preprocessing and the data: features of another key are never read, nor added to.

Nothing here knows models or data sets: a function makes the arrays of some items. A detector's
features, such as the paper's, go into the same folders.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.files import store
from tgdt_mini.files.check import one_of
from tgdt_mini.files.manifest import read_json
from tgdt_mini.files.progress import progress_bar
from tgdt_mini.files.rows import PRECISIONS, encode_rows
from tgdt_mini.text_tokens import TextTokens

NAME, FORMAT, SHARD = "manifest.json", "tgdt_mini features 2", 500  # items
CURE = "delete its folder and extract again"
MANIFEST = {"format": FORMAT, "key": str, "precision": PRECISIONS, "shard": int, "items": int}
MANIFEST |= {"names": int, "metadata": dict, "shards": dict}


def write_features(
    folder: Path | str,
    key: str,
    items: list[str],
    make,
    metadata: dict | None = None,
    precision: str = "float16",
    shard: int = SHARD,
    progress: bool = True,
) -> None:
    """Fill a features folder; what an earlier run with the same key has done is kept.

    items: a name each. make(rows: range) -> {"features": (N, F) float, "counts": (len(rows),) rows
    of each item, and any other arrays with N rows or one row an item}. metadata: JSON values to
    keep. precision: "float16" or "int8", see `files/rows.py`. shard: items a shard.
    Raises ValueError for a folder that holds other features, or an array that does not fit.
    """
    one_of("precision", precision, PRECISIONS)
    if not len(items):
        raise ValueError("items is empty; there is nothing to extract")
    folder, items = Path(folder), list(items)
    plan = {"format": FORMAT, "key": key, "precision": precision, "shard": shard}
    plan |= {"items": len(items), "names": zlib.crc32("\n".join(items).encode("utf-8"))}
    shards = _begun(folder, plan)

    def note():
        content = {"metadata": metadata or {}, "shards": dict(sorted(shards.items()))}
        store.write_manifest(folder, NAME, plan | content)

    note()
    options = {"total": len(items), "desc": folder.name, "unit": " items"}
    with progress_bar(progress=progress, **options) as bar:
        for number, first in enumerate(range(0, len(items), shard)):
            rows, name = range(first, min(first + shard, len(items))), f"shard-{number:05d}"
            if name not in shards or not store.is_complete(folder / name, shards[name]):
                step, parts = max(50, shard // 10), []
                for start in range(rows.start, rows.stop, step):
                    part = range(start, min(start + step, rows.stop))
                    parts.append(make(part))
                    bar.update(len(part))
                arrays = {of: np.concatenate([part[of] for part in parts]) for of in parts[0]}
                arrays = _encoded(arrays, len(rows), precision)
                shards[name] = store.write_shard(folder / name, items[first : rows.stop], arrays)
                note()
            else:
                bar.update(len(rows))


def _begun(folder, plan):
    """The shards that are done, as the manifest names them; ValueError if it has another plan."""
    store.check_ours(folder, NAME)
    if not (folder / NAME).is_file():
        return {}
    cure = f"delete {folder}, extract again"
    keys = dict.fromkeys(plan, object) | {"shards": dict}
    known = read_json(folder / NAME, keys, "manifest of features", cure)
    changed = [name for name in plan if known[name] != plan[name]]
    if changed:
        raise ValueError(
            f"{folder} was begun with another {changed[0]}, so its features are stale; "
            "delete it, or choose another"
        )
    return known["shards"]


def _encoded(arrays, count, precision):
    """The arrays as they are stored. ValueError for what does not fit together or has no size."""
    features, counts = arrays["features"], arrays["counts"]
    if counts.shape != (count,) or int(counts.sum()) != len(features) or (counts < 1).any():
        raise ValueError(
            f"counts are {counts.tolist()[:5]}...; {count} numbers must add up to {len(features)} "
            "rows"
        )
    for name, array in arrays.items():
        if len(array) not in (count, len(features)):
            raise ValueError(
                f"{name} has {len(array)} rows; {count} items have {len(features)} rows of features"
            )
    numbers, scales = encode_rows(torch.from_numpy(np.ascontiguousarray(features)), precision)
    arrays = arrays | {"features": numbers.numpy()}
    if scales is not None:
        arrays["scales"] = scales.numpy()
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} hold NaN, infinity or more than {array.dtype} holds; the encoder made them"
            )
    return arrays


def read_manifest(folder: Path | str) -> dict:
    """What a finished features folder says of itself. ValueError if it is not finished."""
    path = Path(folder) / NAME
    manifest = read_json(path, MANIFEST, "manifest of features", "run extract again")
    if len(manifest["shards"]) * manifest["shard"] < manifest["items"]:
        raise ValueError(
            f"{folder} holds no finished features; its extraction was stopped: "
            "run extract again to go on"
        )
    return manifest


class Features:
    """A finished features folder, opened; the features themselves stay on the disk.

    items, key and metadata are as they were written; item i owns rows starts[i] to starts[i + 1] of
    `rows`. expect_key: another one is a ValueError, as is a file that is not what was written.
    check_all: compare the checksums of the features too, and not only their sizes.
    """

    def __init__(self, folder: Path | str, expect_key: str | None = None, check_all: bool = False):
        self.folder, manifest = Path(folder), read_manifest(folder)
        self.key, self.metadata = manifest["key"], manifest["metadata"]
        if expect_key is not None and expect_key != self.key:
            raise ValueError(
                f"{folder} holds features {self.key}, not {expect_key}: stale; extract them again"
            )
        most = float("inf") if check_all else None
        self.stored = store.read_store(
            self.folder / NAME, manifest["shards"], "features", CURE, most
        )
        self.items, self.shards = self.stored.items, self.stored.shards
        self.rows, self.starts = self.stored.ragged.rows, self.stored.ragged.starts  # (I + 1,)

    def __len__(self):
        return len(self.items)

    def array(self, name: str) -> torch.Tensor:
        """One of the other arrays, in memory. ValueError if there is none of that name."""
        return torch.from_numpy(np.concatenate(self.stored.arrays(name)))


@dataclass(frozen=True)
class StoredText(TextTokens):
    """Tokenized captions whose features stay on the disk until some captions are asked for.

    features: (all real tokens, F), see `MappedRows`. starts (C,): the row of each caption's first
    token; the others follow it.
    """

    starts: torch.Tensor | None = None

    @classmethod
    def open(cls, stored: Features) -> "StoredText":
        """The captions of a features folder that has the arrays ids and words."""
        counts = stored.starts.diff()
        mask = torch.arange(int(counts.max())) < counts[:, None]  # (C, T)
        ids = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter_(mask, stored.array("ids"))
        words = torch.zeros_like(mask).masked_scatter_(mask, stored.array("words"))
        return cls(ids, mask, words, stored.rows, stored.starts[:-1])

    def take(self, rows, longest: int | None = None) -> TextTokens:
        text = TextTokens(self.ids, self.mask, self.word_mask).take(rows, longest)
        first = self.starts[rows][:, None]  # (c, 1)
        slots = torch.arange(text.mask.shape[1], device=first.device)  # (T,)
        places = torch.where(text.mask, first + slots, first)  # (c, T)
        features = self.features.index_select(0, places.flatten())
        features = features.unflatten(0, places.shape)  # (c, T, F)
        return TextTokens(text.ids, text.mask, text.word_mask, features * text.mask[..., None])

    def part(self, rows) -> "StoredText":
        text = TextTokens(self.ids, self.mask, self.word_mask)[rows]
        return StoredText(text.ids, text.mask, text.word_mask, self.features, self.starts[rows])

    def to(self, device) -> "StoredText":
        parts = (self.ids, self.mask, self.word_mask, self.features, self.starts)
        return StoredText(*(part.to(device) for part in parts))
