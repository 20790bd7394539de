"""Pooled, pruned and rounded tokens against loops, and the page's table against the shipped
model.
"""

import re
from pathlib import Path

import pytest
import torch
from helpers import random_embedding
from torch.nn.functional import normalize

from tgdt_mini import scene_tokens
from tgdt_mini.checkpoint import load_model
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode
from tgdt_mini.files.paths import shipped
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.scaling.capacity import token_bytes
from tgdt_mini.scaling.pooling import cost, keep_tokens, rounded
from tgdt_mini.similarity import local_similarity

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
LENGTHS = (3, 1, 6, 2, 5, 4, 6, 2)


def images():
    return random_embedding(3, len(LENGTHS), LENGTHS, 8)


def by_loop(tokens, most, how):
    """One image's tokens (L, D), merged or dropped pair by pair."""
    sums = [token.clone() for token in tokens]
    while len(sums) > most:
        unit = [normalize(each, dim=0) for each in sums]
        pairs = [
            (float(unit[i] @ unit[j]), i, j)
            for i in range(len(sums))
            for j in range(i + 1, len(sums))
        ]
        _, kept, gone = max(pairs)
        if how == "pool":
            sums[kept] = sums[kept] + sums[gone]
        del sums[gone]
    return torch.stack([normalize(each, dim=0) for each in sums])


@pytest.mark.parametrize("how", ["pool", "prune"])
@pytest.mark.parametrize("most", [1, 2, 4, 6, 9])
def test_tokens_are_kept_as_a_loop_would(how, most):
    some, found = images(), keep_tokens(images(), most, how)
    assert torch.equal(found.global_token, some.global_token)
    assert (
        found.mask.sum(1).tolist() == [min(length, most) for length in LENGTHS]
        and found.mask.shape[1] <= most
    )
    for row in range(len(LENGTHS)):
        expected = by_loop(some.local_tokens[row][some.mask[row]], most, how)
        torch.testing.assert_close(found.local_tokens[row][found.mask[row]], expected)


def test_the_example_of_the_documentation():
    tokens = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]])
    three = Embedding(tokens[:, 0], tokens, torch.ones(1, 3, dtype=torch.bool))
    pooled, pruned = (keep_tokens(three, 2, how).local_tokens for how in ("pool", "prune"))
    torch.testing.assert_close(
        pooled, torch.tensor([[[0.949, 0.316], [-1.0, 0.0]]]), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(pruned, torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))


def test_an_image_that_has_few_tokens_keeps_its_scores():
    some, captions = images(), random_embedding(4, 5, 3, 8)
    kept = local_similarity(keep_tokens(some, 4), captions)
    few = torch.tensor(LENGTHS) <= 4
    torch.testing.assert_close(kept[few], local_similarity(some, captions)[few])
    assert not torch.allclose(kept[~few], local_similarity(some, captions)[~few], atol=1e-3)


def test_rounding_is_as_fine_as_its_bits():
    some = images().to(torch.float32)
    full = some.local_tokens
    assert torch.equal(rounded(some, "float32").local_tokens, full)
    assert torch.equal(rounded(some, "float16").local_tokens, full.half().float())
    steps = rounded(some, "int8").local_tokens / full.abs().amax(-1, keepdim=True) * 127
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    far = (rounded(some, "int8").local_tokens - full).abs()
    assert (far <= full.abs().amax(-1, keepdim=True) / 254 + 1e-6).all() and far.max() > 0
    signs = rounded(some, "1 bit").local_tokens
    assert torch.equal(signs > 0, full >= 0) and torch.allclose(
        signs.norm(dim=-1), torch.ones(full.shape[:2])
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: keep_tokens(images(), 0), "most is 0; an image needs at least 1 local token"),
        (lambda: keep_tokens(images(), 2, "drop"), "how is 'drop'; it must be pool or prune"),
        (lambda: rounded(images(), "fp8"), "kind is 'fp8'; it must be one of float32"),
    ],
)
def test_what_cannot_be_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_page_holds_what_the_shipped_model_loses():
    """Two rows of the table are measured again, the others take the same way and minutes."""
    rows = dict(re.findall(r"^\| (all tokens[^|]*|p\w+ to[^|]*) \| ([^\n]+) \|$", PAGE, re.M))
    assert len(rows) == 13
    model = load_model(shipped() / "weights")
    _, tokens = scene_tokens("validation", model.tokenizer, model.config.image_tokens)
    embedded, captions = encode(model, tokens)
    for name, some in (("all tokens", embedded), ("pool to 3", keep_tokens(embedded, 3))):
        kept, room, rsum, _ = rows[name].split(" | ")
        count = float(some.mask.sum(1).float().mean())
        assert float(kept) == pytest.approx(count, abs=0.06)
        assert float(room) == pytest.approx(count * token_bytes(128), abs=1)
        assert float(rsum) == pytest.approx(
            cost(some, captions, tokens.caption_image, stored_settings(model)), abs=0.5
        )
