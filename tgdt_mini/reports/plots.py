"""The figures of the project: curves, bars, searches, and the regions that words look at.

Each function takes data, draws on a new figure and, given a path, saves it there as PNG. All return
None, so that a notebook shows the picture and nothing else. No figure computes a number that a text
needs.
"""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from tgdt_mini.reports.figure import COLOURS, WIDEST, figure, plain


def loss_curve(history: list[dict], path: Path | str | None = None) -> None:
    """Loss and its parts, and validation rsum, over the epochs; a line where the negatives change.

    A part that is 0, or switched off, has a gap there; one that always is has no curve.
    """
    epochs = [row["epoch"] for row in history]
    turns = [
        after["epoch"] - 0.5
        for before, after in zip(history, history[1:])
        if (before["contrastive"], before["stage"]) != (after["contrastive"], after["stage"])
    ]
    alt = (
        "Left, the training loss and its parts over the epochs; right, validation rsum by global, "
        "local, mixed score."
    )
    parts = (
        ("loss", "total", "black"),
        ("inter_global", "inter, global", COLOURS["global"]),
        ("inter_local", "inter, local", COLOURS["local"]),  # dashed: the two may be equal
        ("inter_mixed", "inter, mixed", COLOURS["mixed"]),
        ("intra", "intra", "#cc79a7"),
        ("hard_caption_loss", "hard captions", "#d55e00"),
    )
    with figure(path, 10, 3.6, alt, columns=2) as axes:
        left, right = axes[0]
        for name, label, colour in parts:
            values = [row.get(name) or np.nan for row in history]  # a log scale has no 0
            if not np.isnan(values).all():
                style = "--" if name == "inter_local" else "-"
                left.plot(epochs, values, style, label=label, color=colour, marker=".")
        for name in ("global", "local", "mixed"):
            rsums = [row[f"rsum_{name}"] for row in history]
            right.plot(epochs, rsums, label=name, color=COLOURS[name], marker=".")
        left.set(ylabel="training loss", title="What training minimises", yscale="log")
        right.set(ylabel="validation rsum (of 600)", title="What it is for")
        for ax in (left, right):
            ax.set_xlabel("epoch")
            for turn in turns:
                ax.axvline(turn, color="grey", linestyle="--", linewidth=1)
        left.legend(frameon=True, ncols=2, fontsize=9)
        right.legend(frameon=True)


def shortlist_curve(report: dict, path: Path | str | None = None) -> None:
    """rsum of two-stage search by shortlist, between global only and scoring everything."""
    curve = {int(k): value for k, value in report["two_stage_by_shortlist"].items()}
    alt = "rsum of two-stage search rising with the shortlist towards full scoring."
    sizes, rsums = list(curve), list(curve.values())
    lines = (
        ("global", "global only", COLOURS["global"], ":"),
        ("full mixed", "scoring everything", "black", "--"),
    )
    with figure(path, 6.5, 3.8, alt) as ax:
        ax.plot(sizes, rsums, color=COLOURS["two-stage"], marker="o", label="two-stage")
        for name, label, colour, style in lines:
            ax.axhline(report["rows"][name]["rsum"], color=colour, linestyle=style, label=label)
        ax.set(xscale="log", xlabel="shortlist size", ylabel="rsum (of 600)")
        ax.set_title("How long a shortlist is enough?")
        ax.set_xticks(sizes, [str(k) for k in sizes])
        ax.minorticks_off()
        ax.legend(frameon=True)


