"""A model judged from every side on one split, as JSON values.

Recalls, share of the oracle, hard pairs, grounding, pointing and times; `table.py` prints them. The
settings of the search come from validation data (`choice.py`) and are never chosen here. Formulas
of ranks and recalls are in `evaluation.py`, that of the oracle in `scenes/truth.py`.
"""

import time
from statistics import median_high

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode, encode_texts, encode_tokens
from tgdt_mini.evaluation import both_ways, folds_of, matches, mean_of, shortlist_recall
from tgdt_mini.reports.choice import SHORTLISTS, SearchSettings, in_shortlist
from tgdt_mini.reports.grounding import grounding
from tgdt_mini.reports.pointing import has_places, pointing_game
from tgdt_mini.retrieval import paired_similarity, two_stage
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import global_similarity, local_similarity, mixed_similarity
from tgdt_mini.text_tokens import TextTokens


def assess(
    model,
    tokens: TokenSet,
    settings: SearchSettings,
    dataset=None,
    oracle=None,
    judges=None,
    records=None,
    folds: int = 0,
) -> dict:
    """Everything that can be said of a model on a split. ValueError if the set has no caption.

    dataset: the split's scenes, for hard pairs (foils) and grounding (boxes, links). oracle: see
    `scenes.oracle`. judges: {"true_of": ..., "meant": ...} of `grounding`. records: of photographs,
    for the pointing game where their phrases have boxes. folds: also the mean of so many parts,
    each searched alone, as COCO 1K is 5 of COCO 5K.
    """
    began = time.perf_counter()
    images, captions = encode(model, tokens)
    encoding = time.perf_counter() - began
    caption_image = tokens.caption_image.to(images.mask.device)  # (C,)
    rows, (by_global, by_local), searching = _rows(images, captions, caption_image, settings)
    positives = matches(caption_image, len(images))  # (I, C)
    items = len(images) + len(captions)
    report = {
        "rows": {name: vars(row) for name, row in rows.items()},
        "choice": {"local_weight": settings.local_weight, "shortlist": settings.shortlist},
        "shortlist_recall": {
            "i2t": shortlist_recall(by_global, positives, SHORTLISTS),
            "t2i": shortlist_recall(by_global.T, positives.T, SHORTLISTS),
        },
        "two_stage_by_shortlist": _curve(by_global, by_local, caption_image, settings.local_weight),
        "milliseconds": {
            "encoding, an item": 1000 * encoding / items,
            "two stages, a query": 1000 * searching / items,
        }
        | _stage_times(images, captions, settings),
    }
    if folds:
        report["mean_of_folds"] = _mean_of_folds(images, captions, caption_image, settings, folds)
    if oracle:
        report["oracle"] = oracle
        report["share_of_oracle"] = {
            name: 100 * row.t2i[1] / oracle["t2i"][1] for name, row in rows.items()
        }
    if dataset is not None:
        report["hard_pairs"] = hard_pairs(
            model, images, captions, tokens, dataset["foils"], settings.local_weight
        )
        report["grounding"] = grounding(model, images, captions, tokens, dataset, **(judges or {}))
    if tokens.hard is not None and dataset is None:  # photographs, whose features have foils
        report["hard_pairs"] = hard_pairs(
            model, images, captions, tokens, tokens.hard, settings.local_weight
        )
    if records is not None:
        report["score_correlation"] = correlation(by_global, by_local)
    if records is not None and has_places(records):
        report["pointing"] = pointing_game(
            images, captions, tokens, records, model.tokenizer.pieces
        )
    return report


