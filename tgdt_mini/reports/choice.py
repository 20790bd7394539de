"""What validation data chooses for the search: the local weight and the length of the shortlist.

Both are chosen once, after training, and used as they are on test data. `local_weight` means the
same in the whole package: the weight of the local score in global + local_weight x local.
"""

from dataclasses import dataclass, field

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import both_ways, matches, ranks, recall_at_k
from tgdt_mini.similarity import global_similarity, local_similarity

LOCAL_WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
SHORTLISTS = (5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class SearchSettings:
    """How a model is searched. shortlist: {"image": K, "caption": K}, one K for each kind of query.

    rsums and lost say why: {local_weight: rsum of scoring everything} and {kind of query: {K:
    points of its three recalls that a shortlist of K loses}}. A model's notes do not hold them.
    """

    local_weight: float
    shortlist: dict[str, int]
    rsums: dict[float, float] = field(default_factory=dict)
    lost: dict[str, dict[int, float]] = field(default_factory=dict)


def stored_settings(model) -> SearchSettings:
    """The settings in a model's notes, chosen when it was trained. ValueError if there are none."""
    if "choice" not in model.notes:
        raise ValueError(
            "the model's notes hold no choice of shortlist and local_weight; make one with "
            "tgdt_mini.reports.choice.tune on validation data"
        )
    return SearchSettings(**model.notes["choice"])


def tune(
    images: Embedding,
    captions: Embedding,
    caption_image: torch.Tensor,
    local_weights=LOCAL_WEIGHTS,
    shortlists=SHORTLISTS,
    most_lost: float = 0.5,
) -> SearchSettings:
    """The local weight with the best rsum of scoring everything, and the shortest good shortlists.

    A shortlist is good if it loses at most half of `most_lost` points of its direction's three
    recalls together. If none is, the last one is taken. images (I) and captions (C) are of
    VALIDATION data; caption_image (C,) is the image row of each caption.
    """
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    rsums = {w: both_ways(by_global + w * by_local, caption_image).rsum for w in local_weights}
    local_weight = max(rsums, key=rsums.get)  # the first of equal ones
    mixed = by_global + local_weight * by_local  # (I, C)
    positives = matches(caption_image.to(mixed.device), len(images))  # (I, C)
    lost = {
        "image": _points_lost(by_global, mixed, positives, shortlists),
        "caption": _points_lost(by_global.T, mixed.T, positives.T, shortlists),
    }
    shortlist = {
        query_is: next((k for k in shortlists if points[k] <= most_lost / 2), shortlists[-1])
        for query_is, points in lost.items()
    }
    return SearchSettings(local_weight, shortlist, rsums, lost)


def _points_lost(by_global, mixed, positives, shortlists):
    """{K: points}: what R@1, R@5 and R@10 together lose by a shortlist of K. All inputs (Q, G)."""

    def points(scores):
        return sum(recall_at_k(ranks(scores, positives)).values())

    full = points(mixed)
    return {k: full - points(in_shortlist(by_global, mixed, k)) for k in shortlists}


def in_shortlist(by_global: torch.Tensor, mixed: torch.Tensor, k: int) -> torch.Tensor:
    """(Q, G) the scores of two stages, where the mixed scores of everything (Q, G) are known.

    They stay for the k best by global score; what stage two never sees scores -inf, a miss.
    """
    kept = by_global.topk(min(k, by_global.shape[1])).indices  # (Q, K)
    return torch.full_like(mixed, -float("inf")).scatter_(1, kept, mixed.gather(1, kept))


def missed(
    by_global: torch.Tensor, full: torch.Tensor, shortlists=(10, 20, 50, 100, 200), tops=(1, 10)
) -> dict[int, dict[int, float]]:
    """{top: {K: percent}}: how many of the `top` best answers a shortlist of K does not hold.

    by_global (Q, G) are the scores of stage one, full (Q, G) those of scoring everything. Of equal
    scores the first item is the better one, in both. A shortlist as long as the gallery misses
    nothing. ValueError for NaN.

    Example: by_global [[3, 2, 1]], full [[1, 2, 3]], shortlists (1, 2, 3), tops (1,)
    -> {1: {1: 100, 2: 100, 3: 0}}.
    """
    if full.isnan().any() or by_global.isnan().any():
        raise ValueError(
            "scores hold NaN, so that no answer is the best; find where the model made it"
        )
    order = by_global.sort(dim=1, descending=True, stable=True).indices  # (Q, G) best item first
    position = order.argsort(dim=1)  # (Q, G) of each item in that order
    best = full.sort(dim=1, descending=True, stable=True).indices[:, : max(tops)]  # (Q, top)
    position = position.gather(1, best)  # (Q, top)
    return {
        top: {k: 100 * float((position[:, :top] >= k).double().mean()) for k in shortlists}
        for top in tops
    }
