"""The pointing game, counted by hand: embeddings that point well, badly and at random."""

import operator

import pytest
import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.reports.pointing import pointing_game, spans_of
from tgdt_mini.text_tokens import TextTokens

BOXES = torch.tensor(
    [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
)  # of the four regions
CAPTIONS = [["a man by a dog", "sky"], ["the dog"]]
RECORDS = [
    {
        "captions": CAPTIONS[0],
        "boxes": [
            {
                "region": "1",
                "box": [0.0, 0.0, 0.6, 0.6],
            },  # around region 0's centre and the picture's
            {"region": "2", "box": [0.6, 0.0, 1.0, 0.5]},  # region 1's
            {"region": "2", "box": [0.6, 0.6, 1.0, 1.0]},  # and region 3's
        ],
        "phrases": [
            {"caption": 0, "text": "a man", "region": "1", "kind": ["people"]},
            {"caption": 0, "text": "a dog", "region": "2", "kind": ["animals"]},
            {"caption": 1, "text": "sky", "region": "9", "kind": ["scene"]},  # has no box
        ],
    },
    {
        "captions": CAPTIONS[1],
        "boxes": [{"region": "1", "box": [0.0, 0.5, 0.5, 1.0]}],  # region 2's
        "phrases": [{"caption": 0, "text": "The dog", "region": "1", "kind": ["animals"]}],
    },
]


def pieces(caption):
    """(piece, start, end) of each word; "man" falls into two pieces."""
    cut, start = [], 0
    for word in caption.split(" "):
        for piece in ["m", "##an"] if word == "man" else [word]:
            length = len(piece.removeprefix("##"))
            cut.append((piece, start, start + length))
            start += length
        start += 1
    return cut


def game(picks, counts=(4, 4), records=RECORDS, most=99, without=()):
    """The shares when the word pieces of all captions, in turn, are nearest to regions `picks`."""
    lengths = [
        min(most, len(pieces(caption))) for record in records for caption in record["captions"]
    ]
    assert sum(lengths) == len(picks)
    slots = 1 + max(lengths)  # at least one pad
    local, mask = (
        torch.eye(4).mean(dim=0).expand(len(lengths), slots, 4).clone(),
        torch.zeros(len(lengths), slots).bool(),
    )
    for row, (length, nearest) in enumerate(zip(lengths, torch.tensor(picks).split(lengths))):
        mask[row, :length] = True
        local[row, :length] = torch.eye(4)[nearest] + 0.1 * torch.ones(4)
    texts = [caption for record in records for caption in record["captions"]]
    for row, caption in enumerate(texts if without else ()):
        for place, (piece, _, _) in enumerate(pieces(caption)[: lengths[row]]):
            mask[row, place] &= piece not in without
    captions = Embedding(torch.zeros(len(lengths), 4), local, mask)
    images = Embedding(
        torch.zeros(2, 4), torch.eye(4).expand(2, 4, 4), torch.ones(2, 4, dtype=torch.bool)
    )
    starts = torch.tensor([0, counts[0], sum(counts)])
    boxes = torch.cat([BOXES[:count] for count in counts])
    caption_image = torch.tensor(
        [row for row, record in enumerate(records) for _ in record["captions"]]
    )
    text = TextTokens(torch.zeros(len(lengths), slots).long(), mask, mask)
    flat = tuple(caption for record in records for caption in record["captions"])
    tokens = TokenSet(
        torch.zeros(len(boxes), 1),
        boxes,
        starts,
        torch.zeros(2, 1),
        text,
        caption_image,
        flat,
        ("a", "b"),
    )
    return pointing_game(images, captions, tokens, records, pieces)


# a | m an | by | a dog | sky | the dog: the words of phrases with a box are all but "by" and "sky"
RIGHT = [0, 0, 0, 2, 1, 3, 0, 2, 2]


def right(game):
    return {unit: found["right"] for unit, found in game.items()}


def test_words_that_point_into_their_boxes_all_score():
    shares = game(RIGHT)
    assert right(shares) == {"words": 100, "content words": 100, "phrases": 100}
    # the articles of "a man", "a dog" and "the dog" are no content words
    counts = {unit: found["count"] for unit, found in shares.items()}
    assert counts == {"words": 7, "content words": 4, "phrases": 3}


def test_words_that_point_elsewhere_do_not():
    assert set(right(game([1, 2, 3, 0, 0, 2, 0, 0, 1])).values()) == {0}


def test_shares_are_of_words_and_of_phrases():
    shares = game([0, 0, 1, 0, 1, 0, 0, 2, 2])  # "an" of "man" and "dog" of "a dog" are wrong
    assert shares["words"]["right"] == pytest.approx(100 * 5 / 7)
    assert shares["content words"]["right"] == pytest.approx(100 * 2 / 4)
    # "a man" has two of three pieces at region 0; "a dog" has one at 1, one at 0, and the first of
    # two equals is 0
    assert shares["phrases"]["right"] == pytest.approx(100 * 2 / 3)


def test_the_baselines_are_counted_over_the_same_units_and_depend_on_no_embedding():
    # the picture's centre (0.5, 0.5) is in the man's box and on the edge of the second dog's
    centre, random = {"a man": 1, "a dog": 0, "the dog": 1}, (1 / 4, 2 / 4, 1 / 4)
    weights = {"words": (3, 2, 2), "content words": (2, 1, 1), "phrases": (1, 1, 1)}
    for picks in (RIGHT, [3] * 9):
        shares = game(picks)
        for unit, sizes in weights.items():
            for name, values in (("centre", centre.values()), ("random", random)):
                known = 100 * sum(map(operator.mul, sizes, values)) / sum(sizes)
                assert shares[unit][name] == pytest.approx(known)


def test_pictures_may_have_different_numbers_of_regions():
    shares = game(RIGHT, counts=(4, 3))
    assert shares["words"]["right"] == 100
    assert shares["phrases"]["random"] == pytest.approx(100 * (1 / 4 + 2 / 4 + 1 / 3) / 3)
    fewer = game(
        [0, 0, 0, 2, 1, 3, 0, 2, 2], counts=(2, 4)
    )  # region 3 is not there: what looks like it is a tie of 0, 1
    assert fewer["words"]["right"] == pytest.approx(100 * 6 / 7)


def test_words_that_were_cut_off_do_not_count():
    shares = game([0, 0, 0, 0, 0, 2, 2], most=4)  # of "a man by a dog" a, m, an, by are left
    assert shares["words"]["right"] == 100
    assert shares["words"]["count"] == 5 and shares["phrases"]["count"] == 2


def test_words_without_a_local_token_do_not_look():
    """A model that leaves stop words out is judged by the others: piece i is local token i."""
    unmasked, masked = game(RIGHT), game(RIGHT, without=("a", "the"))
    assert masked["content words"] == unmasked["content words"]
    assert masked["words"] == masked["content words"]


def test_without_a_box_there_is_no_game():
    records = [record | {"boxes": []} for record in RECORDS]
    with pytest.raises(ValueError, match="records hold no phrase with a box"):
        game(RIGHT, records=records)


def test_spans_of_phrases():
    assert spans_of(["a man", "a man"], "a man by a man") == [(0, 5), (9, 14)]
    assert spans_of(["A MAN", "him"], "a man by himself") == [(0, 5), (0, 0)]
    assert spans_of(["man", "it"], "a woman and man with it .") == [
        (12, 15),
        (21, 23),
    ]  # not in woman, not in with
    assert spans_of(["a dog", "a cat", "the ball"], "the ball of a dog") == [
        (12, 17),
        (0, 0),
        (0, 8),
    ]
    assert spans_of(["t-shirt (red)", "A dog 's tail"], "A t-shirt (red) on A dog 's tail") == [
        (2, 15),
        (19, 32),
    ]
    assert spans_of([], "nothing") == []
