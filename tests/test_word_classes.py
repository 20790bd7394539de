"""Hard negatives of photographs: word classes learnt from captions, two words of one swapped."""

import itertools
import random

import pytest

from tgdt_mini.photos.word_classes import hard_captions, learn_lexicon
from tgdt_mini.scenes.hard_captions import Lexicon

COLOURS = "red blue green white black brown".split()
ANIMALS = "dog cat horse bird cow sheep".split()
DEEDS = "chases follows sees bites meets watches".split()
CLASSES = COLOURS, ANIMALS, DEEDS
SMALL = Lexicon(tuple(tuple((word,) for word in group) for group in CLASSES), ())


@pytest.fixture(scope="module")
def captions():
    draw = random.Random(0)
    a, b, c = COLOURS, ANIMALS, DEEDS
    every = list(itertools.product(a, b, c, a, b))
    return [f"A {a} {b} {c} the {d} {e} ." for a, b, c, d, e in draw.sample(every, 600)]


def test_words_with_like_neighbours_are_one_class(captions):
    lexicon = learn_lexicon(captions)
    assert sorted(sorted(w for (w,) in kind) for kind in lexicon.kinds) == sorted(
        sorted(group) for group in CLASSES
    )
    assert learn_lexicon(captions) == lexicon
    assert learn_lexicon([*captions, "a yellow dog"]).kinds == lexicon.kinds  # in 20 captions


def test_a_swap_keeps_the_words_and_changes_two_of_a_class(captions):
    foils = hard_captions(captions, learn_lexicon(captions), seed=3)
    kind = {word: group for group in CLASSES for word in group}
    for caption, foil in zip(captions, foils):
        words, swapped = caption.split(), foil.split()
        alike = words[1] == words[5] and words[2] == words[6]
        assert bool(foil) == (not alike), caption
        if foil:
            assert sorted(words) == sorted(swapped)
            moved = [i for i, pair in enumerate(zip(words, swapped)) if len({*pair}) == 2]
            assert len(moved) == 2 and kind[words[moved[0]]] == kind[words[moved[1]]]
    assert foils == hard_captions(captions, learn_lexicon(captions), seed=3)
    assert foils != hard_captions(captions, learn_lexicon(captions), seed=4)


@pytest.mark.parametrize(
    "caption",
    [
        "a dog and a cat",
        "a dog , a cat",
        "a dog next to a cat",
        "a red blue bird",  # side by side
        "a red green blue bird",
        "a red bird and blue bird",  # "a blue bird and red bird"
        "a dog dog sees",
        "a red tree on a red blue wall",  # "a blue tree on a red red wall"
        "a dog runs",
    ],
)
def test_what_may_still_be_true_is_no_foil(caption):
    assert hard_captions([caption], SMALL) == [""], caption


@pytest.mark.parametrize(
    "caption, foil",
    [
        ("a dog on a cat", "a cat on a dog"),
        ("a dog sees a cat.", "a cat sees a dog."),
        ("a red dog under a blue tree", "a blue dog under a red tree"),
    ],
)
def test_what_says_something_else_is_one(caption, foil):
    assert hard_captions([caption], SMALL) == [foil]


def test_too_few_captions_are_an_error():
    with pytest.raises(ValueError, match="20 captions; there are 2"):
        learn_lexicon(["a dog", "a cat"])
