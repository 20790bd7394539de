"""The exact best by dot product, most items being looked at in int8 only.

An item g and a query q are rounded to int8 vectors g' and q'. By the triangle inequality

    |q . g - q' . g'|  <=  |q| |g - g'| + |q - q'| |g'|  <=  margin,

so an item whose score in int8 is more than the margin below the K-th best true score is not among
the K best. A screen finds the 4 K best in int8, scores them truly, and asks whether what it did not
look at could matter. If so, that query is scored with all items. So nothing is approximate: int8
reads a quarter of the bytes, and memory is what a search of many items waits for.

faiss multiplies the int8 vectors (`IndexScalarQuantizer`). Q queries, G items, K wanted, D width.
"""

from importlib.util import find_spec

import numpy as np
import torch

MANY = 2**21  # numbers of all global tokens, from which on a screen is faster
FEW = 4  # queries at a time; one product for all is faster for more
MORE = 4  # times as many candidates as items that are wanted
SMALLEST = 1e-12


def is_useful(size: int, width: int) -> bool:
    """Whether a screen is faster than one product, and faiss is there to make it."""
    return size * width >= MANY and find_spec("faiss") is not None


class Screen:
    """What `best_by_global` takes as an index. It makes an int8 copy of global tokens (G, D)."""

    metric_type = 0  # dot product, as faiss counts

    def __init__(self, global_tokens: torch.Tensor):
        import faiss

        self.global_tokens, (self.ntotal, self.d) = global_tokens, global_tokens.shape
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._int8 = faiss.IndexScalarQuantizer(self.d, kind, faiss.METRIC_INNER_PRODUCT)
        largest = max(float(block.abs().max()) for block in global_tokens.split(2**12))
        self._step = max(largest, SMALLEST) / 127
        self._lost = self._longest = 0.0  # the largest |g - g'| and |g'|
        for block in global_tokens.split(2**12):
            block = block.float()  # (b, D)
            levels = (block / self._step).round()
            self._int8.add(levels.numpy())
            rounded = levels * self._step
            self._lost = max(self._lost, float((block - rounded).norm(dim=1).max()))
            self._longest = max(self._longest, float(rounded.norm(dim=1).max()))

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores (Q, K), ids (Q, K)) of the K = count best items for queries (Q, D) float32."""
        steps = np.maximum(np.abs(queries).max(1, keepdims=True), SMALLEST) / 127  # (Q, 1)
        whole = np.round(queries / steps)
        near, ids = self._int8.search(whole, min(MORE * count, self.ntotal))  # (Q, 4K)
        near = near * (steps * self._step)
        lost = np.linalg.norm(queries - whole * steps, axis=1)  # (Q,)
        margin = np.linalg.norm(queries, axis=1) * self._lost + lost * self._longest
        scores, best = [], []
        for query, candidates, worst, by in zip(queries, ids, near[:, -1], margin):
            query, candidates = torch.from_numpy(query), torch.from_numpy(candidates)
            top = self._best(query, candidates, count)
            if len(candidates) < self.ntotal and top.values[-1] <= worst + by:
                candidates = torch.arange(self.ntotal)
                top = self._best(query, candidates, count)
            scores.append(top.values)
            best.append(candidates[top.indices])
        return torch.stack(scores).numpy(), torch.stack(best).numpy()

    def _best(self, query, candidates, count):
        """The best scores of some items, and their places among the candidates."""
        tokens = self.global_tokens.index_select(0, candidates).float()
        return (tokens @ query).topk(count)
