"""Each figure is a picture of sensible size, returns None, and leaves no figure open."""

import io
import json
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tgdt_mini import scenes
from tgdt_mini.reports import figure, plots

matplotlib.use("Agg")


def test_the_style_is_seaborn_s_whitegrid():
    seaborn = pytest.importorskip("seaborn")
    known, ours = seaborn.axes_style("whitegrid"), figure.STYLE
    for name in known.keys() - {"font.sans-serif", "image.cmap"}:  # these are seaborn's own
        with matplotlib.rc_context(known):
            value = matplotlib.rcParams[name]
        with matplotlib.rc_context(ours):
            own = matplotlib.rcParams[name]
        is_colour = "color" in name and not isinstance(value, bool)
        same = matplotlib.colors.to_rgb if is_colour else str
        assert same(own) == same(value), name


def history(epochs=4):
    return [
        {
            "epoch": e + 1,
            "loss": 3 - 0.5 * e,
            "inter_global": 1 - 0.1 * e,
            "inter_local": 1 - 0.2 * e,
            "intra": 0.1,
            "hard_caption_loss": 0.2,
            "contrastive": "info_nce" if e < 2 else "hardest",
            "stage": "joint",
            "rsum_global": 100 + e,
            "rsum_local": 120 + e,
            "rsum_mixed": 130 + e,
        }
        for e in range(epochs)
    ]


def report():
    def recalls(value):
        return {k: value + k for k in (1, 5, 10)}

    rows = {
        name: {"i2t": recalls(value), "t2i": recalls(value - 5), "rsum": 6.0 * value}
        for name, value in (("global", 50), ("local", 60), ("full mixed", 66), ("two-stage", 65))
    }
    return {
        "rows": rows,
        "oracle": {"i2t": recalls(89), "t2i": recalls(80)},
        "two_stage_by_shortlist": {5: 330.0, 10: 360.0, 50: 390.0, 200: 396.0},
    }


def curves():
    def points(step):
        return [
            {"shortlist": k, "ms": step * (2 + k / 100), "agreement": 60 + k / 10}
            for k in (10, 50, 200)
        ]

    return {
        "curves": {
            str(size): {"full": size / 10, "two-stage": points(size / 1000)}
            for size in (1000, 10_000)
        }
    }


PICTURES = [scenes.picture(f"test-000{i}") for i in range(3)]
FIGURES = {
    "loss_curve": lambda path: plots.loss_curve(history(), path),
    "loss_curve of one epoch": lambda path: plots.loss_curve(history(1), path),
    "shortlist_curve": lambda path: plots.shortlist_curve(report(), path),
    "comparison": lambda path: plots.comparison(report(), path),
    "comparison read back": lambda path: plots.comparison(json.loads(json.dumps(report())), path),
    "shortlist_curve read back": lambda path: plots.shortlist_curve(
        json.loads(json.dumps(report())), path
    ),
    "comparison without oracle": lambda path: plots.comparison({"rows": report()["rows"]}, path),
    "search_times": lambda path: plots.search_times(curves(), path),
    "search_times read back": lambda path: plots.search_times(
        json.loads(json.dumps(curves())), path
    ),
    "hits": lambda path: plots.hits(
        ["a star", "a long caption " * 4],
        [PICTURES, PICTURES[:2]],
        [[True, False, False], [False, True]],
        path=path,
    ),
    "hits of a picture": lambda path: plots.hits(
        [PICTURES[0]], [["a star", "two moons"]], None, [[0.5, 0.25]], path
    ),
    "hits that are judged in words": lambda path: plots.hits(
        ["a star"], [PICTURES], [["own", "true", "false"]], [[0.5, 0.4, 0.3]], path
    ),
    "word_table": lambda path: plots.word_table(
        PICTURES[0],
        ["a", "star"],
        [[0.1, -0.2], [0.2, 0.9]],
        [[0, 0, 0.5, 0.5], [0, 0, 1, 1]],
        path,
    ),
    "word_regions": lambda path: plots.word_regions(
        PICTURES[0],
        ["a", "red", "star"],
        np.eye(3)[:, :2] - 0.1,
        [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]],
        path,
    ),
    "word_regions of one word": lambda path: plots.word_regions(
        PICTURES[0], ["star"], [[0.3]], [[0, 0, 1, 1]], path
    ),
    "word_regions of many words": lambda path: plots.word_regions(
        PICTURES[0], ["word"] * 15, np.zeros((15, 1)), [[0, 0, 1, 1]], path
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_written_as_png_and_nothing_is_returned(name, tmp_path):
    import matplotlib.pyplot as plt

    path = tmp_path / "new folder" / "figure.png"
    assert FIGURES[name](path) is None
    with Image.open(path) as picture:
        assert (
            picture.format == "PNG"
            and 150 <= picture.size[0] <= 1600
            and 100 <= picture.size[1] <= 1600
        )
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[0, 0] == 255).all()  # white ground
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10  # something is drawn
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_a_path_writes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert FIGURES[name](None) is None
    assert not list(tmp_path.iterdir())


