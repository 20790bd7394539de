"""Every figure of the project, in one style: white ground, colour-blind-safe colours, the same
sizes.

Each function takes data, draws on a figure of its own and, given a path, saves it there as PNG; all
return None, so that a notebook shows the picture and nothing else. In a notebook a picture carries
its description (`alt`), for those who hear a page. Nothing is computed here that a number in the
text would need.
"""

import io
from contextlib import contextmanager
from pathlib import Path

import numpy as np

COLOURS = {
    "global": "#0072b2",
    "local": "#e69f00",
    "two-stage": "#009e73",
    "mixed": "#009e73",
    "miss": "#d55e00",
}
DPI = 90


@contextmanager
def figure(path: Path | str | None = None, wide: float = 7, high: float = 4, alt: str = "", **grid):
    """Axes to draw on: one, or a 2-D array of them with rows=..., columns=... ; saved, or shown in
    a notebook.

    wide, high: inches. alt: one sentence that tells what the picture shows.

    Example: with figure(wide=5, high=3, alt="A rising line.") as ax: ax.plot([1, 2])
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    rows, columns = grid.get("rows", 1), grid.get("columns", 1)
    with (
        sns.axes_style("whitegrid"),
        plt.rc_context({"font.size": 10, "figure.facecolor": "white"}),
    ):
        fig, axes = plt.subplots(
            rows, columns, figsize=(wide, high), layout="constrained", squeeze=False
        )
        try:
            yield axes[0, 0] if rows * columns == 1 else axes
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(_png(fig))
            elif "inline" in plt.get_backend().lower():
                _display(_png(fig), alt or "A figure without a description.")
            elif plt.get_backend().lower() != "agg":
                plt.show()
        finally:
            plt.close(fig)


def _png(fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _display(png, alt):
    """The picture as a notebook's output, with its description as text and where browsers look for
    it.
    """
    from IPython.display import display
    from PIL import Image

    # 128 colours, chosen for the picture: a third of the bytes, so that a notebook full of pictures
    # stays small
    few = (
        Image.open(io.BytesIO(png))
        .convert("RGB")
        .quantize(128, Image.Quantize.MAXCOVERAGE, 2, dither=0)
    )
    small = io.BytesIO()
    few.save(small, "PNG", optimize=True)
    display(
        {"image/png": small.getvalue(), "text/plain": alt},
        raw=True,
        metadata={"image/png": {"alt": alt}},
    )


def loss_curve(history: list[dict], path: Path | str | None = None) -> None:
    """Loss and its parts, and validation rsum, over the epochs; a line where the negatives change.

    A part that is 0, or switched off, has a gap there; one that always is has no curve.
    """
    epochs = [row["epoch"] for row in history]
    turns = [
        b["epoch"] - 0.5
        for a, b in zip(history, history[1:])
        if (a["contrastive"], a["stage"]) != (b["contrastive"], b["stage"])
    ]
    alt = "Left, the training loss and its parts over the epochs; right, validation rsum by global, local, mixed score."
    with figure(path, 10, 3.6, alt, columns=2) as axes:
        left, right = axes[0]
        parts = (
            ("loss", "total", "black"),
            ("inter_global", "inter, global", COLOURS["global"]),
            ("inter_local", "inter, local", COLOURS["local"]),
            ("intra", "intra", "#cc79a7"),
            ("hard_caption_loss", "hard captions", "#d55e00"),
        )
        for name, label, colour in parts:
            values = [row.get(name) or np.nan for row in history]  # 0 has no place on a log scale
            if not np.isnan(values).all():
                left.plot(epochs, values, label=label, color=colour, marker=".")
        left.set(
            xlabel="epoch", ylabel="training loss", title="What training minimises", yscale="log"
        )
        for name in ("global", "local", "mixed"):
            right.plot(
                epochs,
                [row[f"rsum_{name}"] for row in history],
                label=name,
                color=COLOURS[name],
                marker=".",
            )
        right.set(xlabel="epoch", ylabel="validation rsum (of 600)", title="What it is for")
        for ax in (left, right):
            for turn in turns:
                ax.axvline(turn, color="grey", linestyle="--", linewidth=1)
        left.legend(frameon=True, ncols=2, fontsize=8)
        right.legend(frameon=True)


def shortlist_curve(report: dict, path: Path | str | None = None) -> None:
    """rsum of two-stage search against the shortlist's size, between global-only and full
    scoring.
    """
    curve = {int(k): value for k, value in report["two_stage_by_shortlist"].items()}
    with figure(
        path, 6.5, 3.8, "rsum of two-stage search rising with the shortlist towards full scoring."
    ) as ax:
        ax.plot(
            list(curve),
            list(curve.values()),
            color=COLOURS["two-stage"],
            marker="o",
            label="two-stage",
        )
        lines = (
            ("global", "global only", COLOURS["global"], ":"),
            ("full mixed", "scoring everything", "black", "--"),
        )
        for name, label, colour, style in lines:
            ax.axhline(report["rows"][name]["rsum"], color=colour, linestyle=style, label=label)
        ax.set(
            xscale="log",
            xlabel="shortlist size",
            ylabel="rsum (of 600)",
            title="How long a shortlist is enough?",
        )
        ax.set_xticks(list(curve), [str(k) for k in curve])
        ax.minorticks_off()
        ax.legend(frameon=True)


def search_times(report: dict, path: Path | str | None = None) -> None:
    """Agreement with full scoring against milliseconds a query: a line a size of gallery, a point a
    shortlist.

    report: of `bench.run`, fresh or read back from JSON. A star stands where all of a gallery is
    scored.
    """
    shades = ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7")
    alt = "Agreement with full scoring against time: for each gallery a line that rises with K, and a star far right."
    with figure(path, 7, 4, alt) as ax:
        for shade, (size, curve) in zip(shades, report["curves"].items()):
            points = curve["two-stage"]
            times, found = ([point[name] for point in points] for name in ("ms", "agreement"))
            ax.plot(times, found, color=shade, marker="o", label=f"{int(size):,} pictures")
            ax.plot(curve["full"], 100, color=shade, marker="*", markersize=14)
            ax.annotate(
                f"K {points[0]['shortlist']}",
                (times[0], found[0]),
                (0, -13),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
            ax.annotate(
                f"K {points[-1]['shortlist']}",
                (times[-1], found[-1]),
                (0, 6),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
        ax.plot(
            [], [], color="grey", marker="*", markersize=12, linestyle="", label="everything scored"
        )
        ax.set(
            xscale="log",
            ylim=(None, 105),
            xlabel="CPU milliseconds a query",
            ylabel="ten best answers found (%)",
            title="Most of the answers, much sooner",
        )
        ax.legend(frameon=True, loc="lower right")


def comparison(report: dict, path: Path | str | None = None) -> None:
    """R@1 both ways of global, local and two-stage scoring, beside the oracle's."""
    names = ("global", "local", "two-stage")
    alt = "Bars of R@1 both ways for global, local and two-stage scoring; a dashed line is the oracle's."
    with figure(path, 7, 3.4, alt) as ax:
        for place, name in enumerate(names):
            values = [_percent(report["rows"][name][way], 1) for way in ("i2t", "t2i")]
            bars = ax.bar(
                np.arange(2) + 0.26 * (place - 1), values, 0.24, color=COLOURS[name], label=name
            )
            ax.bar_label(bars, fmt="%.1f", fontsize=9)
        if "oracle" in report:
            for at, way in enumerate(("i2t", "t2i")):
                known = _percent(report["oracle"][way], 1)
                label = "oracle" if at == 0 else None
                ax.plot(
                    [at - 0.42, at + 0.42],
                    [known, known],
                    color="black",
                    linestyle="--",
                    label=label,
                )
        ax.set_xticks(range(2), ["image to text", "text to image"])
        ax.set(ylabel="R@1 (%)", ylim=(0, 105), title="The first answer is right")
        ax.grid(axis="x", visible=False)
        ax.legend(frameon=True, loc="center left", bbox_to_anchor=(1, 0.5))


