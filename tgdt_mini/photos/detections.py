"""Regions that a detector found, from files: the paper's input, bottom-up attention (CVPR 2018).

Files of a picture called ID (R regions, F = 2,048 numbers each):
    ID.npz        `feat` or `features` (R, F) and, if it has them, `bbox` or `boxes` (R, 4),
                  `image_w` and `image_h`
    ID.npy        features (R, F)
    ID_box.npy    boxes (R, 4) beside features that have none; or ID.npy in a folder of boxes
TERAN (mesnico/TERAN, data.py: bu_att/ID.npz, bu_box/ID.npy), from which the released code stems,
has a folder of boxes. ID is COCO's number there, or the picture's place in Karpathy's JSON for
Flickr30K. Boxes are x0, y0, x1, y1 in pixels, or fractions already.

Files are read a batch at a time: COCO's features take tens of gigabytes. No detector is run here.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np

from tgdt_mini.photos.boxes import as_fractions

WIDTH = 2048
BOTTOM_UP = "bottom-up attention"
BOX = "_box"
FEATURES, BOXES, SIZE = ("feat", "features"), ("bbox", "boxes"), ("image_w", "image_h")


class Detections:
    """A folder of region features, which are read for the pictures that are asked for.

    folder: of features. boxes: the folder of boxes, if they are not beside the features.
    sizes: {image_id: (width, height)} in pixels, for boxes in pixels whose file has no size.
    size_of: a function from an image_id to its size or None, asked where `sizes` has none.
    names: {image_id: ID}, where a file is not called by the image id, its stem or its COCO number.
    width: numbers a region. detector: the name of the detector; `metadata` describes it as a
    backbone describes its encoder. Its key is made of name and width: features of two detectors
    need two names.
    """

    def __init__(
        self,
        folder: Path | str,
        boxes: Path | str | None = None,
        sizes: dict | None = None,
        size_of=None,
        names: dict | None = None,
        width: int = WIDTH,
        detector: str = BOTTOM_UP,
    ):
        for name, path in (("folder", folder), ("boxes", boxes)):
            if path is not None and not os.path.isdir(path):
                raise ValueError(f"{name} is {path}, which is no folder; give that of the {name}")
        self.boxes, self.sizes, self.size_of = boxes and Path(boxes), sizes or {}, size_of
        self.folder, self.names, self.width = Path(folder), names or {}, width
        metadata = {"source": detector, "regions": True, "width": width, "trained_layers": 0}
        key = hashlib.sha256(json.dumps(metadata).encode("utf-8")).hexdigest()[:16]
        self.metadata = metadata | {"key": key}
        paths = sorted(path for path in self.folder.iterdir() if path.suffix in (".npz", ".npy"))
        self.files = {path.stem: path for path in paths if not path.stem.endswith(BOX)}
        if not self.files:
            raise ValueError(f"folder {folder} holds no .npz or .npy features")

    def use_numbers(self, numbers: dict, image_ids: list[str]) -> None:
        """Look files up by `numbers`, {image_id: number}, if only they find all pictures' files."""
        if not self._has(image_ids):
            self.names = numbers
            self.names = numbers if self._has(image_ids) else {}

    def check(self, image_ids: list[str], others=()) -> None:
        """ValueError unless pictures, of all splits together, and files belong together in pairs.

        others: ids of pictures that are left aside, whose files may be there; None: any file may.
        """
        used = {}
        for image_id in image_ids:
            other = used.setdefault(self._name(image_id), image_id)
            if other != image_id:
                raise ValueError(
                    f"images {other} and {image_id} would share {self._file(image_id)}; "
                    "name the file of each in names"
                )
        known = {name for image_id in others or () for name in self._candidates(image_id)}
        strays = sorted(set(self.files) - set(used) - known)
        if strays and others is not None:
            raise ValueError(
                f"{len(strays)} feature files of {self.folder} belong to no image, such as "
                f"{self.files[strays[0]].name}; give the image ids of all splits, or the right "
                "folder, or leave them aside (--allow-strays)"
            )

    def read(self, image_ids: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(features, boxes) of pictures, lists of (R, F) and (R, 4) float32, for `ImageTokens.pad`.

        ValueError, by image, for features that are missing, damaged, of another width or without
        boxes.
        """
        pairs = [self._read(image_id) for image_id in image_ids]
        return [features for features, _ in pairs], [boxes for _, boxes in pairs]

    def arrays(self, image_ids: list[str]) -> dict[str, np.ndarray]:
        """The arrays of pictures as `features.write_features` keeps them.

        The whole picture is the mean of its regions.
        """
        features, boxes = self.read(image_ids)
        return {
            "features": np.concatenate(features),
            "boxes": np.concatenate(boxes),
            "pooled": np.stack([rows.mean(axis=0) for rows in features]).astype(np.float16),
            "counts": np.array([len(rows) for rows in features]),
        }

    def marks(self, image_ids: list[str]):
        """What identifies the features of each picture: its id, and size and time of its files."""
        for image_id in image_ids:
            path = self._file(image_id)
            stats = [file.stat() for file in (path, self._box_file(path)) if file.is_file()]
            files = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats]
            yield " ".join([image_id, *files, str(self.sizes.get(image_id, ""))])

    def _has(self, image_ids):
        return all(self.files.keys() & self._candidates(image_id) for image_id in image_ids)

    def _candidates(self, image_id):
        """What the files of a picture may be called."""
        if image_id in self.names:
            return [str(self.names[image_id])]
        stem = Path(image_id).stem
        number = re.fullmatch(r"COCO_\w+_0*(\d+)", stem)
        return [image_id, stem, *(number.groups() if number else ())]

    def _name(self, image_id):
        candidates = self._candidates(image_id)
        for name in candidates:
            if name in self.files:
                return name
        raise ValueError(
            f"image {image_id} has no features in {self.folder}, neither .npz nor .npy of "
            f"{' or '.join(candidates)}; extract them, or give the name of the file in names"
        )

    def _file(self, image_id):
        return self.files[self._name(image_id)]

    def _box_file(self, path):
        if self.boxes:
            return self.boxes / f"{path.stem}.npy"
        return path.with_name(f"{path.stem}{BOX}.npy")

    def _read(self, image_id):
        path = self._file(image_id)
        stored = _load(path)
        features = _first(stored, FEATURES)
        shape = None if features is None else features.shape
        if shape is None or len(shape) != 2 or 0 in shape or shape[1] != self.width:
            content = f"arrays {', '.join(stored)}" if shape is None else f"features {shape}"
            raise ValueError(
                f"{path} holds {content}; it must hold feat (R, {self.width}), "
                "or give another width"
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"{path} holds NaN or infinity; extract the features of image {image_id} again"
            )
        boxes = _first(stored, BOXES)
        if boxes is None:
            box_file = self._box_file(path)
            if not box_file.is_file():
                raise ValueError(
                    f"image {image_id} has features but no boxes: {box_file} is missing; "
                    "extract it too"
                )
            boxes = _first(_load(box_file), FEATURES)
        if boxes is None or boxes.shape != (len(features), 4):
            raise ValueError(
                f"image {image_id} has features {features.shape} but boxes "
                f"{boxes if boxes is None else boxes.shape} ({path}); they must be (R, 4)"
            )
        size = self._size(image_id, stored, path) if boxes.max() > 1 else (1, 1)  # else fractions
        return features.astype(np.float32), as_fractions(boxes, *size, f"image {image_id} ({path})")

    def _size(self, image_id, stored, path):
        """(width, height) in pixels, from the file of a picture or else from elsewhere."""
        if all(stored.get(name) is not None for name in SIZE):
            return tuple(float(stored[name].item()) for name in SIZE)  # of shape () or (1,)
        size = self.sizes.get(image_id) or (self.size_of and self.size_of(image_id))
        if not size:
            raise ValueError(
                f"image {image_id} has boxes in pixels ({path}), but its size is not known: give "
                "sizes (--sizes FILE, or the pictures)"
            )
        return size


def _load(path):
    """{name: array} of an .npz file, None for arrays that are not read; of .npy: {"features": ...}.

    Arrays of other names may be pickled objects, and a pickle can run code.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"features": loaded}
        with loaded:
            known = {*FEATURES, *BOXES, *SIZE}
            return {name: loaded[name] if name in known else None for name in loaded.files}
    except Exception as error:  # a header that lies fails in many ways
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} cannot be read: {reason}; extract it again") from None


def _first(stored, names):
    return next((stored[name] for name in names if stored.get(name) is not None), None)
