"""How well an image and a caption match: by their global tokens, by their local tokens, or by both.

Global: one dot product, S_G = v0 . t0. Fast and blurry.
Local: each word looks for its best region, S_L = mean over words of max over regions of v_r . t_w.
Sharp and slow. This is late interaction, known as MaxSim (ColBERT) and MrSw (TERAN). The released
TGDT code takes the sum over words, so that long captions win; here it is the mean, and S_L lies in
[-1, 1] like S_G.

`local_similarity_plain` is the formula; the functions below it give the same scores faster. Scores
are in float32 even under autocast: in bfloat16 near ties change which negative is the hardest. No
word weighs more than another. I images, C captions, R regions, W words, D width.
"""

from contextlib import nullcontext

import torch

from tgdt_mini.embedding import Embedding, check_real
from tgdt_mini.files.check import real_number, typed

INFINITY = float("inf")
MOST_WEIGHT = 1e6
CAPTIONS = 64  # scored at a time
PRODUCTS = {"cpu": 2**20}  # words x regions at a time: 4 MB of float32 stay in a CPU's caches
PRODUCTS_ELSEWHERE = 2**24  # on another device: fewer, larger blocks, as each must be launched


def global_similarity(images: Embedding, captions: Embedding) -> torch.Tensor:
    """(I, C) dot products of the global tokens, in [-1, 1].

    Example: an image token (1, 0) against caption tokens (0.6, 0.8) and (-1, 0) -> [[0.6, -1.0]].
    """
    _check_width(images, captions)
    with autocast_off(images.global_token):
        return at_least_float32(images.global_token) @ at_least_float32(captions.global_token).T


def local_similarity_plain(images: Embedding, captions: Embedding) -> torch.Tensor:
    """(I, C) local scores, the formula as it is written: what `local_similarity` must agree with.

    It holds all C x W x I x R products at once: 4 bytes each, and as many again for the mask.
    """
    products = torch.einsum("cwd,ird->cwir", captions.local_tokens, images.local_tokens)
    # a padded region scores -inf: left at 0 it would beat true negative cosines
    best = products.masked_fill(~images.mask, -INFINITY).amax(3)  # (C, W, I)
    is_word = captions.mask[..., None]  # (C, W, 1)
    return (best.masked_fill(~is_word, 0).sum(1) / is_word.sum(1)).T  # (I, C)


