"""Two-stage search: a shortlist by global score, put in order by global + weight x local score.

    stage 1   one dot product with every item of the gallery; the K best are the shortlist
    stage 2   late interaction with those K only: K / G of the work of scoring everything

`two_stage_plain` is that, one query at a time; `two_stage` gives the same scores faster.
Q queries (q at a time), G gallery items, K shortlist, P pairs, T their tokens, D width.
"""

import time

import torch

from tgdt_mini.embedding import Embedding, check_real
from tgdt_mini.files.check import shown, typed, whole_number
from tgdt_mini.similarity import (
    PRODUCTS,
    PRODUCTS_ELSEWHERE,
    at_least_float32,
    autocast_off,
    check_query_is,
    check_weight,
    global_similarity,
    local_similarity,
    shortlist_similarity,
)

SCORES = 2**22  # held at once: 16 MB of float32
TOKENS = 3 * 2**8  # gathered at a time: with D = 256, 0.75 MB that stay in the cache
START = 2**9  # what the start of one more image or caption costs, counted in tokens
BLOCK = 2**11  # global tokens that are copied and multiplied at once: 2 MB with D = 256
CACHED = 2**20  # numbers of global tokens that stay in a CPU's cache


def two_stage_plain(
    queries: Embedding, gallery: Embedding, shortlist: int, local_weight: float, query_is: str
) -> torch.Tensor:
    """(Q, G) scores, the method written directly: what `two_stage` must agree with."""
    by_global = global_similarity(queries, gallery)  # (Q, G)
    scores = torch.full_like(by_global, -float("inf"))
    for query in range(len(queries)):
        ids = by_global[query].topk(min(shortlist, len(gallery))).indices  # (K,)
        pair = queries[[query]], gallery[ids]
        images, captions = pair if query_is == "image" else pair[::-1]
        by_local = local_similarity(images, captions).flatten()  # (K,)
        scores[query, ids] = by_global[query, ids] + local_weight * by_local
    return scores


@typed
def two_stage(
    queries: Embedding,
    gallery: Embedding,
    shortlist: int,
    local_weight: float,
    query_is: str,
    index: object = None,
) -> torch.Tensor:
    """(Q, G) scores: global + local_weight x local in each query's shortlist, -inf outside it.

    query_is "image" searches captions, "caption" images. shortlist: K; G or more scores everything.
    index: see `best_by_global`. ValueError for a NaN score, or a query or shortlisted item without
    a real token. Source: evaluate_utils/evaluation.py of the released code.
    """
    check_query_is(query_is)
    names = query_is, "caption" if query_is == "image" else "image"
    check_real(queries, gallery[:1], names=names)  # to look at all takes 0.25 ms for 100,000 x 36

    def rerank(queries, ids):
        if not gallery.mask.index_select(0, ids.flatten()).any(1).all():
            check_real(gallery, names=names[1:])  # tells which
        query = torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])  # (q*K,)
        if query_is == "image":
            return paired_similarity(queries, gallery, query, ids.flatten()).view(ids.shape)
        return paired_similarity(gallery, queries, ids.flatten(), query).view(ids.shape)

    shape = (len(queries), len(gallery))
    scores = at_least_float32(queries.global_token[:0]).new_full(shape, -float("inf"))
    options = (shortlist, local_weight, max(gallery.mask.shape[1], queries.mask.shape[1]), index)
    for rows, ids, mixed, _ in search_in_blocks(queries, gallery.global_token, rerank, *options):
        scores[rows].scatter_(1, ids, mixed)
    return scores


