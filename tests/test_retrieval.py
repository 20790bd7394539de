"""Two-stage scores against full scoring."""

import pytest
import torch
from examples import few, pairs
from helpers import random_embedding
from hypothesis import given
from hypothesis import strategies as st

from tgdt_mini import retrieval
from tgdt_mini.embedding import Embedding
from tgdt_mini.retrieval import two_stage, two_stage_plain
from tgdt_mini.similarity import global_similarity, mixed_similarity

REGIONS, WORDS = (3, 1, 5, 2, 4, 2, 3), (4, 1, 2, 6, 3, 5)
BOTH = pytest.mark.parametrize("query_is", ["image", "caption"])


def sides(query_is, ragged=True):
    """Queries and gallery, float32, the local tokens exact in float16 so that storing them loses
    nothing.
    """
    images = random_embedding(0, len(REGIONS), REGIONS if ragged else 3)
    captions = random_embedding(1, len(WORDS), WORDS if ragged else 4)
    images, captions = (
        Embedding(side.global_token.float(), side.local_tokens.half().float(), side.mask)
        for side in (images, captions)
    )
    return (images, captions) if query_is == "image" else (captions, images)


def full_scores(queries, gallery, query_is, local_weight):
    if query_is == "image":
        return mixed_similarity(queries, gallery, local_weight)
    return mixed_similarity(gallery, queries, local_weight).T


@few
@given(
    both=pairs(dtype=torch.float32), query_is=st.sampled_from(["image", "caption"]), data=st.data()
)
def test_two_stages_are_full_scores_in_the_shortlist_and_minus_inf_outside(both, query_is, data):
    queries, gallery = both if query_is == "image" else both[::-1]
    weight, shortlist = data.draw(st.floats(-9, 9)), data.draw(st.integers(1, 12))
    with pytest.MonkeyPatch.context() as patch:  # the batching must not show
        patch.setattr(retrieval, "SCORES", data.draw(st.sampled_from([1, 100, 2**22])))
        patch.setattr(retrieval, "START", data.draw(st.sampled_from([0, 2**9, 10**9])))
        scores = two_stage(queries, gallery, shortlist, weight, query_is)
    by_global, full = (
        global_similarity(queries, gallery),
        full_scores(queries, gallery, query_is, weight),
    )
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen.scatter_(1, by_global.topk(min(shortlist, len(gallery))).indices, True)
    expected = full.masked_fill(~chosen, -float("inf"))
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(
        two_stage_plain(queries, gallery, shortlist, weight, query_is), expected
    )
    assert shortlist < len(gallery) or chosen.all()  # a shortlist of everything is full scoring
    order = data.draw(st.permutations(range(len(gallery))))
    again = two_stage(queries, gallery[order], shortlist, weight, query_is)
    torch.testing.assert_close(again, expected[:, order])


@BOTH
@pytest.mark.parametrize("part", ["global_token", "local_tokens"])
def test_a_score_that_is_nan_is_an_error_not_a_rank(query_is, part):
    queries, gallery = sides(query_is)
    getattr(queries, part)[2] = float("nan")
    with pytest.raises(ValueError, match="query 2 scores NaN with item"):
        two_stage(queries, gallery, 3, 0.7, query_is)
    queries, gallery = sides(query_is)
    getattr(gallery, part)[1] = float("nan")
    with pytest.raises(ValueError, match="query 0 scores NaN with item 1"):
        two_stage(queries, gallery, len(gallery), 0.7, query_is)


@BOTH
def test_padding_and_neighbours_change_nothing(query_is):
    queries, gallery = sides(query_is)
    scores = two_stage(queries, gallery, 3, 0.7, query_is)
    longer = Embedding.cat([gallery, random_embedding(5, 1, 9).to(torch.float32)])[: len(gallery)]
    longer = Embedding(
        longer.global_token,
        longer.local_tokens.masked_fill(~longer.mask[..., None], 9.0),
        longer.mask,
    )
    torch.testing.assert_close(two_stage(queries, longer, 3, 0.7, query_is), scores)
    torch.testing.assert_close(
        two_stage(queries[[4, 2]], gallery, 3, 0.7, query_is), scores[[4, 2]]
    )


@BOTH
def test_float32_under_autocast(query_is):
    queries, gallery = sides(query_is)
    expected = two_stage(queries, gallery, 3, 0.7, query_is)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(two_stage(queries, gallery, 3, 0.7, query_is), expected)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda q, g: two_stage(q, g, 0, 1.0, "caption"), "shortlist is 0"),
        (lambda q, g: two_stage(q, g, -3, 1.0, "caption"), "shortlist is -3"),
        (lambda q, g: two_stage(q, g, 3, 1.0, "text"), "query_is is 'text'"),
        (
            lambda q, g: two_stage(random_embedding(0, 2, 2, 4), g, 3, 1.0, "caption"),
            "4 wide, the gallery 8",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sides("caption"))


def test_items_and_queries_without_real_tokens_are_named():
    queries, gallery = sides("caption")
    gallery.mask[3] = False
    with pytest.raises(ValueError, match="image 3 has no real region"):
        two_stage(queries, gallery, 2, 1.0, "caption")
    with pytest.raises(ValueError, match="image 3 has no real region"):
        two_stage(gallery, queries, 2, 1.0, "image")
    gallery.global_token[3] = -queries.global_token[0]  # now it is on no shortlist of the first
    assert two_stage(queries[[0]], gallery, 2, 1.0, "caption").argmax(1) != 3
    queries.mask[1] = False
    with pytest.raises(ValueError, match="caption 1 has no real word"):
        two_stage(sides("image")[0], queries, 2, 1.0, "image")
