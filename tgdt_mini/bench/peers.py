"""Whole searches as an engineer would write them in ten lines around faiss, on the same tokens.

They answer one caption in generated pictures, all regions real: global tokens (G, D), local tokens
(G, R, D) in float32, or mapped from a file in float16. Nothing is checked, and no padding is known.
"""

from collections.abc import Callable

import numpy as np
import torch

from tgdt_mini.bench.measure import version
from tgdt_mini.embedding import Embedding


def searches(
    images: Embedding, mapped: np.ndarray, shortlist: int, weight: float, k: int = 10
) -> dict[str, Callable[[Embedding], np.ndarray]]:
    """{name: a function from one caption to the ids (k,) of its best pictures}; {} without faiss.

    mapped: the local tokens (G, R, D) in float16, from a file.
    """
    if not version("faiss-cpu"):
        return {}
    import faiss

    faiss.omp_set_num_threads(1)
    tokens, width = images.local_tokens, images.global_token.shape[1]
    flat = faiss.IndexFlatIP(width)
    kind = faiss.ScalarQuantizer.QT_8bit
    small = faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
    for index in (flat, small):
        index.train(images.global_token.numpy())
        index.add(images.global_token.numpy())
    half = tokens.bfloat16()

    def with_numpy(candidates):
        def search(query):
            scores, ids = (part[0] for part in flat.search(query.global_token.numpy(), shortlist))
            found = candidates[ids].astype(np.float32, copy=False)  # (K, R, D)
            products = query.local_tokens[0].numpy() @ found.reshape(-1, width).T  # (W, K*R)
            local = products.reshape(len(products), len(ids), -1).max(2).mean(0)  # (K,)
            return ids[np.argsort(-(scores + weight * local))[:k]]

        return search

    def with_bfloat16(query):
        scores, ids = (part[0] for part in small.search(query.global_token.numpy(), shortlist))
        found = half[torch.from_numpy(ids)].flatten(0, 1)  # (K*R, D)
        products = query.local_tokens[0].bfloat16() @ found.T  # (W, K*R)
        local = products.unflatten(1, (len(ids), -1)).amax(2).float().mean(0)  # (K,)
        return ids[np.argsort(-(scores + weight * local.numpy()))[:k]]

    return {
        "faiss flat + numpy, float32 in memory": with_numpy(tokens.numpy()),
        "faiss flat + numpy, float16 mapped": with_numpy(mapped),
        "faiss SQ8 + torch bfloat16": with_bfloat16,
    }
