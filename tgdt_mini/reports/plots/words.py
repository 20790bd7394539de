"""Where the words look: a picture's regions by their similarity with each word of a caption."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from tgdt_mini.files.check import shown, typed
from tgdt_mini.reports.figure import WIDEST, figure, plain

# frames of words: dark enough for letters on white, told apart by colour-blind readers too
WORDS = ("#0072b2", "#d55e00", "#007a5a", "#aa3377", "#8a5a00", "#332288", "#555555")


@typed
def word_regions(
    picture: Image.Image,
    words: list[str],
    similarities: ArrayLike,
    boxes: ArrayLike,
    path: Path | str | None = None,
) -> None:
    """The picture, then a map a word: a region is as bright as its similarity beside the best one.

    The best region is framed in the word's colour, in its map and in the picture.
    similarities (W, R) of a caption's words with the picture's regions; boxes (R, 4) as fractions.
    """
    similarities, boxes, words = _table(similarities, boxes, words)
    pixels, corners = _framed(picture, boxes)
    columns = min(7, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)  # rounded up
    names = ", ".join(words)
    alt = f"A picture, then one map a word: {names}. The region most like the word is framed."
    tile = min(1.6, WIDEST / columns)  # inches
    with figure(path, tile * columns, (tile + 0.2) * rows, alt, rows=rows, columns=columns) as axes:
        axes = np.asarray(axes).reshape(-1)
        for ax in axes:
            ax.axis("off")
        axes[0].imshow(pixels)
        axes[0].set_title("picture", fontsize=9)
        for index, (ax, word, row) in enumerate(zip(axes[1:], words, similarities)):
            ax.imshow(shaded(pixels, row, boxes))
            colour = WORDS[index % len(WORDS)]
            _box(ax, corners[row.argmax()], colour)
            # none hides another
            inset = index % 4 * 0.012 * picture.width * np.array((1, 1, -1, -1))
            _box(axes[0], corners[row.argmax()] + inset, colour)
            title = f"{plain(word)} {row.max():.2f}"
            ax.set_title(title, fontsize=9, parse_math=False, color=colour, fontweight="bold")


@typed
def word_table(
    picture: Image.Image,
    words: list[str],
    similarities: ArrayLike,
    boxes: ArrayLike,
    path: Path | str | None = None,
) -> None:
    """The picture with its regions in colours, and the table of words by regions beside it.

    A word has the colour of its best region, where its similarity is written. The darker a cell,
    the more alike, from 0 to 1. similarities (W, R); boxes (R, 4) as fractions, a whole picture's
    (the ground) too.
    """
    similarities, boxes, words = _table(similarities, boxes, words)
    pixels, corners = _framed(picture, boxes)
    names = [f"r{number}" for number in range(1, len(boxes) + 1)]
    colours = [WORDS[number % len(WORDS)] for number in range(len(boxes))]
    alt = f"A picture with its regions, and a table of {len(words)} words by {len(boxes)} regions."
    high = max(3.6, 0.28 * len(words) + 0.7)  # inches
    with figure(path, WIDEST, high, alt, columns=2) as axes:
        left, right = axes[0]
        left.imshow(pixels)
        left.axis("off")
        for name, colour, corner in zip(names, colours, corners):
            _box(left, corner, colour)
            tag = dict(facecolor=colour, edgecolor="none", pad=1.5)
            place = corner[:2] + 1
            left.text(*place, name, color="white", fontsize=9, va="top", bbox=tag)
        right.imshow(similarities, cmap="Greys", vmin=0, vmax=1.2, aspect="auto")
        right.grid(False)
        right.set_xticks(range(len(names)), names)
        right.set_yticks(range(len(words)), map(plain, words), parse_math=False)
        right.xaxis.tick_top()
        best = similarities.argmax(axis=1)
        for row, (column, label) in enumerate(zip(best, right.get_yticklabels())):
            colour = colours[column]
            label.set(color=colour, fontweight="bold")
            _box(right, (column - 0.46, row - 0.42, column + 0.46, row + 0.42), colour)
            value = similarities[row, column]
            number = dict(color="white" if value > 0.6 else "black", ha="center", va="center")
            right.text(column, row, f"{value:.2f}", fontsize=9, **number)
        for label, colour in zip(right.get_xticklabels(), colours):
            label.set(color=colour, fontweight="bold")


def _table(similarities, boxes, words):
    """(similarities (W, R), boxes (R, 4), W words), or ValueError where they do not fit."""
    similarities, boxes = np.asarray(similarities), np.asarray(boxes)
    if isinstance(words, str):
        raise ValueError(f"words is {shown(words)}; give a list of words")
    words = list(words)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or similarities.shape != (len(words), len(boxes)):
        raise ValueError(
            f"similarities {similarities.shape}, boxes {boxes.shape} and {len(words)} words do not "
            "fit; give (W, R), (R, 4) and W words"
        )
    return similarities, boxes, words


def _framed(picture, boxes):
    """(pixels (H, W, 3), corners (R, 4) of the boxes in pixels).

    The corners lie inside the picture: a frame on its edge would make its map smaller than others.
    """
    size = np.array((*picture.size, *picture.size))
    return np.asarray(picture.convert("RGB")), np.clip(boxes * size, 1, size - 2)


def shaded(pixels: np.ndarray, row: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a picture whose regions are as bright as they are like a word; else grey.

    pixels (H, W, 3) uint8; row (R,) similarities of the word; boxes (R, 4) as fractions.
    """
    high, wide = pixels.shape[:2]
    light, best = np.full((high, wide), 0.25), max(row.max(), 1e-6)
    for share, box in zip(0.25 + 0.75 * np.clip(row / best, 0, 1) ** 2, boxes):
        x0, y0, x1, y1 = (int(round(corner)) for corner in box * (wide, high, wide, high))
        light[y0:y1, x0:x1] = np.maximum(light[y0:y1, x0:x1], share)
    grey = pixels.mean(axis=2, keepdims=True) * 0.3 + 178
    return (pixels * light[..., None] + grey * (1 - light[..., None])).astype(np.uint8)


def _box(ax, corners, colour):
    x0, y0, x1, y1 = corners
    ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=2)
