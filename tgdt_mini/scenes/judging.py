"""What is true of the scenes of a split, and what is false of one; the rules are in `truth.py`."""

import random
from functools import lru_cache, partial

import numpy as np

from tgdt_mini.files.check import whole_number
from tgdt_mini.scenes import grammar, world
from tgdt_mini.scenes.hard_captions import hard_caption
from tgdt_mini.scenes.splits import CAPTIONS, meanings_of, of_seeds, scenes_of, seeds_of
from tgdt_mini.scenes.truth import World
from tgdt_mini.scenes.truth import oracle as oracle_of
from tgdt_mini.scenes.words import lexicon


def truth(split: str, first: int | None = None) -> np.ndarray:
    """(I, C) bool array: whether caption c, in the order of `load`, is true of scene i."""
    return _truth(seeds_of(split, first)).copy()


@lru_cache(maxsize=1)
def _truth(seeds):
    return _facts(seeds).truth([meaning for own in meanings_of(seeds) for meaning in own])


def readings(split: str, first: int | None = None) -> list[list[dict[tuple[int, ...], float]]]:
    """What each caption of a split can mean, scene by scene; see `World.readings` in `truth.py`."""
    seeds = seeds_of(split, first)
    meanings, facts = meanings_of(seeds), _facts(seeds)
    return [[facts.readings(i, meaning) for meaning in own] for i, own in enumerate(meanings)]


def oracle(
    split: str, first: int | None = None, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """{"i2t": {k: percent}, "t2i": ...}: R@K on a split of guessing among what is true.

    first: of the split's first scenes. A yardstick, not an upper bound: see `truth.py`.
    """
    true = truth(split, first)
    return oracle_of(true, np.repeat(np.arange(len(true)), CAPTIONS), ks)


@lru_cache(maxsize=1)  # an assessment asks for truth, the oracle and readings of one split
def _facts(seeds):
    return World(of_seeds(seeds))


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


def foils(scene: world.Scene, meanings: list[grammar.Meaning]) -> list[str]:
    """One false foil a caption, "" where there is none. Kinds take turns by the scene's number."""
    here, chosen = _world_of(scene), []
    for meaning in meanings:
        false = [foil for foil in grammar.foil(meaning) if not here.true_of(foil)[0]]
        chosen.append(grammar.write(false[scene.seed % len(false)])[0] if false else "")
    return chosen


@lru_cache(maxsize=1)
def _world_of(scene):
    """The facts of one scene, several captions of which are judged one after the other."""
    return World([scene])
