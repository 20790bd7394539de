"""Hard negative captions: two words of a caption swapped, or its relation reversed.

A model can rank well by the words alone, in any order; only a negative with the same words makes
order and binding matter. NegCLIP (Yuksekgonul et al., ICLR 2023) swaps words by their part of
speech; here a lexicon says which words are of one kind and which phrases are opposites. A changed
caption can still be true. What the text alone shows to be true is left out ("a star left of a
star", reversed); where the truth is known, as on the scenes, a caller hands in a judge, and what it
refuses is drawn again. Not part of the paper's method.
"""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations


@dataclass(frozen=True)
class Lexicon:
    """Which words can be swapped, and which phrases are opposites.

    kinds: words of one kind, such as colours, in groups of synonyms. opposites: pairs of phrases of
    which at most one is true. fixed: phrases whose words are never swapped, such as "light green
    meadow".
    """

    kinds: tuple[tuple[tuple[str, ...], ...], ...]
    opposites: tuple[tuple[str, str], ...]
    fixed: tuple[str, ...] = ()

    @cached_property
    def sense(self) -> dict[str, tuple[int, int]]:
        """{word: (kind, group of synonyms)}"""
        return {
            word: (kind, group)
            for kind, groups in enumerate(self.kinds)
            for group, synonyms in enumerate(groups)
            for word in synonyms
        }

    @cached_property
    def reverse(self) -> dict[str, str]:
        return {here: there for pair in self.opposites for here, there in (pair, pair[::-1])}

    @cached_property
    def phrase(self) -> re.Pattern:
        return _any_of(self.reverse)

    @cached_property
    def fixed_phrase(self) -> re.Pattern:
        return _any_of(self.fixed)


def hard_caption(caption: str, lexicon: Lexicon, rng: random.Random, is_false=None) -> str:
    """A caption of nearly the same words that says something else; "" if there is no such one.

    is_false(text): whether a changed caption is known to be false; others are not taken.
    Example: "a red star above a blue ring" -> "a blue star above a red ring", or "... below ...".
    """
    reversals, swaps = _reversals(caption, lexicon), _swaps(caption, lexicon)
    while reversals or swaps:
        # a relation is reversed half of the time, else two words are swapped
        chosen = reversals if reversals and (not swaps or rng.random() < 0.5) else swaps
        text = chosen.pop(int(rng.random() * len(chosen)))
        if is_false is None or is_false(text):
            return text
    return ""


def _reversals(caption, lexicon):
    """The caption with its relation reversed, unless both sides are described alike."""
    relation = lexicon.phrase.search(caption) if lexicon.opposites else None
    if not relation:
        return []
    start, end = relation.span()
    before, after = (_senses(part, lexicon) for part in (caption[:start], caption[end:]))
    before, after = ([sense for sense in side if sense] for side in (before, after))
    if before and before == after:
        return []
    return [caption[:start] + lexicon.reverse[relation.group()] + caption[end:]]


def _swaps(caption, lexicon):
    """The captions with two words swapped: of one kind, of other senses, outside fixed phrases."""
    words, senses = caption.split(" "), _senses(caption, lexicon)
    bare = [word.strip(",.") for word in words]
    # without a list of relations any word between the two may be one
    related = not lexicon.opposites or bool(lexicon.phrase.search(caption))
    texts = []
    for one, other in combinations([at for at, sense in enumerate(senses) if sense], 2):
        if not _changes(senses, one, other, related):
            continue
        swapped = list(words)
        for here, there in ((one, other), (other, one)):  # commas stay where they are
            swapped[here] = words[here].replace(bare[here], bare[there])
        for at in (one, other):
            if at and words[at - 1] in ("a", "an"):
                swapped[at - 1] = "an" if swapped[at][0] in "aeiou" else "a"
        texts.append(" ".join(swapped))
    return texts


def _senses(text, lexicon):
    """The sense of each word, None for one that the lexicon does not know or that stays."""
    spans = [match.span() for match in lexicon.fixed_phrase.finditer(text)] if lexicon.fixed else []
    senses, start = [], 0
    for word in text.split(" "):
        stays = any(first <= start < last for first, last in spans)
        senses.append(None if stays else lexicon.sense.get(word.strip(",.")))
        start += len(word) + 1
    return senses


def _any_of(phrases):
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")


def _changes(senses, one, other, related):
    """Whether swapping two words says something else: same kind, other sense and neighbours."""
    if senses[one][0] != senses[other][0] or senses[one] == senses[other]:
        return False

    def neighbours(position):
        near = (position - 1, position + 1)
        return [senses[i] if 0 <= i < len(senses) else None for i in near]

    return related or neighbours(one) != neighbours(other)
