"""Fewer and smaller local tokens: pool, prune or round them, and see what rsum it costs.

Late interaction keeps a vector of every region, so local tokens are nearly all bytes of a gallery.

    pool    the two most alike tokens become one, their mean direction, until `most` are left
    prune   of the two most alike tokens one is dropped, until `most` are left
    round   each number is kept in 2 bytes, in 1 byte, or as its sign

Clavie et al. (2024, arXiv 2409.14683) pool by clustering; to merge pairs needs no number of
clusters. Stage one stays as it is. B images, L tokens, D width.
"""

import torch
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import both_ways
from tgdt_mini.files.check import one_of
from tgdt_mini.files.rows import as_stored
from tgdt_mini.reports.report import two_stage_scores
from tgdt_mini.scaling.capacity import BITS
from tgdt_mini.similarity import INFINITY, at_least_float32

METHODS = ("pool", "prune")


def keep_tokens(images: Embedding, most: int, method: str = "pool") -> Embedding:
    """The same images with at most `most` local tokens each.

    Example: tokens (1, 0), (0.8, 0.6) and (-1, 0), most 2: the first two are the most alike, 0.8;
    pool makes of them (0.949, 0.316), prune leaves (1, 0). Raises ValueError for most below 1 and
    an unknown method.
    """
    if most < 1:
        raise ValueError(f"most is {most}; an image needs at least 1 local token")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be {' or '.join(METHODS)}")
    sums = at_least_float32(images.local_tokens).clone()  # (B, L, D) of the tokens merged so far
    left = images.mask.clone()  # (B, L)
    rows = torch.arange(len(images), device=left.device)
    same = torch.eye(left.shape[1], dtype=torch.bool, device=left.device)
    while (full := left.sum(1) > most).any():  # (B,) images that still have too many
        unit = normalize(sums, dim=-1)
        no_pair = ~left[:, :, None] | ~left[:, None, :] | same  # (B, L, L)
        alike = (unit @ unit.transpose(1, 2)).masked_fill(no_pair, -INFINITY)
        best = alike.flatten(1).argmax(1)  # (B,)
        kept, gone = best // left.shape[1], best % left.shape[1]
        if method == "pool":
            sums[rows[full], kept[full]] += sums[rows[full], gone[full]]
        left[rows[full], gone[full]] = False
    first = left.byte().argsort(dim=1, descending=True, stable=True)  # real tokens first
    first = first[:, : int(left.sum(1).max())]  # (B, L')
    local = normalize(sums, dim=-1).gather(1, first[..., None].expand(-1, -1, sums.shape[2]))
    local = local.to(images.local_tokens.dtype)
    return Embedding(images.global_token, local, left.gather(1, first))


def rounded(images: Embedding, kind: str) -> Embedding:
    """The same images with local tokens as they come back from storage as one of `capacity.BITS`.

    float16 and int8 are those of a gallery (see `files/rows.py`); 1 bit is the sign of each number,
    normalised. Raises ValueError for an unknown kind.
    """
    local = images.local_tokens
    one_of("kind", kind, BITS)
    if kind in ("float16", "int8"):
        flat = local.flatten(0, 1)  # (B * L, D)
        local = as_stored(flat, kind).to(local).view_as(local)
    elif kind == "1 bit":
        local = normalize(torch.where(local >= 0, 1.0, -1.0).to(local.dtype), dim=-1)
    return Embedding(images.global_token, local, images.mask)


def two_stage_rsum(images: Embedding, captions: Embedding, caption_image, settings) -> float:
    """rsum of two-stage search both ways with these images' tokens, to see what saving costs.

    caption_image (C,): the image row of each caption. settings: see `reports.choice`.
    """
    i2t, t2i = two_stage_scores(images, captions, settings.shortlist, settings.local_weight)
    return both_ways(i2t, caption_image, t2i_scores=t2i).rsum
