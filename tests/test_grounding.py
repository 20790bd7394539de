"""Grounding on scenes made by hand: words on their object, that could be, on one like it."""

from types import SimpleNamespace

import pytest
import torch
from helpers import tokenizer

from tgdt_mini import scenes
from tgdt_mini.embedding import Embedding
from tgdt_mini.reports.grounding import grounding, inside_share
from tgdt_mini.scenes.words import COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS, true_of


def test_inside_share_is_the_part_of_the_region_that_lies_in_the_object():
    regions = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4], [0.5, 0.5, 1.0, 1.0]])
    objects = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(
        inside_share(regions, objects), torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]])
    )


TEXT = "a red star above a blue ring at night"
LINKS = [
    {
        "caption": 0,
        "start": TEXT.index(word),
        "end": TEXT.index(word) + len(word),
        "objects": [thing],
    }
    for word, thing in (("red", 0), ("star", 0), ("blue", 1), ("ring", 1))
]


def grounded(picks, text=TEXT, links=LINKS, true_of=None, meant=None):
    """Grounding of a caption whose words pick these regions.

    0 lies on object 0, 1 on object 1, 2 on the ground, 3 is padding.
    """
    regions = torch.tensor([[0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0], [0.25, 0.0, 0.5, 1.0]])
    dataset = {
        "boxes": [[[0.0, 0.0, 0.3, 0.5], [0.5, 0.5, 1.0, 1.0], [0.9, 0.0, 1.0, 0.1]]],
        "links": [links],
        "captions": [[text]],
    }
    local = torch.cat([torch.eye(4)[:3], 2 * torch.ones(1, 4)])[
        None
    ]  # padding would be the best of all
    images = Embedding(torch.zeros(1, 4), local, torch.tensor([[True, True, True, False]]))
    words = torch.cat([torch.eye(4)[picks], torch.ones(2, 4)])[None]
    mask = torch.tensor([[True] * len(picks) + [False] * 2])
    tokens = SimpleNamespace(starts=torch.tensor([0, 3]), boxes=regions)
    model = SimpleNamespace(tokenizer=tokenizer())
    captions = Embedding(torch.zeros(1, 4), words, mask)
    return grounding(model, images, captions, tokens, dataset, true_of, meant)


def test_grounding_counts_words_whose_best_region_is_in_their_object():
    assert len(tokenizer().pieces(TEXT)) == 9
    best = [2, 0, 0, 2, 2, 1, 1, 2, 2]
    assert grounded(best) == pytest.approx(
        {"right": 100.0, "chance": 100 / 3, "possible": 100.0, "words": 4}
    )
    best[1], best[6] = (
        1,
        2,
    )  # red and ring look elsewhere; words without a link look where they like
    assert grounded(best) == pytest.approx(
        {"right": 50.0, "chance": 100 / 3, "possible": 100.0, "words": 4}
    )


def test_a_word_of_two_objects_may_pick_either():
    links = [{"caption": 0, "start": 4, "end": 9, "objects": [0, 1]}]
    for pick, right in ((0, 100.0), (1, 100.0), (2, 0.0)):
        shares = grounded([2, pick], "two stars", links)
        assert shares == pytest.approx(
            {"right": right, "chance": 200 / 3, "possible": 100.0, "words": 1}
        )


def test_captions_without_links_have_no_grounding():
    with pytest.raises(ValueError, match="links names no word"):
        grounded([2, 2], "two stars", [])


def test_a_word_whose_object_no_region_lies_in_is_wrong_and_was_not_possible():
    links = [
        *LINKS[:3],
        LINKS[3] | {"objects": [2]},
    ]  # the ring is a third thing, in a corner without a region
    best = [2, 0, 0, 2, 2, 1, 1, 2, 2]
    shares = grounded(best, links=links)
    assert shares == pytest.approx({"right": 75.0, "chance": 25.0, "possible": 75.0, "words": 4})


def test_a_word_on_another_object_that_it_is_true_of_counts_as_true_and_not_as_right():
    def true_of(row, thing, word):
        return row == 0 and (thing, word) == (1, "red")  # the ring is red as well

    best = [2, 1, 1, 2, 2, 1, 1, 2, 2]  # red and star look at the ring
    shares = grounded(best, true_of=true_of)
    assert shares == pytest.approx(
        {"right": 50.0, "true": 75.0, "chance": 100 / 3, "possible": 100.0, "words": 4}
    )


def test_the_oracle_is_wrong_where_no_region_lies_and_where_a_caption_fits_two_things():
    def meant(row, caption, things):
        assert (row, caption) == (0, 0)
        return {0: 0.5, 2: 1.0}[things[0]]  # red and star: of one of two; ring: of the third thing

    links = [*LINKS[:2], LINKS[3] | {"objects": [2]}]
    shares = grounded([2, 0, 0, 2, 2, 1, 1, 2, 2], links=links, meant=meant)
    assert shares["oracle"] == pytest.approx(100 * (0.5 + 0.5 + 0) / 3)
    assert (shares["settled"], shares["settled right"]) == (pytest.approx(100 / 3), 0)
    shares = grounded([2, 0, 1, 2, 2, 1, 1, 2, 2], meant=lambda *asked: 1.0)
    assert (shares["settled"], shares["settled right"]) == (100, 75) == (100, shares["right"])
    plain = grounded([2, 0, 0, 2, 2, 1, 1, 2, 2])
    assert not {"true", "oracle", "settled", "settled right"} & set(plain)


def test_a_words_truth_is_that_of_its_object():
    for scene in scenes.scenes_of("validation", 20):
        for thing in scene.things:
            for words, attribute in ((COLOUR_WORDS, thing.colour), (SIZE_WORDS, thing.size)):
                assert all(
                    true_of(word, thing) == (name == attribute)
                    for name, synonyms in words.items()
                    for word in synonyms
                )
            assert all(
                true_of(word, thing) == (name == thing.shape)
                for name, pairs in SHAPE_WORDS.items()
                for pair in pairs
                for word in pair
            )
    assert not true_of("above", thing) and not true_of("", thing)
