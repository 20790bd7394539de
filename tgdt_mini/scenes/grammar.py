"""What people might say of a scene: meanings of captions, chosen at random, and their foils.

`describe` chooses a meaning, `write` in `sentences.py` puts it into words. The words are in
`words.py`; whether a meaning is true of a scene is decided in `truth.py`.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from tgdt_mini.scenes.sentences import Meaning, Mention, write
from tgdt_mini.scenes.words import (
    ANY_SHAPE,
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    NUMBER_WORDS,
    OPPOSITE,
    POSITION_WORDS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
)
from tgdt_mini.scenes.world import SIDE, Scene, footprint, pick

LEAST_FACTS = 5  # a caption of "two diamonds" would be true of too many scenes
LEAST_SHARED = 12  # pixels that one thing covers of another before it is in front of it
APART = SIDE // 8  # pixels between centres before one thing is left of, or above, another


def related(scene: Scene, first: int, relation: str, second: int) -> bool:
    """Whether thing `first` stands in `relation` to thing `second`."""
    if relation in ("right", "below", "behind", "smaller"):
        return related(scene, second, OPPOSITE[relation], first)
    one, other = scene.things[first], scene.things[second]
    if relation == "left":
        return other.x - one.x >= APART
    if relation == "above":
        return other.y - one.y >= APART
    if relation == "bigger":
        return one.size == "big" and other.size == "small"
    if (
        first < second
        or max(abs(one.x - other.x), abs(one.y - other.y)) > one.radius + other.radius
    ):
        return False
    return bool((footprint(one) & footprint(other)).sum() >= LEAST_SHARED)


def is_at(thing, position: str) -> bool:
    """Whether a thing is in a part of the picture: its outer three eighths, or the middle."""
    x, y, low, high = thing.x, thing.y, SIDE * 3 // 8, SIDE * 5 // 8
    middle = low < x < high and low < y < high
    return {
        "left": x <= low,
        "right": x >= high,
        "top": y <= low,
        "bottom": y >= high,
        "middle": middle,
    }[position]


def captions(scene: Scene, count: int = 5) -> list[Meaning]:
    """`count` meanings, all true of the scene and all worded differently."""
    rng, meanings = random.Random(scene.seed + 700_000_000), {}
    while len(meanings) < count:
        meaning = describe(scene, rng)
        if facts(meaning) >= LEAST_FACTS:
            meanings.setdefault(write(meaning)[0], meaning)
    return list(meanings.values())


def facts(meaning: Meaning) -> float:
    """How much a caption says, in facts.

    A colour, shape, number, relation or background is 1, a size or a position 1/2.
    """
    said = sum(part is not None for part in (meaning.relation, meaning.background))
    said += bool(meaning.total)
    for mention in meaning.mentions:
        said += (mention.shape is not None) + (mention.colour is not None)
        said += bool(mention.number_word)
        said += 0.5 * ((mention.size is not None) + (mention.position is not None))
    return said


def describe(scene: Scene, rng: random.Random) -> Meaning:
    """A meaning chosen at random among what can truly be said of the scene."""
    kind, order = rng.random(), list(range(len(scene.things)))
    for i in range(len(order) - 1, 0, -1):  # a shuffle from rng.random() alone
        j = int(rng.random() * (i + 1))
        order[i], order[j] = order[j], order[i]
    background = scene.background if rng.random() < 0.4 else None
    background_words = pick(rng, BACKGROUND_WORDS[scene.background])
    form = int(rng.random() * 60)
    said = dict(
        background=background, background_words=background_words if background else "", form=form
    )
    if kind < 0.5:
        relations = [name for name in RELATION_WORDS if related(scene, order[0], name, order[1])]
        if relations:
            relation = pick(rng, relations)
            words = pick(rng, RELATION_WORDS[relation])
            sized = relation in ("bigger", "smaller")  # "a big star bigger than ..." says nothing
            pair = tuple(_mention(scene, (i,), rng, sized=not sized) for i in order[:2])
            return Meaning(pair, relation, words, **said)
    if kind < 0.7:
        group = _group(scene, order[0], rng)
        if group:
            rest = [i for i in order if not _fits(scene, i, group)][:1]
            return Meaning((group, *(_mention(scene, (i,), rng) for i in rest)), **said)
    if kind < 0.85:
        several = order[: min(len(order), 2 + int(rng.random() * 2))]
        total = len(order) if rng.random() < 0.3 else 0
        return Meaning(tuple(_mention(scene, (i,), rng) for i in several), total=total, **said)
    first = _mention(scene, (order[0],), rng)
    positions = [position for position in POSITION_WORDS if is_at(scene.things[order[0]], position)]
    if positions:
        position = pick(rng, positions)
        first = replace(
            first, position=position, position_words=pick(rng, POSITION_WORDS[position])
        )
    rest = order[1 : 1 + int(rng.random() * 2)]
    return Meaning((first, *(_mention(scene, (i,), rng) for i in rest)), **said)


def _mention(scene, things, rng, sized=True):
    thing = scene.things[things[0]]
    says_colour, says_shape = rng.random() < 0.9, rng.random() < 0.92
    says_size, in_colour = sized and rng.random() < 0.35, rng.random() < 0.12
    return Mention(
        things,
        thing.shape if says_shape or not says_colour else None,
        thing.colour if says_colour else None,
        thing.size if says_size else None,
        pick(rng, SHAPE_WORDS[thing.shape] if says_shape or not says_colour else ANY_SHAPE),
        pick(rng, COLOUR_WORDS[thing.colour]) if says_colour else "",
        pick(rng, SIZE_WORDS[thing.size]) if says_size else "",
        in_colour=in_colour and says_colour,
    )


def _fits(scene, index, mention):
    thing = scene.things[index]
    return all(
        wanted in (None, has)
        for wanted, has in (
            (mention.shape, thing.shape),
            (mention.colour, thing.colour),
            (mention.size, thing.size),
        )
    )


def _group(scene, index, rng):
    """A plural mention of the thing's group, such as "two blue stars"; None if it is alone."""
    wide = _mention(scene, (index,), rng)
    options = [
        replace(wide, size=None, size_word=""),
        replace(wide, size=None, size_word="", colour=None, colour_word="", in_colour=False),
        replace(wide, size=None, size_word="", shape=None, noun=ANY_SHAPE[0]),
    ]
    options = [mention for mention in options if mention.shape or mention.colour]
    for mention in options[int(rng.random() * len(options)) :]:
        members = tuple(i for i in range(len(scene.things)) if _fits(scene, i, mention))
        if len(members) > 1:
            number = pick(rng, NUMBER_WORDS[len(members)])
            return replace(mention, things=members, number_word=number)
    return None


