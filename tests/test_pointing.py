"""The pointing game, counted by hand: embeddings that point well, badly and at random."""

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
        halves = [word[:1], word[1:]] if word == "man" else [word]
        for half in halves:
            cut.append((half, start, start + len(half)))
            start += len(half)
        start += 1
    return cut


def game(picks, counts=(4, 4), records=RECORDS, most=99):
    """The shares when the word pieces of all captions, in turn, are nearest to regions `picks`."""
    lengths = [
        min(most, len(pieces(caption))) for record in records for caption in record["captions"]
    ]
    assert sum(lengths) == len(picks)
    slots = 2 + max(lengths)  # a start token, and at least one pad
    local, mask = (
        torch.eye(4).mean(dim=0).expand(len(lengths), slots, 4).clone(),
        torch.zeros(len(lengths), slots).bool(),
    )
    for row, (length, nearest) in enumerate(zip(lengths, torch.tensor(picks).split(lengths))):
        mask[row, 1 : 1 + length] = True
        local[row, 1 : 1 + length] = torch.eye(4)[nearest] + 0.1 * torch.ones(4)
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


def test_words_that_point_into_their_boxes_all_score():
    shares = game(RIGHT)
    assert shares["words"] == shares["phrases"] == 100
    assert shares["word pieces"] == 7 and shares["phrases with a box"] == 3


def test_words_that_point_elsewhere_do_not():
    shares = game([1, 2, 3, 0, 0, 2, 0, 0, 1])
    assert shares["words"] == shares["phrases"] == 0


def test_shares_are_of_words_and_of_phrases():
    shares = game([0, 0, 1, 0, 1, 0, 0, 2, 2])  # "an" of "man" and "dog" of "a dog" are wrong
    assert shares["words"] == pytest.approx(100 * 5 / 7)
    # "a man" has two of three pieces at region 0; "a dog" has one at 1, one at 0, and the first of
    # two equals is 0
    assert shares["phrases"] == pytest.approx(100 * 2 / 3)


def test_the_baselines_do_not_depend_on_the_embeddings():
    for picks in (RIGHT, [3] * 9):
        shares = game(picks)
        # the picture's centre (0.5, 0.5) is in the man's box and on the edge of the second dog's
        assert shares["centre"] == pytest.approx(100 * 2 / 3)
        assert shares["random"] == pytest.approx(100 * (1 / 4 + 2 / 4 + 1 / 4) / 3)


def test_pictures_may_have_different_numbers_of_regions():
    shares = game(RIGHT, counts=(4, 3))
    assert shares["words"] == 100 and shares["random"] == pytest.approx(
        100 * (1 / 4 + 2 / 4 + 1 / 3) / 3
    )
    fewer = game(
        [0, 0, 0, 2, 1, 3, 0, 2, 2], counts=(2, 4)
    )  # region 3 is not there: what looks like it is a tie of 0, 1
    assert fewer["words"] == pytest.approx(100 * 6 / 7)


def test_words_that_were_cut_off_do_not_count():
    shares = game(
        [0, 0, 0, 0, 0, 2, 2], most=4
    )  # of "a man by a dog" the pieces a, m, an, by are left
    assert (
        shares["words"] == 100 and shares["word pieces"] == 5 and shares["phrases with a box"] == 2
    )


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
