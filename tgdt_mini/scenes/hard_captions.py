"""Hard negative captions: a caption's own words with two of them swapped, or its relation turned
round.

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


@dataclass(frozen=True)
class Lexicon:
    """kinds: words of one kind, such as colours, in groups of synonyms. opposites: phrases that
    deny each other.
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
    """A caption of nearly the same words that says something else; "" where the lexicon knows no
    change.

    Example: "a red star above a blue ring" -> "a blue star above a red ring", or "... below ...".
    """
    words = caption.split(" ")
    bare = [word.strip(",.") for word in words]
    senses = [lexicon.sense.get(word) for word in bare]
    found = lexicon.phrase.search(caption) if lexicon.opposites else None
    places = [place for place, sense in enumerate(senses) if sense]
    pairs = [
        (one, other) for position, one in enumerate(places) for other in places[position + 1 :]
    ]
    options = [
        (one, other) for one, other in pairs if _changes(senses, one, other, found is not None)
    ]
    if not options and not found:
        return ""
    if found and (not options or rng.random() < 0.5):
        return caption[: found.start()] + lexicon.reverse[found.group()] + caption[found.end() :]
    one, other = options[int(rng.random() * len(options))]
    words[one], words[other] = (
        words[one].replace(bare[one], bare[other]),
        words[other].replace(bare[other], bare[one]),
    )
    for place in (one, other):
        if place and words[place - 1] in ("a", "an"):
            words[place - 1] = "an" if words[place][0] in "aeiou" else "a"
    return " ".join(words)


def _changes(senses, one, other, related):
    """Whether swapping the words at two places says something else: same kind, other sense, other
    neighbours.
    """
    if senses[one][0] != senses[other][0] or senses[one] == senses[other]:
        return False

    def company(place):
        return [
            senses[near] if 0 <= near < len(senses) else None for near in (place - 1, place + 1)
        ]

    return related or company(one) != company(other)
