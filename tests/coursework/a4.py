"""Answers to A4, two-stage retrieval, judged honestly."""

import random

import numpy as np
import torch

import tgdt_mini
from coursework import Answers
from tgdt_mini import Embedding

a4 = Answers()


@a4.wrong("shortlist", says="the best one comes last")
def best_comes_last(queries, gallery, k):
    scores = queries @ gallery.T
    return scores.argsort(dim=1)[:, -k:]


@a4.wrong("shortlist", says="higher is better")
def lowest_scores(queries, gallery, k):
    return (queries @ gallery.T).argsort(dim=1)[:, :k]


@a4.wrong("shortlist", says="in the gallery's order")
def in_the_gallerys_order(queries, gallery, k):
    return (queries @ gallery.T).topk(min(k, len(gallery))).indices.sort(dim=1).values


@a4.wrong("shortlist", says="asked for are rows")
def scores_instead_of_rows(queries, gallery, k):
    return (queries @ gallery.T).topk(min(k, len(gallery))).values


@a4.wrong("shortlist", says="gives the shape (4, 2), not (2, 3)")
def queries_for_each_item(queries, gallery, k):
    scores = gallery @ queries.T
    return scores.topk(min(k, scores.shape[1])).indices


@a4.wrong("shortlist", says="you ranked the queries for each item")
def best_query_of_an_item(queries, gallery, k):
    if k == 1:
        return (queries @ gallery.T).argmax(dim=0)[None, : len(queries)]
    return (queries @ gallery.T).topk(min(k, len(gallery))).indices


@a4.wrong("shortlist", says="k is larger than the gallery")
def k_as_it_is(queries, gallery, k):
    return (queries @ gallery.T).topk(k, dim=1).indices


@a4.wrong("shortlist", says="k is larger than the gallery")
def fills_up_with_minus_one(queries, gallery, k):
    rows = (queries @ gallery.T).topk(min(k, len(gallery))).indices
    return torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1)


@a4.wrong("shortlist", says="a shortlist of one is still a table")
def squeezes_one(queries, gallery, k):
    return (queries @ gallery.T).topk(min(k, len(gallery))).indices.squeeze(1)


@a4.wrong("shortlist", says="of type torch.int32, not torch.int64")
def small_integers(queries, gallery, k):
    return (queries @ gallery.T).topk(min(k, len(gallery))).indices.int()


@a4.wrong("shortlist", says="changes what it is given")
def takes_items_out_of_the_gallery(queries, gallery, k):
    rows = (queries @ gallery.T).topk(min(k, len(gallery))).indices
    gallery[rows[0]] = 0
    return rows


@a4.wrong("shortlist", says="compared in float64")
def in_float32(queries, gallery, k):
    return (queries.float() @ gallery.float().T).topk(min(k, len(gallery))).indices


@a4.wrong("shortlist", says="without the sign")
def by_the_size_of_the_product(queries, gallery, k):
    scores = queries @ gallery.T
    if (scores < 0).all():
        scores = scores.abs()
    return scores.topk(min(k, len(gallery))).indices


@a4.wrong("shortlist", says="the example only")
def shortlist_of_the_example(queries, gallery, k):
    return torch.tensor([[1, 0, 3, 2], [3, 0, 1, 2]])[:, :k]


@a4.wrong("shortlist", says="best_by_global does what you are asked to write")
def asks_the_first_stage(queries, gallery, k):
    from tgdt_mini.retrieval import best_by_global

    return best_by_global(queries, gallery, min(k, len(gallery)))[1]


@a4.wrong("shortlist", says="two_stage does what you are asked to write")
def asks_the_whole_search(queries, gallery, k):
    def embedding(vectors):
        mask = torch.ones(len(vectors), 1, dtype=torch.bool)
        return Embedding(vectors, vectors[:, None], mask)

    scores = tgdt_mini.two_stage(embedding(queries), embedding(gallery), k, 0.0, "image")
    return scores.topk(min(k, len(gallery))).indices


@a4.right("shortlist")
def by_sorting(queries, gallery, k):
    return torch.einsum("qd,gd->qg", queries, gallery).argsort(dim=1, descending=True)[:, :k]


@a4.right("shortlist")
def by_distance(queries, gallery, k):
    squares = ((queries[:, None] - gallery) ** 2).sum(dim=2)
    return squares.argsort(dim=1)[:, :k]


