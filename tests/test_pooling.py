"""Pooled, pruned and rounded tokens against loops."""

import pytest
import torch
from helpers import random_embedding
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import matches, ranks, recall_at_k
from tgdt_mini.reports.choice import SearchSettings
from tgdt_mini.retrieval import two_stage
from tgdt_mini.scaling.pooling import keep_tokens, rounded, two_stage_rsum
from tgdt_mini.similarity import local_similarity

LENGTHS = (3, 1, 6, 2, 5, 4, 6, 2)


def images():
    return random_embedding(3, len(LENGTHS), LENGTHS, 8)


def by_loop(tokens, most, method):
    """One image's tokens (L, D), merged or dropped pair by pair."""
    sums = [token.clone() for token in tokens]
    while len(sums) > most:
        unit = [normalize(token, dim=0) for token in sums]
        pairs = [
            (float(unit[i] @ unit[j]), i, j)
            for i in range(len(sums))
            for j in range(i + 1, len(sums))
        ]
        _, kept, gone = max(pairs)
        if method == "pool":
            sums[kept] = sums[kept] + sums[gone]
        del sums[gone]
    return torch.stack([normalize(token, dim=0) for token in sums])


@pytest.mark.parametrize("method", ["pool", "prune"])
@pytest.mark.parametrize("most", [1, 2, 4, 6, 9])
def test_tokens_are_kept_as_a_loop_would(method, most):
    before, after = images(), keep_tokens(images(), most, method)
    assert torch.equal(after.global_token, before.global_token)
    assert (
        after.mask.sum(1).tolist() == [min(length, most) for length in LENGTHS]
        and after.mask.shape[1] <= most
    )
    for row in range(len(LENGTHS)):
        expected = by_loop(before.local_tokens[row][before.mask[row]], most, method)
        torch.testing.assert_close(after.local_tokens[row][after.mask[row]], expected)


def test_the_example_of_the_documentation():
    tokens = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]])
    three = Embedding(tokens[:, 0], tokens, torch.ones(1, 3, dtype=torch.bool))
    pooled, pruned = (keep_tokens(three, 2, method).local_tokens for method in ("pool", "prune"))
    torch.testing.assert_close(
        pooled, torch.tensor([[[0.949, 0.316], [-1.0, 0.0]]]), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(pruned, torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))


def test_an_image_that_has_few_tokens_keeps_its_scores():
    before, captions = images(), random_embedding(4, 5, 3, 8)
    kept = local_similarity(keep_tokens(before, 4), captions)
    few = torch.tensor(LENGTHS) <= 4
    torch.testing.assert_close(kept[few], local_similarity(before, captions)[few])
    assert not torch.allclose(kept[~few], local_similarity(before, captions)[~few], atol=1e-3)


def test_rounding_is_as_fine_as_its_bits():
    before = images().to(torch.float32)
    full = before.local_tokens
    assert torch.equal(rounded(before, "float32").local_tokens, full)
    assert torch.equal(rounded(before, "float16").local_tokens, full.half().float())
    steps = rounded(before, "int8").local_tokens / full.abs().amax(-1, keepdim=True) * 127
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    far = (rounded(before, "int8").local_tokens - full).abs()
    assert (far <= full.abs().amax(-1, keepdim=True) / 254 + 1e-6).all() and far.max() > 0
    signs = rounded(before, "1 bit").local_tokens
    assert torch.equal(signs > 0, full >= 0) and torch.allclose(
        signs.norm(dim=-1), torch.ones(full.shape[:2])
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: keep_tokens(images(), 0), "most is 0; an image needs at least 1 local token"),
        (lambda: keep_tokens(images(), 2, "drop"), "method is 'drop'; it must be pool or prune"),
        (lambda: rounded(images(), "fp8"), "kind is 'fp8'; it must be one of float32"),
    ],
)
def test_what_cannot_be_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_rsum_is_that_of_two_stages_both_ways():
    images, captions = random_embedding(0, 8, 4, 8), random_embedding(1, 40, 3, 8)
    caption_image = torch.arange(40) // 5
    settings = SearchSettings(2.0, {"image": 12, "caption": 3}, {}, {})
    right = matches(caption_image, 8)
    i2t = ranks(two_stage(images, captions, 12, 2.0, "image"), right)
    t2i = ranks(two_stage(captions, images, 3, 2.0, "caption"), right.T)
    recalls = [*recall_at_k(i2t).values(), *recall_at_k(t2i).values()]
    rsum = two_stage_rsum(images, captions, caption_image, settings)
    assert rsum == pytest.approx(sum(recalls)) and 0 < rsum < 600
