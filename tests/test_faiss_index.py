"""Shortlists by an index of faiss against the exact ones."""

import sys

import pytest
import torch
from helpers import random_embedding

from tgdt_mini.retrieval import best_by_global
from tgdt_mini.search.faiss_index import faiss_index


def tokens(seed, items):
    return random_embedding(seed, items, 1, 8, torch.float32).global_token


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_index_of_faiss_finds_what_it_promises(kind):
    pytest.importorskip("faiss")
    items, queries = tokens(1, 2000), tokens(0, 20)
    exact, exact_ids = best_by_global(queries, items, 10)
    scores, ids = best_by_global(queries, items, 10, faiss_index(items, kind))
    found = torch.stack([torch.isin(*pair) for pair in zip(ids, exact_ids)])
    if kind == "flat":
        assert torch.equal(ids, exact_ids)
        torch.testing.assert_close(scores, exact)
    else:
        assert found.float().mean() > 0.5, "approximate, but not at random (0.005)"
        torch.testing.assert_close(scores, (queries @ items.T).gather(1, ids))
    assert (ids.diff(dim=1) > 0).all()


def test_a_query_for_which_the_index_finds_too_few_is_searched_exactly():
    pytest.importorskip("faiss")
    items, queries = tokens(1, 400), tokens(0, 5)
    index = faiss_index(items, "ivf")
    index.nprobe = 1  # one cluster of ten holds fewer than 150 items
    assert (index.search(queries.numpy(), 150)[1] < 0).any()
    _, ids = best_by_global(queries, items, 150, index)
    assert torch.equal(ids, best_by_global(queries, items, 150)[1])


def test_an_unknown_index_and_a_missing_library_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match="faiss is not installed; pip install faiss-cpu"):
        faiss_index(tokens(1, 50))
    monkeypatch.undo()
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="kind is 'tree'"):
        faiss_index(tokens(1, 50), "tree")