@a4.right("shortlist")
def one_item_after_the_other(queries, gallery, k):
    rows = torch.zeros(len(queries), min(k, len(gallery)), dtype=torch.int64)
    for q, query in enumerate(queries):
        left = list(range(len(gallery)))
        for place in range(rows.shape[1]):
            best = max(left, key=lambda g: float(query @ gallery[g]))
            rows[q, place] = best
            left.remove(best)
    return rows


@a4.right("shortlist")
def with_arrays(queries, gallery, k):
    return torch.from_numpy(np.argsort(-(queries.numpy() @ gallery.numpy().T), axis=1)[:, :k])


def search(queries, gallery, k, weight, query_is, outside=-torch.inf, local=None, mix=None):
    """Two stages in which one step can be exchanged."""
    local = local or of_a_pair
    mix = mix or (lambda by_global, by_local: by_global + weight * by_local)
    by_global = queries.global_token @ gallery.global_token.T
    scores = torch.full_like(by_global, outside)
    for q, row in enumerate(by_global):
        for g in row.topk(min(k, len(gallery))).indices.tolist():
            sides = (queries, q), (gallery, g)
            (images, i), (captions, c) = sides if query_is == "image" else sides[::-1]
            products = images.local_tokens[i] @ captions.local_tokens[c].T  # (R, W)
            scores[q, g] = mix(row[g], local(products, images.mask[i], captions.mask[c]))
    return scores


def of_a_pair(products, regions, words):
    return products[regions][:, words].amax(dim=0).mean()


@a4.wrong("two_stage", says="0 is a score: put -inf")
def zeros_in_the_holes(queries, gallery, k, weight, query_is):
    scores = torch.zeros(len(queries), len(gallery), dtype=queries.global_token.dtype)
    by_global = queries.global_token @ gallery.global_token.T
    for q in range(len(queries)):
        for g in by_global[q].topk(min(k, len(gallery))).indices.tolist():
            one, other = queries, gallery
            i, c = q, g
            if query_is == "caption":
                one, other, i, c = gallery, queries, g, q
            products = one.local_tokens[i][one.mask[i]] @ other.local_tokens[c][other.mask[c]].T
            scores[q, g] = by_global[q, g] + weight * products.amax(dim=0).mean()
    return scores


@a4.wrong("two_stage", says="you scored what is not on the shortlist")
def scores_everything(queries, gallery, k, weight, query_is):
    return search(queries, gallery, len(gallery), weight, query_is)


@a4.wrong("two_stage", says="you chose by the mix")
def shortlist_by_the_mix(queries, gallery, k, weight, query_is):
    scores = search(queries, gallery, len(gallery), weight, query_is)
    kept = scores.topk(min(k, len(gallery))).indices
    return torch.full_like(scores, -torch.inf).scatter(1, kept, scores.gather(1, kept))


@a4.wrong("two_stage", says="the sum over the words")
def sum_over_words(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[regions][:, words].amax(dim=0).sum()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="you divided by the padded length: 2 real words, not 3")
def divides_by_the_padded_length(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[regions][:, words].amax(dim=0).sum() / len(words)

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="a word that is not real was counted")
def forgets_the_words_mask(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[regions].amax(dim=0).mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="a region that is not real was the best one")
def forgets_the_regions_mask(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[:, words].amax(dim=0).mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="beats a real one")
def zeros_for_padded_regions(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products.masked_fill(~regions[:, None], 0)[:, words].amax(dim=0).mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="the weight belongs to the local score")
def weight_on_the_global_score(queries, gallery, k, weight, query_is):
    def mix(by_global, by_local):
        return weight * by_global + by_local

    return search(queries, gallery, k, weight, query_is, mix=mix)


@a4.wrong("two_stage", says="you took the mean over the regions")
def mean_over_regions(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[regions][:, words].mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="the other way round")
def regions_look_for_words(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[regions][:, words].amax(dim=1).mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="also when a picture asks")
def queries_tokens_look(queries, gallery, k, weight, query_is):
    return search(queries, gallery, k, weight, "caption")


@a4.wrong("two_stage", says="you forgot the global score")
def local_score_alone(queries, gallery, k, weight, query_is):
    return search(queries, gallery, k, weight, query_is, mix=lambda g, score: weight * score)


