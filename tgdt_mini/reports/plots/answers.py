"""Searches as pages of pictures: the query, then its best answers, each marked right or wrong."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tgdt_mini.reports.figure import COLOURS, WIDEST, figure, plain

IN_A_ROW = 10  # answers
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
    _check_rows(queries, pictures, right=right, scores=scores)
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


def _check_rows(queries, pictures, **others):
    """ValueError unless each query has its list of pictures, and each picture its other values."""
    try:
        counts = [len(row) for row in pictures]
        fits = len(queries) == len(counts) and not isinstance(queries, str)
        for value in others.values():
            if value is not None:  # a row without any may be None
                pairs = zip(value, counts, strict=True)
                fits &= all(row is None or len(row) == count for row, count in pairs)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"queries, pictures, {' and '.join(others)} do not fit; give N queries, and for each "
            "of them a list, all of one length"
        )


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
