"""Hard negative captions: the same words, another meaning, and a loss that tells the two apart."""

import math
import random

import pytest
import torch
from helpers import random_embedding

from tgdt_mini import scenes
from tgdt_mini.losses import hard_caption_loss
from tgdt_mini.photos.subsets import first_images
from tgdt_mini.scenes import grammar
from tgdt_mini.scenes.hard_captions import Lexicon, hard_caption
from tgdt_mini.scenes.tokens import scene_tokens, with_hard_captions
from tgdt_mini.scenes.truth import World
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.similarity import local_similarity
from tgdt_mini.text_tokens import TextTokenizer

LEXICON = Lexicon(
    ((("red", "scarlet"), ("blue",)), (("star",), ("ring", "hoop"))), (("above", "below"),)
)


def changes(caption, lexicon=LEXICON, tries=60):
    return {hard_caption(caption, lexicon, random.Random(seed)) for seed in range(tries)}


def test_two_words_of_a_kind_are_swapped_or_the_relation_is_turned():
    assert changes("a red star above a blue ring") == {
        "a blue star above a red ring",
        "a red ring above a blue star",
        "a red star below a blue ring",
    }


def test_a_swap_of_synonyms_or_of_words_in_the_same_company_says_nothing_else():
    assert changes("a red star and a scarlet star") == {""}
    assert changes("a red star and a red ring") == {""}
    assert changes("a red hoop and a blue ring") == {""}
    assert "a red ring above a red star" in changes("a red star above a red ring")


def test_a_caption_that_the_lexicon_does_not_know_has_none():
    assert changes("two dogs run") == {""}


def test_articles_and_commas_stay_right():
    lexicon = Lexicon(((("orange",), ("blue",)), (("arrow",), ("ring",))), ())
    swapped = {"a blue arrow, an orange ring", "an orange ring, a blue arrow"}
    assert changes("an orange arrow, a blue ring", lexicon) == swapped


def test_what_the_text_shows_to_be_true_is_not_made():
    assert changes("a red star above a scarlet star") == {""}
    assert changes("a red star above a blue star") == {
        "a blue star above a red star",
        "a red star below a blue star",
    }


def test_words_of_a_fixed_phrase_stay():
    fixed = Lexicon(LEXICON.kinds, LEXICON.opposites, fixed=("in a blue meadow",))
    assert changes("a red star in a blue meadow") == {"a blue star in a red meadow"}
    assert changes("a red star in a blue meadow", fixed) == {""}


def test_what_the_judge_refuses_is_drawn_again():
    caption = "a red star above a blue ring"
    for wanted in changes(caption):
        for seed in range(20):
            made = hard_caption(caption, LEXICON, random.Random(seed), wanted.__eq__)
            assert made == wanted
    assert hard_caption(caption, LEXICON, random.Random(0), lambda text: False) == ""


def test_hard_negatives_of_the_scenes_are_false_of_their_picture_and_sentences_of_the_grammar():
    """The truth of a change is looked up by its text: one that no meaning writes is not taken."""
    kinds, made = lexicon(), scenes.hard_negatives("validation", 200, seed=0)
    again, refused = iter(made), 0
    for scene in scenes.scenes_of("validation", 200):
        here = World([scene])
        for meaning in grammar.captions(scene):
            text, hard = grammar.write(meaning)[0], next(again)
            meanings = {grammar.write(other)[0]: other for other in grammar.changes(meaning)}
            assert not hard or hard in changes(text, kinds)
            assert not hard or not here.true_of(meanings[hard])[0]
            refused += changes(text, kinds) != {""} and not hard
    assert len(made) == 1000 and sum(map(bool, made)) > 500 and refused
    assert made[:50] == scenes.hard_negatives("validation", 10, seed=0)
    assert made[:50] != scenes.hard_negatives("validation", 10, seed=1)


def test_words_that_no_meaning_writes_are_not_known_to_be_false():
    scene = scenes.scenes_of("validation", 1)[0]
    meaning = grammar.captions(scene)[0]
    assert not scenes.is_false(scene, meaning, "a red of left star")
    assert not scenes.is_false(scene, meaning, grammar.write(meaning)[0])


def test_a_set_with_hard_captions_keeps_them_beside_their_captions():
    dataset = scenes.load("train", first=12)
    tokenizer = TextTokenizer.learn([caption for own in dataset["captions"] for caption in own])
    _, tokens = scene_tokens("train", tokenizer, first=12)
    hard = with_hard_captions(tokens, tokenizer, lexicon(), seed=3)
    again = with_hard_captions(tokens, tokenizer, lexicon(), seed=3)
    assert torch.equal(hard.hard.ids, again.hard.ids) and len(hard.hard) == len(tokens.captions)
    rng = random.Random(3)
    for row, caption in enumerate(tokens.captions):
        made = hard_caption(caption, lexicon(), rng)
        real = hard.hard.ids[row][hard.hard.word_mask[row]]
        assert real.tolist() == (tokenizer([made]).ids[0][1:-1].tolist() if made else [])
    assert len(first_images(hard, 5).hard) == len(first_images(hard, 5).captions)


def test_the_loss_is_the_mean_of_a_two_way_cross_entropy_of_local_scores():
    images, captions, hard = (random_embedding(seed, 5, [4, 3, 4, 2, 1]) for seed in range(3))
    good, bad = (local_similarity(images, text).diagonal() for text in (captions, hard))
    logits = torch.stack([good, bad], dim=1) / 0.05
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.int64))
    assert hard_caption_loss(images, captions, hard, 0.05).item() == pytest.approx(
        expected.item(), rel=1e-9
    )
    assert hard_caption_loss(images, captions, captions, 0.05).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="temperature"):
        hard_caption_loss(images, captions, hard, 0)