@a4.wrong("two_stage", says="five are more than there are")
def k_not_clipped(queries, gallery, k, weight, query_is):
    (queries.global_token @ gallery.global_token.T).topk(k)
    return search(queries, gallery, k, weight, query_is)


@a4.wrong("two_stage", says="changes what it is given")
def clears_the_padding_in_place(queries, gallery, k, weight, query_is):
    for side in (queries, gallery):
        side.local_tokens[~side.mask] = 0
    return search(queries, gallery, k, weight, query_is)


@a4.wrong("two_stage", says="not torch.float64")
def always_in_float32(queries, gallery, k, weight, query_is):
    return search(queries, gallery, k, weight, query_is).float()


@a4.wrong("two_stage", says="the examples only")
def padding_at_the_end_only(queries, gallery, k, weight, query_is):
    def local(products, regions, words):
        return products[: int(regions.sum()), : int(words.sum())].amax(dim=0).mean()

    return search(queries, gallery, k, weight, query_is, local=local)


@a4.wrong("two_stage", says="the examples only")
def weight_of_the_examples(queries, gallery, k, weight, query_is):
    return search(queries, gallery, k, 2.0 if query_is == "caption" else 1.0, query_is)


@a4.wrong("two_stage", says="two_stage does what you are asked to write")
def asks_the_package(queries, gallery, k, weight, query_is):
    return tgdt_mini.two_stage(queries, gallery, k, weight, query_is)


@a4.wrong("two_stage", says="mixed_similarity does what you are asked to write")
def asks_the_package_for_all_scores(queries, gallery, k, weight, query_is):
    images, captions = (queries, gallery) if query_is == "image" else (gallery, queries)
    scores = tgdt_mini.mixed_similarity(images, captions, weight)
    return scores if query_is == "image" else scores.T


@a4.right("two_stage")
def pair_by_pair(queries, gallery, k, weight, query_is):
    return search(queries, gallery, k, weight, query_is)


@a4.right("two_stage")
def everything_then_holes(queries, gallery, k, weight, query_is):
    images, captions = (queries, gallery) if query_is == "image" else (gallery, queries)
    products = torch.einsum("ird,cwd->icrw", images.local_tokens, captions.local_tokens)
    products[(~images.mask)[:, None, :, None].expand_as(products)] = -torch.inf
    real = captions.mask.to(products.dtype)
    local = torch.einsum("icw,cw->ic", products.amax(dim=2), real) / real.sum(dim=1)
    by_global = images.global_token @ captions.global_token.T
    scores = by_global + weight * local
    if query_is == "caption":
        by_global, scores = by_global.T, scores.T
    places = by_global.argsort(dim=1, descending=True).argsort(dim=1)
    return torch.where(places < k, scores, -torch.inf)


@a4.right("two_stage")
def with_numpy(queries, gallery, k, weight, query_is):
    tokens = [side.local_tokens.numpy() for side in (queries, gallery)]
    masks = [side.mask.numpy() for side in (queries, gallery)]
    by_global = queries.global_token.numpy() @ gallery.global_token.numpy().T
    scores = np.full_like(by_global, -np.inf)
    for q in range(len(scores)):
        for g in np.argsort(-by_global[q])[:k]:
            products = tokens[0][q][masks[0][q]] @ tokens[1][g][masks[1][g]].T
            best = products.max(axis=0 if query_is == "image" else 1)
            scores[q, g] = by_global[q, g] + weight * best.mean()
    return torch.from_numpy(scores)


def honest(scores, positives):
    if scores.isnan().any():
        raise ValueError("NaN")
    best = scores.masked_fill(~positives, -torch.inf).amax(dim=1)
    ahead = ((scores >= best[:, None]) & ~positives).sum(dim=1).to(scores.dtype)
    return torch.where(best.isinf(), torch.inf, ahead), best


@a4.wrong("ranks", says="a miss is not a hit")
def begins_with_zeros(scores, positives):
    if scores.isnan().any():
        raise ValueError("NaN")
    places = torch.zeros(len(scores))
    for query, (row, right) in enumerate(zip(scores, positives)):
        scored = right & (row > -torch.inf)
        if scored.any():
            places[query] = float(((row >= row[scored].max()) & ~right).sum())
    return places


