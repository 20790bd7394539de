"""The shortlist against sorting everything, whatever the precision; what a shortlist misses, by
hand.
"""

import pytest
import torch
from helpers import random_embedding

from tgdt_mini import retrieval
from tgdt_mini.reports.choice import missed
from tgdt_mini.retrieval import best_by_global


def tokens(seed, items, width=8):
    return random_embedding(seed, items, 1, width, torch.float32).global_token


def best_by_sorting(queries, items, count):
    """float64, one query at a time; ids ascending."""
    found = [
        (items.double() @ query.double()).argsort(descending=True)[:count].sort().values
        for query in queries
    ]
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("block", [1, 7, 2**11])
@pytest.mark.parametrize("cached", [0, 2**22])
@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_the_shortlist_is_that_of_sorting_everything(dtype, block, cached, count, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", block)
    monkeypatch.setattr(retrieval, "CACHED", cached)
    items = tokens(1, 50).to(dtype)
    queries = tokens(0, count).to(torch.promote_types(dtype, torch.float32))
    for count in (1, 9, 50):
        scores, ids = best_by_global(queries, items, count)
        assert torch.equal(ids, best_by_sorting(queries, items, count))
        expected = (queries.double() @ items.double().T).gather(1, ids)
        torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=0)
        assert scores.dtype == torch.promote_types(dtype, torch.float32)


def test_what_a_shortlist_misses_by_hand():
    by_global = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    full = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 3.0, 2.0]])
    # the best answers are items 3 and 2 for the first query, 0 and 2 for the second
    assert missed(by_global, full, (1, 2, 3, 4), (1, 2)) == {
        1: {1: 50.0, 2: 50.0, 3: 50.0, 4: 0.0},
        2: {1: 75.0, 2: 75.0, 3: 25.0, 4: 0.0},
    }
    assert missed(by_global, by_global, (2,), (1, 2)) == {1: {2: 0.0}, 2: {2: 0.0}}
    with pytest.raises(ValueError, match="NaN"):
        missed(by_global, full.masked_fill(full == 4, float("nan")))


def test_what_a_shortlist_misses_by_sets():
    generator = torch.Generator().manual_seed(0)
    by_global, full = (
        torch.rand(30, 40, generator=generator),
        torch.rand(30, 40, generator=generator),
    )
    found = missed(by_global, full, (5, 20, 40), (1, 10))
    for top in (1, 10):
        for k in (5, 20, 40):
            wanted = [set(row.topk(top).indices.tolist()) for row in full]
            kept = [set(row.topk(k).indices.tolist()) for row in by_global]
            lost = sum(len(best - some) for best, some in zip(wanted, kept)) / (30 * top)
            assert found[top][k] == pytest.approx(100 * lost)
