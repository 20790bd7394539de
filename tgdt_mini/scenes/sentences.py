"""Captions as people might write them: a meaning, its sentence, and the objects of its words.

A caption says part of what is in a scene: one to three mentions ("a tiny scarlet star", "two
hearts"), perhaps a relation between two of them, a position, the background. A `Meaning` keeps the
chosen words too, so that a foil (two attributes swapped, or a relation reversed) differs from its
caption in just that.
"""

from dataclasses import dataclass

from tgdt_mini.scenes.words import NUMBER_WORDS


@dataclass(frozen=True)
class Mention:
    """One noun phrase, with the words that were chosen for it.

    things: the objects that are meant. An attribute that is None is not said.
    """

    things: tuple[int, ...]
    shape: str | None
    colour: str | None
    size: str | None
    noun: tuple[str, str]
    colour_word: str = ""
    size_word: str = ""
    number_word: str = ""
    position: str | None = None
    position_words: str = ""
    in_colour: bool = False  # "a star in red" instead of "a red star"


@dataclass(frozen=True)
class Meaning:
    """What a caption claims: its mentions, a relation of the first two, background, number."""

    mentions: tuple[Mention, ...]
    relation: str | None = None
    relation_words: str = ""
    background: str | None = None
    background_words: str = ""
    total: int = 0  # "four shapes", 0 is not said
    form: int = 0


def write(meaning: Meaning) -> tuple[str, list[tuple[int, int, tuple[int, ...]]]]:
    """(caption of a meaning, its links: (start, end, things) for each word that means things).

    start and end count characters, end excluded. Articles, relations and the background mean no
    thing.
    """
    phrases = [_phrase(mention) for mention in meaning.mentions]
    if meaning.relation:
        words = _relation_form(phrases[0], meaning.relation_words.split(), phrases[1], meaning)
    else:
        words = _list_form(phrases, meaning)
    ground = meaning.background_words.split()
    if ground:
        words = [*ground, ",", *words] if meaning.form % 3 == 0 else [*words, *ground]
    text, links = "", []
    for word in words:
        word, things = word if isinstance(word, tuple) else (word, ())
        text += "" if word == "," or not text else " "
        if things:
            links.append((len(text), len(text) + len(word), things))
        text += word
    return text, links


def _phrase(mention):
    plural = bool(mention.number_word)
    adjectives = [mention.size_word, "" if mention.in_colour else mention.colour_word]
    linked = [word for word in (*adjectives, mention.noun[plural]) if word]
    words = [(word, mention.things) for word in linked]
    if mention.in_colour:
        words += ["in", (mention.colour_word, mention.things)]
    if plural:
        start = mention.number_word.split()
    else:
        start = ["an" if linked[0][0] in "aeiou" else "a"]
    return [*start, *words, *mention.position_words.split()]


def _relation_form(one, relation, other, meaning):
    """`one` in `relation` to `other`, in one of five sentence forms."""
    return (
        [*one, *relation, *other],
        [*one, "is", *relation, *other],
        ["there", "is", *one, *relation, *other],
        ["a", "picture", "of", *one, *relation, *other],
        ["you", "can", "see", *one, "that", "is", *relation, *other],
    )[meaning.form % 5]


def _list_form(phrases, meaning):
    """The phrases in a row, in one of five sentence forms, the number of things first."""
    *most, last = phrases
    joined = [part for phrase in most for part in (*phrase, ",")][:-1] + ["and"] if most else []
    if len(phrases) == 2 and meaning.form % 2:
        joined[-1] = "with"
    joined += last
    if meaning.total:
        total = [NUMBER_WORDS[meaning.total][0], ("shapes", "things", "objects")[meaning.form % 3]]
        return [*total, ",", *(("including",) if meaning.form % 2 else ("among", "them")), *joined]
    verb = "are" if meaning.mentions[0].number_word else "is"
    starts = ([], ["there", verb], ["a", "picture", "of"], ["we", "see"], ["here", verb])
    return [*starts[meaning.form % 5], *joined]