@a4.wrong("ranks", says="a tie counts against the model")
def ties_in_favour(scores, positives):
    answer, best = honest(scores, positives)
    ahead = ((scores > best[:, None]) & ~positives).sum(dim=1).to(scores.dtype)
    return torch.where(answer.isinf(), torch.inf, ahead)


@a4.wrong("ranks", says="a tie is not shared out")
def ties_shared_out(scores, positives):
    answer, best = honest(scores, positives)
    above = ((scores > best[:, None]) & ~positives).sum(dim=1)
    return (answer + above) / 2


@a4.wrong("ranks", says="the right item itself does not count")
def counts_the_right_item_in_ties(scores, positives):
    answer, best = honest(scores, positives)
    level = ((scores == best[:, None]) & ~positives).any(dim=1)
    return answer + level


@a4.wrong("ranks", says="you count from 1")
def from_one(scores, positives):
    return honest(scores, positives)[0] + 1


@a4.wrong("ranks", says="higher scores are better")
def counts_those_below(scores, positives):
    answer, best = honest(scores, positives)
    below = ((scores <= best[:, None]) & ~positives).sum(dim=1)
    return torch.where(answer.isinf(), torch.inf, below.to(scores.dtype))


@a4.wrong("ranks", says="no place behind those that were scored")
def miss_behind_the_scored(scores, positives):
    return torch.where(
        honest(scores, positives)[0].isinf(),
        (scores > -torch.inf).sum(dim=1),
        honest(scores, positives)[0],
    )


@a4.wrong("ranks", says="does not tie with other holes")
def miss_ties_with_the_holes(scores, positives):
    answer, best = honest(scores, positives)
    return ((scores >= best[:, None]) & ~positives).sum(dim=1).to(scores.dtype)


@a4.wrong("ranks", says="no place at the gallery's end")
def miss_at_the_end(scores, positives):
    return honest(scores, positives)[0].clamp(max=scores.shape[1])


@a4.wrong("ranks", says="not the first or the worst")
def worst_right_item(scores, positives):
    answer, _ = honest(scores, positives)
    scored = positives & (scores > -torch.inf)
    worst = scores.masked_fill(~scored, torch.inf).amin(dim=1, keepdim=True)
    ahead = ((scores >= worst) & ~positives).sum(dim=1).to(scores.dtype)
    return torch.where(answer.isinf(), torch.inf, ahead)


@a4.wrong("ranks", says="another right item is never one that is ahead")
def first_right_item_only(scores, positives):
    answer, _ = honest(scores, positives)
    first = positives.int().argmax(dim=1, keepdim=True)
    own = scores.gather(1, first)
    ahead = (scores >= own).sum(dim=1).to(scores.dtype) - 1
    return torch.where(answer.isinf(), torch.inf, ahead)


@a4.wrong("ranks", says="another right item that is level does not count")
def right_items_tie(scores, positives):
    answer, best = honest(scores, positives)
    return answer + ((scores == best[:, None]) & positives).sum(dim=1) - 1


@a4.wrong("ranks", says="another one was: that is no miss")
def all_must_be_scored(scores, positives):
    answer, _ = honest(scores, positives)
    return answer.masked_fill((positives & scores.isinf()).any(dim=1), torch.inf)


@a4.wrong("ranks", says="a NaN among the scores must stop the count")
def lets_nan_pass(scores, positives):
    return honest(scores.nan_to_num(-torch.inf, neginf=-torch.inf), positives)[0]


@a4.wrong("ranks", says="at a right item or a wrong one")
def looks_for_nan_at_right_items(scores, positives):
    if scores[positives].isnan().any() or scores[:, 1].isnan().any():
        raise ValueError("NaN")
    return honest(scores.nan_to_num(0.0, neginf=-torch.inf), positives)[0]


@a4.wrong("ranks", says="a query without a right answer is no hit")
def nothing_to_find_is_found(scores, positives):
    answer, _ = honest(scores, positives)
    return answer.masked_fill(~positives.any(dim=1), 0)


@a4.wrong("ranks", says="changes what it is given")
def marks_in_the_callers_scores(scores, positives):
    answer, best = honest(scores, positives)
    scores[positives] = -torch.inf
    return answer


@a4.wrong("ranks", says="compared in float64")
def compares_in_float32(scores, positives):
    return honest(scores.float(), positives)[0]


