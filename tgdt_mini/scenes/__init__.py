"""The embedded data set: 8,000 drawn pictures of coloured shapes, with five captions each.

`load` gives the pictures and captions, and false captions in its column `foils`; `truth` says which
scenes make a caption true, and `oracle` what knowing that, and guessing evenly, would score. How a
scene looks is in `world.py`, in which words it is talked about in `words.py`, `grammar.py` and
`sentences.py`, what is true of it in `truth.py`.
No photograph, no download: train on it in minutes, then use the same code on photographs.
"""

import hashlib
import io
import json
import random
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tgdt_mini.files.check import one_line, one_of, shown, whole_number
from tgdt_mini.files.cores import map_on_cores
from tgdt_mini.files.manifest import is_intact, read_json, seal_folder
from tgdt_mini.files.paths import cache as cache_folder
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.scenes import grammar, world
from tgdt_mini.scenes import truth as truths
from tgdt_mini.scenes.hard_captions import hard_caption
from tgdt_mini.scenes.words import lexicon

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from PIL import Image

SPLITS = {
    "train": (0, 6000),
    "validation": (1_000_000, 1000),
    "test": (2_000_000, 1000),
}  # first seed, scenes
CAPTIONS = 5  # of each scene


def seeds_of(split: str, first: int | None = None) -> range:
    """The seeds of a split's scenes, or of its first ones. ValueError for what is not there."""
    first, (start, count) = _check(split, first), SPLITS[split]
    return range(start, start + (count if first is None else first))


def scenes_of(split: str, first: int | None = None) -> list[world.Scene]:
    """The scenes of a split, or its first ones, undrawn. ValueError for what is not there."""
    return [*_scenes(seeds_of(split, first))]


@lru_cache(maxsize=1)  # an assessment asks for the scenes of a split more than once,
def _scenes(seeds):
    return [world.scene(seed) for seed in seeds]


@lru_cache(maxsize=1)  # and for what their captions mean,
def _meanings(seeds):
    return [grammar.captions(scene, CAPTIONS) for scene in _scenes(seeds)]


@lru_cache(maxsize=1)  # and for the facts of all of them together
def _facts(seeds):
    return truths.World(_scenes(seeds))


def captions_of(split: str) -> list[list[str]]:
    """The captions of each scene of a split, without drawing anything."""
    return [
        [grammar.write(meaning)[0] for meaning in grammar.captions(scene, CAPTIONS)]
        for scene in scenes_of(split)
    ]


def hard_negatives(split: str, first: int | None = None, seed: int = 0) -> list[str]:
    """A hard negative for each caption of a split, in the order of `load`; "" where there is none.

    Each is false of its scene. first: of the split's first scenes; seed: of the random choices.
    """
    rng, kinds, made = random.Random(whole_number("seed", seed)), lexicon(), []
    for scene in scenes_of(split, first):
        for meaning in grammar.captions(scene, CAPTIONS):
            text = grammar.write(meaning)[0]
            made.append(hard_caption(text, kinds, rng, partial(is_false, scene, meaning)))
    return made


def is_false(scene: world.Scene, meaning: grammar.Meaning, text: str) -> bool:
    """Whether the words of a caption with one change are false of its scene.

    Words that are no sentence of the grammar are not false: nobody knows what they mean.
    """
    changed = (other for other in grammar.changes(meaning) if grammar.write(other)[0] == text)
    meant = next(changed, None)
    return meant is not None and not _world_of(scene).true_of(meant)[0]


def id_of(split: str, position: int) -> str:
    """The image_id of a scene by its position in a split: id_of("test", 12) -> "test-0012"."""
    return f"{split}-{position:04d}"


def is_id(image_id: object) -> bool:
    """Whether this is a scene's image_id: "test-0012" is; "test-12" and "test-9999" are not."""
    split, _, number = str(image_id).rpartition("-")
    count = SPLITS[split][1] if split in SPLITS else 0
    return number.isdecimal() and int(number) < count and image_id == id_of(split, int(number))


def is_split(items: list) -> bool:
    """Whether these are the image_ids of a whole split, as galleries of drawn scenes hold them.

    A few own pictures may be called like scenes; all of a split, and in its order, are not.
    """
    split = str(items[0]).rpartition("-")[0] if items else ""
    count = SPLITS[split][1] if split in SPLITS else 0
    return len(items) == count and all(id_of(split, i) == item for i, item in enumerate(items))


