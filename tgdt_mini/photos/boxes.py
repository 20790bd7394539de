"""Boxes in pixels become fractions of their picture, whose size a file may tell."""

from pathlib import Path

import numpy as np

from tgdt_mini.files.check import real_number
from tgdt_mini.files.manifest import load_json


def read_sizes(path: Path | str) -> dict[str, tuple[float, float]]:
    """{image_id: (width, height)} in pixels of a JSON file.

    The file holds this very form, or COCO's annotations with their images. ValueError for another.
    """
    try:
        sizes = load_json(path, "write it anew")
        if isinstance(sizes.get("images"), list):
            sizes = {
                image["file_name"]: (image["width"], image["height"]) for image in sizes["images"]
            }
        return {
            name: tuple(real_number("a side", float(side), 1) for side in (width, height))
            for name, (width, height) in sizes.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"sizes {path} cannot be read ({type(error).__name__}: {error}); it must be JSON, "
            '{"image id": [width, height]} or annotations of COCO with images in them'
        ) from None


def as_fractions(boxes: np.ndarray, width: float, height: float, name: str) -> np.ndarray:
    """(R, 4) float32 boxes as fractions, from x0, y0, x1, y1 in pixels of a picture of this size.

    A box may stick out by what rounding makes, a pixel or a hundredth of the side; that is cut off.
    ValueError, with the `name` of the picture, for a box that sticks out further, is not finite or
    has no area. Example: (0, 0, 50, 100) of 100 x 100 -> (0, 0, 0.5, 1).
    """
    boxes = np.asarray(boxes, np.float64)
    limit = np.array([width, height, width, height], np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes of {name} have shape {boxes.shape}; they must be (R, 4): x0, y0, x1, y1"
        )
    slack = np.minimum(1, limit / 100)
    inside = ((boxes >= -slack) & (boxes <= limit + slack)).all(axis=1)  # False for NaN too
    if not inside.all():
        raise ValueError(
            f"box {boxes[~inside][0].tolist()} of {name} is outside its size of "
            f"{width:g} x {height:g}; is it of this picture?"
        )
    has_area = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if not has_area.all():
        raise ValueError(
            f"box {boxes[~has_area][0].tolist()} of {name} has no area; it must be x0, y0, x1, y1 "
            "with x1 > x0, y1 > y0"
        )
    return (boxes.clip(0, limit) / limit).astype(np.float32)
