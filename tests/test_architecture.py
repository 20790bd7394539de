"""The picture of the method can be drawn, with any part of it in front."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tgdt_mini.reports.architecture import PARTS, architecture

SHIPPED = Path(__file__).resolve().parent.parent / "docs" / "architecture.png"


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_the_picture_on_the_page_is_one_that_the_code_draws(tmp_path):
    architecture(tmp_path / "all.png")
    drawn, shipped = pixels(tmp_path / "all.png"), pixels(SHIPPED)
    assert drawn.shape == shipped.shape and 780 <= drawn.shape[1] <= 1010
    assert np.abs(drawn - shipped).mean() < 3  # another version of the fonts moves some letters
    assert (drawn[[0, 0, -1, -1], [0, -1, 0, -1]] >= 250).all()  # on a white ground


def test_a_highlighted_part_is_drawn_in_full_and_the_others_fade(tmp_path):
    architecture(tmp_path / "all.png")
    whole = pixels(tmp_path / "all.png")
    ink = {}
    for part in PARTS:
        architecture(tmp_path / f"{part}.png", part)
        ink[part] = 255 - pixels(tmp_path / f"{part}.png").mean()
    assert max(ink.values()) < 0.8 * (255 - whole.mean())
    height = len(whole)
    below = slice(int(0.86 * height), height)  # where two-stage search is
    dark = {part: pixels(tmp_path / f"{part}.png")[below].min() for part in PARTS}
    assert dark["search"] < 60 < min(dark[part] for part in PARTS if part != "search")


def test_an_unknown_part_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="'everything'"):
        architecture(tmp_path / "a.png", highlight="everything")
    assert not list(tmp_path.iterdir())