def test_the_curves_of_the_losses_parts_add_up_to_the_total_and_a_part_never_learnt_from_has_none(
    tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(figure, "_png", lambda fig: drawn.append(fig.axes[0].get_lines()) or b"")

    def curves(rows):
        plots.loss_curve(rows, tmp_path / "curve.png")
        return {
            line.get_label(): line.get_ydata()
            for line in drawn[-1]
            if not line.get_label().startswith("_")
        }

    rows = [
        row
        | {
            "loss": sum(
                row[part] for part in ("inter_global", "inter_local", "intra", "hard_caption_loss")
            )
        }
        for row in history()
    ]
    total, *parts = curves(rows).values()
    assert len(parts) == 4 and np.allclose(sum(parts), total)
    without = curves([row | {"hard_caption_loss": 0.0} for row in rows])
    assert list(without) == ["total", "inter, global", "inter, local", "intra"]
    tiny = curves([row | {"intra": 1e-3 * row["loss"]} for row in rows])
    assert list(tiny) == ["total", "inter, global", "inter, local", "hard captions"]
    staged = curves([row | {"inter_local": 0.0 if row["epoch"] > 2 else 1.0} for row in rows])
    assert np.isnan(staged["inter, local"]).tolist() == [False, False, True, True]


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("one.png", "two.png"):
        plots.comparison(report(), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_frame_of_a_hit_says_whether_it_is_right(tmp_path):
    plots.hits(["a"], [[PICTURES[0]]], [[True]], path=tmp_path / "right.png")
    plots.hits(["a"], [[PICTURES[0]]], [[False]], path=tmp_path / "wrong.png")
    right, wrong = (colours_of(tmp_path / f"{name}.png") for name in ("right", "wrong"))
    assert (0, 158, 115) in right - wrong  # green
    plots.hits(["a"], [[PICTURES[0]]], None, path=tmp_path / "unknown.png")
    assert colours_of(tmp_path / "unknown.png") == wrong
    plots.hits(["a"], [[PICTURES[0]]], [None], path=tmp_path / "one unknown.png")
    assert colours_of(tmp_path / "one unknown.png") == wrong
    for rows in ([None, None], [[True, True]]):
        with pytest.raises(ValueError, match="queries, pictures, right and scores do not fit"):
            plots.hits(["a"], [[PICTURES[0]]], rows)


def test_true_and_false_answers_are_told_apart_by_a_mark_and_a_word(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "_png", lambda fig: drawn.append(fig.axes[1:]) or b"")
    words = plots.marks([1, 0, 2], 1, np.array([True, True, False]))
    assert words == ["own", "true", "false"]
    plots.hits(["a star"], [PICTURES], [words], [[0.5, 0.4, 0.3]], tmp_path / "hits.png")
    seen = [(ax.get_title()[0], ax.get_xlabel()) for ax in drawn[-1]]
    assert seen == [("\u2713", "its own"), ("\u2713", "true"), ("\u2717", "false")]
    plots.hits(["a star"], [PICTURES], [[True, False, False]], None, tmp_path / "hits.png")
    assert [ax.get_title() for ax in drawn[-1]] == ["\u2713 1", "2", "3"]
    with pytest.raises(ValueError, match="right holds 'rigth'; give bools, or one of own"):
        plots.hits(["a star"], [PICTURES], [["rigth"] * 3], None, tmp_path / "hits.png")


def test_a_word_has_the_colour_of_its_best_region(tmp_path, monkeypatch):
    from matplotlib.colors import to_hex

    drawn = []
    monkeypatch.setattr(figure, "_png", lambda fig: drawn.append(fig.axes[1]) or b"")
    similarities = [[0.1, -0.2], [0.2, 0.9], [0.3, 0.2]]
    boxes = [[0, 0, 0.5, 0.5], [0, 0, 1, 1]]
    words = ["a", "$star$", "is"]
    plots.word_table(PICTURES[0], words, similarities, boxes, tmp_path / "words.png")
    table = drawn[-1]
    assert [label.get_text() for label in table.get_yticklabels()] == words
    colours = [to_hex(label.get_color()) for label in table.get_yticklabels()]
    assert colours == [plots.WORDS[0], plots.WORDS[1], plots.WORDS[0]]
    numbers = [(text.get_text(), *text.get_position()) for text in table.texts]
    assert numbers == [("0.10", 0, 0), ("0.90", 1, 1), ("0.30", 0, 2)]  # text, column, row


def test_a_region_is_framed_where_it_is_in_a_picture_of_any_shape(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "_png", lambda fig: drawn.append(fig.axes[0].lines[0]) or b"")
    wide = Image.new("RGB", (300, 100))
    for draw in (plots.word_regions, plots.word_table):
        draw(wide, ["a"], [[0.5]], [[0.5, 0.2, 1, 0.8]], tmp_path / "words.png")
        x, y = drawn[-1].get_data()
        assert (min(x), max(x), min(y), max(y)) == (150, 298, 20, 80)


def colours_of(path):
    with Image.open(path) as picture:
        return {
            tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
        }


def test_a_figure_that_cannot_be_written_is_an_error_and_is_closed(tmp_path):
    import matplotlib.pyplot as plt

    (tmp_path / "file").write_text("a file", encoding="utf-8")
    with pytest.raises(OSError):
        plots.comparison(report(), tmp_path / "file" / "figure.png")
    assert not plt.get_fignums()


def test_a_very_long_caption_is_shortened_and_leaves_the_pictures_their_place(tmp_path, recwarn):
    plots.hits(["a star and a moon " * 20], [PICTURES], None, path=tmp_path / "long.png")
    plots.hits(["a star"], [PICTURES], None, path=tmp_path / "short.png")
    assert not [warning for warning in recwarn if "layout" in str(warning.message)]
    with Image.open(tmp_path / "long.png") as one, Image.open(tmp_path / "short.png") as other:
        assert one.size == other.size


HOSTILE = ["a $5 shirt and a $10 hat", "pay $$ now", "a sign: $x_{ and $ here", "\\frac{", "a\nb"]
HOSTILE += [
    "dog \ud83d",
    "a\x00\x07b",
    "\U0001f436 \u661f",
    "\u202eabc",
    "%s {0} #",
    "x" * 9999,
    " ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_can_be_drawn(text, tmp_path, recwarn):
    plots.hits([text], [[text, text]], None, None, tmp_path / "hits.png")
    plots.word_regions(
        Image.new("RGB", (8, 8)), [text], np.ones((1, 1)), [[0, 0, 1, 1]], tmp_path / "words.png"
    )
    assert not recwarn.list and len(list(tmp_path.iterdir())) == 2


def test_dollars_are_drawn_as_text(tmp_path):
    """As mathematics, the caption without its dollars would look the same in italics."""
    for name, text in (("text", r"cost $ 5 + 6 $"), ("escaped", r"cost \$ 5 + 6 \$")):
        plots.hits([text], [[]], None, None, tmp_path / f"{name}.png")
    one, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("text", "escaped"))
    assert one != other  # a backslash is drawn too


def test_a_kernel_shows_figures_whatever_mplbackend_says(monkeypatch):
    shown = []
    monkeypatch.setattr(figure, "_display", lambda png, alt: shown.append(alt))
    for shell in (None, SimpleNamespace(kernel=1)):
        ipython = SimpleNamespace(get_ipython=partial(lambda shell: shell, shell))
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        with figure.figure(alt="A line.") as ax:
            ax.plot([1, 2])
        assert shown == (["A line."] if shell else [])


def test_a_file_needs_no_screen(tmp_path):
    code = "import sys; from tgdt_mini import plots; "
    code += "plots.hits(['a'], [['b']], None, None, sys.argv[1])"
    python = [sys.executable, "-c", code, tmp_path / "a.png"]
    subprocess.run(python, env=os.environ | {"MPLBACKEND": "TkAgg", "DISPLAY": ""}, check=True)
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("backend, kept", [("nonsense", False), ("svg", True)])
def test_a_backend_that_is_none_ends_nothing_and_one_that_is_one_counts(tmp_path, backend, kept):
    code = "import os, sys; from tgdt_mini.reports.figure import figure\n"
    code += "with figure(sys.argv[1]) as ax: ax.plot([1, 2])\n"
    code += "import matplotlib; name = matplotlib.rcParams['backend']\n"
    code += "print(name == os.environ['MPLBACKEND'])"
    python = [sys.executable, "-c", code, tmp_path / "a.png"]
    options = {"capture_output": True, "text": True, "check": True}
    done = subprocess.run(python, env=os.environ | {"MPLBACKEND": backend}, **options)
    assert (tmp_path / "a.png").is_file()
    assert done.stdout == f"{kept}\n" and not done.stderr


def test_the_ground_of_a_figure_keeps_its_colour_on_a_page():
    """With few colours near white, the nearest of them would stand for white."""
    squares = np.random.default_rng(0).integers(0, 256, (25, 25, 3), dtype=np.uint8)
    squares[:10] = 255 - squares[:10] % 6  # nearly white, all of them different
    squares[0, 0] = 255
    picture, png = Image.fromarray(np.kron(squares, np.ones((20, 20, 1), np.uint8))), io.BytesIO()
    picture.save(png, "PNG")
    kind, content = figure.for_page(png.getvalue())
    page = Image.open(io.BytesIO(content)).convert("RGB")
    assert kind == "image/png" and len(page.getcolors(1000)) < len(picture.getcolors(1000))
    assert page.getpixel((0, 0)) == (255, 255, 255) == page.getpixel((19, 19))
