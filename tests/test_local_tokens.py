"""Stored tokens against the tokens that were given: what rounding costs, and that segments do not
show.
"""

import pytest
import torch
from helpers import random_embedding

from tgdt_mini.files.rows import LocalTokens, Segment

LENGTHS = (3, 1, 5, 2, 4, 2, 3)


def packed(width=16):
    embedding = random_embedding(0, len(LENGTHS), LENGTHS, width, torch.float32)
    return embedding, embedding.local_tokens[embedding.mask], torch.tensor(LENGTHS)


def test_int8_is_off_by_half_a_step_at_most_and_a_step_is_a_127th_of_the_largest_number():
    _, tokens, counts = packed()
    tokens[0] = 0  # a token of zeros stays one
    tokens[1] *= 1000
    segment = Segment.of(tokens, counts, "int8")
    assert segment.tokens.dtype == torch.int8 and segment.scales.shape == (len(tokens),)
    read = segment.take(torch.arange(len(tokens)))
    assert read.dtype == torch.float32
    most = tokens.abs().amax(1, keepdim=True) / 254
    assert ((read - tokens).abs() <= most * 1.0001).all() and (read[0] == 0).all()
    assert ((read - tokens).abs() > most / 2).any(), "the bound is not idle"


def test_the_worked_value():
    segment = Segment.of(torch.tensor([[1.0, -0.5]]), torch.tensor([1]), "int8")
    assert segment.tokens.tolist() == [[127, -64]]
    torch.testing.assert_close(segment.take(torch.tensor([0])), torch.tensor([[1.0, -64 / 127]]))


def test_a_score_from_int8_is_near_the_true_one():
    """A word's dot product with a region is off by |word| x |rounding| at most: half a step for
    each of D numbers.
    """
    _, tokens, counts = packed(128)
    read = Segment.of(tokens, counts, "int8").take(torch.arange(len(tokens)))
    bound = 128**0.5 * tokens.abs().amax(1) / 254  # words have length 1
    assert ((read - tokens).norm(dim=1) <= bound * 1.0001).all() and bound.max() < 0.02


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("cuts", [(), (1,), (3, 4)], ids=["one segment", "two", "three"])
def test_fetching_gives_each_items_own_tokens_whatever_the_segments(cuts, precision):
    embedding, _, _ = packed()
    edges = [0, *cuts, len(LENGTHS)]
    parts = [embedding[start:end] for start, end in zip(edges, edges[1:])]
    segments = [
        Segment.of(part.local_tokens[part.mask], part.mask.sum(1), precision) for part in parts
    ]
    stored = LocalTokens(tuple(segments))
    assert stored.offsets.tolist() == [0, 3, 4, 9, 11, 15, 17, 20] and stored.longest == 5
    ids = torch.tensor([[0, 2, 6], [1, 3, 4]])
    tokens, mask = stored.fetch(ids)
    assert torch.equal(mask, embedding.mask[ids])
    error = 1e-3 if precision == "float16" else embedding.local_tokens.abs().max() / 250
    assert (tokens - embedding.local_tokens[ids])[mask].abs().max() <= error
    tokens, mask = stored.fetch(torch.tensor([[3, 5]]))
    assert mask is None and tokens.shape == (1, 2, 2, 16), "items of one length need no mask"
