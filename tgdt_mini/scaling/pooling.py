"""Fewer and smaller local tokens: a gallery saves room by pooling, pruning or rounding them, and
loses some rsum.

Late interaction keeps a vector for every region, so local tokens are nearly all of a gallery's
bytes.

    pool    the two most alike tokens of an image become one, their mean direction, until `most` are
    left prune   of the two most alike tokens one is dropped, until `most` are left round   each
    number in 2 bytes, in 1 byte or as its sign

Pooling by likeness is that of Clavie et al. (2024, arXiv 2409.14683), who cluster; merging pairs
needs no number of clusters a document. `python -m tgdt_mini.scaling.pooling` measures the cost with
the shipped model on validation scenes. Stage one is left as it is. B images, L tokens, D width.
"""

import torch
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.rows import as_stored
from tgdt_mini.scaling.capacity import BITS, table, token_bytes
from tgdt_mini.similarity import INFINITY, at_least_float32

HOWS = ("pool", "prune")


def keep_tokens(images: Embedding, most: int, how: str = "pool") -> Embedding:
    """The same images with at most `most` local tokens each; those that have no more keep what they
    have.

    Example: tokens (1, 0), (0.8, 0.6) and (-1, 0), most 2: the first two are the most alike, 0.8;
    pool makes of them (0.949, 0.316), prune leaves (1, 0).
    """
    if most < 1:
        raise ValueError(f"most is {most}; an image needs at least 1 local token")
    if how not in HOWS:
        raise ValueError(f"how is {how!r}; it must be {' or '.join(HOWS)}")
    sums, alive = (
        at_least_float32(images.local_tokens).clone(),
        images.mask.clone(),
    )  # (B, L, D), (B, L)
    rows = torch.arange(len(images), device=alive.device)
    same = torch.eye(alive.shape[1], dtype=torch.bool, device=alive.device)
    while (full := alive.sum(1) > most).any():  # (B,) those that still have too many
        unit = normalize(sums, dim=-1)
        either = (
            ~alive[:, :, None] | ~alive[:, None, :] | same
        )  # (B, L, L) no pair of two real tokens
        alike = (unit @ unit.transpose(1, 2)).masked_fill(either, -INFINITY)
        best = alike.flatten(1).argmax(1)  # (B,)
        kept, gone = best // alive.shape[1], best % alive.shape[1]
        if how == "pool":
            sums[rows[full], kept[full]] += sums[rows[full], gone[full]]
        alive[rows[full], gone[full]] = False
    order = alive.byte().argsort(dim=1, descending=True, stable=True)[
        :, : int(alive.sum(1).max())
    ]  # (B, L')
    local = normalize(sums, dim=-1).gather(1, order[..., None].expand(-1, -1, sums.shape[2]))
    return Embedding(
        images.global_token, local.to(images.local_tokens.dtype), alive.gather(1, order)
    )


def rounded(images: Embedding, kind: str) -> Embedding:
    """The same images with local tokens as they come back from storage, which holds them as one of
    BITS.

    float16 and int8 are those of a gallery (see `files/rows.py`); 1 bit: the sign of each number,
    normalised.
    """
    local = images.local_tokens
    if kind not in BITS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(BITS)}")
    if kind in ("float16", "int8"):
        flat = local.flatten(0, 1)  # (B * L, D)
        local = as_stored(flat, kind).to(local).view_as(local)
    elif kind == "1 bit":
        local = normalize(torch.where(local >= 0, 1.0, -1.0).to(local.dtype), dim=-1)
    return Embedding(images.global_token, local, images.mask)


def cost(images: Embedding, captions: Embedding, owner: torch.Tensor, choice) -> float:
    """rsum of two-stage search both ways, with these images' tokens; owner (C,) is the image row of
    each caption.
    """
    from tgdt_mini.evaluation import both_ways
    from tgdt_mini.retrieval import two_stage

    i2t = two_stage(
        images, captions, choice.shortlist["image"], choice.local_weight, query_is="image"
    )
    t2i = two_stage(
        captions, images, choice.shortlist["caption"], choice.local_weight, query_is="caption"
    )
    return both_ways(i2t, owner, t2i_scores=t2i).rsum


def costs(
    images: Embedding, captions: Embedding, owner: torch.Tensor, choice, keeps=(4, 3, 2, 1)
) -> str:
    """Markdown: for each way to save, the tokens and bytes an image that are left on average, and
    the rsum.
    """
    plain, width = round(cost(images, captions, owner, choice), 1), images.local_tokens.shape[2]
    ways = [("all tokens", images, "float32")]
    ways += [
        (f"all tokens, {kind}", rounded(images, kind), kind) for kind in BITS if kind != "float32"
    ]
    ways += [
        (f"{how} to {most}", keep_tokens(images, most, how), "float32")
        for how in HOWS
        for most in keeps
    ]
    ways += [("pool to 3, int8", rounded(keep_tokens(images, 3), "int8"), "int8")]
    rows = []
    for name, some, kind in ways:
        tokens, found = (
            float(some.mask.sum(1).float().mean()),
            round(cost(some, captions, owner, choice), 1),
        )
        room, change = (
            tokens * token_bytes(width, kind),
            f"{found - plain:+.1f}" if found != plain else "0",
        )
        rows.append((name, f"{tokens:.1f}", f"{room:.0f}", f"{found:.1f}", change))
    return table(("local tokens", "tokens an image", "bytes an image", "rsum", "change"), rows)


def main() -> None:
    """Print the table for the shipped model and the validation scenes."""
    from tgdt_mini.checkpoint import load_model
    from tgdt_mini.encoding import encode
    from tgdt_mini.files.paths import shipped
    from tgdt_mini.reports.choice import stored_settings
    from tgdt_mini.scenes.tokens import scene_tokens

    model = load_model(shipped() / "weights")
    _, tokens = scene_tokens("validation", model.tokenizer, model.config.image_tokens)
    print(costs(*encode(model, tokens), tokens.caption_image, stored_settings(model)))


if __name__ == "__main__":
    main()
