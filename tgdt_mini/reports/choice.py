"""What validation data chose: the weight of the local score and the length of the shortlist."""

from dataclasses import dataclass

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import both_ways
from tgdt_mini.similarity import global_similarity, local_similarity


def missed(
    by_global: torch.Tensor, full: torch.Tensor, shortlists=(10, 20, 50, 100, 200), tops=(1, 10)
) -> dict[int, dict[int, float]]:
    """{top: {K: percent}}: of the `top` best answers of full scoring, how many are not in the
    shortlist of K.

    by_global and full (Q, G) are the scores of stage one and of scoring everything. A shortlist
    misses nothing when it
    is as long as the gallery. Equal scores: the item that comes first is the better one, in both.
    Example: by_global [[3, 2, 1]], full [[1, 2, 3]], shortlists (1, 2, 3), tops (1,) -> {1: {1:
    100, 2: 100, 3: 0}}.
    """
    if full.isnan().any() or by_global.isnan().any():
        raise ValueError(
            "scores hold NaN, so that no answer is the best; find where the model made it"
        )
    place = by_global.sort(dim=1, descending=True, stable=True).indices.argsort(
        1
    )  # (Q, G) the place of each item
    best = full.sort(dim=1, descending=True, stable=True).indices[:, : max(tops)]  # (Q, top)
    place = place.gather(1, best)  # (Q, top)
    return {
        top: {k: 100 * float((place[:, :top] >= k).double().mean()) for k in shortlists}
        for top in tops
    }


WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


SHORTLISTS = (5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class SearchSettings:
    """What validation data chose: the weight of the local score, and the shortlist's size for
    either kind of query.

    rsums: {weight: rsum} of full scoring; losses: {side: {K: points of its three recalls that the
    shortlist loses}}.
    """

    local_weight: float
    shortlist: dict[str, int]
    rsums: dict[float, float]
    losses: dict[str, dict[int, float]]


def stored_settings(model) -> SearchSettings:
    """What was chosen for a model when it was trained, from its notes. ValueError if nothing
    was.
    """
    if "choice" not in model.notes:
        raise ValueError(
            "the model's notes hold no choice of shortlist and weight; make one with choice.tune"
        )
    return SearchSettings(**model.notes["choice"], rsums={}, losses={})


def tune(
    images: Embedding,
    captions: Embedding,
    owner: torch.Tensor,
    weights=WEIGHTS,
    shortlists=SHORTLISTS,
    most_lost: float = 0.5,
) -> SearchSettings:
    """The local weight with the best rsum of full mixed scoring, then for each kind of query the
    smallest shortlist that loses at most `most_lost` / 2 points of that direction's three recalls
    together (the largest if none does).

    images (I), captions (C) and owner (C,), the image row of each caption, of VALIDATION data.
    """
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    rsums = {weight: both_ways(by_global + weight * by_local, owner).rsum for weight in weights}
    weight = max(rsums, key=rsums.get)
    mixed = by_global + weight * by_local
    full = both_ways(mixed, owner)
    losses, chosen = {}, {}
    for side, of_mixed, of_global, name in (
        ("image", mixed, by_global, "i2t"),
        ("caption", mixed.T, by_global.T, "t2i"),
    ):
        whole, losses[side] = sum(getattr(full, name).values()), {}
        for k in shortlists:
            kept = of_global.topk(min(k, of_global.shape[1])).indices
            cut = torch.full_like(of_mixed, -float("inf")).scatter_(
                1, kept, of_mixed.gather(1, kept)
            )
            i2t, t2i = (cut, cut.T) if name == "i2t" else (cut.T, cut)
            losses[side][k] = whole - sum(
                getattr(both_ways(i2t, owner, t2i_scores=t2i), name).values()
            )
        enough = [k for k in shortlists if losses[side][k] <= most_lost / 2]
        chosen[side] = enough[0] if enough else shortlists[-1]
    return SearchSettings(weight, chosen, rsums, losses)
