"""Which scenes each split has, their numbers and names, and what is said of them, undrawn."""

from functools import lru_cache

from tgdt_mini.files.check import one_of, shown, whole_number
from tgdt_mini.scenes import grammar, world

SPLITS = {
    "train": (0, 6000),
    "validation": (1_000_000, 1000),
    "test": (2_000_000, 1000),
}  # first seed, scenes
CAPTIONS = 5  # of each scene


def seeds_of(split: str, first: int | None = None) -> range:
    """The seeds of a split's scenes, or of its first ones. ValueError for what is not there."""
    first, (start, count) = check_split(split, first), SPLITS[split]
    return range(start, start + (count if first is None else first))


def check_split(split, first=None):
    """How many scenes: `first` as an int, or None for all. ValueError for what is not there."""
    one_of("split", split, SPLITS)
    try:
        return None if first is None else whole_number("first", first, 1, SPLITS[split][1])
    except ValueError:
        text = f"first is {shown(first)}; {split} has 1 to {SPLITS[split][1]} scenes"
        raise ValueError(text) from None


def scenes_of(split: str, first: int | None = None) -> list[world.Scene]:
    """The scenes of a split, or its first ones, undrawn. ValueError for what is not there."""
    return [*of_seeds(seeds_of(split, first))]


@lru_cache(maxsize=1)  # an assessment asks more than once for the scenes of a split
def of_seeds(seeds: range) -> list[world.Scene]:
    """The scenes of these seeds, as one list for all who ask."""
    return [world.scene(seed) for seed in seeds]


@lru_cache(maxsize=1)  # asked for as often
def meanings_of(seeds: range) -> list[list[grammar.Meaning]]:
    """The meanings of the captions of each scene, by the scenes' seeds."""
    return [grammar.captions(scene, CAPTIONS) for scene in of_seeds(seeds)]


def captions_of(split: str) -> list[list[str]]:
    """The captions of each scene of a split, without drawing anything."""
    meanings = meanings_of(seeds_of(split))
    return [[grammar.write(meaning)[0] for meaning in own] for own in meanings]


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
