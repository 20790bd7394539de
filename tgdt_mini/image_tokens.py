"""Pixels to image tokens: square patches, or regions found in the pixels, each with its box.

The paper describes an image by 36 regions of a Faster R-CNN detector, 2,048 numbers and a box each.
Drawn scenes need no detector. A region here is a connected patch of nearly one colour, proposed
from the pixels alone; the last one is the ground, which is all that is left. Its features are the
pixels of its box, shrunk to 16 x 16: red, green, blue, and whether the pixel belongs to the region.
Boxes are x0, y0, x1, y1 as fractions of width and height; `geometry` adds the area, as the released
code does. Nothing here is learnt, and no ground truth is read.

P patches, R regions, H and W pixels.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # what cuts pictures in other processes begins sooner without torch
    import torch

SIDE = 112  # pixels of a side of the pictures that a mini model knows: the drawn scenes
CROP = 16  # a region's pixels are shrunk to CROP x CROP
REGION_WIDTH = CROP * CROP * 4  # numbers that describe a region
PATCH_WIDTH = CROP * CROP * 3  # numbers that describe a patch
NEAR = 44  # colours this near to a main colour, in each of red, green and blue, count as it
LEAST = 10  # pixels of a region, at half resolution
MOST_THINGS = 12
WHOLE = (0.0, 0.0, 1.0, 1.0)


def geometry(boxes: "torch.Tensor") -> "torch.Tensor":
    """(..., 4) boxes to (..., 5): x0, y0, x1, y1 and the area, all as fractions.

    Example: (0.5, 0, 1, 0.5) becomes (0.5, 0, 1, 0.5, 0.25).
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    five = boxes.new_empty((*boxes.shape[:-1], 5))
    five[..., :4], five[..., 4] = boxes, area
    return five


def patches(image: Image.Image, patch: int = CROP) -> tuple[np.ndarray, np.ndarray]:
    """(features (P, 3 * patch * patch) uint8, boxes (P, 4) float32) of square patches, row by row.

    ValueError when the image's sides are not multiples of `patch` pixels.
    """
    pixels = np.asarray(image.convert("RGB"))
    high, wide = pixels.shape[0] // patch, pixels.shape[1] // patch
    if (high * patch, wide * patch) != pixels.shape[:2]:
        raise ValueError(
            f"image is {pixels.shape[1]} x {pixels.shape[0]} pixels; resize it to multiples of "
            f"{patch}"
        )
    cut = pixels.reshape(high, patch, wide, patch, 3).swapaxes(1, 2).reshape(high * wide, -1)
    row, column = np.divmod(np.arange(high * wide), wide)
    boxes = np.stack([column / wide, row / high, (column + 1) / wide, (row + 1) / high], axis=1)
    return cut, boxes.astype(np.float32)


