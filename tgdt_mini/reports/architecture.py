"""A picture of the whole method: two branches, their tokens, two scores, the loss, the search.

`python -m tgdt_mini.reports.architecture FILE.png` draws it. With `highlight` one part stands out
and the others fade, so that a chapter can show where it is at work. No model is needed here: the
picture and the caption are those of one test scene.
"""

import sys
from pathlib import Path

import numpy as np

from tgdt_mini import image_tokens, scenes
from tgdt_mini.reports.figure import COLOURS, figure

PARTS = ("tokens", "branches", "scores", "loss", "search")
SCENE, CAPTION = "test-0644", ("a", "yellow", "star")
GLOBAL, LOCAL, SEARCH, LOSS = COLOURS["global"], COLOURS["local"], COLOURS["two-stage"], "#cc79a7"
LEFT, MIDDLE, RIGHT = 18, 50, 82  # centres of the image branch, of the scores, of the text branch
BROWN = "#7a5200"  # orange, dark enough for words
FADED = 0.25
ALT = (
    "Left the image branch, right the text branch: tokens, own layers, a linear map to the common "
    "space, local layers that give local tokens, global layers whose slot 0 is the global token. "
    "Between them the local score, the CMC loss and the global score; below, two-stage search."
)


def architecture(path: Path | str | None = None, highlight: str | None = None) -> None:
    """Draw the method; with `highlight`, one of PARTS in full strength and all others faded.

    path: a PNG file to write; None shows the picture, as in a notebook. Raises ValueError for a
    part that is not in PARTS.

    Example: architecture("docs/architecture.png") draws the picture of docs/method.md.
    """
    if highlight not in (None, *PARTS):
        raise ValueError(f"highlight is {highlight!r}; it must be None or one of {PARTS}")
    alt = ALT if highlight is None else f"{ALT} Highlighted: {highlight}."
    with figure(path, wide=8.4, high=8.4, alt=alt) as ax:
        ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        ax.axis("off")
        pen = _Pen(ax, highlight)
        pen.box("branches", MIDDLE, 37, 99, 40.8, "", "#999999", 0.05)  # the common space
        _draw_inputs(pen)
        _draw_branch(pen, LEFT, "v", "v", "region")
        _draw_branch(pen, RIGHT, "t", "w", "word")
        _draw_scores_and_loss(pen)
        _draw_search(pen)


class _Pen:
    """Draws boxes, arrows and words of one part, faded unless that part is highlighted."""

    def __init__(self, ax, highlight):
        self.ax, self.highlight = ax, highlight

    def strength(self, part):
        return 1.0 if self.highlight in (None, part) else FADED

    def box(self, part, x, y, wide, high, text="", colour="#666666", fill=0.12, size=10):
        """A rounded box around the centre (x, y), with text in it."""
        from matplotlib.colors import to_rgba
        from matplotlib.patches import FancyBboxPatch

        strength = self.strength(part)
        shape = FancyBboxPatch(
            (x - wide / 2, y - high / 2),
            wide,
            high,
            boxstyle="round,pad=0,rounding_size=1",
            facecolor=to_rgba(colour, fill * strength),
            edgecolor=to_rgba(colour, strength),
            linewidth=2.2 if self.highlight == part else 1.2,
        )
        self.ax.add_patch(shape)
        self.words(part, x, y, text, size)

    def words(self, part, x, y, text, size=10, **style):
        strength = self.strength(part)
        style = {"ha": "center", "va": "center", "linespacing": 1.35} | style
        self.ax.text(x, y, text, fontsize=size, alpha=strength, **style)

    def arrow(self, part, start, end, colour="#444444"):
        style = dict(arrowstyle="-|>", color=colour, linewidth=1.3, shrinkA=0, shrinkB=0)
        self.ax.annotate("", end, start, arrowprops=style | {"alpha": self.strength(part)})

    def picture(self, part, pixels, x, y, wide, colour, line=1.6):
        """Pixels in a square around (x, y), in a frame."""
        from matplotlib.patches import Rectangle

        half = wide / 2
        extent = (x - half, x + half, y - half, y + half)
        strength = self.strength(part)
        self.ax.imshow(np.asarray(pixels), extent=extent, alpha=strength, zorder=1)
        frame = (x - half, y - half), wide, wide
        self.ax.add_patch(
            Rectangle(*frame, fill=False, edgecolor=colour, linewidth=line, alpha=strength)
        )
        self.ax.set(xlim=(0, 100), ylim=(0, 100))  # imshow moves the limits


def _places(centre, count=4, step=8):
    """The x of each token of a row."""
    return [centre + step * (number - (count - 1) / 2) for number in range(count)]


def _draw_inputs(pen):
    """The picture and the caption, and the tokens that they are cut into."""
    picture = scenes.picture(SCENE)
    _, boxes = image_tokens.regions(picture)  # (R, 4) as fractions
    crops = [picture.crop(tuple(round(float(v) * picture.width) for v in box)) for box in boxes]
    pen.picture("tokens", picture, LEFT, 91.5, 12, "#444444", 1)
    pen.words("tokens", LEFT - 8, 91.5, "an image", 11, weight="bold", ha="right")
    pen.words("tokens", RIGHT, 94, "a caption", 11, weight="bold")
    pen.words("tokens", RIGHT, 89.5, f"“{' '.join(CAPTION)}”", 12, style="italic")
    for x, crop in zip(_places(LEFT), [picture, *crops]):
        colour = GLOBAL if crop is picture else LOCAL
        pen.picture("tokens", crop.resize((64, 64)), x, 79, 6.4, colour, 2.2)
    for x, word in zip(_places(RIGHT), ["[CLS]", *CAPTION]):
        colour = GLOBAL if word == "[CLS]" else LOCAL
        pen.box("tokens", x, 79, 7.4, 6.4, word, colour, 0.25, 9.5)
    pen.words("tokens", LEFT - 12, 73.8, "slot 0", 9, color=GLOBAL)
    pen.words("tokens", LEFT + 4, 73.8, "a token for each region", 9, color=BROWN)
    pen.words("tokens", RIGHT - 12, 73.8, "slot 0", 9, color=GLOBAL)
    pen.words("tokens", RIGHT + 4, 73.8, "a token for each word piece", 9, color=BROWN)
    for x in (LEFT, RIGHT):
        pen.arrow("tokens", (x, 85.2), (x, 82.8))


