"""The embedded data set: 8,000 drawn pictures of coloured shapes, with five captions each.

`load` gives the pictures and captions, and false captions in its column `foils`; `truth` says which
scenes make a caption true, and `oracle` what knowing that, and guessing evenly, would score. How a
scene looks is in `world.py`, in which words it is talked about in `words.py`, `grammar.py` and
`sentences.py`, what is true of it in `truth.py`; `splits.py`, `dataset.py` and `judging.py` make
all of it for a whole split.
No photograph, no download: train on it in minutes, then use the same code on photographs.
"""

from tgdt_mini.scenes.dataset import checksums, draw, draw_scene, load, picture, published
from tgdt_mini.scenes.judging import hard_negatives, is_false, oracle, readings, truth
from tgdt_mini.scenes.splits import (
    CAPTIONS,
    SPLITS,
    captions_of,
    id_of,
    is_id,
    is_split,
    scenes_of,
    seeds_of,
)

__all__ = [
    "CAPTIONS",
    "SPLITS",
    "captions_of",
    "checksums",
    "draw",
    "draw_scene",
    "hard_negatives",
    "id_of",
    "is_false",
    "is_id",
    "is_split",
    "load",
    "oracle",
    "picture",
    "published",
    "readings",
    "scenes_of",
    "seeds_of",
    "truth",
]
