"""Stage two on stored tokens: local scores of queries with candidates that lie on disk.

Q queries, K candidates of each, L and L' tokens of a candidate and of a query, D width.
"""

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.rows import RaggedRows
from tgdt_mini.retrieval import paired_similarity
from tgdt_mini.search.int8 import int8_product
from tgdt_mini.similarity import INFINITY

GATHERED = 2**20  # numbers of candidates' tokens that are read at once: 4 MB of float32
CONVERTED = 2**18  # the same, that become float32 at once: 1 MB stays in a CPU's cache
READ = 2**24  # the same as GATHERED, of items that many queries share
SHARED = 16  # queries that an item is a candidate of, on average, from which on it is read once
FINE = 254  # steps of the second int8 number within one of the first


def rerank(
    queries: Embedding, stored: RaggedRows, ids: torch.Tensor, query_is: str
) -> torch.Tensor:
    """(Q, K) local scores of each query with the stored items ids (Q, K).

    query_is: as in `shortlist_similarity`. Items that many queries have in common are read
    once for all of them; else one query at a time is taken.
    """
    numbers = stored.longest * queries.local_tokens.shape[2]  # of the longest item
    if len(queries) >= SHARED:  # for fewer, no item can be a candidate so often
        items, which = _distinct(ids, len(stored.starts) - 1)  # (n,), (Q, K)
        if ids.numel() >= SHARED * len(items):
            return _by_item(queries, stored, items, which, READ // numbers, query_is)
    step = max(1, GATHERED // numbers)  # items
    pairs = zip(queries.local_tokens.float(), queries.mask, ids)
    scores = [
        _of_block(tokens[real], stored, block, query_is)
        for tokens, real, candidates in pairs
        for block in candidates.split(step)
    ]
    return torch.cat(scores).view(ids.shape)


def _distinct(ids, size):
    """What ids.unique(return_inverse=True) gives; to count is faster than to sort many of few."""
    if size > ids.numel():
        return ids.unique(return_inverse=True)
    asked = torch.bincount(ids.flatten(), minlength=size) > 0  # (size,)
    return asked.nonzero()[:, 0], (asked.cumsum(0) - 1)[ids]


def _of_block(tokens, stored, ids, query_is):
    """(k,) local scores of a query's real tokens (L', D) with the stored items ids (k,)."""
    numbers, scales, mask = stored.fetch_stored(ids)  # (k, L, D), (k, L), (k, L)
    if scales is None:
        parts = numbers.flatten(0, 1).split(max(1, CONVERTED // numbers.shape[2]))  # (n, D)
        products = torch.cat([tokens @ part.float().T for part in parts], dim=1)  # (L', k*L)
        products = products.unflatten(1, numbers.shape[:2])  # (L', k, L)
    else:
        products = int8_products(tokens, numbers, scales)
    if query_is == "caption":
        if mask is not None:
            products.masked_fill_(~mask, -INFINITY)
        return products.amax(2).mean(0)
    best = products.amax(0)  # (k, L)
    return best.mean(1) if mask is None else best.masked_fill_(~mask, 0).sum(1) / mask.sum(1)


def int8_products(
    tokens: torch.Tensor, numbers: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """(L', K, L) products of float tokens (L', D) with stored ones, numbers (K, L, D) x scales.

    The processor multiplies whole numbers about four times as fast as float32. So a token becomes
    two int8 vectors: its rounded numbers, and what they lack in steps of 1/254. A product is off by
    less than 2e-5 of the two lengths, beside what `numbers x scales` differ from the true tokens.
    """
    steps = tokens.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127  # (L', 1)
    coarse = (tokens / steps).round()
    fine = ((tokens / steps - coarse) * FINE).round()
    both = torch.cat([coarse, fine]).to(torch.int8)  # (2L', D)
    whole = int8_product(both, numbers.flatten(0, 1).T)  # (2L', K*L) int32
    coarse, fine = whole.float().chunk(2)
    return ((coarse + fine / FINE) * (steps * scales.flatten())).unflatten(1, numbers.shape[:2])


def _by_item(queries, stored, items, which, most, query_is):
    """(Q, K) scores; items (n,) are read once, `most` at a time. which (Q, K): places in items."""
    scores = torch.empty(which.shape)
    for start in range(0, len(items), max(1, most)):
        block = items[start : start + max(1, most)]
        tokens, mask = stored.fetch(block[None])  # (1, n, L, D)
        mask = torch.ones(tokens.shape[1:3], dtype=torch.bool) if mask is None else mask[0]
        read = Embedding(tokens[0, :, 0], tokens[0], mask)
        query, column = ((which >= start) & (which < start + len(block))).nonzero(as_tuple=True)
        item = which[query, column] - start
        pairs = (read, queries, item, query)
        pairs = (queries, read, query, item) if query_is == "image" else pairs
        scores[query, column] = paired_similarity(*pairs)
    return scores