def _draw_branch(pen, centre, whole, local, part):
    """One branch, from its tokens down to its global token."""
    for y, name in ((68, "own layers"), (61, "linear map"), (53.5, "local layers")):
        pen.box("branches", centre, y, 31, 4.4, name)
    pen.box("branches", centre, 33.5, 31, 4.4, "global layers")
    for start, end in ((72.6, 70.3), (65.8, 63.3), (58.7, 55.8), (51.3, 49), (37.7, 35.7)):
        pen.arrow("branches", (centre, start), (centre, end))
    slot, *locals_ = _places(centre)
    pen.box("branches", slot, 44.6, 6.4, 5.4, "slot 0", GLOBAL, 0.1, 9)
    pen.box("branches", locals_[1], 44.6, 23.4, 8, "", LOCAL, 0.05)
    for number, x in enumerate(locals_, 1):
        pen.box("branches", x, 44.6, 6.4, 5.4, f"${local}_{number}$", LOCAL, 0.3, 12)
    pen.words("branches", locals_[1], 39.3, f"local tokens: one for each {part}", 9, color=BROWN)
    pen.arrow("branches", (slot, 31.3), (slot, 26.2))
    pen.box("branches", slot, 23, 6.4, 6, f"${whole}_0$", GLOBAL, 0.3, 13)
    pen.words("branches", slot, 18.4, "global token", 9, color=GLOBAL)


def _draw_scores_and_loss(pen):
    """What the two branches are compared by, and what training makes of it."""
    pen.words("branches", MIDDLE, 64.5, "two branches of one class,\nno shared weights", 9.5)
    pen.words("branches", MIDDLE, 54, "common space: width $D$,\nall tokens of length 1", 9.5)
    pen.box("scores", MIDDLE, 45.6, 25, 8.6, "", LOCAL, 0.22)
    pen.words("scores", MIDDLE, 48, "local score  $S_L$", 10.5, weight="bold")
    pen.words("scores", MIDDLE, 44.3, "each word takes its best\nregion; mean over the words", 9)
    pen.box("scores", MIDDLE, 20.6, 19, 6.8, "", GLOBAL, 0.22)
    pen.words("scores", MIDDLE, 22.3, "global score", 10.5, weight="bold")
    pen.words("scores", MIDDLE, 19.2, r"$S_G = v_0 \cdot t_0$", 11)
    for start, end, y, colour in (
        (LEFT + 15.8, MIDDLE - 12.6, 48.1, LOCAL),
        (RIGHT - 7.8, MIDDLE + 12.6, 48.1, LOCAL),
        (LEFT - 8.7, MIDDLE - 9.6, 21.6, GLOBAL),
        (RIGHT - 15.3, MIDDLE + 9.6, 21.6, GLOBAL),
    ):
        pen.arrow("scores", (start, y), (end, y), colour)
    pen.box("loss", MIDDLE, 32.8, 25, 9.4, "", LOSS, 0.2)
    pen.words("loss", MIDDLE, 35.5, "CMC loss, in training", 10.5, weight="bold")
    terms = r"$L_{inter}(S_L) + L_{inter}(S_G)$" + "\n" + r"$+\ L_{intra}(v_0, t_0)$"
    pen.words("loss", MIDDLE, 31.4, terms, 10)
    pen.arrow("loss", (MIDDLE, 41.2), (MIDDLE, 37.6), LOSS)
    pen.arrow("loss", (MIDDLE, 24.1), (MIDDLE, 28), LOSS)
    pen.arrow("loss", (LEFT - 8.7, 24.6), (MIDDLE - 12.6, 30), LOSS)
    pen.arrow("loss", (RIGHT - 15.3, 24.6), (MIDDLE + 12.6, 29.4), LOSS)


def _draw_search(pen):
    """Two-stage search: many by the global score, few by both."""
    pen.box("search", MIDDLE, 7.5, 98, 14, "", SEARCH, 0.06)
    pen.words("search", MIDDLE, 12.5, "two-stage search", 10.5, weight="bold")
    stages = (
        (18, 29, "stage 1:  $S_G$\nwith the whole gallery", GLOBAL),
        (50, 19, "shortlist:\nthe best $K$", "#666666"),
        (82, 29, "stage 2:  $S_G + w\\,S_L$\nfor these $K$ only", SEARCH),
    )
    for x, wide, text, colour in stages:
        pen.box("search", x, 5.6, wide, 7.4, text, colour, 0.22)
    pen.arrow("search", (32.9, 5.6), (40, 5.6))
    pen.arrow("search", (59.9, 5.6), (67, 5.6))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"error: name a PNG file to write, and if you like one of {', '.join(PARTS)}")
    architecture(*sys.argv[1:3])