def local_similarity(images: Embedding, captions: Embedding) -> torch.Tensor:
    """(I, C) mean over a caption's real words of the max over an image's real regions, in [-1, 1].

    Example: words (1, 0) and (0, 1) against regions (1, 0) and (0.6, 0.8) -> (1.0 + 0.8) / 2 = 0.9.

    Unlike the plain form it leaves padding out and bounds products held at once. Source: late
    interaction as in ColBERT (arXiv 2004.12832). Raises ValueError for a caption without a real
    word or an image without a real region; in training on a GPU, where looking would keep it
    waiting at every step, their scores are not finite instead.
    """
    _check_width(images, captions)
    training = images.local_tokens.requires_grad or captions.local_tokens.requires_grad
    device = images.mask.device.type
    if may_look := device == "cpu" or not training:
        check_real(captions, images, names=("caption", "image"))
    many = not training and min(len(images), len(captions)) > CAPTIONS  # for few, a copy costs more
    best_region, regions = (_in_turns, 1) if many else (_best_region, images.mask.shape[1])
    images, back = _most_first(images) if many else (images, slice(None))
    most, scores = PRODUCTS.get(device, PRODUCTS_ELSEWHERE), []
    with autocast_off(images.local_tokens):
        for start in range(0, len(captions), CAPTIONS):
            words, mean = _words(captions[start : start + CAPTIONS], may_look)  # (P, D), (c, P)
            step = max(1, most // (len(words) * regions))  # images at a time
            blocks = (images[i : i + step] for i in range(0, len(images), step))
            best = torch.cat([best_region(words, block) for block in blocks], dim=1)  # (P, I)
            scores.append(mean @ best)  # (c, I)
    return torch.cat(scores).T[back]  # (I, C)


def mixed_similarity(images: Embedding, captions: Embedding, local_weight: float) -> torch.Tensor:
    """(I, C) global + local_weight x local scores. Choose the weight on validation data only."""
    weight = check_weight(local_weight)
    return global_similarity(images, captions) + weight * local_similarity(images, captions)


def shortlist_similarity(
    queries: Embedding, tokens: torch.Tensor, mask: torch.Tensor | None, query_is: str
) -> torch.Tensor:
    """(Q, K) local scores of each query with K candidates of its own: stage two of a search.

    tokens (Q, K, L, D) and mask (Q, K, L) are the candidates' local tokens; mask None: all are
    real. query_is "caption": the candidates are images, and the query's words look for regions in
    each of them. query_is "image": the candidates are captions, and their words look for regions in
    the query. Every query and every candidate must have a real token; the caller has checked that.
    """
    check_query_is(query_is)
    with autocast_off(tokens):
        query_tokens = at_least_float32(queries.local_tokens)  # (Q, L', D), L' the query's length
        candidates = at_least_float32(tokens).flatten(1, 2)  # (Q, K*L, D)
        products = query_tokens @ candidates.transpose(1, 2)  # (Q, L', K*L)
        products = products.unflatten(2, tokens.shape[1:3])  # (Q, L', K, L)
        if query_is == "caption":
            if mask is not None:
                products.masked_fill_(~mask[:, None], -INFINITY)
            best = products.amax(3).transpose(1, 2)  # (Q, K, W)
            is_word = queries.mask[:, None]  # (Q, 1, W)
        else:
            products.masked_fill_(~queries.mask[:, :, None, None], -INFINITY)
            best = products.amax(1)  # (Q, K, W)
            is_word = torch.ones_like(best, dtype=torch.bool) if mask is None else mask
        return best.masked_fill(~is_word, 0).sum(2) / is_word.sum(2)  # (Q, K)


def check_query_is(query_is: str):
    if query_is not in ("image", "caption"):
        raise ValueError(f'query_is is {query_is!r}; it must be "image" or "caption"')


def check_weight(local_weight: float) -> float:
    """The weight of the local score. ValueError for one that is not finite, or makes scores so."""
    return real_number("local_weight", local_weight, -MOST_WEIGHT, MOST_WEIGHT)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or in float64 if it is float64 already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def autocast_off(tensor: torch.Tensor):
    """A context without autocast on the tensor's device; some devices have none to begin with."""
    kind = tensor.device.type
    has_autocast = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if has_autocast else nullcontext()


def _words(captions, may_look):
    """(P, D) words, and the (C, P) matrix that takes the mean over each caption's real words."""
    mask, words = captions.mask, at_least_float32(captions.local_tokens).flatten(0, 1)  # (C*W, D)
    if may_look:  # keep the real words only
        real = mask.flatten().nonzero()[:, 0]  # (P,)
        words = words.index_select(0, real)
        caption = torch.arange(len(mask), device=mask.device)[:, None]
        is_word = caption == real // mask.shape[1]  # (C, P)
    else:  # keep all, P = C*W; padding may hold anything, NaN too, and is set to 0
        words = words.masked_fill(~mask.flatten()[:, None], 0)
        is_word = torch.eye(len(mask), dtype=torch.bool, device=mask.device)[..., None] & mask
        is_word = is_word.flatten(1)  # (C, C*W)
    return words, is_word.to(words.dtype) / mask.sum(1, keepdim=True)


def _best_region(words, images):
    """(P, I) the product of each word with its best real region of each image."""
    regions, pad = at_least_float32(images.local_tokens), ~images.mask  # (I, R, D), (I, R)
    if words.requires_grad or regions.requires_grad:
        # padding may hold NaN, also in a gradient (0 x NaN): its values become 0, and -inf is
        # added to its scores. max remembers which region won; amax would keep all products
        regions = regions.masked_fill(pad[..., None], 0)
        start = words.new_zeros(pad.shape).masked_fill(pad, -INFINITY)  # (I, R)
        products = torch.addmm(start.flatten(), words, regions.flatten(0, 1).T)  # (P, I*R)
        return products.unflatten(1, pad.shape).max(2).values
    products = (words @ regions.flatten(0, 1).T).unflatten(1, pad.shape)  # (P, I, R)
    return products.masked_fill_(pad, -INFINITY).amax(2)


def _most_first(images):
    """(images of most regions first, in each the real regions before padding; the way back)."""
    mask, real = images.mask.byte().sort(dim=1, descending=True, stable=True)  # (I, R)
    order = mask.sum(1).argsort(descending=True, stable=True)  # (I,)
    turns = images.local_tokens[order, real[order].T].transpose(0, 1)  # (I, R, D), turn by turn
    return Embedding(images.global_token[order], turns, mask[order].bool()), order.argsort()


def _in_turns(words, images):
    """As `_best_region`: first regions, then second ones, ... So no product is one of padding."""
    counts, tokens = images.mask.sum(0).tolist(), images.local_tokens  # (R,), (I, R, D)
    best = words @ at_least_float32(tokens[:, 0]).T  # (P, I)
    for turn, n in enumerate(counts[1:], start=1):  # the first n images have so many
        regions = at_least_float32(tokens[:n, turn])
        torch.maximum(best[:, :n], words @ regions.T, out=best[:, :n])
    return best


@typed
def _check_width(images: Embedding, captions: Embedding):
    widths = images.global_token.shape[1], captions.global_token.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"images are {widths[0]} wide, captions {widths[1]}; encode both with one model"
        )
    if len({at_least_float32(side.global_token[:0]).dtype for side in (images, captions)}) > 1:
        raise ValueError("images or captions are float64; bring both to one by .to(torch.float32)")
