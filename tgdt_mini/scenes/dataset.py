"""The data set itself: scenes drawn, compared with the published checksums, and kept."""

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

from tgdt_mini.files.check import one_line, whole_number
from tgdt_mini.files.cores import map_on_cores
from tgdt_mini.files.manifest import is_intact, read_json, seal_folder
from tgdt_mini.files.paths import cache as cache_folder
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.scenes import grammar, world
from tgdt_mini.scenes.judging import foils
from tgdt_mini.scenes.splits import CAPTIONS, SPLITS, check_split, id_of, is_id, seeds_of

if TYPE_CHECKING:
    import datasets
    from PIL import Image


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
    known, first = published(split), check_split(split, first)
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
        "foils": foils(scene, meanings),
    }
    return row, drawn.tobytes()


def picture(image_id: str) -> "Image.Image":
    """The PIL picture of one scene by its image_id, such as "test-0012"; ValueError if unknown."""
    if not is_id(image_id):
        raise ValueError(
            f"image_id is {image_id!r}; it must be a split, a dash and four digits: test-0012"
        )
    split, _, number = image_id.rpartition("-")
    return world.draw(world.scene(SPLITS[split][0] + int(number)))


def published(split: str) -> dict[str, str]:
    """The checksums of a split that `data/checksums.json` gives: what `checksums` must find."""
    check_split(split)
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