def picture(image_id: str) -> "Image.Image":
    """The PIL picture of one scene by its image_id, such as "test-0012"; ValueError if unknown."""
    if not is_id(image_id):
        raise ValueError(
            f"image_id is {image_id!r}; it must be a split, a dash and four digits: test-0012"
        )
    split, _, number = image_id.rpartition("-")
    return world.draw(world.scene(SPLITS[split][0] + int(number)))


def load(split: str, progress: bool = False, first: int | None = None) -> "datasets.Dataset":
    """A `datasets.Dataset` of a split, drawn on first use and kept in the cache.

    To draw train takes half a minute. first: only so many scenes, from the split's beginning; if
    the split is not in the cache yet, no others are drawn.

    Columns: image (PIL, RGB, 112 x 112), image_id (str), captions (5 str), boxes (a list of x0, y0,
    x1, y1 as fractions, one an object), links (a list of {caption, start, end, objects}: these
    characters of that caption speak of those objects), foils (5 str, a caption with two attributes
    swapped or a relation reversed so that it is false; "" where the caption allows none). boxes,
    links and foils are for evaluation: no model sees them in training.
    Raises ValueError for an unknown split, and RuntimeError when this machine draws other pixels
    than it should.
    """
    datasets = import_datasets()
    known, first = published(split), _check(split, first)
    folder = cache_folder() / f"scenes-{split}-{known['pixels'][:8]}{known['text'][:8]}"
    cached = is_intact(folder, "it is drawn again")
    if first is not None and not cached:
        return datasets.Dataset.from_dict(
            draw(split, progress, first), features=_features(datasets)
        )
    if not cached:
        columns, pixels = _draw(split, progress)
        drawn = _checksums(columns, pixels)
        if not _holds(columns["image"][::100], pixels[::100]):
            raise RuntimeError(
                f"the PNGs of the {split} scenes do not hold what was drawn: the Pillow installed "
                "here does not write them right; install that of constraints.txt"
            )
        del pixels  # 38 kB a picture
        if drawn != known:
            raise RuntimeError(
                f"the {split} scenes drawn here have checksums {drawn}, not the published ones: "
                "results would not be comparable. Install the Pillow and numpy of constraints.txt, "
                "or report your versions"
            )
        table = datasets.Dataset.from_dict(columns, features=_features(datasets))
        with whole_folder(folder) as staging, no_bars(datasets):
            table.save_to_disk(str(staging))
            seal_folder(staging)
        if not is_intact(folder, "the cache cannot be used"):
            return table if first is None else table.select(range(first))
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # checksums that fit a table that does not: it fails in many ways
        why = one_line(error)
        raise ValueError(f"{folder} is damaged ({why}); delete it, and it is drawn again") from None
    return dataset if first is None else dataset.select(range(first))


def draw(split: str, progress: bool = False, first: int | None = None) -> dict[str, list]:
    """The columns of a split, or of its first scenes, drawn anew; pictures as PNG bytes."""
    return _draw(split, progress, first)[0]


def _draw(split, progress=False, first=None):
    """(columns, RGB bytes of each picture) of a split, or of its first scenes."""
    bar: dict[str, Any] = dict(progress=progress, desc=f"drawing {split}", unit=" scenes")
    rows, pixels = zip(*map_on_cores(_drawn, seeds_of(split, first), **bar))
    columns: dict[str, list] = {"image": [], "image_id": []}  # first, in this order
    columns |= {name: [row[name] for row in rows] for name in rows[0]}
    return columns | {"image_id": [id_of(split, i) for i in range(len(rows))]}, pixels


def draw_scene(seed: int) -> dict:
    """A row of the data set without its image_id, drawn from the scene's seed."""
    return _drawn(whole_number("seed", seed, 0))[0]


def _drawn(seed):
    """(what `draw_scene` gives, RGB bytes of the picture)."""
    scene = world.scene(seed)
    meanings, drawn = grammar.captions(scene, CAPTIONS), world.draw(scene)
    written = [grammar.write(meaning) for meaning in meanings]
    row = {
        "image": {"bytes": _png(drawn), "path": None},
        "captions": [text for text, _ in written],
        "boxes": [list(thing.box) for thing in scene.things],
        "links": [
            {"caption": c, "start": start, "end": end, "objects": list(things)}
            for c, (_, links) in enumerate(written)
            for start, end, things in links
        ],
        "foils": _foils(scene, meanings),
    }
    return row, drawn.tobytes()


