"""A store of many items on disk: their rows and other arrays, in shards that one manifest names.

    folder/  manifest        JSON: what the items are, and "shards": {folder: {file: [bytes, crc]}}
             shard-00000/    items.json: the items, any JSON values
                             counts.npy (I,): item after item, how many rows it owns
                             ROWS.npy (N, F) float16 or int8, and scales.npy (N,) with int8
                             more arrays, of I or N rows
             shard-00001/    ...

A shard is never changed. To change a store is to write new shards under new names, then to replace
the manifest in one step, then to remove the shards that it names no more. So whoever kills the
program leaves the old store or the new one. One writer at a time. No pickle.
"""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.manifest import crc32, read_json, size_and_crc, size_of, write_sealed
from tgdt_mini.files.rows import MappedRows, RaggedRows, map_array, save_array
from tgdt_mini.files.whole import PATIENCE, sync

ITEMS, COUNTS, SCALES = "items.json", "counts.npy", "scales.npy"
SHARDS = "shard-" + 5 * "[0-9]"  # a pattern of `glob`


@dataclass(frozen=True)
class StoredItems:
    """What `read_store` opens: the items, their rows, which stay on the disk, and the shards."""

    items: list
    ragged: RaggedRows
    shards: list[Path]
    cure: str

    def arrays(self, name: str) -> list[np.ndarray]:
        """One of the other arrays, mapped, shard by shard.

        ValueError, by name, if there is none, or one of neither the shard's items nor its rows.
        """
        found = []
        for shard, array in zip(self.shards, self.ragged.rows.arrays):
            path = shard / f"{name}.npy"
            if not path.is_file():
                raise ValueError(f"{shard} holds no {name}; it is of another kind or version")
            try:
                found.append(map_array(path))
                sizes = len(map_array(shard / COUNTS)), len(array)
            except ValueError as error:
                raise ValueError(f"{error}; {self.cure}") from None
            shapes = {part.shape[1:] for part in found}
            if len(found[-1]) not in sizes or len(shapes) > 1 or not _is_finite(found[-1]):
                items, rows = sizes
                raise ValueError(
                    f"{path} is {found[-1].dtype} of shape {found[-1].shape} for {items} items of "
                    f"{rows} rows, or holds NaN; {self.cure}"
                )
        return found


