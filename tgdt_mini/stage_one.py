"""The first stage of a search: the K items of a gallery whose global tokens score highest, and what that loses.

Exact by default: one product with every item, which is enough below a million. `faiss_index` makes an index of the
library faiss (optional, `pip install faiss-cpu`): flat is exact too; "ivf" and "hnsw" look at a part of the gallery
only, and miss some of the K. What a shortlist loses against scoring everything is told by `missed`.

Q queries, G gallery items, K shortlist, D width.
"""

import torch

from tgdt_mini.similarity import at_least_float32, autocast_off

FLOATS = 2**22  # scores held at once: 16 MB of float32
BLOCK = 2**11  # half-precision items turned into float32 at once: 2 MB with D = 256


def best_by_global(
    queries: torch.Tensor, global_tokens: torch.Tensor, count: int, index=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores (Q, K), ids (Q, K)) of the K = `count` highest dot products, ids ascending: a disk reads forward.

    queries (Q, D); global_tokens (G, D), in any float type. All (Q, G) scores are held at once: see FLOATS.
    index: a faiss index over the same global tokens, else all are scored here. A query for which it finds fewer than K
    items, as approximate ones may, is scored here too.
    """
    with autocast_off(queries):
        queries = at_least_float32(queries)
        if index is None:
            return _ascending(*_scores(queries, global_tokens).topk(count, sorted=False))
        scores, ids = (torch.from_numpy(found) for found in index.search(queries.numpy(), count))
        short = (ids < 0).any(1)  # (Q,)
        if short.any():
            scores[short], ids[short] = _scores(queries[short], global_tokens).topk(count, sorted=False)
        return _ascending(scores, ids)


def by_columns(global_tokens: torch.Tensor) -> torch.Tensor:
    """The same (G, D) tokens, laid out so that all items' first numbers lie side by side, then their second ones.

    A product with one query then takes half the time (measured: 5.8 instead of 12.8 ms of a CPU for 100,000 x 256).
    """
    return global_tokens.T.contiguous().T


def faiss_index(global_tokens: torch.Tensor, kind: str = "flat"):
    """A faiss index by dot product over global tokens (G, D): to be passed on to `Gallery.search`, or kept by faiss.

    kind: "flat", exact; "ivf", which looks at 16 of about 4 x sqrt(G) clusters; "hnsw", which walks a graph of 32
    neighbours an item, looking at 128 at a time. They are made for 100,000 items and more; measure their recall.
    Raises ValueError without faiss, or for another kind.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError("faiss is not installed; pip install faiss-cpu, or search without an index") from None
    size, width = global_tokens.shape
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "ivf":
        lists = max(1, min(int(4 * size**0.5), size // 39))  # faiss wants 39 items a cluster to learn from
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(16, lists)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 128
    else:
        raise ValueError(f'kind is {kind!r}; it must be "flat", "ivf" or "hnsw"')
    tokens = global_tokens.float().contiguous().numpy()
    if not index.is_trained:
        index.train(tokens)
    index.add(tokens)
    return index


def check_index(index, size: int, width: int) -> None:
    """ValueError unless a faiss index has these sizes and scores by dot product."""
    if (index.ntotal, index.d) != (size, width) or index.metric_type != 0:
        raise ValueError(
            f"index holds {index.ntotal} items of width {index.d}, metric {index.metric_type}; the gallery has {size} "
            f"of width {width}, metric 0 (dot product): make one with faiss_index(gallery.global_tokens)"
        )


def missed(
    by_global: torch.Tensor, full: torch.Tensor, shortlists=(10, 20, 50, 100, 200), tops=(1, 10)
) -> dict[int, dict[int, float]]:
    """{top: {K: percent}}: of the `top` best answers of full scoring, how many are not in the shortlist of K.

    by_global and full (Q, G) are the scores of stage one and of scoring everything. A shortlist misses nothing when it
    is as long as the gallery. Equal scores: the item that comes first is the better one, in both.
    Example: by_global [[3, 2, 1]], full [[1, 2, 3]], shortlists (1, 2, 3), tops (1,) -> {1: {1: 100, 2: 100, 3: 0}}.
    """
    if full.isnan().any() or by_global.isnan().any():
        raise ValueError("scores hold NaN, so that no answer is the best; find where the model made it")
    place = by_global.sort(dim=1, descending=True, stable=True).indices.argsort(1)  # (Q, G) the place of each item
    best = full.sort(dim=1, descending=True, stable=True).indices[:, : max(tops)]  # (Q, top)
    place = place.gather(1, best)  # (Q, top)
    return {top: {k: 100 * float((place[:, :top] >= k).double().mean()) for k in shortlists} for top in tops}


def _scores(queries, global_tokens):
    """(Q, G). Half precision is turned into float32 block by block: whole, it would take twice the gallery's memory."""
    if global_tokens.dtype in (torch.float32, torch.float64) or global_tokens.device.type != "cpu":
        return queries @ at_least_float32(global_tokens).T
    size, width = global_tokens.shape
    scores = queries.new_empty(len(queries), size)
    buffer = queries.new_empty(width, BLOCK)  # the same for all blocks: fresh memory costs more than the products
    for start in range(0, size, BLOCK):
        block = global_tokens.T[:, start : start + BLOCK]  # (D, b)
        scores[:, start : start + BLOCK] = queries @ buffer[:, : block.shape[1]].copy_(block)
    return scores


def _ascending(scores, ids):
    ids, order = ids.sort(1)
    return scores.gather(1, order), ids