def _check(split, first=None):
    """How many scenes: `first` as an int, or None for all. ValueError for what is not there."""
    one_of("split", split, SPLITS)
    try:
        return None if first is None else whole_number("first", first, 1, SPLITS[split][1])
    except ValueError:
        text = f"first is {shown(first)}; {split} has 1 to {SPLITS[split][1]} scenes"
        raise ValueError(text) from None


def oracle(
    split: str, first: int | None = None, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """{"i2t": {k: percent}, "t2i": ...}: R@K on a split of guessing among what is true.

    first: of the split's first scenes. A yardstick, not an upper bound: see `truth.py`.
    """
    import numpy as np

    true = truth(split, first)
    return truths.oracle(true, np.repeat(np.arange(len(true)), CAPTIONS), ks)


def truth(split: str, first: int | None = None) -> "np.ndarray":
    """(I, C) bool array: whether caption c, in the order of `load`, is true of scene i."""
    return _truth(seeds_of(split, first)).copy()


@lru_cache(maxsize=1)
def _truth(seeds):
    return _facts(seeds).truth([meaning for own in _meanings(seeds) for meaning in own])


def readings(split: str, first: int | None = None) -> list[list[dict[tuple[int, ...], float]]]:
    """What each caption of a split can mean, scene by scene; see `World.readings` in `truth.py`."""
    seeds = seeds_of(split, first)
    meanings, facts = _meanings(seeds), _facts(seeds)
    return [[facts.readings(i, meaning) for meaning in own] for i, own in enumerate(meanings)]


def published(split: str) -> dict[str, str]:
    """The checksums of a split that `data/checksums.json` gives: what `checksums` must find."""
    _check(split)
    path, sums = shipped() / "checksums.json", {"pixels": str, "text": str}
    cure = "install the project again"
    known = read_json(path, {split: dict}, "list of checksums", cure, sealed=False)[split]
    if not all(isinstance(known.get(name), kind) for name, kind in sums.items()):
        raise ValueError(f"{path} is damaged (checksums of {split}); {cure}")
    return known


def checksums(columns: "dict | datasets.Dataset") -> dict[str, str]:
    """SHA-256 of drawn columns: {"pixels": of RGB bytes, "text": of text and truth as JSON}."""
    from PIL import Image

    opened = (
        Image.open(io.BytesIO(image["bytes"])) if isinstance(image, dict) else image
        for image in columns["image"]
    )
    return _checksums(columns, (image.convert("RGB").tobytes() for image in opened))


def _checksums(columns, pixels):
    """The same of columns and of the RGB bytes of each picture."""
    of_pixels = hashlib.sha256()
    for picture_bytes in pixels:
        of_pixels.update(picture_bytes)
    rows = [
        [columns[name][i] for name in ("image_id", "captions", "boxes", "links", "foils")]
        for i in range(len(columns["image_id"]))
    ]
    text = hashlib.sha256(json.dumps(rows, sort_keys=True).encode("utf-8"))
    return {"pixels": of_pixels.hexdigest(), "text": text.hexdigest()}


def _holds(images, pixels):
    """Whether the PNGs hold these RGB bytes."""
    from PIL import Image

    opened = (Image.open(io.BytesIO(image["bytes"])) for image in images)
    return all(image.tobytes() == drawn for image, drawn in zip(opened, pixels))


def _foils(scene, meanings):
    """One false foil a caption, "" where there is none. Kinds take turns by the scene's number."""
    here, chosen = _world_of(scene), []
    for meaning in meanings:
        false = [foil for foil in grammar.foil(meaning) if not here.true_of(foil)[0]]
        chosen.append(grammar.write(false[scene.seed % len(false)])[0] if false else "")
    return chosen


@lru_cache(maxsize=1)
def _world_of(scene):
    """The facts of one scene, several captions of which are judged one after the other."""
    return truths.World([scene])


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _features(datasets):
    text, number = datasets.Value("string"), datasets.Value("int32")
    return datasets.Features(
        image=datasets.Image(),
        image_id=text,
        captions=datasets.List(text),
        boxes=datasets.List(datasets.List(datasets.Value("float64"))),
        links=datasets.List(
            {"caption": number, "start": number, "end": number, "objects": datasets.List(number)}
        ),
        foils=datasets.List(text),
    )
