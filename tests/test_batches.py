"""The batches of an epoch: who is in them, in what order, and what is known of their sizes."""

from dataclasses import fields, replace

import pytest
import torch
from helpers import refusal, token_set, tokenizer

from tgdt_mini import batches as module
from tgdt_mini.batches import Batches
from tgdt_mini.scenes.tokens import with_hard_captions
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.training_config import TrainingConfig


def batches(seed=0, batch=8, tokens=None):
    return Batches(tokens or token_set("train", 24), batch, seed)


def test_an_epoch_has_every_image_once_with_a_caption_of_its_own():
    tokens = token_set("train", 24)
    epoch = batches(batch=7).of(3)
    assert [len(rows) for rows, _ in epoch] == [7, 7, 7] and len(batches(batch=7)) == 3
    rows, captions = (torch.cat(part) for part in zip(*epoch))
    assert len(rows.unique()) == 21
    assert torch.equal(tokens.caption_image[captions], rows)


def test_captions_of_an_image_take_turns():
    seen = torch.zeros(24, 5, dtype=torch.int64)
    for epoch in range(10):
        for rows, captions in batches().of(epoch):
            seen[rows, captions % 5] += 1
    assert (seen == 2).all()


def test_images_may_have_captions_in_any_number_and_order():
    tokens = token_set("train", 3)
    order = torch.tensor([14, 2, 7, 0, 5, 13])  # images 2, 0, 1, 0, 1, 2
    tokens = replace(
        tokens,
        text=tokens.text[order],
        caption_image=tokens.caption_image[order],
        captions=tuple(tokens.captions[row] for row in order),
    )
    drawn = batches(batch=3, tokens=tokens)
    assert drawn.captions_of.tolist() == [[1, 3], [2, 4], [0, 5]]
    for epoch in range(4):
        rows, captions = drawn.of(epoch)[0]
        assert torch.equal(tokens.caption_image[captions], rows)


def test_the_seed_and_the_epoch_decide():
    def order(seed, epoch):
        return torch.cat([rows for rows, _ in batches(seed).of(epoch)]).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_captions_of_about_one_length_share_a_batch(monkeypatch):
    lengths = token_set("train", 24).text.mask.sum(dim=1)

    def spread(noise):
        monkeypatch.setattr(module, "MIX_LENGTHS", noise)
        epoch = batches().of(0)
        return sum(int(lengths[captions].max() - lengths[captions].min()) for _, captions in epoch)

    assert spread(0) < spread(4.0) < spread(1000.0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_epoch_batches_know_their_hard_rows_and_their_sizes(share):
    train = with_hard_captions(token_set("train", 24), tokenizer(), lexicon())
    drawn = batches(tokens=train)
    for (rows, captions), (same_rows, same_captions, hard_rows, longest) in zip(
        drawn.of(1), drawn.epoch_batches(1, share), strict=True
    ):
        assert torch.equal(rows, same_rows) and torch.equal(captions, same_captions)
        has_hard = train.hard.word_mask[captions].any(dim=1).nonzero()[:, 0].tolist()
        assert hard_rows.tolist() == has_hard[: round(share * 8)]
        images, texts = train.images(rows), train.text[captions]
        hard = train.hard[captions[hard_rows]]
        assert longest == (images.mask.shape[1], texts.mask.shape[1], hard.mask.shape[1])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="batch is 25, but there are 24 images"):
        batches(batch=25)
    tokens = token_set("train", 2)
    without = replace(tokens, caption_image=torch.ones_like(tokens.caption_image))
    with pytest.raises(ValueError, match=f"image '{tokens.image_ids[0]}' has no caption"):
        batches(batch=2, tokens=without)


def test_a_batch_of_one_pair_is_refused():
    """It has no negative: every loss would be 0, and nothing would be learnt."""
    with pytest.raises(ValueError, match="batch is 1; it must be at least 2: a pair learns from"):
        TrainingConfig(batch=1)


@pytest.mark.parametrize("name", [field.name for field in fields(TrainingConfig)])
def test_a_setting_of_another_type_is_named(name):
    for value in (float("nan"), float("inf"), "1", None, [1], 10**400):
        with refusal(f"^{name} is "):
            TrainingConfig(**{name: value})
