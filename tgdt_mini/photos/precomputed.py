"""Features of regions as SCAN and its followers pass them on: a `*_precomp` folder.

    SPLIT_ims.npy     (N, 36, 2048) float, or (5 N, 36, 2048) with each picture five times
    SPLIT_caps.txt    five captions a picture, one a line, those of one picture together
    SPLIT_ids.txt     optional: the name of each picture, once or five times

SPLIT is train, dev, test or another name. Such a folder has no boxes: each region gets the whole
picture as its box, so that a model learns nothing from places. Nothing is computed here.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from tgdt_mini.photos.detections import BOTTOM_UP

EACH = 5  # captions a picture


def is_precomputed(path: Path | str) -> bool:
    """Whether a folder is one of these."""
    return os.path.isdir(path) and any(Path(path).glob("*_ims.npy"))


def open_precomputed(folder: Path | str) -> dict:
    """{split: Dataset} with the columns image_id and captions. ValueError for what does not fit."""
    from datasets import Dataset

    return {
        split: Dataset.from_dict({"image_id": ids, "captions": captions})
        for split, (ids, captions, _) in _splits(Path(folder)).items()
    }


class Precomputed:
    """The regions of such a folder, read for the pictures that are asked for.

    detector: its name; `metadata` describes it as that of `Detections` does.
    """

    def __init__(self, folder: Path | str, detector: str = BOTTOM_UP):
        self.folder, self.places = Path(folder), {}
        for ids, _, (path, rows) in _splits(self.folder).values():
            self.places |= {name: (path, row) for name, row in zip(ids, rows)}
        self.arrays_of = {path: _mapped(path) for path, _ in self.places.values()}
        self.width = next(iter(self.arrays_of.values())).shape[2]
        metadata = {"source": detector, "regions": True, "width": self.width, "trained_layers": 0}
        metadata |= {"boxes": False}
        key = hashlib.sha256(json.dumps(metadata).encode("utf-8")).hexdigest()[:16]
        self.metadata = metadata | {"key": key}

    def arrays(self, image_ids: list[str]) -> dict[str, np.ndarray]:
        """The arrays of pictures as `features.write_features` keeps them."""
        places = [self.places[image_id] for image_id in image_ids]
        features = np.stack([self.arrays_of[path][row] for path, row in places])  # (B, R, F)
        features = features.astype(np.float32)
        for image_id, (path, _), regions in zip(image_ids, places, features):
            if not np.isfinite(regions).all():
                raise ValueError(
                    f"{path} holds NaN or infinity for image {image_id}; extract its features again"
                )
        pictures, regions, width = features.shape
        return {
            "features": features.reshape(-1, width),
            "boxes": np.tile(np.float32([0, 0, 1, 1]), (pictures * regions, 1)),
            "pooled": features.mean(axis=1).astype(np.float16),
            "counts": np.full(pictures, regions),
        }

    def marks(self, image_ids: list[str]):
        """What identifies the features of each picture: its id, file, row, and the file's time."""
        stats = {path: path.stat() for path in self.arrays_of}
        for image_id in image_ids:
            path, row = self.places[image_id]
            yield f"{image_id} {path.name} {row} {stats[path].st_size} {stats[path].st_mtime_ns}"


def _splits(folder):
    """{split: (ids, captions of each, (path of the features, the row of each))}"""
    return {
        path.name.removesuffix("_ims.npy"): _split(path)
        for path in sorted(folder.glob("*_ims.npy"))
    }


def _split(path):
    split, rows = path.name.removesuffix("_ims.npy"), len(_mapped(path))
    captions = _lines(path.with_name(f"{split}_caps.txt"))
    if len(captions) not in (rows, EACH * rows) or len(captions) % EACH:
        raise ValueError(
            f"{path} holds {rows} pictures and {split}_caps.txt {len(captions)} captions; there "
            f"must be {EACH} captions a picture, or each picture {EACH} times"
        )
    step = EACH * rows // len(captions)  # 1, or 5 where pictures are repeated
    count, file = len(captions) // EACH, path.with_name(f"{split}_ids.txt")
    ids = _lines(file) if file.is_file() else []
    if ids and len(ids) not in (count, EACH * count):
        raise ValueError(
            f"{file} holds {len(ids)} names for {count} pictures; give each one, or leave it out"
        )
    ids = ids[:: len(ids) // count] if ids else []
    if not ids or ids == [str(row) for row in range(count)]:  # numbers that each split begins anew
        ids = [f"{split}-{row:05d}" for row in range(count)]
    by_picture = [captions[start : start + EACH] for start in range(0, len(captions), EACH)]
    return ids, by_picture, (path, range(0, rows, step))


def _lines(path):
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it belongs to {path.parent}") from None


def _mapped(path):
    """The features of a split (N, R, F), which stay on the disk. ValueError for other arrays."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header that lies fails in many ways
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise ValueError(f"{path} cannot be read ({why}); get it again") from None
    if array.ndim != 3 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{path} holds {array.dtype} {array.shape}; it must be float (N, R, F)")
    return array