def paired_similarity(
    images: Embedding, captions: Embedding, image: torch.Tensor, caption: torch.Tensor
) -> torch.Tensor:
    """(P,) local scores of the pairs image[p], caption[p] (row numbers); all need a real token."""
    if images.mask.device.type not in PRODUCTS:  # a few large products: no loop that waits
        step = max(1, PRODUCTS_ELSEWHERE // images.local_tokens[:1].numel())
        blocks = ((images[i], captions[c]) for i, c in zip(image.split(step), caption.split(step)))
        own = ((c, i.local_tokens[:, None], i.mask[:, None]) for i, c in blocks)
        return torch.cat([shortlist_similarity(*block, "caption")[:, 0] for block in own])
    by_image = captions.mask.index_select(0, caption).sum() + START * min(len(images), len(image))
    by_caption = images.mask.index_select(0, image).sum() + START * min(len(captions), len(image))
    score, lead = (_by_image, image) if by_image <= by_caption else (_by_caption, caption)
    order = lead.argsort(stable=True)
    with autocast_off(images.local_tokens), torch.no_grad():
        scores = score(images, captions, image[order], caption[order])
    return torch.empty_like(scores).scatter_(0, order, scores)


def _by_image(images, captions, image, caption):
    """(P,) scores, image ascending: all words of an image's captions look for its regions."""
    rows, counts = _real_rows(captions, caption)  # (T,), (P,)
    tokens, best = captions.local_tokens.flatten(0, 1), []  # (C*W, D)
    words = torch.bincount(image, counts.double(), len(images)).long().tolist()  # of each image
    for regions, rows_of_image in zip(_real(images), rows.split(words)):
        for block in rows_of_image.split(TOKENS):
            best.append((regions @ at_least_float32(tokens.index_select(0, block)).T).amax(0))
    return torch.segment_reduce(torch.cat(best), "mean", lengths=counts, unsafe=True)


def _by_caption(images, captions, image, caption):
    """(P,) scores, caption ascending, by words @ regions: half the time of regions @ words."""
    tokens, scores, length = images.local_tokens.flatten(0, 1), [], images.mask.shape[1]  # (I*R, D)
    pairs = torch.bincount(caption, minlength=len(captions)).tolist()  # of each caption
    if images.mask.index_select(0, image).all():  # no padding: by whole images it is faster
        memory = images.local_tokens.new_empty(max(1, TOKENS // length), length, tokens.shape[1])
        for words, own in zip(_real(captions), image.split(pairs)):
            for few in own.split(len(memory)):
                here = torch.index_select(images.local_tokens, 0, few, out=memory[: len(few)])
                best = (words @ at_least_float32(here).flatten(0, 1).T).unflatten(1, here.shape[:2])
                scores.append(best.amax(2).mean(0))
        return torch.cat(scores)
    rows, counts = _real_rows(images, image)  # (T,), (P,)
    regions = torch.bincount(caption, counts.double(), len(captions)).long().tolist()
    for words, here, lengths in zip(_real(captions), rows.split(regions), counts.split(pairs)):
        products = (words @ at_least_float32(tokens.index_select(0, here)).T).T.contiguous()
        scores.append(torch.segment_reduce(products, "max", lengths=lengths, unsafe=True).mean(1))
    return torch.cat(scores)


def _real_rows(embedding, items):
    """(T,) the flat rows of all real tokens of items (P,), and how many each has, (P,)."""
    is_real = embedding.mask.index_select(0, items)  # (P, L)
    slots = torch.arange(is_real.shape[1], device=items.device)
    return (items[:, None] * len(slots) + slots)[is_real], is_real.sum(1)


def _real(embedding):
    """The real tokens (l, D) of each item, one item after the other."""
    counts, tokens = embedding.mask.sum(1).tolist(), embedding.local_tokens.flatten(0, 1)
    items = embedding.mask.flatten().nonzero()[:, 0].split(counts)
    return (at_least_float32(tokens.index_select(0, rows)) for rows in items)


def search_in_blocks(queries, global_tokens, rerank, shortlist, weight, longest=1, index=None):
    """Yields (rows, ids (q, K), mixed scores (q, K), seconds) of both stages, block by block.

    rerank(queries, ids (q, K)) returns local scores (q, K), with memory for `longest` numbers each;
    index: as in `best_by_global`; seconds: {"shortlist": ..., "rerank": ...} of the block.
    """
    (size, width), wide = global_tokens.shape, queries.global_token.shape[1]
    shortlist, weight = min(whole_number("shortlist", shortlist, 1), size), check_weight(weight)
    if wide != width:
        raise ValueError(f"queries are {wide} wide, the gallery {width}: another model; re-index")
    if {queries.global_token.dtype, global_tokens.dtype} >= {torch.float32, torch.float64}:
        raise ValueError("queries or gallery are float64; bring both to one by .to(torch.float32)")
    sizes = [getattr(index, name, None) for name in ("ntotal", "d", "metric_type")]
    if index is not None and sizes != [size, width, 0]:  # metric 0: dot product
        wrong = f"index is {shown(index)}, with items, width and metric {sizes}"
        raise ValueError(f"{wrong}, not {[size, width, 0]}; make one by faiss_index(global_tokens)")
    step = max(1, SCORES // max(size, shortlist * longest))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        begin = time.perf_counter()
        scores, ids = best_by_global(block.global_token, global_tokens, shortlist, index)  # (q, K)
        middle = time.perf_counter()
        mixed = scores + weight * rerank(block, ids)  # (q, K)
        if mixed.isnan().any():
            at, i = mixed.isnan().nonzero()[0].tolist()
            raise ValueError(f"query {start + at} scores NaN with item {ids[at, i]}; see the model")
        seconds = {"shortlist": middle - begin, "rerank": time.perf_counter() - middle}
        yield slice(start, start + step), ids, mixed, seconds


def best_by_global(
    queries: torch.Tensor, global_tokens: torch.Tensor, count: int, index=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores (Q, K), ids (Q, K)) of the K = `count` highest dot products.

    The ids ascend, so that a disk is read forward. queries (Q, D); global_tokens (G, D), floats.
    index: of faiss, or a `search.screen.Screen`; where it finds fewer than K, all are scored.
    """
    with autocast_off(queries):
        queries = at_least_float32(queries)
        if index is None:
            scores, ids = _scores(queries, global_tokens).topk(count, sorted=False)
        else:
            scores, ids = map(torch.from_numpy, index.search(queries.numpy(), count))
            if (short := (ids < 0).any(1)).any():  # (Q,)
                scores[short], ids[short] = _scores(queries[short], global_tokens).topk(count)
    ids, order = ids.sort(1)
    return scores.gather(1, order), ids


def _scores(queries, global_tokens):
    """(Q, G) dot products, on a CPU block by block, half precision as float32."""
    count, (size, width) = len(queries), global_tokens.shape
    is_same, on_cpu = global_tokens.dtype == queries.dtype, global_tokens.device.type == "cpu"
    if not on_cpu or is_same and size * width <= CACHED:
        return queries @ at_least_float32(global_tokens).T
    if is_same and count <= 4:  # few: memory is the limit; 5 ms for 100,000 x 256, q @ G.T: 12
        columns = queries if count > 1 else queries.repeat(2, 1)  # two are faster than one
        return (global_tokens @ columns.T).T[:count]
    scores, buffer = queries.new_empty(count, size), queries.new_empty(BLOCK, width)
    for block, part in zip(global_tokens.split(BLOCK), scores.split(BLOCK, 1)):  # (b, D), (Q, b)
        part.copy_((buffer[: len(block)].copy_(block) @ queries.T).T)  # cached: 19, not 27 ms
    return scores