def check_ours(folder: Path, name: str) -> None:
    """ValueError unless a folder is new, empty or a store whose manifest has this name."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file; choose a folder")
    if folder.is_dir() and not (folder / name).is_file():
        # shards, and files that begin with a dot, are of a writer that was killed
        if any(not path.match(SHARDS) and path.name[0] != "." for path in folder.iterdir()):
            raise ValueError(
                f"{folder} holds files but no {name}: it is not ours to fill; choose another folder"
            )


def write_shard(shard: Path, items: list, arrays: dict[str, np.ndarray | None]) -> dict:
    """Write a shard that no manifest names yet; returns its files, as the manifest names them."""
    try:
        text = json.dumps({"items": items})
    except TypeError as error:
        raise ValueError(f"items must be JSON values, such as file names: {error}") from None
    shutil.rmtree(shard, ignore_errors=True)  # of a writer that was killed
    shard.mkdir(parents=True)
    (shard / ITEMS).write_text(text, encoding="utf-8")
    for name, array in arrays.items():
        if array is not None:
            save_array(shard / f"{name}.npy", array)
    sync(shard)
    return {path.name: size_and_crc(path) for path in sorted(shard.iterdir())}


def is_complete(shard: Path, files: dict) -> bool:
    """Whether all files of a shard are there, with their sizes."""
    try:
        return all(size_of(shard / name) == size for name, (size, _) in files.items())
    except (TypeError, ValueError, AttributeError, OSError):  # the manifest is damaged
        return False


def write_manifest(folder: Path, name: str, manifest: dict) -> None:
    """Replace the manifest: from here on the store holds the shards that this one names."""
    write_sealed(folder / name, manifest)


def one_writer(folder: Path):
    """Inside this block no other process of this machine changes the store of a folder."""
    return only_writer(folder, PATIENCE)


def replace_shards(folder: Path, name: str, manifest: dict, shards: list, keep: dict) -> None:
    """Write new shards, (items, arrays) each, after those of `keep`, and remove all others.

    If that fails the store is as it was. manifest: all that it says besides the shards. To be
    called inside `one_writer`.
    """
    named, number = dict(keep), 0
    try:
        for items, arrays in shards:
            while (shard := folder / f"shard-{number:05d}").exists():
                number += 1
            named[shard.name] = write_shard(shard, items, arrays)
        write_manifest(folder, name, manifest | {"shards": named})
    finally:
        _remove_unnamed(folder, name)


def _remove_unnamed(folder, name):
    """Remove the shards that the manifest does not name, and the folder if it is empty then."""
    try:
        known = (folder / name).exists()
        named = read_json(folder / name, {"shards": dict}, "store", "")["shards"] if known else {}
    except ValueError:  # nobody can read it, perhaps for a moment only: nothing is removed
        return
    for path in folder.glob(SHARDS):
        if path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def read_store(
    manifest: Path, shards: dict, rows: str, cure: str, most: float | None = None
) -> StoredItems:
    """The items of the shards of a manifest. ValueError, by name, for a damaged file.

    Sizes are always compared. Of checksums, those of the first `most` bytes are, the rows being the
    last; None: those of all files but the rows. cure: what the reader of an error can do.
    """
    folder, large = manifest.parent, (f"{rows}.npy", SCALES)
    _check_files(manifest, shards, large, cure, most)
    shards = [folder / name for name in shards]
    options = {"items": list}, "list of items", cure, False  # the manifest has their checksums
    items = [item for shard in shards for item in read_json(shard / ITEMS, *options)["items"]]
    try:
        # mapped first: a file that claims more numbers than it holds takes no memory
        counts = [np.array(map_array(shard / COUNTS)) for shard in shards]
        arrays = [map_array(shard / large[0]) for shard in shards]
        scales = [map_array(s / SCALES) if (s / SCALES).is_file() else None for s in shards]
        for parts in zip(shards, counts, arrays, scales):
            _check_arrays(*parts)
        counts = torch.from_numpy(np.concatenate(counts))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{folder} is damaged ({error}); {cure}") from None
    if len(widths := {array.shape[1] for array in arrays}) > 1:
        raise ValueError(f"{folder} holds {rows} of {sorted(widths)} numbers; {cure}")
    ragged = RaggedRows.of(MappedRows(arrays, scales), counts)
    if len(items) != len(counts) or ragged.starts[-1] != len(ragged.rows):
        raise ValueError(f"{folder} is damaged: its items, counts and rows do not fit; {cure}")
    return StoredItems(items, ragged, shards, cure)


def _check_arrays(shard, counts, array, scales):
    """ValueError for arrays of one shard that do not fit to each other."""
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 1).any():
        raise ValueError(f"{shard / COUNTS} holds no numbers of rows, each at least 1")
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.int8):
        raise ValueError(f"the rows of {shard} are {array.dtype} of shape {array.shape}")
    if (array.dtype == np.int8) != (scales is not None):
        raise ValueError(f"{shard} must hold {SCALES} with int8, and only then")
    if scales is not None and (scales.shape != array.shape[:1] or scales.dtype != np.float32):
        raise ValueError(f"{shard / SCALES} is {scales.dtype} of shape {scales.shape}")
    if scales is not None and not (_is_finite(scales) and (np.asarray(scales) >= 0).all()):
        raise ValueError(f"{shard / SCALES} holds NaN or numbers below 0")
    if int(counts.sum()) != len(array):
        raise ValueError(f"{shard / COUNTS} adds up to {counts.sum()}, not to {len(array)} rows")


def _is_finite(array):
    """Whether an array holds neither NaN nor infinity: their sum would be none either."""
    return array.dtype.kind != "f" or bool(np.isfinite(np.sum(array, dtype=np.float64)))


def _check_files(manifest, shards, large, cure, most):
    """ValueError for a file of the shards that is not what the manifest says, see `read_store`."""
    try:
        files = [
            (manifest.parent / shard / name, int(size), int(crc))
            for shard in shards
            for name, (size, crc) in shards[shard].items()
        ]
        for shard, names in shards.items():
            for name in (shard, *names):
                if not re.fullmatch(r"[\w-][\w.-]{,99}", name, re.ASCII):
                    raise ValueError(f"it names {name!r:.60}, which is outside its folder")
        named = {path for path, *_ in files}
        for shard in shards:
            if others := set((manifest.parent / shard).glob("*.npy")) - named:
                raise ValueError(f"{min(others)} does not belong there")
        if outside := [path for path, *_ in files if not path.match(f"{SHARDS}/[!.]*")]:
            raise ValueError(f"it names {outside[0]}, which is in no shard")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{manifest} is damaged ({error}); {cure}") from None
    if not files:
        raise ValueError(f"{manifest} names no items; {cure}")
    files.sort(key=lambda file: file[0].name in large)
    if most is None:
        most = sum(size for path, size, _ in files if path.name not in large)
    for path, size, crc in files:
        intact = size_of(path) == size
        if intact and size <= most:
            most -= size
            intact = crc32(path) == crc
        if not intact:
            raise ValueError(f"{path} is missing or damaged; {cure}")