def regions(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """(features (R, REGION_WIDTH) uint8, boxes (R, 4) float32): things, then the ground.

    Things are what stands out, the largest first. The ground is the whole image with its things
    painted over. R varies from 1 to MOST_THINGS + 1.
    """
    image = image.convert("RGB")
    proposals = propose(connected(main_colours(np.asarray(image.reduce(2)))))
    features = [_shrink(image, box, mask) for box, mask in proposals]
    features.append(ground(image, [mask for _, mask in proposals]))
    return np.stack(features), np.array([*(box for box, _ in proposals), WHOLE], np.float32)


def ground(image: Image.Image, masks: list[np.ndarray]) -> np.ndarray:
    """(REGION_WIDTH,) uint8: the image, its things painted over in the mean colour of the rest.

    masks: of the things, each (H, W) bool of any size. An image without a thing stays as it is.
    """
    pixels = np.array(image.convert("RGB"))
    if masks:
        rest = ~np.asarray(Image.fromarray(np.any(masks, axis=0)).resize(image.size)).reshape(-1)
        flat = pixels.reshape(-1, 3)  # a product takes a tenth of the time of a mean
        flat[~rest] = rest @ flat.astype(int) / rest.sum() if rest.any() else 128
    return whole(Image.fromarray(pixels))


def things(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """What `regions` gives without the ground; where nothing stands out, the ground alone."""
    features, boxes = regions(image)
    end = max(1, len(boxes) - 1)
    return features[:end], boxes[:end]


def whole(image: Image.Image, patches: bool = False) -> np.ndarray:
    """(REGION_WIDTH,) or, with patches, (PATCH_WIDTH,) uint8: the whole image as one token."""
    image = image.convert("RGB")
    if patches:
        return np.asarray(image.resize((CROP, CROP), Image.Resampling.BOX)).reshape(-1)
    return _shrink(image, WHOLE, np.ones((2, 2), bool))


def main_colours(pixels: np.ndarray) -> np.ndarray:
    """(H, W) int: which of the image's main colours each pixel is nearest to having.

    The commonest colour becomes the first main colour and takes all colours within NEAR of it; the
    commonest of the rest becomes the second; and so on. Unlike linking neighbours, this never walks
    across a blurred edge.
    """
    coarse = pixels.astype(np.int32) // 8
    codes = (coarse[..., 0] * 32 + coarse[..., 1]) * 32 + coarse[..., 2]
    kinds, kind, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colours = np.stack([kinds // 1024, kinds // 32 % 32, kinds % 32], axis=1) * 8
    main, left = np.full(len(kinds), -1), counts.copy()
    while left.any():
        leader = int(left.argmax())
        near = (np.abs(colours - colours[leader]).max(axis=1) <= NEAR) & (left > 0)
        main[near], left[near] = leader, 0
    return main[kind].reshape(pixels.shape[:2])


def connected(kinds: np.ndarray) -> np.ndarray:
    """(H, W) int labels: the same for pixels joined through neighbours of the same kind.

    Each pixel begins with a label of its own and takes the smallest label of its neighbours of the
    same kind, until nothing changes. Labels are followed to their own labels, so that this takes a
    few rounds only. It takes 0.37 ms a picture; scikit-image's `label` takes 1.30 (one CPU core).
    """
    high, wide = kinds.shape
    down, right = kinds[1:] == kinds[:-1], kinds[:, 1:] == kinds[:, :-1]
    labels = np.arange(high * wide).reshape(high, wide)
    while True:
        before = labels
        labels = before.copy()
        for same, one, other in (
            (down, labels[:-1], labels[1:]),
            (right, labels[:, :-1], labels[:, 1:]),
        ):
            least = np.minimum(one, other)
            np.copyto(other, least, where=same)
            np.copyto(one, np.minimum(least, one), where=same)  # a row may have changed meanwhile
        for _ in range(3):
            labels = labels.reshape(-1)[labels]
        if (labels == before).all():
            return labels


def propose(labels: np.ndarray) -> list[tuple[tuple[float, ...], np.ndarray]]:
    """[(box, mask (H, W))] of labels that could be objects: no specks, background or repeats."""
    high, wide = labels.shape
    names, sizes = np.unique(labels, return_counts=True)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    proposals = []
    for name, size in sorted(zip(names, sizes), key=lambda pair: -pair[1]):
        if size < LEAST or len(proposals) == MOST_THINGS:
            break
        mask = labels == name
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if (edge == name).mean() > 0.2 or (y1 - y0) * (x1 - x0) > 0.6 * high * wide:
            continue  # background: along the border, or over most of the picture
        box = (
            max(0, x0 - 1) / wide,
            max(0, y0 - 1) / high,
            min(wide, x1 + 1) / wide,
            min(high, y1 + 1) / high,
        )
        if all(overlap(box, other) < 0.75 for other, _ in proposals):
            proposals.append((box, mask))
    return proposals


def overlap(box, other) -> float:
    """Intersection over union of two boxes. Example: a box with itself is 1."""
    wide, high = (max(0, min(box[i + 2], other[i + 2]) - max(box[i], other[i])) for i in (0, 1))
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return wide * high / (areas - wide * high)


def _shrink(image, box, mask):
    """(REGION_WIDTH,) uint8: red, green, blue and mask of each pixel of a box, shrunk."""

    def shrink(picture):
        wide, high = picture.size
        pixels = (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)
        return np.asarray(picture.resize((CROP, CROP), Image.Resampling.BILINEAR, box=pixels))

    inside = shrink(Image.fromarray(mask.astype(np.uint8) * 255))  # (CROP, CROP)
    seen = np.where(inside[..., None] > 127, shrink(image), 128)  # grey outside the region
    return np.dstack([seen, inside]).astype(np.uint8).reshape(-1)
