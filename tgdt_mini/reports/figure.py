"""The style of all figures: white ground, colours for all eyes, the same sizes; how one is shown.

In a notebook a picture carries its description (`alt`), for readers who hear the page.
"""

import io
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from tgdt_mini.files.whole import write_whole

COLOURS = {  # told apart by colour-blind readers too
    "global": "#0072b2",
    "local": "#e69f00",
    "two-stage": "#009e73",
    "mixed": "#009e73",
    "miss": "#d55e00",
}
DPI = 120  # letters of 10 points can still be read where a page shows a figure at 800 pixels
WIDEST = 8.4  # inches: a notebook's page is no wider
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

    At the end of the block the figure is saved, or shown in a notebook. wide, high: inches; none is
    wider than WIDEST. alt: one sentence that says what the picture shows.

    Example: with figure(wide=5, high=3, alt="A rising line.") as ax: ax.plot([1, 2])
    """
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    rows, columns = grid.get("rows", 1), grid.get("columns", 1)
    options = {"figsize": (min(wide, WIDEST), high), "layout": "constrained"}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # a sign that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # a file needs no screen, and so no backend of pyplot, which may not work here
        fig = Figure(**options) if path is not None else _on_screen(**options)
        axes = fig.subplots(rows, columns, squeeze=False)
        try:
            yield axes[0, 0] if rows * columns == 1 else axes
            if path is not None:
                write_whole(path, _png(fig))
            else:
                _show(fig, alt or "A figure without a description.")
        finally:
            if path is None:
                _close(fig)


def load_matplotlib():
    """The module matplotlib. A backend in MPLBACKEND that it does not know is passed over.

    Its import would end with that; files need no backend, and for a screen it finds one itself.
    """
    known = "matplotlib" in sys.modules
    backend = None if known else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def plain(text: str) -> str:
    """A text that can be drawn: what no font has, such as control signs, becomes a box."""
    return "".join(sign if sign.isprintable() else "\N{WHITE SQUARE}" for sign in text)


def _on_screen(**options):
    import matplotlib.pyplot as plt

    return plt.figure(**options)


def _close(fig):
    import matplotlib.pyplot as plt

    plt.close(fig)


def _show(fig, alt):
    import matplotlib.pyplot as plt

    backend = plt.get_backend().lower()
    if "inline" in backend or (backend == "agg" and _in_notebook()):
        _display(_png(fig), alt)
    elif backend != "agg":
        plt.show()


def _in_notebook():
    """Whether a notebook's kernel runs this. MPLBACKEND=Agg hides that from matplotlib."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def _png(fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _display(png, alt):
    """Show a notebook the picture, with its description as text and where browsers look for it."""
    from IPython.display import display

    kind, content = for_page(png)
    display({kind: content, "text/plain": alt}, raw=True, metadata={kind: {"alt": alt}})


def for_page(png: bytes) -> tuple[str, bytes]:
    """(MIME type, bytes) of a drawn PNG for a notebook: few colours, or JPEG for photographs."""
    from PIL import Image

    # 96 colours, chosen for the picture, take a quarter of the bytes: notebooks stay small
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    plain, photographic = io.BytesIO(), io.BytesIO()
    few = picture.quantize(96, Image.Quantize.MAXCOVERAGE, 2, dither=0)
    corner = (0, 0)
    ground, palette = few.getpixel(corner), few.getpalette()
    palette[3 * ground : 3 * ground + 3] = picture.getpixel(corner)  # white stays white
    few.putpalette(palette)
    few.save(plain, "PNG", optimize=True)
    picture.save(photographic, "JPEG", quality=57, optimize=True, progressive=True)
    if len(photographic.getvalue()) < 0.85 * len(plain.getvalue()):  # mostly photographs
        return "image/jpeg", photographic.getvalue()
    return "image/png", plain.getvalue()
