"""Stage two on stored tokens against `two_stage` and float64, whichever way it goes."""

import pytest
import torch
from helpers import random_embedding

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.rows import MappedRows, RaggedRows, encode_rows
from tgdt_mini.search import int8
from tgdt_mini.search import rerank as module
from tgdt_mini.search.rerank import int8_products, rerank
from tgdt_mini.similarity import local_similarity

QUERIES, ITEMS, WIDTH = 6, 12, 16


def stored_alike(embedding, precision, shards=2):
    """(RaggedRows of an embedding's real tokens in some arrays, the embedding as it reads back)."""
    parts, tokens = embedding.mask.sum(1).tensor_split(shards), embedding.local_tokens
    rows = tokens[embedding.mask].split([int(counts.sum()) for counts in parts])
    coded = [encode_rows(part, precision) for part in rows]
    scales = [None if scale is None else scale.numpy() for _, scale in coded]
    mapped = MappedRows([numbers.numpy() for numbers, _ in coded], scales)
    read = torch.zeros_like(tokens)
    decoded = [n.float() if s is None else n * s[:, None] for n, s in coded]
    read[embedding.mask] = torch.cat(decoded)
    back = Embedding(embedding.global_token, read, embedding.mask)
    return RaggedRows.of(mapped, torch.cat(parts)), back


@pytest.mark.parametrize("shared", [0, 10**6], ids=["read once", "by query"])
@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("query_is", ["caption", "image"])
def test_scores_are_those_of_the_tokens_as_they_are_stored(
    query_is, precision, shared, monkeypatch
):
    monkeypatch.setattr(module, "SHARED", shared)
    monkeypatch.setattr(module, "GATHERED", 2 * WIDTH * 4)  # two candidates at a time
    monkeypatch.setattr(module, "READ", 5 * 4 * WIDTH)  # and five items
    queries = random_embedding(0, QUERIES, 3, WIDTH, torch.float32)
    stored, back = stored_alike(random_embedding(1, ITEMS, 4, WIDTH, torch.float32), precision)
    ids = torch.stack([torch.randperm(ITEMS)[:5].sort().values for _ in range(QUERIES)])
    pair = (queries, back) if query_is == "image" else (back, queries)
    full = local_similarity(*pair)  # (I, C)
    full = full if query_is == "image" else full.T  # (Q, G)
    scores = rerank(queries, stored, ids, query_is)
    torch.testing.assert_close(scores, full.gather(1, ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0, 1e-6, 1, 1e3])
def test_products_in_int8_are_nearly_those_of_float64(scale):
    tokens = scale * torch.randn(7, 64, generator=torch.Generator().manual_seed(0))
    numbers, scales = encode_rows(
        torch.randn(30, 64, generator=torch.Generator().manual_seed(1)), "int8"
    )
    got = int8_products(tokens, numbers.view(5, 6, 64), scales.view(5, 6))
    true = tokens.double() @ (numbers.double() * scales.double()[:, None]).T
    lengths = tokens.double().norm(dim=1)[:, None] * (numbers * scales[:, None]).norm(dim=1)
    assert ((got.flatten(1) - true).abs() <= 2e-5 * lengths).all()
    assert got.shape == (7, 5, 6)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8])
@pytest.mark.parametrize("fast", [True, False])
def test_products_of_whole_numbers_are_exact_on_any_processor(kind, fast, monkeypatch):
    draw, ends = torch.Generator().manual_seed(0), torch.iinfo(kind)
    left = torch.randint(ends.min, ends.max + 1, (37, 300), dtype=kind, generator=draw)
    right = torch.randint(-128, 128, (300, 11), dtype=torch.int8, generator=draw)
    left[0], right[:, 0] = ends.max, -128
    if not fast:
        monkeypatch.setattr(int8, "is_exact", lambda kind: False)
        monkeypatch.setattr(torch, "_int_mm", None)
    assert torch.equal(int8.int8_product(left, right), left.int() @ right.int())


def test_a_processor_that_cuts_off_sums_is_found_out(monkeypatch):
    exact = torch._int_mm

    def saturating(left, right):
        return exact(left, right).clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not int8.is_exact.__wrapped__(torch.int8)
    assert not int8.is_exact.__wrapped__(torch.uint8)


def test_products_that_torch_does_not_have_are_not_asked_for(monkeypatch):
    """torch 2.11 takes no uint8."""

    def without_uint8(left, right, multiply=torch._int_mm):
        if left.dtype == torch.uint8:
            raise RuntimeError("expected self dtype to be of type int8")
        return multiply(left, right)

    monkeypatch.setattr(torch, "_int_mm", without_uint8)
    monkeypatch.setattr(int8, "is_exact", int8.is_exact.__wrapped__)
    assert not int8.is_exact(torch.uint8)
    draw = torch.Generator().manual_seed(0)
    left = torch.randint(0, 256, (32, 64), generator=draw).byte()
    right = torch.randint(-128, 128, (64, 16), generator=draw).to(torch.int8)
    assert torch.equal(int8.int8_product(left, right), left.int() @ right.int())


@pytest.mark.parametrize("size", [7, 40, 5000])  # to count pays for the first two
def test_the_items_asked_for_are_those_of_unique(size):
    ids = torch.randint(0, min(size, 60), (20, 5), generator=torch.Generator().manual_seed(0))
    pairs = zip(module._distinct(ids, size), ids.unique(return_inverse=True), strict=True)
    for got, expected in pairs:
        assert got.dtype == expected.dtype and torch.equal(got, expected)