def _percent(recalls, k):
    """R@k of a report fresh from `assess` (int keys) or read back from JSON (str keys)."""
    return recalls[k] if k in recalls else recalls[str(k)]


def hits(
    queries: list, pictures: list[list], right: list[list[bool]], scores=None, path=None
) -> None:
    """A page of searches: each row a caption, then its best pictures; a frame says right (green) or
    wrong (orange).

    queries: N str (or N pictures); pictures: N lists of K pictures (or str); right: N lists of K
    bool, None: unknown.
    """
    rows, columns = len(queries), 1 + max(len(row) for row in pictures)
    searches = f"{rows} searches, one a row" if rows > 1 else "One search"
    alt = f"{searches}: the query, then its best answers from left to right."
    with figure(path, 1.5 * columns + 0.5, 1.6 * rows, alt, rows=rows, columns=columns) as axes:
        axes = np.asarray(axes).reshape(rows, columns)
        for row in range(rows):
            _tile(axes[row, 0], queries[row])
            for place in range(columns - 1):
                if place >= len(pictures[row]):
                    axes[row, place + 1].axis("off")
                    continue
                known = right is not None and right[row] is not None
                colour = (
                    (COLOURS["two-stage"] if right[row][place] else COLOURS["miss"])
                    if known
                    else "grey"
                )
                title = f"{place + 1}" + (
                    f": {scores[row][place]:.2f}" if scores is not None else ""
                )
                _tile(axes[row, place + 1], pictures[row][place], colour, title)


