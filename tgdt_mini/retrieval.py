"""Two-stage search: a shortlist by global score, then the shortlist alone re-ordered by global +
weight x local.

    stage 1   one dot product with every item of the gallery, keep the top K (`search/faiss_index.py`)
    stage 2   late interaction with those K only: K / G of the work of scoring everything

`two_stage` does it for embeddings in memory, on any device, and returns scores for evaluation.
`Gallery` is what an
application keeps: items are encoded once, their tokens lie on disk, and a search reads the
shortlist's tokens only. More items can be appended; none can be deleted.

Q queries, G gallery items, K shortlist, L local tokens of an item, D width. A gallery's local
tokens lie end to end, (T, D) without padding, item g owning rows offsets[g] to offsets[g + 1].
"""

import time

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.similarity import (
    at_least_float32,
    autocast_off,
    check_query_is,
    check_real,
    paired_similarity,
    shortlist_similarity,
)

FLOATS = 2**22  # scores held at once: 16 MB of float32
BLOCK = 2**11  # half-precision items turned into float32 at once: 2 MB with D = 256
# shortlists that an item is in, on average, from which on they are scored pair by pair, not padded
MEETINGS = 8


def two_stage(
    queries: Embedding, gallery: Embedding, shortlist: int, local_weight: float, query_is: str
) -> torch.Tensor:
    """(Q, G) scores: global + local_weight x local for each query's shortlist, -inf for everything
    else.

    query_is "image" searches a gallery of captions, "caption" a gallery of images; both ways S_L is
    the mean over the caption's words. shortlist: K, at most G is used. With K = G this equals
    `mixed_similarity`.
    Source: evaluate_utils/evaluation.py of the released code, which takes one query at a time.
    """
    check_query_is(query_is)
    names = ("image", "caption") if query_is == "image" else ("caption", "image")
    counts = check_real(queries, gallery, names=names)[1]  # (G,)
    length, width = gallery.local_tokens.shape[1:]
    ragged = bool((counts < length).any())

    def fetch(ids):
        tokens = gallery.local_tokens.index_select(0, ids.flatten()).view(
            *ids.shape, length, width
        )  # (q, K, L, D)
        return tokens, gallery.mask[ids] if ragged else None

    def by_query(some, ids):
        return rerank_by_query(some, ids, fetch, length, query_is)

    def by_pairs(some, ids):
        asked = torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])  # (q*K,)
        if query_is == "image":
            return paired_similarity(some, gallery, asked, ids.flatten()).view(ids.shape)  # (q, K)
        return paired_similarity(gallery, some, ids.flatten(), asked).view(ids.shape)  # (q, K)

    many = query_is == "image" or len(queries) * min(shortlist, len(gallery)) >= MEETINGS * len(
        gallery
    )
    rerank = by_pairs if many else by_query
    longest = max(length, queries.mask.shape[1])
    scores = at_least_float32(queries.global_token[:0]).new_full(
        (len(queries), len(gallery)), -float("inf")
    )
    for rows, ids, mixed, _ in search_in_blocks(
        queries, gallery.global_token, rerank, shortlist, local_weight, longest
    ):
        scores[rows].scatter_(1, ids, mixed)
    return scores


def search_in_blocks(
    queries, global_tokens, rerank, shortlist, local_weight, longest=1, index=None
):
    """Both stages, some queries at a time: yields (rows, ids (q, K), mixed scores (q, K), seconds
    of each stage).

    rerank: (some queries, their shortlists (q, K)) -> (q, K) local scores, with `longest` numbers
    held for each.
    """
    if shortlist < 1:
        raise ValueError(
            f"shortlist is {shortlist}; it must be at least 1, and about 100 to lose little"
        )
    size, width = global_tokens.shape
    if queries.global_token.shape[1] != width:
        raise ValueError(
            f"queries are {queries.global_token.shape[1]} wide, the gallery {width}: built by another model; re-index"
        )
    shortlist = min(shortlist, size)
    step = max(1, FLOATS // max(size, shortlist * longest))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        begin = time.perf_counter()
        scores, ids = best_by_global(some.global_token, global_tokens, shortlist, index)  # (q, K)
        middle = time.perf_counter()
        mixed = scores + local_weight * rerank(some, ids)  # (q, K)
        if mixed.isnan().any():
            row, place = mixed.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"query {start + row} scores NaN with item {int(ids[row, place])}; a ranking among NaN means nothing, "
                "so find where the model made it"
            )
        seconds = {"shortlist": middle - begin, "rerank": time.perf_counter() - middle}
        yield slice(start, start + step), ids, mixed, seconds


def rerank_by_query(queries, ids, fetch, length, query_is):
    """(q, K) local scores, some queries at a time: each query's candidates are gathered by
    `fetch`.
    """
    step = max(1, FLOATS // (ids.shape[1] * length * queries.local_tokens.shape[2]))
    blocks = [slice(start, start + step) for start in range(0, len(queries), step)]
    return torch.cat(
        [shortlist_similarity(queries[rows], *fetch(ids[rows]), query_is) for rows in blocks]
    )


def best_by_global(
    queries: torch.Tensor, global_tokens: torch.Tensor, count: int, index=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores (Q, K), ids (Q, K)) of the K = `count` highest dot products, ids ascending: a disk
    reads forward.

    queries (Q, D); global_tokens (G, D), in any float type. All (Q, G) scores are held at once: see
    FLOATS.
    index: a faiss index over the same global tokens, else all are scored here. A query for which it
    finds fewer than K items, as approximate ones may, is scored here too.
    """
    with autocast_off(queries):
        queries = at_least_float32(queries)
        if index is None:
            return _ascending(*_scores(queries, global_tokens).topk(count, sorted=False))
        scores, ids = (torch.from_numpy(found) for found in index.search(queries.numpy(), count))
        short = (ids < 0).any(1)  # (Q,)
        if short.any():
            scores[short], ids[short] = _scores(queries[short], global_tokens).topk(
                count, sorted=False
            )
        return _ascending(scores, ids)


def by_columns(global_tokens: torch.Tensor) -> torch.Tensor:
    """The same (G, D) tokens, laid out so that all items' first numbers lie side by side, then
    their second ones.

    A product with one query then takes half the time (measured: 5.8 instead of 12.8 ms of a CPU for
    100,000 x 256).
    """
    return global_tokens.T.contiguous().T


def _scores(queries, global_tokens):
    """(Q, G). Half precision is turned into float32 block by block: whole, it would take twice the
    gallery's memory.
    """
    if global_tokens.dtype in (torch.float32, torch.float64) or global_tokens.device.type != "cpu":
        return queries @ at_least_float32(global_tokens).T
    size, width = global_tokens.shape
    scores = queries.new_empty(len(queries), size)
    buffer = queries.new_empty(
        width, BLOCK
    )  # the same for all blocks: fresh memory costs more than the products
    for start in range(0, size, BLOCK):
        block = global_tokens.T[:, start : start + BLOCK]  # (D, b)
        scores[:, start : start + BLOCK] = queries @ buffer[:, : block.shape[1]].copy_(block)
    return scores


def _ascending(scores, ids):
    ids, order = ids.sort(1)
    return scores.gather(1, order), ids
