"""Ranks and recalls against brute force and against ir-measures; ties, misses, NaN; folds."""

import math

import ir_measures
import pytest
import torch
from examples import few
from helpers import random_embedding
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, Success

from tgdt_mini import evaluation
from tgdt_mini.evaluation import (
    both_ways,
    folds_of,
    matches,
    mean_of_folds,
    median_rank,
    ranks,
    recall_at_k,
    rsum,
    shortlist_recall,
)
from tgdt_mini.retrieval import two_stage
from tgdt_mini.similarity import global_similarity

INF = math.inf


def five_captions(images, seed=0):
    """Random scores (I, 5 I) and the image row of each caption, the captions in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    caption_image = torch.arange(images).repeat_interleave(5)[
        torch.randperm(5 * images, generator=generator)
    ]
    return torch.randn(images, 5 * images, generator=generator), caption_image


def rank_by_loop(scores, positives):
    """One query: how many wrong candidates score at least as high as the best right one."""
    best = max((s for s, p in zip(scores, positives, strict=True) if p), default=-INF)
    if best == -INF:
        return INF
    return sum(s >= best for s, p in zip(scores, positives, strict=True) if not p)


def brute_force(scores, positives):
    return torch.tensor(
        [float(rank_by_loop(*row)) for row in zip(scores.tolist(), positives.tolist(), strict=True)]
    )


def test_worked_values():
    assert ranks(
        torch.tensor([[0.9, 0.4, 0.4]]), torch.tensor([[False, True, False]])
    ).tolist() == [2.0]
    assert recall_at_k(torch.tensor([0, 3, INF, 0])) == {1: 50.0, 5: 75.0, 10: 75.0}
    assert median_rank(torch.tensor([0.0, 3.0])) == 2.0
    assert median_rank(torch.tensor([0.0, 4.0, 7.0])) == 5.0
    assert median_rank(torch.tensor([0.0, INF])) == median_rank(torch.tensor([INF])) == INF


@st.composite
def judged(draw):
    """Scores (Q, G) with many ties, some not scored; which are right, perhaps none of a query."""
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    values = st.sampled_from([-INF, -1e30, -0.5, 0.0, 0.25, 1.0, 1e30])
    table = st.lists(st.lists(values, min_size=items, max_size=items), min_size=queries)
    marks = st.lists(st.booleans(), min_size=items, max_size=items)
    scores = draw(table.map(lambda rows: rows[:queries]))
    positives = draw(st.lists(marks, min_size=queries, max_size=queries))
    return torch.tensor(scores), torch.tensor(positives)


@few
@given(both=judged(), comparisons=st.sampled_from([1, 20, 2**24]), data=st.data())
def test_ranks_and_recalls_equal_brute_force(both, comparisons, data):
    scores, positives = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "COMPARISONS", comparisons)
        found = ranks(scores, positives)
    assert torch.equal(found, brute_force(scores, positives))
    for k, percent in recall_at_k(found, range(1, 10)).items():
        hits = 0
        for row, right in zip(scores.tolist(), positives.tolist()):
            # wrong ones first among equals, and what was not scored is not found
            order = sorted(range(len(row)), key=lambda j: (-row[j], right[j]))[:k]
            hits += any(right[j] and row[j] > -INF for j in order)
        assert percent == pytest.approx(100 * hits / len(scores))
    order = data.draw(st.permutations(range(scores.shape[1])))
    assert torch.equal(ranks(scores[:, order], positives[:, order]), found)
    assert torch.equal(
        ranks(scores.double().arctan().masked_fill(scores == -INF, -INF), positives), found
    )


def test_recalls_equal_brute_force_both_ways():
    scores, caption_image = five_captions(30)
    result = both_ways(scores, caption_image)
    total = 0.0
    for recalls, rows, right in (
        (result.i2t, scores.tolist(), lambda image, caption: caption_image[caption] == image),
        (result.t2i, scores.T.tolist(), lambda caption, image: caption_image[caption] == image),
    ):
        for k in (1, 5, 10):
            hits = 0
            for query, row in enumerate(rows):
                first = sorted(range(len(row)), key=lambda j, row=row: -row[j])[:k]
                hits += any(right(query, candidate) for candidate in first)
            assert recalls[k] == pytest.approx(100 * hits / len(rows))
            total += recalls[k]
    assert result.rsum == pytest.approx(total)
    assert result.i2t_median == 1 + math.floor(
        ranks(scores, matches(caption_image, 30)).quantile(0.5)
    )


@pytest.mark.parametrize("direction", ["image to text", "text to image"])
def test_agrees_with_ir_measures(direction):
    """Success@K is what this literature calls R@K; a shortlist's misses are documents that were not
    retrieved.
    """
    scores, caption_image = five_captions(40, seed=3)
    positives = matches(caption_image, 40)
    if direction == "text to image":
        scores, positives = scores.T, positives.T
    top = scores.topk(25).indices
    scores = torch.full_like(scores, -INF).scatter(1, top, scores.gather(1, top))
    qrels = {
        str(q): {str(g): 1 for g in row.nonzero()[:, 0].tolist()} for q, row in enumerate(positives)
    }
    run = {
        str(q): {str(g): value for g, value in enumerate(row) if value > -INF}
        for q, row in enumerate(scores.tolist())
    }
    theirs = ir_measures.calc_aggregate([Success @ 1, Success @ 5, Success @ 10, RR], qrels, run)
    ours = ranks(scores, positives)
    assert ours.isinf().any() and (ours < 10).any()
    for k, percent in recall_at_k(ours).items():
        assert percent == pytest.approx(100 * theirs[Success @ k])
    assert float((1 / (ours + 1)).mean()) == pytest.approx(theirs[RR])


def test_ties_count_against_the_model():
    """A collapsed model gives every pair one score. It must not look perfect."""
    scores, caption_image = five_captions(20)
    result = both_ways(torch.zeros_like(scores), caption_image)
    assert result.rsum == 0 and result.i2t_median == 96 and result.t2i_median == 20


def test_a_miss_is_a_miss():
    """Released code, row 1: counting a match outside the shortlist as rank 0 turns chance into 78%
    and 52%.
    """
    images, captions = random_embedding(0, 200, 2, 64), random_embedding(1, 1000, 2, 64)
    caption_image = torch.arange(200).repeat_interleave(5)
    for queries, gallery, query_is, shortlist, reported in (
        (images, captions, "image", 50, 78),
        (captions, images, "caption", 100, 52),
    ):
        positives = (
            matches(caption_image, 200) if query_is == "image" else matches(caption_image, 200).T
        )
        scores = two_stage(queries, gallery, shortlist, 10.0, query_is)
        ours = ranks(scores, positives)
        missed = (
            100
            - shortlist_recall(global_similarity(queries, gallery), positives, (shortlist,))[
                shortlist
            ]
        )
        assert 100 * float(ours.isinf().float().mean()) == pytest.approx(missed)
        released = recall_at_k(ours.masked_fill(ours.isinf(), 0))[1]
        assert released == pytest.approx(reported, abs=4) and recall_at_k(ours)[1] < 2
        assert released == pytest.approx(recall_at_k(ours)[1] + missed)


def test_a_model_that_is_always_wrong_scores_0():
    """Released code, row 1: captions that are minus their images reach a perfect rsum of 600."""
    images = random_embedding(0, 100, 1, 64)
    minus = type(images)(-images.global_token, -images.local_tokens, images.mask)
    i2t = two_stage(images, minus, 20, 1.0, "image")
    t2i = two_stage(minus, images, 20, 1.0, "caption")
    result = both_ways(i2t, torch.arange(100), t2i)
    assert result.rsum == 0 and result.i2t_median == result.t2i_median == INF


def test_shortlist_recall_is_hits_within_the_shortlist():
    scores, caption_image = five_captions(30)
    positives = matches(caption_image, 30)
    for k in (1, 7, 20):
        hits = positives.gather(1, scores.topk(k).indices).any(1)
        assert shortlist_recall(scores, positives, (k,))[k] == pytest.approx(
            100 * float(hits.float().mean())
        )
    assert shortlist_recall(scores.T, positives.T, (30, 10_000)) == {30: 100.0, 10_000: 100.0}


def test_folds_are_ranked_alone_and_averaged():
    """Released code, row 14: an rsum printed times 6. The mean of the folds is at most 600."""
    scores, caption_image = five_captions(30)
    folds = []
    for first in (0, 10, 20):
        mine = [c for c, image in enumerate(caption_image.tolist()) if first <= image < first + 10]
        folds.append(both_ways(scores[first : first + 10][:, mine], caption_image[mine] - first))
    result = mean_of_folds(scores, caption_image, folds=3)
    for k in (1, 5, 10):
        assert result.i2t[k] == pytest.approx(sum(fold.i2t[k] for fold in folds) / 3)
        assert result.t2i[k] == pytest.approx(sum(fold.t2i[k] for fold in folds) / 3)
    assert result.rsum == pytest.approx(sum([*result.i2t.values(), *result.t2i.values()]))
    assert result.t2i_median == pytest.approx(sum(fold.t2i_median for fold in folds) / 3)
    assert mean_of_folds(scores, caption_image, folds=1) == both_ways(scores, caption_image)
    assert mean_of_folds(matches(caption_image, 30).float(), caption_image, folds=3).rsum == 600


def test_each_direction_may_have_its_own_scores():
    right, caption_image = torch.eye(3), torch.arange(3)
    assert (
        both_ways(right, caption_image, 1 - right).t2i[1]
        == both_ways(1 - right, caption_image, right).i2t[1]
        == 0
    )
    assert (
        both_ways(right, caption_image, 1 - right).i2t[1]
        == both_ways(1 - right, caption_image, right).t2i[1]
        == 100
    )


def test_rsum_adds_six_recalls():
    assert rsum(torch.tensor([0.0, 4.0]), torch.tensor([0.0, 9.0])) == (50 + 100 + 100) + (
        50 + 50 + 100
    )


def test_result_prints_on_one_line():
    result = both_ways(torch.eye(2), torch.arange(2))
    assert (
        str(result) == "image->text 100.0 100.0 100.0 | text->image 100.0 100.0 100.0 | rsum 600.0"
    )


@pytest.mark.parametrize(
    "spots", [[(1, 2)], [(q, g) for q in range(3) for g in range(4)]], ids=["one", "all"]
)
def test_nan_is_an_error(spots, monkeypatch):
    monkeypatch.setattr(
        evaluation, "COMPARISONS", 4
    )  # the row is named even when it is in a later block
    scores = torch.zeros(3, 4)
    for spot in spots:
        scores[spot] = float("nan")
    with pytest.raises(ValueError, match=rf"scores\[{spots[0][0]}, {spots[0][1]}\] is NaN"):
        ranks(scores, torch.eye(3, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ranks(torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool)), r"\(Q, G\)"),
        (lambda: ranks(torch.zeros(2, 3), torch.zeros(2, 3)), "torch.float32"),
        (lambda: ranks(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)), "at least 1"),
        (lambda: ranks(torch.zeros(2, 3).long(), torch.eye(2, 3).bool()), "scores torch.int64"),
        (lambda: ranks(torch.zeros(2, 3).bool(), torch.eye(2, 3).bool()), "scores torch.bool"),
        (lambda: recall_at_k(torch.zeros(0)), r"ranks is \[\]; it must be"),
        (lambda: recall_at_k(torch.tensor([float("nan")])), r"ranks is \[nan\]; .*no NaN"),
        (lambda: recall_at_k(torch.tensor([2, -1])), r"ranks is \[2, -1\]; .*from 0"),
        (lambda: median_rank(torch.tensor([-1.0])), r"ranks is \[-1.0\]; .*from 0"),
        (lambda: recall_at_k(torch.tensor([True])), r"ranks is \[True\]; .*numbers"),
        (lambda: recall_at_k(torch.zeros(2), 1), r"ks is 1; it must be a tuple, such as \(1,"),
        (lambda: recall_at_k(torch.zeros(2), torch.tensor(1)), r"ks is tensor\(1\); it must"),
        (
            lambda: recall_at_k(torch.zeros(2), (0, 1)),
            "each K of ks is 0; it must be a whole number, at least 1",
        ),
        (lambda: median_rank(torch.zeros(0)), r"ranks is \[\]"),
        (lambda: both_ways(torch.zeros(2, 3), torch.arange(2)), r"\(I, C\) and \(C,\)"),
        (lambda: both_ways(torch.zeros(2, 3), torch.tensor([0, 1, 2])), "the rows are 0 to 1"),
        (lambda: both_ways(torch.zeros(2, 3), torch.tensor([0, -1, 1])), "from -1 to 1"),
        (lambda: both_ways(torch.zeros(2, 3), torch.zeros(3)), "must be integers"),
        (lambda: matches(torch.tensor(1), 2), r"torch.int64 \(\); it must be integers \(C,\)"),
        (lambda: mean_of_folds(torch.zeros(4, 4), torch.arange(4) - 1, 2), "from -1 to 2"),
        (lambda: mean_of_folds(torch.zeros(4, 4), torch.arange(4) + 1, 2), "from 1 to 4"),
        (lambda: folds_of(torch.arange(4) + 1, 4, 2), "from 1 to 4"),
        (lambda: mean_of_folds(torch.zeros(2, 2), torch.arange(2), folds=3), "folds is 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
