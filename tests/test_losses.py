"""Losses against the written formulas, computed by loops in float64."""

import math

import pytest
import torch
from helpers import random_embedding

from tgdt_mini import losses
from tgdt_mini.embedding import Embedding
from tgdt_mini.losses import (
    cmc_loss,
    consistency_loss,
    hard_caption_loss,
    hinge_loss,
    info_nce_loss,
)
from tgdt_mini.similarity import global_similarity, local_similarity

B = 6
SAME_IMAGE = torch.tensor([7, 3, 7, 5, 3, 7])


def random_scores(seed=0, batch=B):
    drawn = torch.Generator().manual_seed(seed)
    return torch.rand(batch, batch, generator=drawn, dtype=torch.float64) * 2 - 1


def near(value):
    return pytest.approx(value, rel=1e-12)


def same(ids):
    return ids[:, None] == ids[None, :]


def negatives_of(i, positives):
    return [j for j in range(len(positives)) if j != i and not positives[i][j]]


def hinge_by_loops(scores, margin, positives, negatives):
    total = 0.0
    for s, p in ((scores, positives), (scores.T, positives.T)):
        for i in range(len(s)):
            hinges = [max(0.0, float(margin + s[i, j] - s[i, i])) for j in negatives_of(i, p)]
            if hinges:
                total += max(hinges) if negatives == "hardest" else sum(hinges) / len(hinges)
    return total


def info_nce_by_loops(scores, temperature, positives):
    total = 0.0
    for s, p in ((scores, positives), (scores.T, positives.T)):
        for i in range(len(s)):
            weights = [math.exp(float(s[i, j]) / temperature) for j in [i, *negatives_of(i, p)]]
            total -= math.log(weights[0] / sum(weights)) / len(s) / 2
    return total


def test_worked_values():
    eye, same_column = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    hinge = hinge_loss(torch.tensor([[0.5, 0.4], [0.1, 0.6]]), reduction="sum")
    assert hinge.item() == pytest.approx(0.1)
    assert consistency_loss(eye, same_column, reduction="sum").item() == pytest.approx(1.4)
    assert info_nce_loss(eye, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
@pytest.mark.parametrize("ids", [None, SAME_IMAGE], ids=["one caption", "several captions"])
def test_hinge_equals_the_formula(negatives, ids):
    scores, positives = random_scores(), None if ids is None else same(ids)
    known = torch.eye(B) > 0 if ids is None else positives
    expected = hinge_by_loops(scores, 0.2, known, negatives)
    for reduction, part in (("sum", 1), ("mean", B)):
        found = hinge_loss(scores, 0.2, positives, negatives, reduction)
        assert found.item() == near(expected / part)


def test_hinge_reads_rows_and_columns_of_an_unequal_mask():
    """positives need not be symmetric: rows use row i of it, columns use column i."""
    scores, positives = random_scores(), torch.zeros(B, B, dtype=torch.bool)
    positives[0, 1] = positives[4, 2] = True
    expected = hinge_by_loops(scores, 0.5, positives, "hardest")
    assert hinge_loss(scores, 0.5, positives, reduction="sum").item() == near(expected)


def test_captions_of_one_image_are_never_negatives():
    """Released code, row 8: only the diagonal is a match there."""
    scores = torch.full((4, 4), -1.0, dtype=torch.float64).fill_diagonal_(0.5)
    scores[0, 1] = scores[1, 0] = 0.9  # pairs 0 and 1 show one image, whose captions suit both
    positives = same(torch.tensor([1, 1, 2, 3]))
    assert hinge_loss(scores).item() > 0
    for negatives in ("hardest", "mean"):
        assert hinge_loss(scores, positives=positives, negatives=negatives).item() == 0
    assert info_nce_loss(scores, 0.1, positives).item() < info_nce_loss(scores, 0.1).item() / 1e4


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_without_a_negative_the_loss_is_0_and_so_is_its_gradient(negatives):
    for scores, positives in (
        (random_scores(batch=1), None),
        (random_scores(), torch.ones(B, B, dtype=torch.bool)),
    ):
        scores.requires_grad_()
        loss = hinge_loss(scores, positives=positives, negatives=negatives)
        loss.backward()
        assert loss.item() == 0 and (scores.grad == 0).all()


def test_the_mean_does_not_depend_on_the_batch_size():
    """Released code, row 9: a sum ties the rate to the batch. Two copies must cost as one."""
    scores = random_scores()
    far = torch.full_like(scores, -9.0)
    doubled = torch.cat([torch.cat([scores, far], 1), torch.cat([far, scores], 1)])
    assert hinge_loss(doubled).item() == pytest.approx(hinge_loss(scores).item())
    once, twice = (hinge_loss(each, reduction="sum").item() for each in (scores, doubled))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_values_of_a_collapsed_model(negatives):
    equal = torch.full((B, B), 0.3, dtype=torch.float64)
    assert hinge_loss(equal, margin=0.2, negatives=negatives).item() == pytest.approx(0.4)
    assert info_nce_loss(equal, 0.05).item() == pytest.approx(math.log(B))


def test_consistency_equals_the_formula():
    images, captions = (random_embedding(seed, B, 1).global_token for seed in (0, 1))
    gaps = (captions @ captions.T - images @ images.T).abs()
    expected = sum(max(0.0, max(gaps[i, j].item() for i in range(B)) - 0.3) for j in range(B))
    assert consistency_loss(images, captions, 0.3, "sum").item() == near(expected)
    assert consistency_loss(images, captions, 0.3, "mean").item() == near(expected / B)
    assert consistency_loss(images, images).item() == 0


@pytest.mark.parametrize("ids", [None, SAME_IMAGE])
def test_info_nce_equals_the_formula(ids):
    scores = random_scores()
    positives = torch.eye(B, dtype=torch.bool) if ids is None else same(ids)
    expected = info_nce_by_loops(scores, 0.1, positives)
    found = info_nce_loss(scores, 0.1, None if ids is None else positives)
    learnt = info_nce_loss(scores, torch.tensor(0.1, dtype=torch.float64), positives)
    assert found.item() == near(expected) and learnt.item() == pytest.approx(expected)


def test_info_nce_without_other_positives_is_cross_entropy():
    scores, target = random_scores(), torch.arange(B)
    both = (torch.nn.functional.cross_entropy(s / 0.07, target) for s in (scores, scores.T))
    expected = sum(both) / 2
    torch.testing.assert_close(info_nce_loss(scores, 0.07), expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s: hinge_loss(s, 0.5, same(SAME_IMAGE), "hardest"),
        lambda s: hinge_loss(s, 0.5, same(SAME_IMAGE), "mean", "sum"),
        lambda s: info_nce_loss(s, 0.1, same(SAME_IMAGE)),
        lambda s: consistency_loss(s, s.flip(1) * s, 0.1),
    ],
    ids=["hardest", "mean", "info_nce", "consistency"],
)
def test_gradients(loss):
    assert torch.autograd.gradcheck(loss, random_scores().requires_grad_())


