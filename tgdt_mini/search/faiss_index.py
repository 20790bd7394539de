"""The first stage of a search: the K items of a gallery whose global tokens score highest, and what
that loses.

Exact by default: one product with every item, which is enough below a million. `faiss_index` makes
an index of the library faiss (optional, `pip install faiss-cpu`): flat is exact too; "ivf" and
"hnsw" look at a part of the gallery only, and miss some of the K. What a shortlist loses against
scoring everything is told by `missed`.

Q queries, G gallery items, K shortlist, D width.
"""

import torch


def faiss_index(global_tokens: torch.Tensor, kind: str = "flat"):
    """A faiss index by dot product over global tokens (G, D): to be passed on to `Gallery.search`,
    or kept by faiss.

    kind: "flat", exact; "ivf", which looks at 16 of about 4 x sqrt(G) clusters; "hnsw", which walks
    a graph of 32 neighbours an item, looking at 128 at a time. They are made for 100,000 items and
    more; measure their recall.
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
        lists = max(
            1, min(int(4 * size**0.5), size // 39)
        )  # faiss wants 39 items a cluster to learn from
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT
        )
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