def search_times(report: dict, path: Path | str | None = None) -> None:
    """Agreement with full scoring by milliseconds a query: a line a gallery, a point a shortlist.

    report: of `bench.run`, fresh or read back from JSON. A star stands where everything is scored.
    """
    colours = ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7")
    alt = (
        "Agreement with full scoring against time: for each gallery a line that rises with K, and "
        "a star far right."
    )
    with figure(path, 7.5, 4, alt) as ax:
        for colour, (size, curve) in zip(colours, report["curves"].items()):
            points = curve["two-stage"]
            times, shares = ([point[name] for point in points] for name in ("ms", "agreement"))
            ax.plot(times, shares, color=colour, marker="o", label=f"{int(size):,} pictures")
            ax.plot(curve["full"], 100, color=colour, marker="*", markersize=14)
            lengths = [point["shortlist"] for point in points]
        star = dict(color="grey", marker="*", markersize=12, linestyle="")
        ax.plot([], [], **star, label="everything scored")
        ax.set(xscale="log", ylim=(None, 105), xlabel="CPU milliseconds a query")
        ends = f"{min(lengths)} to {max(lengths)}"
        ax.set(ylabel="ten best answers found (%)", title=f"Along each line K grows from {ends}")
        ax.legend(frameon=True, loc="lower right")


def comparison(report: dict, path: Path | str | None = None) -> None:
    """R@1 both ways of global, local and two-stage scoring, with the oracle's."""
    alt = (
        "Bars of R@1 both ways for global, local and two-stage scoring; a dashed line is the "
        "oracle's."
    )
    with figure(path, 7, 3.4, alt) as ax:
        for i, name in enumerate(("global", "local", "two-stage")):
            values = [_recall(report["rows"][name][way], 1) for way in ("i2t", "t2i")]
            x = np.arange(2) + 0.26 * (i - 1)
            bars = ax.bar(x, values, 0.24, color=COLOURS[name], label=name)
            ax.bar_label(bars, fmt="%.1f", fontsize=9)
        if "oracle" in report:
            for place, way in enumerate(("i2t", "t2i")):
                oracle, ends = [_recall(report["oracle"][way], 1)] * 2, [place - 0.42, place + 0.42]
                label = None if place else "oracle"
                ax.plot(ends, oracle, color="black", linestyle="--", label=label)
        ax.set_xticks(range(2), ["image to text", "text to image"])
        ax.set(ylabel="R@1 (%)", ylim=(0, 105), title="The first answer is right")
        ax.grid(axis="x", visible=False)
        ax.legend(frameon=True, loc="center left", bbox_to_anchor=(1, 0.5))


def _recall(recalls, k):
    """R@k of a report that is fresh (int keys) or read back from JSON (str keys)."""
    return recalls[k] if k in recalls else recalls[str(k)]


IN_A_ROW = 10  # answers
# frames of words: dark enough for letters on white, told apart by colour-blind readers too
WORDS = ("#0072b2", "#d55e00", "#007a5a", "#aa3377", "#8a5a00", "#332288", "#555555")
GREY = "#767676"
# what `right` says of an answer: the frame's colour and width, the mark, and the word on the tile
JUDGED = {
    False: ("lightgrey", 1, "", ""),
    True: (COLOURS["two-stage"], 4, "\N{CHECK MARK} ", ""),
    "own": (COLOURS["two-stage"], 4, "\N{CHECK MARK} ", "its own"),
    "true": (COLOURS["two-stage"], 2, "\N{CHECK MARK} ", "true"),
    "false": (GREY, 2, "\N{BALLOT X} ", "false"),
}


def marks(places: list[int], own: int, true: Any) -> list[str]:
    """For each answer of a caption: "own", "true" or "false", as `hits` takes them.

    places: images that were found; own: the caption's own one; true (I,) bool: where it is true.
    """
    return ["own" if place == own else "true" if true[place] else "false" for place in places]