def hard_pairs(
    model, images, captions, tokens: TokenSet, foils, local_weight: float
) -> dict[str, float]:
    """{score: percent of foils that score below their true caption on its image, "pairs": count}.

    A foil is a caption made wrong by one change. foils: I lists with one str a caption, "" for
    none; or tokens, as `TokenSet.hard`. A tie is an error of the model; half is chance. ValueError
    if there is no foil.
    """
    if isinstance(foils, TextTokens):
        rows = foils.word_mask.any(1).nonzero()[:, 0].tolist()  # P pairs
    else:
        flat = [foil for foils_of_image in foils for foil in foils_of_image]
        rows = [row for row, foil in enumerate(flat) if foil]
    if not rows:
        raise ValueError("foils holds no foil; hard pairs need at least one")
    if isinstance(foils, TextTokens):
        false = encode_tokens(model, foils.part(rows))
    else:
        false = encode_texts(model, [flat[row] for row in rows])
    images, captions, false = images.to("cpu"), captions.to("cpu"), false.to("cpu")
    of_image, pair = tokens.caption_image[rows].to("cpu"), torch.arange(len(rows))
    true = captions[torch.tensor(rows)]

    def margins(score):  # (P,) of the true and of the false caption with their image
        return score(images, true, of_image, pair) - score(images, false, of_image, pair)

    by_global, by_local = margins(_paired_globals), margins(paired_similarity)
    wins = {
        "global": by_global,
        "local": by_local,
        "two-stage": by_global + local_weight * by_local,
    }
    percents = {name: 100 * float((margin > 0).float().mean()) for name, margin in wins.items()}
    return percents | {"pairs": len(rows)}


def _paired_globals(images, captions, image, caption):
    """(P,) global scores of the pairs image[p], caption[p]."""
    return (images.global_token[image] * captions.global_token[caption]).sum(1)


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Pearson's, of all pairs of two tables of one shape; neither of them is copied."""
    products = torch.tensordot(one, other, dims=2) / one.numel() - one.mean() * other.mean()
    return float(products / (one.std(correction=0) * other.std(correction=0)))


def _rows(images, captions, caption_image, settings):
    """({way of scoring: BothWays}, (global, local) scores (I, C), seconds of two-stage search)."""
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    scores = {
        "global": by_global,
        "local": by_local,
        "full mixed": by_global + settings.local_weight * by_local,
    }
    rows = {name: both_ways(each, caption_image) for name, each in scores.items()}
    began = time.perf_counter()
    i2t, t2i = two_stage_scores(images, captions, settings.shortlist, settings.local_weight)
    searching = time.perf_counter() - began
    rows["two-stage"] = both_ways(i2t, caption_image, t2i_scores=t2i)
    return rows, (by_global, by_local), searching


def two_stage_scores(images, captions, shortlist, local_weight):
    """Scores (I, C) of a search by images and (C, I) of one by captions."""
    i2t = two_stage(images, captions, shortlist["image"], local_weight, query_is="image")
    t2i = two_stage(captions, images, shortlist["caption"], local_weight, query_is="caption")
    return i2t, t2i


def _curve(by_global, by_local, caption_image, local_weight):
    """{K: rsum of two-stage search with a shortlist of K}, from the scores of all pairs (I, C)."""
    mixed, curve = by_global + local_weight * by_local, {}
    for k in SHORTLISTS:
        i2t, t2i = in_shortlist(by_global, mixed, k), in_shortlist(by_global.T, mixed.T, k)
        curve[k] = both_ways(i2t, caption_image, t2i_scores=t2i).rsum
    return curve


def _mean_of_folds(images, captions, caption_image, settings, folds):
    parts = [
        _rows(images[rows], captions[of_rows], caption_image[of_rows] - rows.start, settings)[0]
        for rows, of_rows in folds_of(caption_image, len(images), folds)
    ]
    means = {name: mean_of([part[name] for part in parts]) for name in parts[0]}
    return {"folds": folds, "rows": {name: vars(mean) for name, mean in means.items()}}


def _stage_times(images, captions, settings):
    """Milliseconds of one caption query, median of 30: each stage, and scoring everything."""
    gallery, k = Gallery.build(images, list(range(len(images)))), settings.shortlist["caption"]
    seconds = {"shortlist": [], "rerank": [], "scoring everything": []}
    for row in range(min(30, len(captions))):
        query = captions[[row]]
        hits = gallery.search(query.to("cpu"), 10, k, settings.local_weight)
        began = time.perf_counter()
        mixed_similarity(images, query, settings.local_weight)
        took = hits.seconds | {"scoring everything": time.perf_counter() - began}
        for stage, values in seconds.items():
            values.append(took[stage])
    return {f"{stage}, a caption": 1000 * median_high(values) for stage, values in seconds.items()}