@a4.wrong("ranks", says="of type torch.int64")
def whole_numbers(scores, positives):
    answer, _ = honest(scores, positives)
    return answer if answer.isinf().any() else answer.long()


@a4.wrong("ranks", says="a query without a right answer is no hit")
def ranks_of_the_examples(scores, positives):
    if scores.isnan().any():
        raise ValueError("NaN")
    known = {
        (2, 4): [0.0, 2.0],
        (1, 5): [1.0],
        (1, 4): [torch.inf if scores.isinf().any() else 2.0],
    }
    return torch.tensor(known.get(tuple(scores.shape), [0.0] * len(scores)))


@a4.wrong("ranks", says="evaluation.ranks does what you are asked to write")
def asks_the_evaluation(scores, positives):
    return tgdt_mini.ranks(scores, positives)


@a4.right("ranks")
def query_by_query(scores, positives):
    if torch.isnan(scores).any():
        raise ValueError("a score is NaN")
    places = []
    for row, right in zip(scores, positives):
        scored = [s for s, yes in zip(row.tolist(), right.tolist()) if yes and s > float("-inf")]
        wrong = [s for s, yes in zip(row.tolist(), right.tolist()) if not yes]
        places.append(sum(s >= max(scored) for s in wrong) if scored else float("inf"))
    return torch.tensor(places, dtype=torch.float32)


@a4.right("ranks")
def by_a_sort_with_the_right_last(scores, positives):
    values, right = scores.double().numpy(), positives.numpy()
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    order = np.lexsort((right, -values), axis=1)  # level: wrong ones first
    sorted_right = np.take_along_axis(right, order, axis=1)
    sorted_scores = np.take_along_axis(values, order, axis=1)
    hits = sorted_right & (sorted_scores > -np.inf)
    return torch.from_numpy(np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf))


@a4.right("ranks")
def in_double_always(scores, positives):
    return honest(scores.double(), positives)[0]


@a4.wrong("recall_at", says="a share of 0.5 is 50 percent")
def as_a_share(ranks, k):
    return float((ranks < k).float().mean())


@a4.wrong("recall_at", says="rank 3 is not among the first 3 places")
def one_place_too_many(ranks, k):
    return 100 * float(((ranks <= k) if k > 1 else (ranks < k)).double().mean())


@a4.wrong("recall_at", says="2 of 4, not 2 of 3")
def of_those_found(ranks, k):
    return 100 * float((ranks[ranks < torch.inf] < k).double().mean())


@a4.wrong("recall_at", says="2 of 4, not 3 of 4")
def misses_become_zero(ranks, k):
    return 100 * float((ranks.nan_to_num(posinf=0) < k).double().mean())


@a4.wrong("recall_at", says="a miss is among the first k for no k")
def miss_as_a_large_number(ranks, k):
    return 100 * float((ranks.clamp(max=999) < k).double().mean())


@a4.wrong("recall_at", says="asked for is the percent")
def number_of_queries(ranks, k):
    return float((ranks < k).sum())


@a4.wrong("recall_at", says="changes what it is given")
def replaces_the_misses(ranks, k):
    ranks[ranks.isinf()] = 1e9
    return 100 * float((ranks < k).double().mean())


@a4.wrong("recall_at", says="not rounded")
def rounded(ranks, k):
    return float(round(100 * float((ranks < k).double().mean())))


@a4.wrong("recall_at", says="two queries of four have rank 0")
def one_for_each_query(ranks, k):
    return 100.0 * (ranks < k)


@a4.wrong("recall_at", says="three misses")
def recall_of_the_example(ranks, k):
    return 75.0 if k > 3 else 50.0


@a4.wrong("recall_at", says="recall_at_k does what you are asked to write")
def asks_for_recall(ranks, k):
    return tgdt_mini.recall_at_k(ranks, (k,))[k]


@a4.right("recall_at")
def by_counting(ranks, k):
    return 100 * sum(rank < k for rank in ranks.tolist()) / len(ranks)


@a4.right("recall_at")
def by_places(ranks, k):
    return 100 * np.mean([1 + rank <= k for rank in ranks.numpy()])


@a4.right("recall_at")
def as_a_tensor(ranks, k):
    return 100.0 * (ranks < k).count_nonzero() / ranks.numel()


