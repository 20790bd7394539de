"""An index of the library faiss, which finds a shortlist without scoring every item.

Without one, a search takes a product with all G items, which is enough below a million. faiss is
optional (`pip install faiss-cpu`). What a shortlist misses is told by `reports/choice.py`.
"""

import torch


def faiss_index(global_tokens: torch.Tensor, kind: str = "flat"):
    """A faiss index by dot product over global tokens (G, D), for `Gallery.search`.

    kind: "flat" is exact; "ivf" makes about 4 x sqrt(G) clusters and looks at 16 of them; "hnsw"
    walks a graph of 32 neighbours an item, and looks at 128 at a time. The last two miss some of
    the K, and are for 100,000 items or more: measure their recall.
    Raises ValueError without faiss, or for another kind.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError(
            "faiss is not installed; pip install faiss-cpu, or search without an index"
        ) from None
    size, width = global_tokens.shape
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "ivf":
        # faiss wants 39 items a cluster to learn from
        lists = max(1, min(int(4 * size**0.5), size // 39))
        coarse = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(coarse, width, lists, faiss.METRIC_INNER_PRODUCT)
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