def batch():
    return random_embedding(0, B, (3, 1, 2, 4, 2, 3)), random_embedding(1, B, (2, 5, 1, 3, 4, 2))


@pytest.mark.parametrize("inter", ["hinge", "info_nce"])
def test_cmc_is_the_sum_of_its_parts(inter):
    images, captions = batch()
    limits = dict(margin=0.4, consistency_margin=0.1, temperature=0.2)
    loss = cmc_loss(images, captions, SAME_IMAGE, contrastive=inter, **limits)

    def expected(scores):
        if inter == "hinge":
            return hinge_loss(scores, 0.4, same(SAME_IMAGE))
        return info_nce_loss(scores, 0.2, same(SAME_IMAGE))

    torch.testing.assert_close(loss.inter_global, expected(global_similarity(images, captions)))
    torch.testing.assert_close(loss.inter_local, expected(local_similarity(images, captions)))
    intra = consistency_loss(images.global_token, captions.global_token, 0.1)
    torch.testing.assert_close(loss.intra, intra)
    torch.testing.assert_close(loss.total, loss.inter_global + loss.inter_local + loss.intra)
    assert min(loss.inter_global, loss.inter_local, loss.intra) > 0


@pytest.mark.parametrize("inter", ["hinge", "info_nce"])
def test_the_mixed_part_is_of_the_sum_of_scores_and_teaches_local_tokens_only(inter):
    images, captions = batch()
    parts = [images.global_token, images.local_tokens, captions.global_token, captions.local_tokens]
    leaves = [part.clone().requires_grad_() for part in parts]
    images = Embedding(leaves[0], leaves[1], images.mask)
    captions = Embedding(leaves[2], leaves[3], captions.mask)
    off = dict(use_global=False, use_local=False, use_intra=False)
    loss = cmc_loss(images, captions, SAME_IMAGE, contrastive=inter, use_mixed=True, **off)
    scores = global_similarity(images, captions) + local_similarity(images, captions)
    positives = same(SAME_IMAGE)
    if inter == "hinge":
        expected = hinge_loss(scores, 0.2, positives)
    else:
        expected = info_nce_loss(scores, 0.07, positives)
    torch.testing.assert_close(loss.inter_mixed, expected)
    assert loss.total == loss.inter_mixed > 0
    loss.total.backward()
    assert [leaf.grad is not None for leaf in leaves] == [False, True, False, True]
    assert cmc_loss(images, captions).inter_mixed == 0