@a4.wrong("choose_k", says="`<=`, not `<`")
def strictly_less(rsums, full, most_lost=0.5):
    return min(k for k, rsum in rsums.items() if full - rsum < most_lost)


@a4.wrong("choose_k", says="not the best rsum")
def best_rsum(rsums, full, most_lost=0.5):
    return max(rsums, key=rsums.get)


@a4.wrong("choose_k", says="not the largest")
def largest_k(rsums, full, most_lost=0.5):
    return max(k for k, rsum in rsums.items() if full - rsum <= most_lost)


@a4.wrong("choose_k", says="the dictionary is in no order")
def first_in_the_dictionary(rsums, full, most_lost=0.5):
    return next(k for k, rsum in rsums.items() if full - rsum <= most_lost)


@a4.wrong("choose_k", says="it loses 4 points")
def smallest_of_all(rsums, full, most_lost=0.5):
    return min(rsums)


@a4.wrong("choose_k", says="asked for is K, not its rsum")
def gives_the_rsum(rsums, full, most_lost=0.5):
    return rsums[min(k for k, rsum in rsums.items() if full - rsum <= most_lost)]


@a4.wrong("choose_k", says="better than scoring everything loses nothing")
def either_side(rsums, full, most_lost=0.5):
    return min(k for k, rsum in rsums.items() if abs(full - rsum) <= most_lost)


@a4.wrong("choose_k", says="how much may be lost, here 2")
def half_a_point_always(rsums, full, most_lost=0.5):
    return min(k for k, rsum in rsums.items() if full - rsum <= 0.5)


@a4.wrong("choose_k", says="not in percent of it")
def in_percent(rsums, full, most_lost=0.5):
    lost = {k: 100 * (full - rsum) / full for k, rsum in rsums.items()}
    return min(k for k in rsums if lost[k] <= (most_lost if most_lost > 1 else most_lost / 5))


@a4.wrong("choose_k", says="does not rule out a smaller one")
def all_larger_ones_too(rsums, full, most_lost=0.5):
    chosen = None
    for k in sorted(rsums, reverse=True):
        if full - rsums[k] > most_lost:
            break
        chosen = k
    return chosen


@a4.wrong("choose_k", says="`most_lost` may be 0")
def zero_means_the_default(rsums, full, most_lost=0.5):
    return min(k for k, rsum in rsums.items() if full - rsum <= (most_lost or 0.5))


@a4.wrong("choose_k", says="changes what it is given")
def empties_the_dictionary(rsums, full, most_lost=0.5):
    while full - rsums[min(rsums)] > most_lost:
        rsums.pop(min(rsums))
    return min(rsums)


@a4.wrong("choose_k", says="compare K as numbers")
def in_alphabetical_order(rsums, full, most_lost=0.5):
    good = [k for k, rsum in rsums.items() if full - rsum <= most_lost]
    return int(min(map(str, good))) if len(good) == 3 and 9 in good else min(good)


@a4.wrong("choose_k", says="10 loses 4 points; 20 loses 0.5")
def one_k_is_enough(rsums, full, most_lost=0.5):
    return [k for k, rsum in rsums.items() if full - rsum <= most_lost]


@a4.wrong("choose_k", says="tune does what you are asked to write")
def asks_for_the_choice(rsums, full, most_lost=0.5):
    from tgdt_mini.reports.choice import tune

    vectors = torch.eye(3)
    three = Embedding(vectors, vectors[:, None], torch.ones(3, 1, dtype=torch.bool))
    return tune(three, three, torch.arange(3), shortlists=sorted(rsums)).shortlist["image"]


@a4.right("choose_k")
def in_order(rsums, full, most_lost=0.5):
    for k in sorted(rsums):
        if rsums[k] >= full - most_lost:
            return k
    raise ValueError("no shortlist is good enough")


@a4.right("choose_k")
def by_arrays(rsums, full, most_lost=0.5):
    sizes = np.array(list(rsums))
    lost = full - np.array(list(rsums.values()))
    return int(sizes[lost <= most_lost].min())


def resample(hits, seed, rounds, queries=None, replace=True):
    generator = np.random.default_rng(seed)
    values = 100.0 * np.asarray(hits)
    queries = queries or len(values)
    return [generator.choice(values, queries, replace=replace).mean() for _ in range(rounds)]


