"""Regions that a detector found: the paper's own input, bottom-up attention (Anderson et al., CVPR
2018), from files.

Accepted layouts, for a picture called ID (R regions, F = 2,048 numbers each):
    ID.npz        `feat` or `features` (R, F) and, if it has them, `bbox` or `boxes` (R, 4),
    `image_w` and `image_h`
    ID.npy        features (R, F) alone
    ID_box.npy    boxes (R, 4) beside features that have none; or ID.npy in a folder of boxes
The last of these is how TERAN (mesnico/TERAN, data.py: bu_att/ID.npz, bu_box/ID.npy), from which
the released code
stems, keeps them: there ID is COCO's number, or the picture's place in Karpathy's JSON for
Flickr30K, and the sizes come from elsewhere (`pictures.picture_sizes`, `read_sizes`). Boxes are x0,
y0, x1, y1 in pixels, or fractions already.

Read a batch at a time: COCO's features take tens of gigabytes. No detector is run here.
"""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np

WIDTH = 2048
BOTTOM_UP = "bottom-up attention"
BOX = "_box"
ARRAYS = (
    "feat",
    "features",
    "bbox",
    "boxes",
    "image_w",
    "image_h",
)  # others, such as pickled objects, are not read


class Detections:
    """A folder of region features, read for the pictures that are asked for.

    folder: of features. boxes: the folder of boxes, if they are not beside the features. sizes:
    {image_id: (width, height)} in pixels, for boxes in pixels whose file does not say. names:
    {image_id: ID}, where files are called otherwise than an image id, its stem or its COCO number
    (see `sources.karpathy_numbers`). width: numbers a region.
    detector: what to call the detector. `about` describes it as a backbone's does its encoder, and
    its key holds this
    name and the width: whoever has features of two detectors gives each a name.
    """

    def __init__(
        self,
        folder: Path | str,
        boxes: Path | str | None = None,
        sizes: dict | None = None,
        names: dict | None = None,
        width: int = WIDTH,
        detector: str = BOTTOM_UP,
    ):
        for name, path in (("folder", folder), ("boxes", boxes)):
            if path is not None and not Path(path).is_dir():
                raise ValueError(
                    f"{name} is {path}, which is no folder; give the one that holds the {name} files"
                )
        self.folder, self.boxes = Path(folder), boxes and Path(boxes)
        self.sizes, self.names, self.width = sizes or {}, names or {}, width
        about = {"source": detector, "regions": True, "width": width, "trained_layers": 0}
        self.about = about | {
            "key": hashlib.sha256(json.dumps(about).encode("utf-8")).hexdigest()[:16]
        }
        files = [path for path in self.folder.iterdir() if path.suffix in (".npz", ".npy")]
        self.files = {path.stem: path for path in sorted(files) if not path.stem.endswith(BOX)}
        if not self.files:
            raise ValueError(f"folder {folder} holds no .npz or .npy features")

    def __len__(self):
        return len(self.files)

    def has(self, image_ids: list[str]) -> bool:
        """Whether there is a file for each of the pictures."""
        return all(
            any(name in self.files for name in self._tried(image_id)) for image_id in image_ids
        )

    def check(self, image_ids: list[str], others=()) -> None:
        """ValueError unless the pictures, of all splits together, and the feature files belong
        together one to one.

        others: ids of pictures that are left aside, whose files may be there; None: any file may.
        """
        owners = {}
        for image_id in image_ids:
            other = owners.setdefault(self._name(image_id), image_id)
            if other != image_id:
                raise ValueError(
                    f"images {other} and {image_id} would share {self._file(image_id)}; give each its own in names"
                )
        aside = {name for image_id in others or () for name in self._tried(image_id)}
        strays = sorted(set(self.files) - set(owners) - aside)
        if strays and others is not None:
            raise ValueError(
                f"{len(strays)} feature files of {self.folder} belong to no image, such as "
                f"{self.files[strays[0]].name}; give the image ids of all splits, or the right folder, or leave them "
                "aside (--allow-strays)"
            )

    def read(self, image_ids: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(features, boxes) of some pictures, as `ImageTokens.pad` takes them: (R_i, F) and (R_i,
        4) float32 each.

        ValueError, by image, for features that are missing, damaged, of another width or without
        boxes.
        """
        pairs = [self._read(image_id) for image_id in image_ids]
        return [features for features, _ in pairs], [boxes for _, boxes in pairs]

    def arrays(self, image_ids: list[str]) -> dict[str, np.ndarray]:
        """The arrays of some pictures, as `features.write_features` keeps them; a whole is the mean
        of its regions.
        """
        features, boxes = self.read(image_ids)
        return {
            "features": np.concatenate(features),
            "boxes": np.concatenate(boxes),
            "whole": np.stack([each.mean(axis=0) for each in features]).astype(np.float16),
            "counts": np.array([len(each) for each in features]),
        }

    def marks(self, image_ids: list[str]):
        """What identifies the features of each picture: its id, and size and time of change of each
        file.
        """
        for image_id in image_ids:
            path = self._file(image_id)
            stats = [each.stat() for each in (path, self._box_file(path)) if each.is_file()]
            files = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats]
            yield " ".join([image_id, *files, str(self.sizes.get(image_id, ""))])

    def lacks_size(self, image_id: str) -> bool:
        """Whether a picture's boxes are in pixels and nothing says its size."""
        path = self._file(image_id)
        stored = _arrays(path)
        boxes = self._boxes(path, stored, image_id)
        known = "image_w" in stored or image_id in self.sizes
        return not known and boxes is not None and bool((boxes > 1).any())

    def _tried(self, image_id):
        """What the file of a picture may be called."""
        if image_id in self.names:
            return [str(self.names[image_id])]
        stem = Path(image_id).stem
        number = re.fullmatch(r"COCO_\w+_0*(\d+)", stem)
        return [image_id, stem, *(number.groups() if number else ())]

    def _name(self, image_id):
        tried = self._tried(image_id)
        for name in tried:
            if name in self.files:
                return name
        raise ValueError(
            f"image {image_id} has no features in {self.folder}, neither .npz nor .npy of {' or '.join(tried)}; "
            "extract them, or say in names what the file is called"
        )

    def _file(self, image_id):
        return self.files[self._name(image_id)]

    def _read(self, image_id):
        path = self._file(image_id)
        stored = _arrays(path)
        features = _first(stored, "feat", "features")
        if (
            features is None
            or features.ndim != 2
            or features.shape[1] != self.width
            or not len(features)
        ):
            found = (
                f"arrays {', '.join(stored)}" if features is None else f"features {features.shape}"
            )
            raise ValueError(
                f"{path} holds {found}; it must hold feat (R, {self.width}), or give another width"
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"{path} holds NaN or infinity; extract the features of image {image_id} again"
            )
        boxes = self._boxes(path, stored, image_id)
        if boxes is None or boxes.shape != (len(features), 4):
            found = None if boxes is None else boxes.shape
            raise ValueError(
                f"image {image_id} has features {features.shape} but boxes {found}; they must be (R, 4)"
            )
        width, height = self._size(image_id, stored, boxes)
        return features.astype(np.float32), as_fractions(boxes, width, height, f"image {image_id}")

    def _box_file(self, path):
        return (
            self.boxes / f"{path.stem}.npy"
            if self.boxes
            else path.with_name(f"{path.stem}{BOX}.npy")
        )

    def _boxes(self, path, stored, image_id):
        boxes = _first(stored, "bbox", "boxes")
        if boxes is None:
            beside = self._box_file(path)
            if not beside.is_file():
                raise ValueError(
                    f"image {image_id} has features but no boxes: {beside} is missing; extract it too"
                )
            boxes = _first(_arrays(beside), "features")
        return boxes

    def _size(self, image_id, stored, boxes):
        """(width, height) that the boxes are divided by: (1, 1) if they are fractions."""
        if boxes.max() <= 1:
            return 1, 1
        if "image_w" in stored and "image_h" in stored:
            return float(stored["image_w"]), float(stored["image_h"])
        if image_id in self.sizes:
            return self.sizes[image_id]
        raise ValueError(
            f"image {image_id} has boxes in pixels (up to {boxes.max():g}), but its size is not known: give sizes "
            "(--sizes FILE, or the pictures)"
        )


def read_sizes(path: Path | str) -> dict[str, tuple[float, float]]:
    """{image_id: (width, height)} in pixels of a JSON file: that very form, or COCO's annotations
    with their images.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(found.get("images"), list):
            found = {each["file_name"]: (each["width"], each["height"]) for each in found["images"]}
        return {name: (float(width), float(height)) for name, (width, height) in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"sizes {path} cannot be read ({type(error).__name__}: {error}); it must be JSON, "
            '{"image id": [width, height]} or annotations of COCO with images in them'
        ) from None


def as_fractions(boxes: np.ndarray, width: float, height: float, name: str) -> np.ndarray:
    """(R, 4) float32 boxes as fractions, from x0, y0, x1, y1 in pixels of the picture `name` of
    this size.

    What sticks out by no more than rounding makes it, a pixel or a hundredth of the side, is cut
    off. ValueError for what sticks out further, is not finite or has no area. Example: (0, 0, 50,
    100) of 100 x 100 -> (0, 0, 0.5, 1).
    """
    boxes, limit = (
        np.asarray(boxes, np.float64),
        np.array([width, height, width, height], np.float64),
    )
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes of {name} have shape {boxes.shape}; they must be (R, 4): x0, y0, x1, y1"
        )
    slack = np.minimum(1, limit / 100)
    for box in boxes:
        if not ((box >= -slack).all() and (box <= limit + slack).all()):  # NaN too
            raise ValueError(
                f"box {box.tolist()} of {name} is outside its size of {width:g} x {height:g}; is it its own?"
            )
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(
                f"box {box.tolist()} of {name} has no area; it must be x0, y0, x1, y1 with x1 > x0, y1 > y0"
            )
    return (boxes.clip(0, limit) / limit).astype(np.float32)


def _arrays(path):
    """{name: array} of an .npz file, or {"features": array} of an .npy file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"features": loaded}
        with loaded:
            known = [name for name in ARRAYS if name in loaded.files]
            return dict.fromkeys(loaded.files) | {name: loaded[name] for name in known}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read: {' '.join(str(error).split())}; extract it again"
        ) from None


def _first(stored, *names):
    return next((stored[name] for name in names if stored.get(name) is not None), None)
