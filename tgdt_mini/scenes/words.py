"""The captions' words: for colours, shapes, sizes, numbers, positions, relations, backgrounds.

`grammar.py` and `sentences.py` make captions of them. `true_of` says whether one word fits a thing,
and `lexicon` which words are of one kind and which relations are opposites.
"""

from tgdt_mini.scenes.hard_captions import Lexicon
from tgdt_mini.scenes.world import Thing

COLOUR_WORDS = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "golden", "lemon"),
    "green": ("green", "green", "emerald"),
    "blue": ("blue", "blue", "azure", "cobalt"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rosy"),
    "brown": ("brown", "brown", "chocolate", "chestnut"),
}
SHAPE_WORDS = {  # singular, plural
    "circle": (("circle", "circles"), ("disc", "discs"), ("ball", "balls")),
    "square": (("square", "squares"), ("box", "boxes"), ("block", "blocks")),
    "triangle": (("triangle", "triangles"), ("pyramid", "pyramids"), ("wedge", "wedges")),
    "diamond": (("diamond", "diamonds"), ("rhombus", "rhombuses"), ("lozenge", "lozenges")),
    "star": (("star", "stars"), ("starburst", "starbursts")),
    "heart": (("heart", "hearts"), ("valentine", "valentines")),
    "cross": (("cross", "crosses"), ("plus", "pluses")),
    "moon": (("moon", "moons"), ("crescent", "crescents")),
    "ring": (("ring", "rings"), ("hoop", "hoops"), ("donut", "donuts")),
    "arrow": (("arrow", "arrows"), ("pointer", "pointers")),
}
ANY_SHAPE = (("shape", "shapes"), ("thing", "things"), ("object", "objects"))
SIZE_WORDS = {
    "small": ("small", "little", "tiny", "mini"),
    "big": ("big", "large", "huge", "giant"),
}
BACKGROUND_WORDS = {
    "paper": ("on white paper", "on a blank page", "on a plain white sheet"),
    "sky": ("in the pale blue sky", "up in the daytime sky", "against a clear sky"),
    "sand": ("on the sandy beach", "lying in the sand", "in a beige desert"),
    "night": ("in the dark night sky", "at night", "under faint starlight"),
    "grass": ("on the grass", "in a light green meadow", "lying on a lawn"),
    "stripes": ("on striped cloth", "on a cloth with stripes", "over lilac stripes"),
    "checks": ("on a checkered floor", "on grey and white tiles", "over a chessboard pattern"),
    "dots": ("on dotted paper", "on a spotted background", "over polka dots"),
}
RELATION_WORDS = {  # each phrase's reverse stands at the same position of the opposite's list
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "higher than", "over the top of"),
    "below": ("below", "lower than", "underneath"),
    "front": ("in front of", "partly covering", "overlapping the front of"),
    "behind": ("behind", "partly hidden by", "peeking out from behind"),
    "bigger": ("bigger than", "larger than"),
    "smaller": ("smaller than", "tinier than"),
}
OPPOSITE = {"left": "right", "above": "below", "front": "behind", "bigger": "smaller"}
OPPOSITE |= {there: here for here, there in OPPOSITE.items()}
POSITION_WORDS = {
    "left": ("on the left", "near the left edge"),
    "right": ("on the right", "near the right edge"),
    "top": ("at the top", "near the upper edge"),
    "bottom": ("at the bottom", "near the lower edge"),
    "middle": ("in the middle", "at the centre"),
}
NUMBER_WORDS = {2: ("two", "a pair of"), 3: ("three", "a trio of"), 4: ("four",), 5: ("five",)}


ARTICLES_AND_VERBS = (  # what `sentences.py` puts around them
    "a an and are is in with there here a picture of we see you can see that is including "
    "among them"
)


def known_words() -> set[str]:
    """All words that captions are made of: a model of scenes has seen no other one."""
    words = set(ARTICLES_AND_VERBS.split())

    def add(value):
        if isinstance(value, str):
            words.update(value.split())
        else:
            for inner in value:
                add(inner)

    tables = (COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS, BACKGROUND_WORDS, RELATION_WORDS)
    for table in (*tables, POSITION_WORDS, NUMBER_WORDS):
        add(table.values())
    add(ANY_SHAPE)
    return words


def true_of(word: str, thing: Thing) -> bool:
    """Whether a word alone is true of an object: its colour, shape or size; else it is not.

    Example: "crimson" is true of a red star, and so is "starburst".
    """
    nouns = {noun for pair in SHAPE_WORDS[thing.shape] for noun in pair}
    return word in nouns or word in COLOUR_WORDS[thing.colour] or word in SIZE_WORDS[thing.size]


def lexicon() -> Lexicon:
    """Which words are of one kind, and which relations are opposites: for hard negatives.

    It is built from the words that captions are made of, and from no scene.
    """
    colours = tuple(tuple(sorted(set(words))) for words in COLOUR_WORDS.values())
    singular, plural = (
        tuple(tuple(noun[i] for noun in nouns) for nouns in SHAPE_WORDS.values()) for i in (0, 1)
    )
    opposites = tuple(
        pair
        for here in ("left", "above", "front", "bigger")
        for pair in zip(RELATION_WORDS[here], RELATION_WORDS[OPPOSITE[here]])
    )
    backgrounds = tuple(words for several in BACKGROUND_WORDS.values() for words in several)
    return Lexicon((colours, singular, plural), opposites, fixed=backgrounds)