def _tile(ax, content, frame=None, title=""):
    import textwrap

    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    if isinstance(content, str):
        text = textwrap.fill(textwrap.shorten(content, 130, placeholder=" ..."), 20)
        ax.text(
            0.5,
            0.5,
            text,
            ha="center",
            va="center",
            fontsize=8,
            transform=ax.transAxes,
            in_layout=False,
        )
    else:
        ax.imshow(np.asarray(content))
    for spine in ax.spines.values():
        spine.set_visible(frame is not None)
        spine.set(color=frame, linewidth=3)
    ax.set_title(title, fontsize=9)


def word_regions(
    picture, words: list[str], similarities, boxes, path: Path | str | None = None
) -> None:
    """One small map a word: each region of the picture shaded by its similarity, the best one
    framed.

    similarities (W, R) of a caption's words with the picture's regions; boxes (R, 4) as fractions.
    """
    similarities, boxes = np.asarray(similarities), np.asarray(boxes)
    pixels = np.asarray(picture.convert("RGB"))
    high, wide = pixels.shape[:2]
    columns = min(7, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    alt = (
        "A picture, then one map a word: "
        + ", ".join(words)
        + ". The region most like the word is framed."
    )
    with figure(path, 1.6 * columns, 1.8 * rows, alt, rows=rows, columns=columns) as axes:
        flat = np.asarray(axes).reshape(-1)
        for ax in flat:
            ax.axis("off")
        flat[0].imshow(pixels)
        flat[0].set_title("picture", fontsize=9)
        for ax, word, row in zip(flat[1:], words, similarities):
            light = np.full((high, wide), 0.25)
            shares = np.clip(row, 0, 1)
            for box, share in sorted(zip(boxes, shares), key=lambda pair: pair[1]):
                x0, y0, x1, y1 = (int(round(v * s)) for v, s in zip(box, (wide, high, wide, high)))
                light[y0:y1, x0:x1] = np.maximum(light[y0:y1, x0:x1], 0.25 + 0.75 * share)
            grey = pixels.mean(axis=2, keepdims=True) * 0.3 + 178
            ax.imshow((pixels * light[..., None] + grey * (1 - light[..., None])).astype(np.uint8))
            x0, y0, x1, y1 = boxes[row.argmax()] * (wide, high, wide, high)
            ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=COLOURS["miss"], linewidth=2)
            ax.set_title(f"{word} {row.max():.2f}", fontsize=9)