def test_cmc_hands_on_negatives_and_reduction():
    images, captions = batch()
    how = dict(negatives="mean", reduction="sum")
    loss = cmc_loss(images, captions, **how)
    inter = hinge_loss(global_similarity(images, captions), **how)
    intra = consistency_loss(images.global_token, captions.global_token, reduction="sum")
    torch.testing.assert_close((loss.inter_global, loss.intra), (inter, intra))


@pytest.mark.parametrize("off", ["global", "local", "intra"])
def test_a_part_switched_off_is_0_and_costs_nothing(off, monkeypatch):
    def refuse(*_):
        raise AssertionError(f"the {off} part was computed")

    images, captions = batch()
    whole = cmc_loss(images, captions)
    name = "consistency_loss" if off == "intra" else f"{off}_similarity"
    monkeypatch.setattr(losses, name, refuse)
    loss = cmc_loss(images, captions, **{f"use_{off}": False})
    part = "intra" if off == "intra" else f"inter_{off}"
    assert getattr(loss, part).item() == 0
    torch.testing.assert_close(loss.total, whole.total - getattr(whole, part))


def test_each_part_reaches_its_tokens_in_both_modalities():
    for part, moved in (
        ("inter_global", "global_token"),
        ("intra", "global_token"),
        ("inter_local", "local_tokens"),
    ):
        images, captions = batch()
        leaves = {
            name: [getattr(side, name).requires_grad_() for side in (images, captions)]
            for name in ("global_token", "local_tokens")
        }
        loss = getattr(cmc_loss(images, captions, margin=1.0, consistency_margin=0.05), part)
        for name, tensors in leaves.items():
            for gradient in torch.autograd.grad(
                loss, tensors, retain_graph=True, allow_unused=True
            ):
                assert (gradient is not None and bool(gradient.any())) == (name == moved)


def test_cmc_gradients():
    images, captions = batch()

    def total(image_globals, image_locals, caption_globals, caption_locals):
        one = Embedding(image_globals, image_locals, images.mask)
        other = Embedding(caption_globals, caption_locals, captions.mask)
        return cmc_loss(one, other, SAME_IMAGE, margin=0.5, consistency_margin=0.1).total

    leaves = [
        tensor.requires_grad_()
        for side in (images, captions)
        for tensor in (side.global_token, side.local_tokens)
    ]
    assert torch.autograd.gradcheck(total, leaves, fast_mode=True)


def test_hard_captions_are_confused_by_the_scores_that_are_asked_for():
    images, captions = batch()
    hard = captions[[1, 0, 3, 2, 5, 4]]
    by_local, by_global = (
        [score(images, texts).diagonal() for texts in (hard, captions)]
        for score in (local_similarity, global_similarity)
    )
    for use_global in (False, True):
        gap = by_local[0] - by_local[1] + use_global * (by_global[0] - by_global[1])
        expected = (gap / 0.3).exp().log1p().mean()
        loss = hard_caption_loss(images, captions, hard, 0.3, use_global)
        assert loss.item() == pytest.approx(expected.item())


def test_float32_under_autocast():
    images, captions = (side.to(torch.float32) for side in batch())
    expected, others = cmc_loss(images, captions), captions[[1, 0, 3, 2, 5, 4]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cmc_loss(images, captions).total, expected.total)
        confused = hard_caption_loss(images, captions, others, 0.1)
    assert torch.equal(confused, hard_caption_loss(images, captions, others, 0.1))
    half = (side.to(torch.bfloat16) for side in (images, captions))
    assert cmc_loss(*half).total.dtype == torch.float32
    assert hinge_loss(random_scores().to(torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: hinge_loss(s[:3]), r"\(3, 6\); it must be \(B, B\)"),
        (lambda s: hinge_loss(s, negatives="all"), "negatives is 'all'"),
        (lambda s: hinge_loss(s, reduction="none"), "reduction is 'none'"),
        (lambda s: hinge_loss(s, positives=torch.eye(B)), "positives is torch.float32"),
        (lambda s: info_nce_loss(s, 0.0), "temperature is 0.0"),
        (lambda s: consistency_loss(s, s[:2]), r"\(2, 6\)"),
        (lambda s: consistency_loss(s[:0], s[:0]), r"\(0, 6\)\]; both must be \(B >= 1, D\)"),
        (lambda s: cmc_loss(batch()[0][:0], batch()[1][:4]), "0 images and 4 captions"),
        (lambda s: cmc_loss(*batch(), image_ids=torch.arange(3)), r"image_ids has shape \(3,\)"),
        (lambda s: cmc_loss(batch()[0], batch()[1][:2]), "6 images and 2 captions"),
        (lambda s: cmc_loss(*batch(), contrastive="clip"), "contrastive is 'clip'"),
        (
            lambda s: cmc_loss(*batch(), contrastive="info_nce", reduction="sum"),
            "reduction is 'sum'",
        ),
        (
            lambda s: cmc_loss(*batch(), use_global=False, use_local=False, use_intra=False),
            "use_mixed are False",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_scores())