def hits(
    queries: list,
    pictures: list[list],
    right: list | None,
    scores: list | None = None,
    path: Path | str | None = None,
) -> None:
    """A page of searches, one a row: the query, then its best answers; a right one has a tick.

    queries: N str or pictures. pictures: N lists of K pictures or str. right: N lists of K bool (a
    right one is framed in green too), or None where it is not known. Where the truth of all answers
    is known, the words "own" (written for this very picture), "true" (of it as well) and "false"
    stand in place of bools and are written on the tiles. scores: N lists of K, for the titles. A
    search with more than IN_A_ROW answers goes on in the next rows.
    """
    lines = [
        (row, start)
        for row in range(len(queries))
        for start in range(0, max(1, len(pictures[row])), IN_A_ROW)
    ]
    rows, columns = len(lines), 1 + min(IN_A_ROW, max(len(row) for row in pictures))
    searches = f"{len(queries)} searches, one a row" if len(queries) > 1 else "One search"
    alt = f"{searches}: the query, then its best answers from left to right."
    tile = min(1.5, WIDEST / columns)  # inches
    judged = [
        _judged(None if right is None else right[row], len(pictures[row]))
        for row in range(len(queries))
    ]
    high = tile + (0.4 if any(word for row in judged for *_, word in row) else 0.2)
    with figure(path, tile * columns, high * rows, alt, rows=rows, columns=columns) as axes:
        axes = np.asarray(axes).reshape(rows, columns)
        for line, (row, start) in enumerate(lines):
            _tile(axes[line, 0], "" if start else queries[row])
            for i, ax in enumerate(axes[line, 1:], start):
                if i >= len(pictures[row]):
                    ax.axis("off")
                    continue
                title = f"{i + 1}" if scores is None else f"{i + 1}: {scores[row][i]:.2f}"
                _tile(ax, pictures[row][i], judged[row][i], title)


def _judged(right, count):
    """The style of each of a search's answers; ValueError for a word that is not in JUDGED."""
    answers = [False] * count if right is None else right
    answers = [answer if isinstance(answer, str) else bool(answer) for answer in answers]
    if unknown := [answer for answer in answers if answer not in JUDGED]:
        raise ValueError(f"right holds {unknown[0]!r}; give bools, or one of own, true, false")
    return [JUDGED[answer] for answer in answers]


def _tile(ax, content, frame=None, title=""):
    colour, width, mark, word = frame or ("none", 0, "", "")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    if isinstance(content, str):
        text = " ".join(content.split())
        text = textwrap.fill(textwrap.shorten(plain(text), 130, placeholder=" ..."), 16)
        centre = dict(ha="center", va="center", transform=ax.transAxes, in_layout=False)
        centre["parse_math"] = False  # else $...$ in a caption would be mathematics
        ax.text(0.5, 0.5, text, fontsize=10, **centre)
    else:
        ax.imshow(np.asarray(content))
    for spine in ax.spines.values():
        spine.set_visible(frame is not None)
        spine.set(color=colour, linewidth=width)
    ax.set_title(f"{mark}{title}", fontsize=10)
    if word:
        ax.set_xlabel(word, fontsize=10, color=GREY if word == "false" else "#007a5a", labelpad=3)


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
    similarities, boxes = np.asarray(similarities), np.asarray(boxes)
    pixels = np.asarray(picture.convert("RGB"))
    high, wide = pixels.shape[:2]
    corners = boxes * (wide, high, wide, high)
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
            inset = index % 4 * 0.012 * wide * np.array((1, 1, -1, -1))  # none hides another
            _box(axes[0], corners[row.argmax()] + inset, colour)
            title = f"{plain(word)} {row.max():.2f}"
            ax.set_title(title, fontsize=9, parse_math=False, color=colour, fontweight="bold")


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
    similarities, boxes = np.asarray(similarities), np.asarray(boxes)
    pixels = np.asarray(picture.convert("RGB"))
    corners = boxes * (*pixels.shape[1::-1], *pixels.shape[1::-1])
    names = [f"r{number}" for number in range(1, len(boxes) + 1)]
    colours = [WORDS[number % len(WORDS)] for number in range(len(boxes))]
    alt = f"A picture with its regions, and a table of {len(words)} words by {len(boxes)} regions."
    high = max(3.6, 0.28 * len(words) + 0.7)  # inches
    with figure(path, WIDEST, high, alt, columns=2) as axes:
        left, right = axes[0]
        left.imshow(pixels)
        left.axis("off")
        for name, colour, corner in zip(names, colours, corners):
            _box(left, np.clip(corner, 1, pixels.shape[0] - 2), colour)
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
