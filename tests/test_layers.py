"""The parts of a branch: slot 0 alone, what is hidden in training and from whom, and waves that
tell places apart.
"""

import sys

import pytest
import torch

from tgdt_mini.config import TGDTConfig
from tgdt_mini.layers import DropItems, Layers, sinusoids, waves
from tgdt_mini.photos.reader import DropFeatures


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_global_token_alone_is_slot_0_of_all_slots(count, norm_first):
    torch.manual_seed(0)
    layers = Layers(count, 32, 4, 64, TGDTConfig(norm_first=norm_first)).double()
    tokens, sizes = torch.randn(5, 7, 32, dtype=torch.float64), torch.tensor([7, 3, 1, 4, 2])
    mask = torch.arange(7) < sizes[:, None]
    torch.testing.assert_close(layers.first_slot(tokens, mask), layers(tokens, mask)[:, 0])


def test_encoding_needs_nothing_of_what_torch_compiles_with(monkeypatch):
    """A search would import sympy by it, which takes longer than the search."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    layers = Layers(2, 32, 4, 64, TGDTConfig()).eval()
    with torch.no_grad():
        tokens, mask = torch.randn(5, 7, 32), torch.ones(5, 7, dtype=torch.bool)
        assert layers(tokens, mask).shape == (5, 7, 32)
        assert layers.first_slot(tokens, mask).shape == (5, 32)


def test_hidden_features_are_hidden_in_all_tokens_of_an_item_and_only_in_training():
    torch.manual_seed(0)
    tokens, drop = torch.ones(50, 4, 40), DropFeatures(0.25)
    found = drop(tokens)
    assert (found == found[:, :1]).all() and not (found == found[:1]).all()
    torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], 1 / 0.75))
    assert abs((found == 0).float().mean() - 0.25) < 0.03
    assert torch.equal(drop.eval()(tokens), tokens)


def test_about_the_share_of_items_is_left_alone_and_only_in_training():
    torch.manual_seed(0)
    drop = DropItems(0.3)
    tokens = torch.ones(2000, 3, 2)
    kept = drop(tokens)
    assert ((kept == 0).flatten(1).all(1) | (kept == 1).flatten(1).all(1)).all()  # whole items
    assert 0.25 < (kept == 0).float().mean() < 0.35
    assert torch.equal(drop.eval()(tokens), tokens)


def test_sinusoids_tell_places_apart_and_see_of_two_places_how_far_apart_they_are():
    table = sinusoids(torch.arange(40), 32)
    alike = table @ table.T
    for apart in (1, 7):
        found = alike.diagonal(apart)
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-4, atol=1e-4)
    assert (alike - alike.diagonal().diag()).max() < 0.99 * alike.diagonal().min()


def test_waves_are_the_numbers_and_two_waves_of_each_at_every_frequency():
    numbers = torch.tensor([[0.5, 0.25]])
    assert torch.equal(waves(numbers, 0), numbers)
    wanted = torch.tensor(
        [[0.5, 0.25, 1, 0.5**0.5, 0, 0.5**0.5, 0, 1, -1, 0]]
    )  # sin, cos of 1 pi, of 2 pi
    torch.testing.assert_close(waves(numbers, 2), wanted, rtol=0, atol=1e-6)