def foil(meaning: Meaning) -> list[Meaning]:
    """All foils of a meaning, true or not: two attributes swapped, or the relation reversed.

    Winoground (Thrush et al., CVPR 2022) and SugarCrepe (Hsieh et al., NeurIPS 2023) test models
    this way.
    """
    foils, pair = [], meaning.mentions[:2]
    if len(pair) == 2 and not any(mention.number_word for mention in pair):
        one, other, *rest = meaning.mentions
        for kind, names in (("colour", ("colour", "colour_word")), ("shape", ("shape", "noun"))):
            values = getattr(one, kind), getattr(other, kind)
            if None not in values and values[0] != values[1]:
                swapped = [
                    replace(here, **{name: getattr(there, name) for name in names})
                    for here, there in ((one, other), (other, one))
                ]
                foils.append(replace(meaning, mentions=(*swapped, *rest)))
    if meaning.relation:
        opposite = OPPOSITE[meaning.relation]
        at = RELATION_WORDS[meaning.relation].index(meaning.relation_words)
        words = RELATION_WORDS[opposite][at]
        foils.append(replace(meaning, relation=opposite, relation_words=words))
    return foils


def changes(meaning: Meaning) -> Iterator[Meaning]:
    """What a caption with one change may mean: a swap, or the relation reversed.

    As `foil`, but any two mentions may have changed places in colour or shape.
    """
    yield from foil(meaning)
    mentions = meaning.mentions
    for one, other in combinations(range(len(mentions)), 2):
        for names in (("colour", "colour_word"), ("shape", "noun")):
            swapped = list(mentions)
            for here, there in ((one, other), (other, one)):
                values = {name: getattr(mentions[there], name) for name in names}
                swapped[here] = replace(mentions[here], **values)
            if all(mention.shape or mention.colour for mention in swapped):
                yield replace(meaning, mentions=tuple(swapped))
