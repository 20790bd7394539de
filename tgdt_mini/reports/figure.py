"""The style of all figures: white ground, colours for all eyes, the same sizes; how one is shown.

In a notebook a picture carries its description (`alt`), for readers who hear the page.
"""

import io
from contextlib import contextmanager
from pathlib import Path

COLOURS = {  # told apart by colour-blind readers too
    "global": "#0072b2",
    "local": "#e69f00",
    "two-stage": "#009e73",
    "mixed": "#009e73",
    "miss": "#d55e00",
}
DPI = 90
STYLE = {  # a white ground with a light grid and no ticks, as seaborn's "whitegrid" has it
    "font.size": 10,
    "figure.facecolor": "white",
    "text.color": ".15",
    "axes.labelcolor": ".15",
    "axes.edgecolor": ".8",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": ".8",
    "xtick.color": ".15",
    "ytick.color": ".15",
    "xtick.bottom": False,
    "ytick.left": False,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "white",
    "patch.force_edgecolor": True,
}


@contextmanager
def figure(path: Path | str | None = None, wide: float = 7, high: float = 4, alt: str = "", **grid):
    """Axes to draw on: one, or a 2-D array of them with rows=... and columns=...

    At the end of the block the figure is saved, or shown in a notebook. wide, high: inches. alt:
    one sentence that says what the picture shows.

    Example: with figure(wide=5, high=3, alt="A rising line.") as ax: ax.plot([1, 2])
    """
    import matplotlib.pyplot as plt

    rows, columns = grid.get("rows", 1), grid.get("columns", 1)
    with plt.rc_context(STYLE):
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
    """Show a notebook the picture, with its description as text and where browsers look for it."""
    from IPython.display import display
    from PIL import Image

    # 128 colours, chosen for the picture, take a third of the bytes: notebooks stay small
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.quantize(128, Image.Quantize.MAXCOVERAGE, 2, dither=0)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    output = {"image/png": small.getvalue(), "text/plain": alt}
    display(output, raw=True, metadata={"image/png": {"alt": alt}})
