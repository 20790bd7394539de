"""How well an image and a caption match: by their global tokens, by their local tokens, or by both.

Global: one dot product, S_G = v0 . t0. Fast and blurry.
Local: each word looks for its best region, S_L = mean over words of (max over regions of v_r .
w_p). Sharp and slow. This is late interaction, known as MaxSim (ColBERT) and MrSw (TERAN). The
released TGDT code takes the sum over words, so that long captions win; here it is the mean, and S_L
lies in [-1, 1] like S_G.

Scores are in float32 even under autocast: in bfloat16 near ties change which negative is the
hardest. Which tokens are worth comparing is for whoever made the mask; no word is weighted more
than another.
"""

from contextlib import nullcontext
from math import isqrt

import torch

from tgdt_mini.embedding import Embedding

INFINITY = float("inf")
CHUNK = 2**22  # products held at once: 16 MB of float32, small enough for a CPU's caches to help
TOKENS = (
    2**10
)  # gathered at once for one image or caption: with D = 256, 1 MB that stays in the cache
TURN = 2**9  # what turning to one image or caption costs besides, in gathered tokens


def global_similarity(images: Embedding, captions: Embedding) -> torch.Tensor:
    """(I, C) dot products of the global tokens, in [-1, 1].

    Example: an image token (1, 0) against caption tokens (0.6, 0.8) and (-1, 0) -> [[0.6, -1.0]].
    """
    _check_width(images.global_token, captions.global_token)
    with autocast_off(images.global_token):
        return (
            at_least_float32(images.global_token) @ at_least_float32(captions.global_token).T
        )  # (I, C)


