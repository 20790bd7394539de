"""What speed costs the shipped model on scenes: misses of the shortlist, int8 tokens; its
evaluation against a loop.
"""

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
from tgdt_mini.evaluation import both_ways
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.rows import as_stored
from tgdt_mini.reports.choice import missed, stored_settings, tune
from tgdt_mini.retrieval import two_stage
from tgdt_mini.scenes.tokens import scene_tokens
from tgdt_mini.similarity import global_similarity, local_similarity

SHORTLISTS = (10, 20, 50, 100, 200)
RELEASED = (50, 100)  # captions for an image, images for a caption
PADDED = (37, 88)  # regions and words that the released code pads to, whatever the data
MOST_LOST = 0.5  # points of rsum


def embedded(split: str, first: int | None = None):
    """(images, captions, image row of each caption, choice) of the shipped model on a split of the
    scenes.
    """
    model = load_model(shipped() / "weights")
    _, tokens = scene_tokens(split, model.tokenizer, first=first)
    images, captions = (_compact(side) for side in encode(model, tokens))
    return images, captions, tokens.caption_image, stored_settings(model)


def shortlist_loss(images, captions, owner, weight: float) -> dict:
    """What stage one loses of full scoring: shares of the best answers, points of rsum, and the K
    that is enough.

    {"i2t" and "t2i": `stage_one.missed`, "rsum": {K: points}, "enough": smallest K that loses at
    most MOST_LOST points}
    """
    by_global = global_similarity(images, captions)
    mixed = by_global + weight * local_similarity(images, captions)
    losses = tune(images, captions, owner, weights=(weight,), shortlists=SHORTLISTS).losses
    points = {k: losses["image"][k] + losses["caption"][k] for k in SHORTLISTS}
    enough = [k for k in SHORTLISTS if points[k] <= MOST_LOST]
    return {
        "i2t": missed(by_global, mixed, SHORTLISTS),
        "t2i": missed(by_global.T, mixed.T, SHORTLISTS),
        "rsum": points,
        "enough": enough[0] if enough else None,
    }


def precision_costs(images, captions, owner, weight: float) -> list[dict]:
    """rsum of full mixed scoring with image tokens as a gallery stores them: [{"locals", "globals",
    "rsum"}].
    """
    found = []
    for local, global_ in (
        ("float32", "float32"),
        ("float16", "float32"),
        ("float16", "float16"),
        ("int8", "float32"),
        ("int8", "float16"),
    ):
        tokens = images.local_tokens
        if local != "float32":
            tokens = as_stored(tokens.flatten(0, 1), local).float().view_as(tokens)
        stored = Embedding(
            images.global_token.to(getattr(torch, global_)).float(), tokens, images.mask
        )
        mixed = global_similarity(stored, captions) + weight * local_similarity(stored, captions)
        found.append({"locals": local, "globals": global_, "rsum": both_ways(mixed, owner).rsum})
    return found


def evaluation_rows(images, captions, repeats: int = 5, part: float = 0.1) -> list[Row]:
    """Two-stage evaluation both ways against the released code's loop, on the shipped model's and
    on generated tokens.

    part: share of the queries that the loop really takes; its time is multiplied, for its queries
    are all alike.
    """
    pictures = Pictures(len(images), 36, 128)
    rows = torch.arange(len(captions))
    generated = pictures.images(), pictures.captions(rows // 5, 12, rows % 5)
    rows = []
    for what, (some_images, some_captions), padded, name in (
        ("shipped model", (images, captions), PADDED, "released code's loop, padded to 37 x 88"),
        ("shipped model", (images, captions), None, "the same loop, no needless padding"),
        (
            "36 regions x 128, 12 words",
            generated,
            PADDED,
            "released code's loop, padded to 37 x 88",
        ),
        ("36 regions x 128, 12 words", generated, None, "the same loop, no needless padding"),
    ):
        longest = tuple(
            map(max, padded or (0, 0), (some_images.mask.shape[1], some_captions.mask.shape[1]))
        )
        ours = cpu_milliseconds(
            {"": lambda i=some_images, c=some_captions: both_directions(i, c)}, repeats, 0
        )[""]
        queries = max(1, round(part * len(some_images))), max(1, round(part * len(some_captions)))
        loop = median(
            _loop_milliseconds(some_images, some_captions, longest, queries) for _ in range(repeats)
        )
        text = f"evaluation, {len(images):,} x {len(captions):,} both ways, {what}"
        rows.append(Row.speedup("Evaluation", text, ours / 1000, name, loop / 1000, 20, unit="s"))
    return rows


def both_directions(images, captions) -> tuple[torch.Tensor, torch.Tensor]:
    """Two-stage scores (I, C) and (C, I) with the released code's shortlists."""
    i2t = two_stage(images, captions, RELEASED[0], 1.0, "image")
    return i2t, two_stage(captions, images, RELEASED[1], 1.0, "caption")


def _loop_milliseconds(images, captions, longest, queries):
    """CPU milliseconds of the loop over all queries, from a part of them."""
    spent = 0.0
    for some, of in (
        ((queries[0], 0), len(images) / queries[0]),
        ((0, queries[1]), len(captions) / queries[1]),
    ):
        began = time.process_time()
        released_loop(images, captions, 1.0, RELEASED, longest, some)
        spent += of * (time.process_time() - began)
    return 1000 * spent


def _compact(side):
    """The same embedding with each item's real tokens first."""
    tokens = [own[mask] for own, mask in zip(side.local_tokens, side.mask)]
    mask = [torch.ones(len(own), dtype=torch.bool) for own in tokens]
    return Embedding(side.global_token, pad_sequence(tokens, True), pad_sequence(mask, True))
