"""A model judged from every side on one split: recalls, share of the oracle, hard pairs, grounding,
time.

The shortlist's size and the weight of the local score are chosen by `choose` on validation data,
and used as they are on test data. Formulas of ranks and recalls are in `evaluation.py`, that of the
oracle in `scenes/truth.py`.
"""

import time

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode, encode_texts
from tgdt_mini.evaluation import both_ways, folds_of, matches, mean_of, shortlist_recall
from tgdt_mini.reports.choice import SHORTLISTS, SearchSettings
from tgdt_mini.reports.grounding import grounding
from tgdt_mini.reports.pointing import has_places, pointing_game
from tgdt_mini.retrieval import two_stage
from tgdt_mini.similarity import global_similarity, local_similarity, mixed_similarity


def assess(
    model,
    tokens: TokenSet,
    choice: SearchSettings,
    dataset=None,
    oracle=None,
    true_of=None,
    records=None,
    folds: int = 0,
) -> dict:
    """Everything that can be said of a model on a split, as JSON values; `table` prints it.

    dataset: the split's records, for hard pairs (foils) and grounding (boxes, links). oracle: see
    `scenes.oracle`;
    true_of: see `grounding`. records: of photographs, for the pointing game where their phrases
    have boxes. folds: also the mean of so many parts, each searched alone, as COCO 1K is 5 of COCO
    5K.
    Raises ValueError if the set has no caption.
    """
    began = time.perf_counter()
    images, captions = encode(model, tokens)
    encoding = time.perf_counter() - began
    owner, weight = tokens.caption_image.to(images.mask.device), choice.local_weight
    rows, by_global, searching = _rows(images, captions, owner, choice)
    positives = matches(owner, len(images))
    report = {
        "rows": {name: vars(row) for name, row in rows.items()},
        "choice": {"local_weight": weight, "shortlist": choice.shortlist},
        "shortlist_recall": {
            "i2t": shortlist_recall(by_global, positives, SHORTLISTS),
            "t2i": shortlist_recall(by_global.T, positives.T, SHORTLISTS),
        },
        "two_stage_by_shortlist": _curve(images, captions, owner, weight),
        "milliseconds": {
            "encoding, an item": 1000 * encoding / (len(images) + len(captions)),
            "two stages, a query": 1000 * searching / (len(images) + len(captions)),
        }
        | _stage_times(images, captions, choice),
    }
    if folds:
        parts = [
            _rows(images[part], captions[mine], owner[mine] - part.start, choice)[0]
            for part, mine in folds_of(owner, len(images), folds)
        ]
        means = {name: mean_of([part[name] for part in parts]) for name in rows}
        report["mean_of_folds"] = {
            "folds": folds,
            "rows": {name: vars(row) for name, row in means.items()},
        }
    if oracle:
        report["oracle"] = oracle
        report["share_of_oracle"] = {
            name: 100 * row.t2i[1] / oracle["t2i"][1] for name, row in rows.items()
        }
    if dataset is not None:
        report["hard_pairs"] = hard_pairs(model, images, captions, tokens, dataset["foils"], weight)
        report["grounding"] = grounding(model, images, captions, tokens, dataset, true_of)
    if records is not None and has_places(records):
        report["pointing"] = pointing_game(
            images, captions, tokens, records, model.tokenizer.pieces
        )
    return report


def _rows(images, captions, owner, choice):
    """({way of scoring: BothWays}, global scores (I, C), seconds of two-stage search)."""
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    full = {
        "global": by_global,
        "local": by_local,
        "full mixed": by_global + choice.local_weight * by_local,
    }
    rows = {name: both_ways(scores, owner) for name, scores in full.items()}
    began = time.perf_counter()
    i2t = two_stage(
        images, captions, choice.shortlist["image"], choice.local_weight, query_is="image"
    )
    t2i = two_stage(
        captions, images, choice.shortlist["caption"], choice.local_weight, query_is="caption"
    )
    searching = time.perf_counter() - began
    return rows | {"two-stage": both_ways(i2t, owner, t2i_scores=t2i)}, by_global, searching


def _curve(images, captions, owner, weight):
    """rsum of two-stage search for each shortlist size."""
    found = {}
    for k in SHORTLISTS:
        i2t = two_stage(images, captions, k, weight, query_is="image")
        t2i = two_stage(captions, images, k, weight, query_is="caption")
        found[k] = both_ways(i2t, owner, t2i_scores=t2i).rsum
    return found


