"""How good the ranking is: ranks, recall@K, rsum, the two directions and the folds of COCO 1K.

R@K is what papers on image-text retrieval call R@K: the share of queries with at least one right
answer among the first K. For an image query, which has five right captions, that is a hit rate
(success@K), not the recall of information retrieval, which would divide by five.

A miss is a miss: the released two-stage evaluation (evaluate_utils/evaluation.py, lines 300 and
375) gives rank 0, the best there is, to a query whose match is not in the shortlist, so that its
R@K is the true one plus the share of misses. Here a candidate that was not scored has score -inf,
and a query without a scored match has rank inf.

Only ranks: no NDCG, no confidence intervals. Q queries, G gallery items, I images, C captions.
"""

from dataclasses import dataclass
from math import floor, isinf

import torch

from tgdt_mini.files.check import shown, typed, whole_number

KS = (1, 5, 10)
COMPARISONS = 2**24  # score comparisons held at once by `ranks`, 1 byte each and 4 for the scores
INFINITY = float("inf")


@typed
def ranks(scores: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """(Q,) float: how many wrong candidates score at least as high as the best positive; 0 is best.

    scores (Q, G), -inf where a candidate was not scored; positives (Q, G) bool, the right answers.
    Ties count against the model: with all scores equal the rank is the worst, not a lucky 0. A
    query with no scored positive has rank inf. Raises ValueError for NaN, which compares as False
    and would pass for a perfect ranking.

    Example: scores [[0.9, 0.4, 0.4]], positives [[False, True, False]] -> [2.0].
    """
    shaped = scores.dim() == 2 and scores.shape[1] and positives.shape == scores.shape
    if not shaped or positives.dtype != torch.bool or not scores.is_floating_point():
        raise ValueError(
            f"scores {scores.dtype} {tuple(scores.shape)} and positives {positives.dtype} "
            f"{tuple(positives.shape)}: both must be (Q, G), G at least 1, float and torch.bool"
        )
    step = max(1, COMPARISONS // scores.shape[1])  # queries at a time
    starts = range(0, len(scores), step)
    # some queries at a time: a comparison of everything needs as much memory as the scores
    parts = [_ranks(scores[i : i + step], positives[i : i + step], i) for i in starts]
    return torch.cat(parts) if parts else scores.new_zeros(0, dtype=torch.float32)


def _ranks(scores, positives, first_row):
    if scores.isnan().any():
        row, column = scores.isnan().nonzero()[0].tolist()
        raise ValueError(
            f"scores[{first_row + row}, {column}] is NaN; a rank among NaN means nothing, so find "
            "where the model made it"
        )
    best = scores.masked_fill(~positives, -INFINITY).amax(1, keepdim=True)  # (Q, 1)
    rank = ((scores >= best) & ~positives).sum(1).float()  # (Q,)
    return rank.masked_fill(best[:, 0] == -INFINITY, INFINITY)  # a miss is a miss


def recall_at_k(ranks: torch.Tensor, ks: tuple[int, ...] = KS) -> dict[int, float]:
    """{K: percent of queries with a positive among the first K}.

    Example: ranks [0, 3, inf, 0] -> {1: 50.0, 5: 75.0, 10: 75.0}.
    """
    _check_ranks(ranks)
    if not hasattr(ks, "__iter__") or getattr(ks, "ndim", 1) != 1:
        raise ValueError(f"ks is {shown(ks)}; it must be a tuple, such as (1, 5, 10)")
    wanted = [whole_number("each K of ks", k, 1) for k in ks]
    # ranks begin at 0, so the first K are those below K; inf is below none
    return {k: 100 * int((ranks < k).sum()) / len(ranks) for k in wanted}


def median_rank(ranks: torch.Tensor) -> float:
    """The median rank as papers print it: from 1, rounded down; inf if half of the queries missed.

    Example: ranks [0, 3] -> floor(1.5) + 1 = 2.0.
    """
    _check_ranks(ranks)
    ordered = ranks.double().sort().values
    # the mean of the two in the middle; of an odd number both are the same
    middle = float(ordered[(len(ranks) - 1) // 2] + ordered[len(ranks) // 2]) / 2
    return middle if isinf(middle) else float(floor(middle) + 1)


def rsum(i2t_ranks: torch.Tensor, t2i_ranks: torch.Tensor) -> float:
    """The sum of the six recalls, R@1, R@5 and R@10 both ways: 600 is perfect."""
    return sum(recall_at_k(i2t_ranks).values()) + sum(recall_at_k(t2i_ranks).values())


@dataclass(frozen=True)
class BothWays:
    """{K: percent} of both directions, their median ranks (from 1) and the sum of six recalls."""

    i2t: dict[int, float]
    t2i: dict[int, float]
    i2t_median: float
    t2i_median: float
    rsum: float

    def __str__(self):
        i2t, t2i = (
            " ".join(f"{percent:5.1f}" for percent in recalls.values())
            for recalls in (self.i2t, self.t2i)
        )
        return f"image->text {i2t} | text->image {t2i} | rsum {self.rsum:.1f}"


@typed
def matches(caption_image: torch.Tensor, images: int) -> torch.Tensor:
    """(I, C) bool: image i is described by caption c, whose image row is caption_image[c]."""
    if caption_image.dim() != 1 or not len(caption_image) or caption_image.is_floating_point():
        raise ValueError(
            f"caption_image is {caption_image.dtype} {tuple(caption_image.shape)}; it must be "
            "integers (C,), C at least 1"
        )
    images = whole_number("images", images, 1, 2**24)
    low, high = int(caption_image.min()), int(caption_image.max())
    if low < 0 or high >= images:
        raise ValueError(
            f"caption_image runs from {low} to {high}; with {images} images the rows are 0 to "
            f"{images - 1}"
        )
    return torch.arange(images, device=caption_image.device)[:, None] == caption_image  # (I, C)


@typed
def both_ways(
    scores: torch.Tensor, caption_image: torch.Tensor, t2i_scores: torch.Tensor | None = None
) -> BothWays:
    """Recalls and median ranks of both directions, of scores (I, C) and image rows (C,).

    t2i_scores: (C, I), if captions were searched with a shortlist of their own; else scores.T.
    """
    if scores.dim() != 2 or caption_image.shape != scores.shape[1:]:
        raise ValueError(
            f"scores {tuple(scores.shape)} and caption_image {tuple(caption_image.shape)}: "
            "they must be (I, C) and (C,), one image row for each caption"
        )
    t2i_scores = scores.T if t2i_scores is None else t2i_scores
    positives = matches(caption_image.to(scores.device), len(scores))  # (I, C)
    i2t, t2i = ranks(scores, positives), ranks(t2i_scores, positives.T)  # (I,), (C,)
    medians = median_rank(i2t), median_rank(t2i)
    return BothWays(recall_at_k(i2t), recall_at_k(t2i), *medians, rsum(i2t, t2i))


def shortlist_recall(
    global_scores: torch.Tensor,
    positives: torch.Tensor,
    shortlists: tuple[int, ...] = (10, 20, 50, 100),
) -> dict[int, float]:
    """{K: percent of queries with a positive in the first K by global score}.

    No second stage can do better: read it beside every two-stage figure. A shortlist larger than
    the gallery misses nothing.
    """
    return recall_at_k(ranks(global_scores, positives), shortlists)


@typed
def mean_of_folds(scores: torch.Tensor, caption_image: torch.Tensor, folds: int = 5) -> BothWays:
    """The COCO 1K protocol: images in order are split into folds, each ranked alone, then the mean.

    scores (I, C) must be full: a shortlist made from all images is not that of a fold alone. rsum
    is the mean of the folds' rsums, so at most 600 (the released code prints it times 6).
    """
    if scores.shape[1:] != caption_image.shape:
        raise ValueError(f"scores is {tuple(scores.shape)}; it must be (I, C), with C image rows")
    results = []
    for rows, in_fold in folds_of(caption_image, len(scores), folds):
        fold = scores[rows][:, in_fold.to(scores.device)]  # its images with its captions only
        results.append(both_ways(fold, caption_image[in_fold] - rows.start))
    return mean_of(results)


@typed
def folds_of(
    caption_image: torch.Tensor, images: int, folds: int = 5
) -> list[tuple[slice, torch.Tensor]]:
    """[(slice of the images, (C,) bool of their captions)]; ValueError for too many folds."""
    whole_number("folds", folds, 1, images)
    matches(caption_image, images)  # an image row out of range would be in no fold
    parts = torch.arange(images).tensor_split(folds)  # in order, as COCO's are
    slices = [slice(int(rows[0]), int(rows[-1]) + 1) for rows in parts]
    return [(s, (caption_image >= s.start) & (caption_image < s.stop)) for s in slices]


def mean_of(results: list[BothWays]) -> BothWays:
    """The mean of each figure."""

    def mean(values):
        return sum(values) / len(values)

    return BothWays(
        {k: mean([result.i2t[k] for result in results]) for k in KS},
        {k: mean([result.t2i[k] for result in results]) for k in KS},
        mean([result.i2t_median for result in results]),
        mean([result.t2i_median for result in results]),
        mean([result.rsum for result in results]),
    )


@typed
def _check_ranks(ranks: torch.Tensor):
    if ranks.dim() != 1 or not len(ranks) or ranks.dtype == torch.bool or not (ranks >= 0).all():
        raise ValueError(
            f"ranks is {shown(ranks.tolist())}; it must be numbers (Q,), Q >= 1, from 0, no NaN"
        )