def local_similarity(images: Embedding, captions: Embedding, chunk: int = CHUNK) -> torch.Tensor:
    """(I, C) mean over the caption's real words of the max over the image's real regions, in [-1,
    1].

    chunk: word-region products held at once. It bounds the memory (4 bytes each); the scores do not
    depend on it.
    Source: late interaction as in ColBERT (arXiv 2004.12832); the released TGDT code has its sum
    over words.
    Example: words (1, 0) and (0, 1) against regions (1, 0) and (0.6, 0.8) -> (1.0 + 0.8) / 2 = 0.9.
    Raises ValueError for a caption without a real word or an image without a real region; in
    training on a GPU, where looking would keep it waiting at every step, its scores are not finite
    instead.
    """
    if chunk < 1:
        raise ValueError(
            f"chunk is {chunk}; it must be at least 1 product (the default is {CHUNK})"
        )
    _check_width(images.global_token, captions.global_token)
    regions, most_regions, most_words = (
        images.local_tokens,
        images.mask.shape[1],
        captions.mask.shape[1],
    )
    known = regions.device.type == "cpu" or not (
        regions.requires_grad or captions.local_tokens.requires_grad
    )
    if known:
        word_counts, region_counts = check_real(captions, images, names=("caption", "image"))
    pad = None if known and bool((region_counts == most_regions).all()) else ~images.mask  # (I, R)
    caption_step = max(1, isqrt(chunk) // most_words)  # about as many words as regions at a time
    scores = []
    with autocast_off(regions):
        for first in range(0, len(captions), caption_step):
            some = slice(first, first + caption_step)
            words, average = _pack(
                captions[some], int(word_counts[some].sum()) if known else None
            )  # (P, D), (c, P)
            image_step = max(1, chunk // (len(words) * most_regions))
            rows = [slice(start, start + image_step) for start in range(0, len(images), image_step)]
            best = (
                _best_region(words, regions[i], None if pad is None else pad[i]) for i in rows
            )  # (P, i) each
            if average is None:
                best = [each.unflatten(0, (-1, most_words)).mean(1) for each in best]
            else:
                best = [average @ each for each in best]
            scores.append(torch.cat(best, dim=1))  # (c, I)
    return torch.cat(scores).T  # (I, C)


def mixed_similarity(images: Embedding, captions: Embedding, local_weight: float) -> torch.Tensor:
    """(I, C) global + local_weight x local. Choose local_weight on validation data, never on the
    test set.
    """
    return global_similarity(images, captions) + local_weight * local_similarity(images, captions)


def shortlist_similarity(
    queries: Embedding, tokens: torch.Tensor, mask: torch.Tensor | None, query_is: str
) -> torch.Tensor:
    """(Q, K) local similarity of each query with its own K candidates only; what the second stage
    of a search needs.

    tokens (Q, K, L, D) and mask (Q, K, L) are the candidates' local tokens; mask None: all are
    real. query_is "caption": the candidates are images, and the query's words look for regions in
    each of them. query_is "image": the candidates are captions, and their words look for regions in
    the query. Every query and every candidate must have a real token; the caller has checked that.
    """
    check_query_is(query_is)
    with autocast_off(tokens):
        query_tokens = at_least_float32(queries.local_tokens)  # (Q, L', D), L' the query's length
        products = query_tokens @ at_least_float32(tokens).flatten(1, 2).transpose(
            1, 2
        )  # (Q, L', K*L)
        products = products.unflatten(2, tokens.shape[1:3])  # (Q, L', K, L)
        if query_is == "caption":
            if mask is not None:
                products = products.masked_fill(~mask[:, None], -INFINITY)
            best = products.amax(3).transpose(1, 2)  # (Q, K, W)
            real_word = queries.mask[:, None]  # (Q, 1, W)
        else:
            best = products.masked_fill(~queries.mask[:, :, None, None], -INFINITY).amax(
                1
            )  # (Q, K, W)
            real_word = (
                torch.ones_like(best, dtype=torch.bool) if mask is None else mask
            )  # (Q, K, W)
        return best.masked_fill(~real_word, 0).sum(2) / real_word.sum(2)  # (Q, K)


def paired_similarity(
    images: Embedding, captions: Embedding, image: torch.Tensor, caption: torch.Tensor
) -> torch.Tensor:
    """(P,) local similarity of image[p] with caption[p]: what the shortlists of many queries at
    once need.

    image and caption (P,) are row numbers. Goes through the images or the captions, gathers the
    tokens of each one's partners and multiplies them with its own: nothing is padded. Takes
    whichever way round is less work. With few partners each `shortlist_similarity` is faster. Every
    image and every caption must have a real token; the caller has checked that.
    """
    words, regions = captions.mask.sum(1), images.mask.sum(1)
    by_image, by_caption = (TURN * min(len(side), len(image)) for side in (images, captions))
    if words[caption].sum() + by_image <= regions[image].sum() + by_caption:
        lead, others, lead_rows, rows = images, captions, image, caption
    else:
        lead, others, lead_rows, rows = captions, images, caption, image
    lead_rows, order = lead_rows.sort(stable=True)
    real = others.mask.index_select(0, rows[order])  # (P, L)
    length = torch.arange(real.shape[1], device=real.device)
    wanted = (rows[order, None] * real.shape[1] + length)[real]  # (T,) rows of the others' tokens
    own = lead.mask.flatten().nonzero()[:, 0]  # (all real tokens of the lead,)
    pairs = torch.bincount(lead_rows, minlength=len(lead)).cumsum(
        0
    )  # (leads,) pairs up to and with each
    tokens_of_pairs = torch.cat(
        [real.new_zeros(1, dtype=torch.long), real.sum(1).cumsum(0)]
    )  # (P + 1,)
    ends = torch.stack([lead.mask.sum(1).cumsum(0), tokens_of_pairs[pairs]]).T.tolist()
    with autocast_off(images.local_tokens):
        if lead is images:
            blocks = [
                products.amax(1) for products, _ in _products(lead, others, own, wanted, ends)
            ]
            best = blocks[0].new_zeros(real.shape).masked_scatter(real, torch.cat(blocks))  # (P, W)
        else:
            pair = torch.arange(len(real), device=real.device).repeat_interleave(
                real.sum(1)
            )  # (T,)
            best = at_least_float32(lead.local_tokens[:0, 0, 0]).new_full(
                (len(real), lead.mask.shape[1]), -INFINITY
            )
            for products, some in _products(lead, others, own, wanted, ends):
                place = pair[some, None].expand_as(products)
                best[:, : products.shape[1]].scatter_reduce_(0, place, products, "amax")
            best = best.masked_fill(best == -INFINITY, 0)  # (P, W)
        scores = best.sum(1) / words[caption[order]]
        return torch.empty_like(scores).scatter_(0, order, scores)


def check_real(*embeddings: Embedding, names: tuple[str, ...]) -> list[torch.Tensor]:
    """For each embedding, how many real tokens each item has, (B,) on the CPU. An item without any
    is a ValueError.
    """
    counts = torch.cat(
        [_count(embedding.mask) for embedding in embeddings]
    ).cpu()  # the only wait for a GPU
    counts = list(counts.split([len(embedding) for embedding in embeddings]))
    for name, count in zip(names, counts, strict=True):
        if len(count) == 0:
            raise ValueError(f"there is no {name} to score: the embedding is empty")
        if (count == 0).any():
            part = "word" if name == "caption" else "region"
            raise ValueError(
                f"{name} {int((count == 0).nonzero()[0])} has no real {part}: its mask is all False. "
                f"Leave it out, or give it at least one {part}"
            )
    return counts


def check_query_is(query_is: str):
    if query_is not in ("image", "caption"):
        raise ValueError(f'query_is is {query_is!r}; it must be "image" or "caption"')


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or in float64 if it is float64 already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def autocast_off(tensor: torch.Tensor):
    """A context without autocast on the tensor's device; some devices have none to begin with."""
    kind = tensor.device.type
    return (
        torch.autocast(kind, enabled=False)
        if torch.amp.is_autocast_available(kind)
        else nullcontext()
    )


def _count(mask):
    """(B,) real tokens, counted twice as fast as by a sum of bool, which torch takes in int64."""
    small = torch.int16 if mask.shape[1] < 2**15 else torch.int64
    return mask.view(torch.uint8).sum(1, dtype=small).long()


def _products(lead, others, own, wanted, ends):
    """Lead by lead, TOKENS of its partners at a time: their products (t, own tokens), and their
    slice of `wanted`.
    """
    width, dtype = lead.local_tokens.shape[2], at_least_float32(lead.local_tokens[:0]).dtype
    lead, others = lead.local_tokens.reshape(-1, width), others.local_tokens.reshape(-1, width)
    start, first = 0, 0
    for end, last in ends:
        for here in range(first, last, TOKENS):
            some = slice(here, min(here + TOKENS, last))
            mine = lead.index_select(0, own[start:end]).to(dtype)  # (l, D)
            yield others.index_select(0, wanted[some]).to(dtype) @ mine.T, some
        start, first = end, last


def _pack(captions, count):
    """The real words only, (P, D) with P = count, and the (C, P) matrix that averages them caption
    by caption.

    count None: nobody knows it without waiting; then all words stay, P = C * W, and padding has no
    weight. Where nothing is padded nothing is copied, and there is no matrix (None): one image's
    captions are scored twice as fast.
    """
    mask = captions.mask  # (C, W)
    if count == mask.numel():
        return at_least_float32(captions.local_tokens.flatten(0, 1)), None  # (C*W, D)
    if count is None:
        words = (
            at_least_float32(captions.local_tokens).masked_fill(~mask[..., None], 0).flatten(0, 1)
        )  # (C*W, D)
        is_mine = (
            torch.eye(len(mask), dtype=torch.bool, device=mask.device)[..., None] & mask
        )  # (C, C, W)
        return words, is_mine.flatten(1).to(words.dtype) / mask.sum(1, keepdim=True)
    positions = torch.nonzero_static(mask.flatten(), size=count)[
        :, 0
    ]  # (P,); with the size given no GPU has to wait
    words = at_least_float32(
        captions.local_tokens.flatten(0, 1).index_select(0, positions)
    )  # (P, D)
    is_mine = (
        torch.arange(len(mask), device=mask.device)[:, None] == positions // mask.shape[1]
    )  # (C, P)
    return words, is_mine.to(words.dtype) / mask.sum(1, keepdim=True)


def _best_region(words, regions, pad):
    """(P, I) each word's best real region in each image: one matrix product, words first."""
    regions = at_least_float32(regions)  # (I, R, D)
    # A masked region must score -inf before the max: left at 0 it would beat true negative cosines.
    # To search with few
    # words: fill the products. To train, or with many words: clear the pads (they may hold
    # anything, nan included), and
    # let the products start from a bias of 0 or -inf, which saves a pass over the largest array
    # here.
    training = words.requires_grad or regions.requires_grad
    if pad is not None and (training or len(words) > regions.shape[2]):
        bias = words.new_zeros(pad.shape).masked_fill(pad, -INFINITY).flatten()  # (I*R,)
        regions = regions.masked_fill(pad[..., None], 0)
        products = torch.addmm(bias, words, regions.flatten(0, 1).T).unflatten(
            1, pad.shape
        )  # (P, I, R)
    else:
        products = (words @ regions.flatten(0, 1).T).unflatten(1, regions.shape[:2])  # (P, I, R)
        if pad is not None:
            products = products.masked_fill_(pad, -INFINITY)
    # The same numbers. For the backward pass max keeps one index, amax all the products; without it
    # amax is faster.
    return products.max(2).values if products.requires_grad else products.amax(2)  # (P, I)


def _check_width(images, captions):
    if images.shape[1] != captions.shape[1]:
        raise ValueError(
            f"images are {images.shape[1]} wide, captions {captions.shape[1]}; encode both with one model"
        )
