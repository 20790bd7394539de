"""Hard negative captions: two words of a caption swapped, or its relation reversed.

A model can rank well by the words alone, in any order; only a negative with the same words makes
order and binding matter. NegCLIP (Yuksekgonul et al., ICLR 2023) swaps words by their part of
speech; here a small lexicon says which words are of one kind and which phrases are opposites. Only
text is read, no ground truth: now and then a swapped caption is still true of its picture, as it
would be with any corpus. Not part of the paper's method.
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
    which at most one is true.
    """

    kinds: tuple[tuple[tuple[str, ...], ...], ...]
    opposites: tuple[tuple[str, str], ...]

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
        longest_first = sorted(self.reverse, key=len, reverse=True)
        return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")


def hard_caption(caption: str, lexicon: Lexicon, rng: random.Random) -> str:
    """A caption of nearly the same words that says something else; "" if there is no such one.

    Example: "a red star above a blue ring" -> "a blue star above a red ring", or "... below ...".
    """
    words = caption.split(" ")
    bare = [word.strip(",.") for word in words]
    senses = [lexicon.sense.get(word) for word in bare]
    relation = lexicon.phrase.search(caption) if lexicon.opposites else None
    known = [position for position, sense in enumerate(senses) if sense]
    options = [
        (one, other)
        for one, other in combinations(known, 2)
        if _changes(senses, one, other, relation is not None)
    ]
    if not options and not relation:
        return ""
    if relation and (not options or rng.random() < 0.5):
        start, end = relation.span()
        return caption[:start] + lexicon.reverse[relation.group()] + caption[end:]
    one, other = options[int(rng.random() * len(options))]
    for here, there in ((one, other), (other, one)):  # commas stay where they are
        words[here] = words[here].replace(bare[here], bare[there])
    for position in (one, other):
        if position and words[position - 1] in ("a", "an"):
            words[position - 1] = "an" if words[position][0] in "aeiou" else "a"
    return " ".join(words)


def _changes(senses, one, other, related):
    """Whether swapping two words says something else: same kind, other sense and neighbours."""
    if senses[one][0] != senses[other][0] or senses[one] == senses[other]:
        return False

    def neighbours(position):
        near = (position - 1, position + 1)
        return [senses[i] if 0 <= i < len(senses) else None for i in near]

    return related or neighbours(one) != neighbours(other)
