"""Which scenes make a caption true, and the oracle: the score of a reader who knows just that.

A caption is true of a scene when different objects can be found for its mentions such that every
attribute, number, position, relation and the background hold. Numbers are exact: "two hearts" is
false where there are three. A caption is often true of several scenes, and the oracle guesses
evenly among them. That is a yardstick and no upper bound, since the scenes are not equally likely:
where there are fewer things to speak of, each caption is likelier. To guess the true scene with the
fewest objects has R@1 91.2 from text to image on the test split, the oracle 86.2.
"""

from functools import partial
from itertools import product
from math import comb
from operator import attrgetter

import numpy as np

from tgdt_mini.scenes.grammar import Meaning, is_at, related
from tgdt_mini.scenes.words import OPPOSITE, POSITION_WORDS
from tgdt_mini.scenes.world import Scene

MOST = 5  # objects in a scene
APART = ~np.eye(MOST, dtype=bool)  # two of them that are not one and the same


class World:
    """Facts of I scenes as arrays: objects (I, MOST) and relations (I, MOST, MOST)."""

    def __init__(self, scenes: list[Scene]):
        def fact(read, empty=""):
            rows = [[read(thing) for thing in scene.things] for scene in scenes]
            return np.array([row + [empty] * (MOST - len(row)) for row in rows])

        self.background = np.array([scene.background for scene in scenes])
        self.total = np.array([len(scene.things) for scene in scenes])
        self.real = np.arange(MOST) < self.total[:, None]  # (I, MOST)
        self.words = {name: fact(attrgetter(name)) for name in ("shape", "colour", "size")}
        self.facts = {name: {} for name in self.words}  # {name: {value: (I, MOST) bool}}, as asked
        self.positions = {
            name: fact(partial(is_at, position=name), False) for name in POSITION_WORDS
        }
        self.relations = {}  # {name: (I, MOST, MOST) bool}
        for name, opposite in OPPOSITE.items():
            if opposite in self.relations:  # the same pairs, the other way round
                self.relations[name] = self.relations[opposite].transpose(0, 2, 1)
            else:
                self.relations[name] = self._relation(scenes, name)

    def _relation(self, scenes, name):
        holds = np.zeros((len(scenes), MOST, MOST), bool)
        for i, scene in enumerate(scenes):
            for a in range(len(scene.things)):
                for b in range(len(scene.things)):
                    holds[i, a, b] = a != b and related(scene, a, name, b)
        return holds

    def fitting(self, mention, rows=slice(None)) -> np.ndarray:
        """(I, MOST) bool: the objects that have the mention's attributes and position.

        rows: of these scenes alone.
        """
        fits = self.real[rows].copy()
        for name, facts in self.facts.items():
            value = getattr(mention, name)
            if value is not None:
                if value not in facts:
                    facts[value] = self.words[name] == value
                fits &= facts[value][rows]
        return fits & self.positions[mention.position][rows] if mention.position else fits

    def true_of(self, meaning: Meaning) -> np.ndarray:
        """(I,) bool: the scenes that the meaning is true of."""
        holds = np.ones(len(self.total), bool)
        if meaning.background:
            holds &= self.background == meaning.background
        if meaning.total:
            holds &= self.total == meaning.total
        singles, taken = [], np.zeros_like(self.real)
        for mention in meaning.mentions:
            fits = self.fitting(mention)
            if mention.number_word:
                holds &= fits.sum(axis=1) == len(mention.things)
                taken |= fits
            else:
                singles.append(fits)
        singles = [fits & ~taken for fits in singles]
        for fits in singles:
            holds &= fits.any(axis=1)
        left = np.flatnonzero(holds)  # L scenes: what follows is the costly part
        if len(singles) < 2 or not len(left):
            return holds
        one, other, *third = (fits[left] for fits in singles)
        pair = one[:, :, None] & other[:, None, :] & APART  # (L, MOST, MOST)
        if meaning.relation:
            pair &= self.relations[meaning.relation][left]
        for fits in third:  # one that fits must be left when the pair is taken out
            count = fits.sum(axis=1)[:, None, None] - fits[:, :, None] - fits[:, None, :]
            pair &= count > 0
        holds[left] = pair.any(axis=(1, 2))
        return holds

    def truth(self, meanings: list[Meaning]) -> np.ndarray:
        """(I, C) bool: whether caption c is true of scene i."""
        return np.stack([self.true_of(meaning) for meaning in meanings], axis=1)

    def readings(self, row: int, meaning: Meaning) -> dict[tuple[int, ...], float]:
        """{objects of a mention: share of the true readings in which it means just these}.

        For a caption of scene `row`. A reading gives each mention an object of its own, such that
        the caption is true: "a red star" has two in a scene with two red stars. A mention with a
        number means all objects that fit.
        """
        shares, singles, taken = {}, [], set()
        for mention in meaning.mentions:
            fits = np.flatnonzero(self.fitting(mention, row)).tolist()
            if mention.number_word:
                shares[mention.things] = 1.0
                taken.update(fits)
            else:
                singles.append((mention.things, fits))
        allowed = self.relations[meaning.relation][row] if meaning.relation else APART
        true = [
            objects
            for objects in product(*(set(fits) - taken for _, fits in singles))
            if len({*objects}) == len(objects) and (len(objects) < 2 or allowed[objects[:2]])
        ]
        for number, ((meant,), _) in enumerate(singles):
            shares[meant,] = sum(objects[number] == meant for objects in true) / len(true)
        return shares


def truth(scenes: list[Scene], meanings: list[Meaning]) -> np.ndarray:
    """(I, C) bool: whether caption c is true of scene i."""
    return World(scenes).truth(meanings)


def oracle(
    true: np.ndarray, caption_image: np.ndarray, ks=(1, 5, 10)
) -> dict[str, dict[int, float]]:
    """{"i2t": {k: percent}, "t2i": ...}: R@K of a reader who knows what is true of what.

    true (I, C) bool; caption_image (C,) the image of each caption. The reader guesses evenly: to
    it, a caption true of n images was written for each of them with chance 1 / n. So for a caption
    it guesses among the n, and is right within the first k with chance min(1, k / n). For an image
    it takes those true captions first that are true of the fewest images, and guesses among equals:
    with n equals, m of them the image's own, and room for j of them, all are missed with chance
    C(n - m, j) / C(n, j).
    """
    own = caption_image[None, :] == np.arange(len(true))[:, None]
    if not (true | ~own).all():
        raise ValueError(
            "true marks a caption as false of its image: captions and scenes do not match"
        )
    images_of = true.sum(axis=0)  # (C,)
    t2i = {k: 100 * float(np.minimum(1, k / images_of).mean()) for k in ks}
    i2t = {}
    for k in ks:
        chances = [_hit(images_of[row], written[row], k) for row, written in zip(true, own)]
        i2t[k] = 100 * float(np.mean(chances))
    return {"i2t": i2t, "t2i": t2i}


def _hit(images_of, own, k):
    """Chance that one of an image's own captions is among the first k true ones.

    Those that are true of the fewest images come first.
    """
    room = k
    for count in np.unique(images_of):
        equals = images_of == count
        n, m = int(equals.sum()), int((equals & own).sum())
        if room >= n and m:
            return 1.0
        if room < n:
            return 1 - comb(n - m, room) / comb(n, room)
        room -= n
    return 0.0