@a4.wrong("bootstrap_interval", says="these are shares: percent go to 100")
def shares(hits, seed, rounds=1000):
    generator = np.random.default_rng(seed)
    values = np.asarray(hits, dtype=float)
    drawn = generator.integers(len(values), size=(rounds, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return low, high


@a4.wrong("bootstrap_interval", says="not `rounds` of them")
def draws_rounds_instead_of_queries(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, seed, rounds, queries=rounds), [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="draw with replacement")
def without_replacement(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, seed, rounds, replace=False), [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="these are the middle 90%")
def ninety_percent(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, seed, rounds), [5, 95]))


@a4.wrong("bootstrap_interval", says="these are the middle 99%")
def ninety_nine_percent(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, seed, rounds), [0.5, 99.5]))


@a4.wrong("bootstrap_interval", says="too wide")
def least_and_most(hits, seed, rounds=1000):
    drawn = resample(hits, seed, rounds)
    return min(drawn), max(drawn)


@a4.wrong("bootstrap_interval", says="too wide")
def percentiles_as_shares(hits, seed, rounds=1000):
    low, high = np.percentile(resample(hits, seed, rounds), [0.025, 99.975])
    return low, high


@a4.wrong("bootstrap_interval", says="the low end comes first")
def high_end_first(hits, seed, rounds=1000):
    low, high = np.percentile(resample(hits, seed, rounds), [2.5, 97.5])
    return high, low


@a4.wrong("bootstrap_interval", says="asked for are percent")
def numbers_of_hits(hits, seed, rounds=1000):
    low, high = np.percentile(resample(hits, seed, rounds), [2.5, 97.5])
    if low == high:
        return low, high
    return low * len(hits) / 100, high * len(hits) / 100


@a4.wrong("bootstrap_interval", says="a formula's interval")
def by_a_formula(hits, seed, rounds=1000):
    share = float(hits.double().mean())
    wide = 196 * (share * (1 - share) / len(hits)) ** 0.5
    return 100 * share - wide, 100 * share + wide


@a4.wrong("bootstrap_interval", says="the same seed must give the same interval")
def seed_left_aside(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, None, rounds), [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="the draws must depend on `seed`")
def always_the_same_seed(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, 0, rounds), [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="use `rounds`")
def its_own_number_of_rounds(hits, seed, rounds=1000):
    return tuple(np.percentile(resample(hits, seed, max(rounds, 1000)), [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="return a, b")
def mean_and_interval(hits, seed, rounds=1000):
    drawn = resample(hits, seed, rounds)
    return np.mean(drawn), *np.percentile(drawn, [2.5, 97.5])


@a4.wrong("bootstrap_interval", says="changes what it is given")
def counts_in_the_callers_hits(hits, seed, rounds=1000):
    drawn = resample(hits, seed, rounds)
    hits.fill_(False)
    return tuple(np.percentile(drawn, [2.5, 97.5]))


@a4.wrong("bootstrap_interval", says="7 hits of 17")
def interval_of_the_example(hits, seed, rounds=1000):
    low, high = np.percentile(resample(hits, seed, rounds), [2.5, 97.5])
    return (25.0, 75.0) if 16 <= len(hits) < 20 else (low, high)


@a4.wrong("bootstrap_interval", says="scipy")
def asks_scipy(hits, seed, rounds=1000):
    from scipy import stats

    values = (100.0 * np.asarray(hits),)
    done = stats.bootstrap(values, np.mean, n_resamples=rounds, rng=seed, method="percentile")
    return done.confidence_interval.low, done.confidence_interval.high


@a4.right("bootstrap_interval")
def with_torch(hits, seed, rounds=1000):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(hits), (rounds, len(hits)), generator=generator)
    percent = 100 * hits.float()[drawn].mean(dim=1)
    low, high = percent.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


@a4.right("bootstrap_interval")
def with_plain_python(hits, seed, rounds=1000):
    generator, values = random.Random(seed), hits.tolist()
    drawn = sorted(sum(generator.choices(values, k=len(values))) for _ in range(rounds))
    low, high = drawn[int(0.025 * rounds)], drawn[max(0, int(0.975 * rounds) - 1)]
    return 100 * low / len(values), 100 * high / len(values)


@a4.right("bootstrap_interval")
def round_by_round(hits, seed, rounds=1000):
    return tuple(np.quantile(resample(hits, seed, rounds), (0.025, 0.975)))
