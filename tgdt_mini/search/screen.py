"""The exact best by dot product, most items being looked at in int8 only.

An item g and a query q are rounded to int8 vectors g' and q'. By the triangle inequality

    |q . g - q' . g'|  <=  |q| |g - g'| + |q - q'| |g'|  <=  margin,

so an item whose score in int8 is more than the margin below the K-th best true score is not among
the K best. A screen finds the 4 K best in int8, scores them truly, and asks whether what it did not
look at could matter. If so, that query is scored with all items. So nothing is approximate: int8
reads a quarter of the bytes, and memory is what a search of many items waits for.

One product multiplies the int8 vectors of items and queries. faiss (`IndexScalarQuantizer`) keeps
those of the items, and searches them where a processor's products of whole numbers are not exact.

Q queries, G items, K wanted, D width.
"""

import math
from importlib.util import find_spec

import numpy as np
import torch

from tgdt_mini.search.int8 import int8_product, is_exact

MANY = 2**21  # numbers of all global tokens, from which on a screen is faster for one query
TOGETHER = 2**23  # the same for several queries: a product reads the items once for all of them
GROUP = 16  # items of which only the best counts at first: fewer numbers to put in order
MORE = 4  # times as many candidates as items that are wanted
SMALLEST = 1e-12


def is_useful(size: int, width: int, queries: int = 1) -> bool:
    """Whether a screen is faster than one product, and faiss is there to make it."""
    least = MANY if queries == 1 else TOGETHER
    return size * width >= least and find_spec("faiss") is not None


class Screen:
    """What `best_by_global` takes as an index. It makes an int8 copy of global tokens (G, D)."""

    metric_type = 0  # dot product, as faiss counts

    def __init__(self, global_tokens: torch.Tensor):
        import faiss

        self.global_tokens, (self.ntotal, self.d) = global_tokens, global_tokens.shape
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._int8 = faiss.IndexScalarQuantizer(self.d, kind, faiss.METRIC_INNER_PRODUCT)
        largest = float(torch.stack([b.abs().max() for b in global_tokens.split(2**12)]).max())
        if not math.isfinite(largest):
            raise ValueError("global_tokens hold NaN or infinity: the model made them")
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
        near, ids = self._near(whole, min(MORE * count, self.ntotal))  # (Q, 4K)
        near = near * (steps * self._step)
        lost = np.linalg.norm(queries - whole * steps, axis=1)  # (Q,)
        margin = np.linalg.norm(queries, axis=1) * self._lost + lost * self._longest
        scores, best = [], []
        for query, candidates, worst, by in zip(queries, ids, near.min(1), margin):
            query, candidates = torch.from_numpy(query), torch.from_numpy(candidates)
            top = self._best(query, candidates, count)
            if len(candidates) < self.ntotal and top.values[-1] <= worst + by:
                candidates = torch.arange(self.ntotal)
                top = self._best(query, candidates, count)
            scores.append(top.values)
            best.append(candidates[top.indices])
        return torch.stack(scores).numpy(), torch.stack(best).numpy()

    def _near(self, levels, count):
        """(products (Q, count), ids (Q, count)) of the best in int8, in any order."""
        if not is_exact(torch.uint8):
            return self._int8.search(levels, count)
        # as uint8 the library keeps x + 128: a query's products are all larger by as much
        more = 128 * levels.sum(1, keepdims=True)  # (Q, 1)
        right = torch.from_numpy(levels).to(torch.int8).T.contiguous()  # (D, Q)
        values, ids = _top(int8_product(self._codes(), right), count)
        return values.numpy() - more, ids.numpy()

    def _codes(self):
        """(G, D) uint8, what the index holds: a view of its memory."""
        import faiss

        codes = faiss.rev_swig_ptr(self._int8.codes.data(), self.ntotal * self.d)
        return torch.from_numpy(codes).view(self.ntotal, self.d)

    def _best(self, query, candidates, count):
        """The best scores of some items, and their places among the candidates."""
        tokens = self.global_tokens.index_select(0, candidates).float()
        return (tokens @ query).topk(count)


def _top(products, count):
    """(Q, count) largest of each column of (G, Q) whole numbers, and where: best groups first.

    Group i is items i, i + groups, i + 2 groups and so on, so that rows are compared with rows.
    No item outside the best `count` groups is among the best `count` items.
    """
    size, columns = products.shape
    groups = size // GROUP
    ids = torch.arange(groups * GROUP, size).expand(columns, -1)  # of no group
    if groups:
        best = products[: groups * GROUP].view(GROUP, groups, columns).amax(0)  # (groups, Q)
        chosen = _largest(best.T.contiguous(), min(count, groups))  # (Q, count)
        members = chosen[:, None] + groups * torch.arange(GROUP)[:, None]  # (Q, GROUP, count)
        ids = torch.cat([members.flatten(1), ids], dim=1)  # (Q, count * GROUP)
    values = products.T.gather(1, ids)
    places = _largest(values, count)
    return values.gather(1, places), ids.gather(1, places)


def _largest(values, count):
    """(Q, count) the places of each row's largest numbers, in any order.

    numpy takes 10 millionths of a second for 400 of 6,250 whole numbers, torch's `topk` 52.
    """
    last = values.shape[1] - count
    return torch.from_numpy(np.argpartition(values.numpy(), last, axis=1)[:, last:])
