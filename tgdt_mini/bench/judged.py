"""What a shortlist costs the shipped model on scenes, and its evaluation against a loop."""

import time
from statistics import median

import torch
from torch.nn.utils.rnn import pad_sequence

from tgdt_mini.bench.baselines import released_loop
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import cpu_milliseconds
from tgdt_mini.bench.rows import Row
from tgdt_mini.checkpoint import load_model
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode
from tgdt_mini.files.paths import shipped
from tgdt_mini.reports.choice import missed, stored_settings, tune
from tgdt_mini.reports.report import two_stage_scores
from tgdt_mini.scenes.tokens import scene_tokens
from tgdt_mini.similarity import global_similarity, local_similarity

SHORTLISTS = (10, 20, 50, 100, 200)
RELEASED = (50, 100)  # shortlists of the released code: captions for an image, images for a caption
LOOPS = {  # peer: regions and words that tokens are padded to, at least
    "released code's loop, padded to 37 x 88": (37, 88),
    "the same loop, no needless padding": (0, 0),
}
MOST_LOST = 0.5  # points of rsum


def embedded(split: str, first: int | None = None):
    """(images, captions, caption_image, settings) of the shipped model on a split of the scenes."""
    model = load_model(shipped() / "weights")
    _, tokens = scene_tokens(split, model.tokenizer, first=first)
    images, captions = (_compact(side) for side in encode(model, tokens))
    return images, captions, tokens.caption_image, stored_settings(model)


def shortlist_loss(images, captions, caption_image, weight: float) -> dict:
    """What a shortlist of K loses of full scoring.

    {"i2t" and "t2i": shares as `reports.choice.missed`, "rsum": {K: points}, "enough": the smallest
    K that loses at most MOST_LOST points, or None}
    """
    by_global = global_similarity(images, captions)
    mixed = by_global + weight * local_similarity(images, captions)
    settings = tune(images, captions, caption_image, local_weights=(weight,), shortlists=SHORTLISTS)
    points = {k: sum(lost[k] for lost in settings.lost.values()) for k in SHORTLISTS}
    return {
        "i2t": missed(by_global, mixed, SHORTLISTS),
        "t2i": missed(by_global.T, mixed.T, SHORTLISTS),
        "rsum": points,
        "enough": next((k for k in SHORTLISTS if points[k] <= MOST_LOST), None),
    }


def evaluation_rows(images, captions, repeats: int = 5) -> list[Row]:
    """Two-stage evaluation both ways against the released code's loop.

    On the shipped model's tokens and on generated ones. The loop takes a tenth of the queries, and
    its time is multiplied, for its queries are all alike.
    """
    count = torch.arange(len(captions))
    pictures = Pictures(len(images), 36, 128)
    generated = pictures.images(), pictures.captions(count // 5, 12, count % 5)
    tokens = {"shipped model": (images, captions), "36 regions x 128, 12 words": generated}
    rows, shortlists = [], dict(zip(("image", "caption"), RELEASED))
    for name, sides in tokens.items():
        for peer, padded in LOOPS.items():
            longest = tuple(max(side.mask.shape[1], least) for side, least in zip(sides, padded))
            function = {"": lambda sides=sides: two_stage_scores(*sides, shortlists, 1.0)}
            ours = cpu_milliseconds(function, repeats, least=0)[""] / 1000
            loop = median(_loop_seconds(*sides, longest) for _ in range(repeats))
            what = f"evaluation, {len(images):,} x {len(captions):,} both ways, {name}"
            rows.append(Row.speedup("Evaluation", what, ours, peer, loop, 20, unit="s"))
    return rows


def _loop_seconds(images, captions, longest):
    """CPU seconds of the loop over all queries, from a tenth of them."""
    seconds = 0.0
    for i, side in enumerate((images, captions)):
        queries = [0, 0]
        queries[i] = max(1, round(0.1 * len(side)))
        began = time.process_time()
        released_loop(images, captions, 1.0, RELEASED, longest, queries)
        seconds += (time.process_time() - began) * len(side) / queries[i]
    return seconds


def _compact(side):
    """The same embedding with each item's real tokens first."""
    tokens = [vectors[mask] for vectors, mask in zip(side.local_tokens, side.mask)]
    mask = [torch.ones(len(vectors), dtype=torch.bool) for vectors in tokens]
    return Embedding(side.global_token, pad_sequence(tokens, True), pad_sequence(mask, True))
