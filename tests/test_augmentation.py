"""Batches made harder: what is turned, left out or hidden, how much of it, and what must never
be.
"""

import pytest
import torch

from tgdt_mini.data import ImageTokens
from tgdt_mini.photos.augmentation import augmented
from tgdt_mini.text_tokens import TextTokens


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pictures(counts, width=3):
    """Pictures of so many regions, padded; each region's features say whose it is and where it
    stands.
    """
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    place = torch.arange(max(counts)).expand(mask.shape)
    features = torch.stack(
        [torch.arange(len(counts))[:, None].expand(mask.shape), place, place], dim=2
    ).float()
    corner = torch.rand(*mask.shape, 2) / 2
    boxes = torch.cat([corner, corner + 0.3], dim=2)
    return ImageTokens(
        features * mask[..., None], boxes * mask[..., None], mask, torch.rand(len(counts), width)
    )


def captions(lengths):
    """Captions of so many words between a start and an end token, padded."""
    size = torch.tensor(lengths)[:, None]
    place = torch.arange(max(lengths) + 2)
    mask, words = place < size + 2, (place > 0) & (place < size + 1)
    return TextTokens(
        torch.randint(5, 90, mask.shape) * mask, mask, words, torch.rand(*mask.shape, 4)
    )


def test_nothing_is_changed_unless_asked_for():
    images, texts = pictures([4, 2]), captions([3, 5])
    found = augmented(images, texts)
    assert found[0] is images and found[1] is texts


def test_half_of_the_pictures_are_mirrored_box_by_box():
    images, texts = pictures([5] * 400), captions([3] * 400)
    found, same = augmented(images, texts, mirror=True)
    assert (
        same is texts
        and torch.equal(found.features, images.features)
        and torch.equal(found.pooled, images.pooled)
    )
    turned = (found.boxes != images.boxes).flatten(1).any(dim=1)
    assert 160 < int(turned.sum()) < 240
    x0, y0, x1, y1 = images.boxes[turned].unbind(dim=2)
    assert torch.allclose(
        found.boxes[turned], torch.stack([1 - x1, y0, 1 - x0, y1], dim=2), atol=1e-6
    )
    assert (
        (found.boxes[..., 2] > found.boxes[..., 0]).all()
        and found.boxes.min() >= 0
        and found.boxes.max() <= 1
    )


@pytest.mark.parametrize("share, kept", [(0.25, 6), (0.5, 4), (0.9, 1), (0.999, 1)])
def test_each_picture_keeps_so_many_of_its_regions_in_their_order_and_never_none(share, kept):
    counts = [8, 5, 1, 8]
    images = pictures(counts)
    found, _ = augmented(images, captions([3] * 4), hide_regions=share)
    assert found.features.shape == (4, kept, 3) and torch.equal(found.pooled, images.pooled)
    for row, count in enumerate(counts):
        real = found.mask[row]
        assert int(real.sum()) == min(kept, count) and real[: int(real.sum())].all()
        assert (found.features[row, real, 0] == row).all()
        place = found.features[row, real, 1].long()
        assert place.tolist() == sorted(set(place.tolist()))
        assert torch.equal(
            found.boxes[row, real], images.boxes[row, place]
        )  # a region keeps its own box


def test_every_region_is_left_out_about_equally_often():
    images = pictures([8] * 2000)
    found, _ = augmented(images, captions([3] * 2000), hide_regions=0.5)
    times = torch.bincount(found.features[..., 1].long().flatten(), minlength=8)
    assert times.sum() == 8000 and (times - 1000).abs().max() < 100
    assert (
        len({tuple(row) for row in found.features[:100, :, 1].tolist()}) > 30
    )  # each picture loses others


def test_words_are_hidden_from_everybody_and_the_special_tokens_stay():
    texts = captions([12] * 500)
    _, found = augmented(pictures([2] * 500), texts, hide_words=0.3)
    assert torch.equal(found.ids, texts.ids) and torch.equal(found.features, texts.features)
    assert not (found.word_mask & ~texts.word_mask).any()
    assert torch.equal(
        found.mask & ~texts.word_mask, texts.mask & ~texts.word_mask
    )  # start and end
    assert torch.equal(
        found.mask & texts.word_mask, found.word_mask
    )  # a hidden word is no token for attention either
    assert 0.26 < 1 - int(found.word_mask.sum()) / int(texts.word_mask.sum()) < 0.34


def test_a_caption_never_loses_all_of_its_words_and_padding_stays_padding():
    texts = captions([1, 2, 1, 7] * 100)
    _, found = augmented(pictures([2] * 400), texts, hide_words=0.95)
    assert found.word_mask.any(dim=1).all() and not (found.mask & ~texts.mask).any()
    assert torch.equal(found.word_mask[::4], texts.word_mask[::4])  # of one word, it is kept


def test_the_same_random_state_gives_the_same_batch_and_another_another():
    images, texts, settings = pictures([6] * 20), captions([9] * 20), (True, 0.3, 0.3)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        one, other = augmented(images, texts, *settings)
        found.append(
            torch.cat([one.boxes.flatten(), one.features.flatten(), other.mask.float().flatten()])
        )
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
