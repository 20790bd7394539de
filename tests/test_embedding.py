"""Embeddings: what fits together, and what indexing, moving and joining keep."""

import pytest
import torch
from helpers import random_embedding

from tgdt_mini.embedding import Embedding

NAMES = ("global_token", "local_tokens", "mask")


def assert_equal(one, other):
    for name in NAMES:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(
    "name, tensor, given",
    [
        ("local_tokens", torch.zeros(4, 3, 8), r"\(4, 3, 8\)"),
        ("local_tokens", torch.zeros(3, 3, 7), r"\(3, 3, 7\)"),
        ("local_tokens", torch.zeros(3, 8), r"\(3, 8\)"),
        ("mask", torch.ones(3, 4, dtype=torch.bool), r"\(3, 4\)"),
        ("mask", torch.ones(3, 3), "torch.float32"),
        ("global_token", torch.zeros(3, 8, 8), r"\(3, 8, 8\)"),
        ("global_token", torch.zeros(3, 0), r"\(3, 0\).* at least 1"),
    ],
)
def test_parts_that_do_not_fit_are_an_error_that_names_the_part(name, tensor, given):
    embedding = random_embedding(0, 3, 3)
    parts = {part: getattr(embedding, part) for part in NAMES}
    with pytest.raises(ValueError, match=f"{name} .*{given}"):
        Embedding(**(parts | {name: tensor}))


@pytest.mark.parametrize(
    "rows, items",
    [
        (2, [2]),
        (slice(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        (torch.tensor([1, 1]), [1, 1]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        ([], []),
    ],
)
def test_rows_keep_their_items_in_the_order_asked_for(rows, items):
    embedding = random_embedding(0, 4, (2, 1, 3, 2))
    part = embedding[rows]
    assert len(part) == len(items)
    for place, item in enumerate(items):
        for name in NAMES:
            assert torch.equal(getattr(part, name)[place], getattr(embedding, name)[item])


def test_joined_parts_are_padded_to_the_longest_and_their_pads_are_masked():
    parts = [random_embedding(0, 2, (1, 2)), random_embedding(1, 3, (4, 1, 3))]
    joined = Embedding.cat(parts)
    assert joined.local_tokens.shape == (5, 4, 8)
    assert joined.mask.sum(1).tolist() == [1, 2, 4, 1, 3]
    assert not joined.local_tokens[:2, 2:].any()
    short = Embedding(joined.global_token[:2], joined.local_tokens[:2, :2], joined.mask[:2, :2])
    assert_equal(short, parts[0])
    assert_equal(joined[2:], parts[1])


def test_a_dtype_changes_floats_only_and_detach_drops_the_gradient():
    embedding = random_embedding(0, 2, 3)
    half = embedding.to(torch.float16)
    assert (half.global_token.dtype, half.mask.dtype) == (torch.float16, torch.bool)
    assert half.local_tokens.dtype == torch.float16
    assert {getattr(embedding.to("meta"), name).device.type for name in NAMES} == {"meta"}
    embedding.local_tokens.requires_grad_()
    assert not embedding.detach().local_tokens.requires_grad
    assert_equal(embedding.detach(), embedding)