def _stage_times(images, captions, choice):
    """Milliseconds a caption query, one query at a time, median of 30: each stage, and scoring
    everything instead.
    """
    from tgdt_mini.search.gallery import Gallery

    gallery = Gallery.build(images, list(range(len(images))))
    times = {"shortlist": [], "rerank": [], "scoring everything": []}
    for row in range(min(30, len(captions))):
        query = captions[[row]].to("cpu")
        hits = gallery.search(query, 10, choice.shortlist["caption"], choice.local_weight)
        times["shortlist"].append(hits.seconds["shortlist"])
        times["rerank"].append(hits.seconds["rerank"])
        began = time.perf_counter()
        mixed_similarity(images, captions[[row]], choice.local_weight)
        times["scoring everything"].append(time.perf_counter() - began)
    return {
        f"{name}, a caption": 1000 * sorted(each)[len(each) // 2] for name, each in times.items()
    }


def hard_pairs(
    model, images, captions, tokens: TokenSet, foils, local_weight: float
) -> dict[str, float]:
    """Percent of foils that score below their true caption on its image, for each score, and how
    many there are.

    foils: I lists with one str a caption, "" for none. A tie is an error. Half is chance.
    """
    flat = [foil for own in foils for foil in own]
    rows = [row for row, foil in enumerate(flat) if foil]
    if not rows:
        raise ValueError("foils holds no foil; hard pairs need at least one")
    device = images.mask.device
    false = encode_texts(model, [flat[row] for row in rows])
    picture = images[tokens.caption_image[rows].to(device)]
    true = captions[torch.tensor(rows, device=device)]

    def margins(score):
        return torch.cat(
            [
                (
                    score(picture[i : i + 50], true[i : i + 50])
                    - score(picture[i : i + 50], false[i : i + 50])
                ).diagonal()
                for i in range(0, len(rows), 50)
            ]
        )

    by_global, by_local = margins(global_similarity), margins(local_similarity)
    wins = {
        "global": by_global,
        "local": by_local,
        "two-stage": by_global + local_weight * by_local,
    }
    return {name: 100 * float((margin > 0).float().mean()) for name, margin in wins.items()} | {
        "pairs": len(rows)
    }


def table(report: dict) -> str:
    """The report as text: a line for each way of scoring, then what stands beside it."""
    lines = [f"{'':12}{'image -> text':^24}{'text -> image':^24}{'rsum':>7}"]
    lines.append(f"{'':12}" + "".join(f"{name:>8}" for name in ("R@1", "R@5", "R@10") * 2))
    lines += _lines(report["rows"])
    if "oracle" in report:
        figures = [*report["oracle"]["i2t"].values(), *report["oracle"]["t2i"].values()]
        lines.append(
            f"{'oracle':12}"
            + "".join(f"{value:8.1f}" for value in figures)
            + f"{sum(figures):8.1f}"
        )
    if "mean_of_folds" in report:
        folds = report["mean_of_folds"]
        lines += [
            "",
            f"the mean of {folds['folds']} folds, in order, each searched alone:",
            *_lines(folds["rows"]),
        ]
    choice = report["choice"]
    k = choice["shortlist"]
    lines += [
        "",
        f"shortlists {k['caption']} images for a caption, {k['image']} captions for an image, local weight "
        f"{choice['local_weight']:g}: chosen on validation data",
    ]
    if "captions_each" in report:
        lines.append(_protocol(report["captions_each"]))
    kept = report["shortlist_recall"]["t2i"]
    lines.append(
        "text -> image recall of stage one: "
        + ", ".join(f"{100 if v > 99.995 else v:.1f}% at {k}" for k, v in kept.items())
    )
    if "share_of_oracle" in report:
        share = ", ".join(
            f"{name} {value:.1f}%" for name, value in report["share_of_oracle"].items()
        )
        lines.append(f"share of the oracle's text -> image R@1: {share}")
    if "hard_pairs" in report:
        pairs = report["hard_pairs"]
        shown = ", ".join(f"{name} {pairs[name]:.1f}%" for name in ("global", "local", "two-stage"))
        lines.append(f"hard pairs told apart ({pairs['pairs']}): {shown}")
    if "grounding" in report:
        ground = report["grounding"]
        best = (
            f", at best {ground['possible']:.1f}%" if "possible" in ground else ""
        )  # older reports do not tell
        lines.append(
            f"words that pick a region of their object ({ground['words']}): {ground['right']:.1f}%, "
            f"at random {ground['chance']:.1f}%{best}"
        )
        if "true" in ground:
            lines.append(
                f"words that pick an object of which they are true, meant or not: {ground['true']:.1f}%"
            )
    if "pointing" in report:
        game = report["pointing"]
        counted = (
            f"{game['word pieces']} word pieces, {game['phrases with a box']} phrases with a box"
        )
        lines.append(
            f"pointing game ({counted}): words {game['words']:.1f}%, phrases {game['phrases']:.1f}%, "
            f"the picture's centre {game['centre']:.1f}%, at random {game['random']:.1f}%"
        )
    times = ", ".join(f"{name} {value:.2f}" for name, value in report["milliseconds"].items())
    lines.append(f"milliseconds: {times}")
    return "\n".join(lines)


def _lines(rows):
    figures = {name: [*row["i2t"].values(), *row["t2i"].values()] for name, row in rows.items()}
    return [
        f"{name:12}" + "".join(f"{value:8.1f}" for value in figures[name]) + f"{row['rsum']:8.1f}"
        for name, row in rows.items()
    ]


def _protocol(each):
    """One line on what was counted. each: {captions of an image: how many images have so many}."""
    each = dict(sorted((int(count), images) for count, images in each.items()))
    images, captions = sum(each.values()), sum(count * images for count, images in each.items())
    told = f"{images:,} images and {captions:,} captions, each a query; an image is found by any of its own"
    if list(each) == [5]:
        return f"{told}, which are 5"
    counts = ", ".join(f"{count} for {images:,}" for count, images in each.items())
    return f"{told}, which are not 5 for all ({counts}): no figure to compare with those over 5"
