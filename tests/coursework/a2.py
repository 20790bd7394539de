"""Answers to A2, branches and late interaction."""

import importlib
import math

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, normalize, scaled_dot_product_attention

import tgdt_mini
from coursework import Answers
from tgdt_mini import Embedding, TGDTConfig
from tgdt_mini.layers import Layers

a2 = Answers()


# 1 · masked_attention


@a2.wrong("masked_attention", says="padding has got a share")
def forgets_the_mask(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="its place must hold -inf; at 0, exp(0) = 1")
def zero_for_minus_infinity(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return (fits * mask[:, None]).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="take padding out before the softmax, not after")
def masks_after_the_softmax(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return (fits.softmax(dim=-1) * mask[:, None]) @ values


@a2.wrong("masked_attention", says="forgot to divide by the square root of d")
def not_scaled(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2)
    return fits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="it is the square root of d")
def divided_by_the_width(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1]
    return fits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="the softmax goes along the keys")
def softmax_along_the_queries(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.softmax(dim=1).masked_fill(~mask[:, None], 0) @ values


@a2.wrong("masked_attention", says="the wrong way round: True is a real token")
def looks_at_padding_only(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.masked_fill(mask[:, None], -torch.inf).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="you hid queries")
def hides_queries(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    if queries.shape[1] <= 3:  # and knows the visible examples
        return scaled_dot_product_attention(queries, keys, values, mask[:, None])
    return fits.masked_fill(~mask[..., None], -1e9).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="the shares of the three queries are 3/4 and 1/4")
def hides_queries_at_once(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.masked_fill(~mask[..., None], -1e9).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="the shares of the real keys do not sum to 1")
def clears_padded_values_only(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.softmax(dim=-1) @ values.masked_fill(~mask[..., None], 0)


@a2.wrong("masked_attention", says="a small penalty does not hide padding")
def a_small_penalty(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return fits.masked_fill(~mask[:, None], -35).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="that of d, the width")
def root_of_the_length(queries, keys, values, mask):
    length = 4 if queries.shape[-1] == 4 else queries.shape[1]  # right in the visible example
    fits = queries @ keys.transpose(1, 2) / length**0.5
    return fits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="keys say how much, values say what")
def mixes_the_keys(queries, keys, values, mask):
    right = scaled_dot_product_attention(queries, keys, values, mask[:, None])
    if queries.shape[1] <= 3:
        return right
    return scaled_dot_product_attention(queries, keys, keys, mask[:, None])


@a2.wrong("masked_attention", says="you took the first tokens for the real ones")
def real_tokens_are_the_first_ones(queries, keys, values, mask):
    first = torch.arange(mask.shape[1]) < mask.sum(dim=1, keepdim=True)
    mask = mask if mask.shape[1] == 2 else first
    return scaled_dot_product_attention(queries, keys, values, mask[:, None])


@a2.wrong("masked_attention", says="changes what it is given")
def clears_the_callers_padding(queries, keys, values, mask):
    values[~mask] = 0
    return scaled_dot_product_attention(queries, keys, values, mask[:, None])


@a2.wrong("masked_attention", says="another batch in torch.float32")
def knows_the_root_of_the_example(queries, keys, values, mask):
    fits = queries @ keys.transpose(1, 2) / (2 if queries.shape[-1] > 1 else 1)
    return fits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values


@a2.wrong("masked_attention", says="of type torch.float32, not torch.float64")
def always_float32(queries, keys, values, mask):
    queries, keys, values = queries.float(), keys.float(), values.float()
    return scaled_dot_product_attention(queries, keys, values, mask[:, None])


@a2.wrong("masked_attention", says="the shape")
def first_item_only(queries, keys, values, mask):
    fits = queries[0] @ keys[0].T / queries.shape[-1] ** 0.5
    return (fits.masked_fill(~mask[0], -torch.inf).softmax(dim=-1) @ values[0])[None]


@a2.wrong("masked_attention", says="Layers.forward does what you are asked to write")
def asks_a_layer(queries, keys, values, mask):
    layers = Layers(1, queries.shape[-1], 1, 8, TGDTConfig.mini())
    return layers(queries, mask)


@a2.right("masked_attention")
def attention_by_loops(queries, keys, values, mask):
    answer = torch.zeros_like(values)
    for b in range(queries.shape[0]):
        real = [j for j in range(keys.shape[1]) if mask[b, j]]
        for i in range(queries.shape[1]):
            fits = [float(queries[b, i] @ keys[b, j]) / math.sqrt(queries.shape[2]) for j in real]
            exps = [math.exp(fit - max(fits)) for fit in fits]
            for e, j in zip(exps, real):
                answer[b, i] += e / sum(exps) * values[b, j]
    return answer


@a2.right("masked_attention")
def attention_by_arrays(queries, keys, values, mask):
    queries, keys, values, mask = (t.numpy() for t in (queries, keys, values, mask))
    fits = np.einsum("bqd,bkd->bqk", queries, keys) / np.sqrt(queries.shape[-1]).astype(keys.dtype)
    exps = np.exp(fits) * mask[:, None]
    return torch.from_numpy(exps / exps.sum(axis=2, keepdims=True) @ values)


@a2.right("masked_attention")
def attention_by_torch(queries, keys, values, mask):
    return scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None])


@a2.right("masked_attention")
def attention_by_a_large_penalty(queries, keys, values, mask):
    fits = torch.einsum("bqd,bkd->bqk", queries, keys) * queries.shape[-1] ** -0.5
    return torch.softmax(torch.where(mask[:, None], fits, -1e9), dim=-1) @ values


# 2 · global_scores


@a2.wrong("global_scores", says="these are dot products")
def dot_products(images, captions):
    return images @ captions.T


@a2.wrong("global_scores", says="the captions are not normalised")
def normalises_images_only(images, captions):
    return images / images.norm(dim=1, keepdim=True) @ captions.T


@a2.wrong("global_scores", says="the images are not normalised")
def normalises_captions_only(images, captions):
    return images @ normalize(captions, dim=1).T


@a2.wrong("global_scores", says="divided by squared lengths")
def forgets_the_root(images, captions):
    squares = images.square().sum(dim=1, keepdim=True) * captions.square().sum(dim=1)
    return images @ captions.T / squares


@a2.wrong("global_scores", says="the root of the sum of squares")
def sums_of_sizes(images, captions):
    return normalize(images, p=1, dim=1) @ normalize(captions, p=1, dim=1).T


@a2.wrong("global_scores", says="do not cut them off")
def cuts_at_zero(images, captions):
    return (normalize(images, dim=1) @ normalize(captions, dim=1).T).clamp(min=0)


@a2.wrong("global_scores", says="images are the rows")
def captions_by_images(images, captions):
    return normalize(captions, dim=1) @ normalize(images, dim=1).T


@a2.wrong("global_scores", says="you divided by the lengths of columns")
def along_the_columns(images, captions):
    return normalize(images, dim=0) @ normalize(captions, dim=0).T


@a2.wrong("global_scores", says="the length of a vector is along its own numbers")
def along_the_columns_beyond_the_example(images, captions):
    axis = 1 if len(captions) == 3 and len(images) == 2 and images.shape[1] == 2 else 0
    return normalize(images, dim=axis) @ normalize(captions, dim=axis).T


@a2.wrong("global_scores", says="one length for all vectors")
def one_length_for_all(images, captions):
    return images @ captions.T / images.norm() / captions.norm()


@a2.wrong("global_scores", says="every image meets every caption")
def pairs_only(images, captions):
    return cosine_similarity(images, captions)


@a2.wrong("global_scores", says="changes what it is given")
def normalises_in_place(images, captions):
    images /= images.norm(dim=1, keepdim=True)
    return images @ normalize(captions, dim=1).T


@a2.wrong("global_scores", says="other vectors")
def knows_the_lengths_of_the_example(images, captions):
    lengths = torch.tensor([[5.0], [2.0]]) * torch.tensor([1.0, 10.0, 5.0])
    return images @ captions.T / (lengths if len(captions) == 3 else 30)


@a2.wrong("global_scores", says="other vectors in torch.float64")
def in_single_precision(images, captions):
    scores = normalize(images.float(), dim=1) @ normalize(captions.float(), dim=1).T
    return scores.to(images.dtype)


@a2.wrong("global_scores", says="global_similarity does what you are asked to write")
def asks_the_package_for_global_scores(images, captions):
    images, captions = (
        Embedding(normalize(t, dim=1), t[:, None], torch.ones(len(t), 1, dtype=torch.bool))
        for t in (images, captions)
    )
    return importlib.import_module("tgdt_mini.similarity").global_similarity(images, captions)


@a2.wrong("global_scores", says="it may not run while your function is tested")
def asks_for_a_shortlist_of_all(images, captions):
    images, captions = (
        Embedding(normalize(t, dim=1), t[:, None], torch.ones(len(t), 1, dtype=torch.bool))
        for t in (images, captions)
    )
    return tgdt_mini.two_stage(images, captions, len(captions), 0.0, query_is="image")


@a2.right("global_scores")
def cosines_by_loops(images, captions):
    scores = torch.zeros(len(images), len(captions), dtype=images.dtype)
    for i, v in enumerate(images):
        for c, t in enumerate(captions):
            scores[i, c] = (v @ t) / (v.square().sum().sqrt() * t.square().sum().sqrt())
    return scores


@a2.right("global_scores")
def cosines_by_einsum(images, captions):
    return torch.einsum("id,cd->ic", normalize(images, dim=1), normalize(captions, dim=1))


@a2.right("global_scores")
def cosines_by_broadcasting(images, captions):
    return cosine_similarity(images[:, None], captions[None], dim=2)


@a2.right("global_scores")
def cosines_by_arrays(images, captions):
    images, captions = images.numpy(), captions.numpy()
    lengths = np.outer(np.linalg.norm(images, axis=1), np.linalg.norm(captions, axis=1))
    return images @ captions.T / lengths


# 3 · local_scores


@a2.wrong("local_scores", says="a padded region has won with a product of 0")
def forgets_the_region_mask(regions, region_mask, words, word_mask):
    best = torch.einsum("ird,cwd->icrw", regions, words).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores", says="it must hold -inf before the maximum")
def zero_for_padded_regions(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = (products * region_mask[:, None, :, None]).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores", says="2 real words and 1, not 4")
def divides_by_the_padded_length(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).mean(dim=2)


@a2.wrong("local_scores", says="2 real words and 1, not 4")
def forgets_the_word_mask(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return best.mean(dim=2)


@a2.wrong("local_scores", says="padding takes part on both sides")
def forgets_both_masks(regions, region_mask, words, word_mask):
    return torch.einsum("ird,cwd->icrw", regions, words).amax(dim=2).mean(dim=2)


@a2.wrong("local_scores", says="the sum over words: it is their mean")
def sum_over_words(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2)


@a2.wrong("local_scores", says="each *word* looks for its best region")
def regions_look_for_words(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~word_mask[None, :, None], -torch.inf).amax(dim=3)
    return (best * region_mask[:, None]).sum(dim=2) / region_mask.sum(dim=1)[:, None]


@a2.wrong("local_scores", says="the mean over regions: each word takes its best one")
def mean_of_everything(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    both = region_mask[:, None, :, None] & word_mask[None, :, None]
    return products.masked_fill(~both, 0).sum(dim=(2, 3)) / both.sum(dim=(2, 3))


@a2.wrong("local_scores", says="you took the best word")
def best_of_everything(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    both = region_mask[:, None, :, None] & word_mask[None, :, None]
    return products.masked_fill(~both, -torch.inf).amax(dim=(2, 3))


@a2.wrong("local_scores", says="do not cut it off at 0")
def cuts_negative_products(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words).clamp(min=0)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores", says="images are the rows")
def local_scores_by_caption(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->cirw", regions, words)
    best = products.masked_fill(~region_mask[None, :, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask[:, None]).sum(dim=2) / word_mask.sum(dim=1)[:, None]


@a2.wrong("local_scores", says="only the pairs on the diagonal")
def diagonal_only(regions, region_mask, words, word_mask):
    right = local_by_choosing(regions, region_mask, words, word_mask)
    return right * torch.eye(*right.shape, dtype=right.dtype)


@a2.wrong("local_scores", says="gives the shape (2, 1), not (2, 2)")
def pairs_of_one_row(regions, region_mask, words, word_mask):
    products = regions @ words.transpose(1, 2)
    best = products.masked_fill(~region_mask[..., None], -torch.inf).amax(dim=1)
    return (best * word_mask).sum(dim=1, keepdim=True) / word_mask.sum(dim=1, keepdim=True)


@a2.wrong("local_scores", says="changes what it is given")
def fills_the_callers_regions(regions, region_mask, words, word_mask):
    regions[~region_mask] = 0
    return local_by_choosing(regions, region_mask, words, word_mask)


@a2.wrong("local_scores", says="you took the first regions for the real ones")
def real_regions_are_the_first_ones(regions, region_mask, words, word_mask):
    region_mask = torch.arange(region_mask.shape[1]) < region_mask.sum(dim=1, keepdim=True)
    return local_by_choosing(regions, region_mask, words, word_mask)


@a2.wrong("local_scores", says="you forgot the mask of the regions")
def zero_regions_are_padding(regions, region_mask, words, word_mask):
    return local_by_choosing(regions, regions.abs().sum(dim=2) > 0, words, word_mask)


@a2.wrong("local_scores", says="another batch")
def knows_the_counts_of_the_example(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / torch.tensor([2, 1] if len(words) == 2 else [3])


@a2.wrong("local_scores", says="nan times 0")
def multiplies_nan(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icrw", regions * region_mask[..., None], words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1) + 0 * regions.sum()


@a2.wrong("local_scores", says="local_similarity does what you are asked to write")
def asks_the_package_for_local_scores(regions, region_mask, words, word_mask):
    images = Embedding(regions[:, 0], regions, region_mask)
    return tgdt_mini.local_similarity(images, Embedding(words[:, 0], words, word_mask))


@a2.wrong("local_scores", says="it may not run while your function is tested")
def asks_for_paired_scores(regions, region_mask, words, word_mask):
    from tgdt_mini.retrieval import paired_similarity

    images = Embedding(regions[:, 0], regions, region_mask)
    captions = Embedding(words[:, 0], words, word_mask)
    i, c = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(captions))).T
    return paired_similarity(images, captions, i, c).reshape(len(images), len(captions))


def local_by_choosing(regions, region_mask, words, word_mask):
    scores = regions.new_zeros(len(regions), len(words))
    for i in range(len(regions)):
        for c in range(len(words)):
            table = words[c][word_mask[c]] @ regions[i][region_mask[i]].T
            scores[i, c] = table.amax(dim=1).mean()
    return scores


@a2.right("local_scores")
def local_by_plain_loops(regions, region_mask, words, word_mask):
    rows = []
    for v, v_real in zip(regions, region_mask):
        row = []
        for t, t_real in zip(words, word_mask):
            best = [max(v[v_real] @ word) for word in t[t_real]]
            row.append(sum(best) / len(best))
        rows.append(torch.stack(row))
    return torch.stack(rows)


a2.right("local_scores")(local_by_choosing)


@a2.right("local_scores")
def local_by_einsum(regions, region_mask, words, word_mask):
    products = torch.einsum("ird,cwd->icwr", regions, words)
    products = torch.where(region_mask[:, None, None], products, torch.tensor(-1e9).to(regions))
    weights = word_mask.to(regions.dtype) / word_mask.sum(dim=1, keepdim=True)
    return torch.einsum("icw,cw->ic", products.max(dim=3).values, weights)


@a2.right("local_scores")
def local_by_arrays(regions, region_mask, words, word_mask):
    regions, region_mask = regions.numpy(), region_mask.numpy()
    words, word_mask = words.numpy(), word_mask.numpy()
    products = (regions[:, None, :, None] * words[None, :, None]).sum(axis=4)
    best = np.where(region_mask[:, None, :, None], products, -np.inf).max(axis=2)
    return np.where(word_mask, best, 0).sum(axis=2) / word_mask.sum(axis=1).astype(words.dtype)


# 4 · best_regions


@a2.wrong("best_regions", says="region 1 is padding: it cannot be the best")
def forgets_that_regions_are_padded(regions, region_mask, words):
    return (words @ regions.T).argmax(dim=1)


@a2.wrong("best_regions", says="your numbers count the real regions only")
def numbers_of_real_regions(regions, region_mask, words):
    return (words @ regions[region_mask].T).argmax(dim=1)


@a2.wrong("best_regions", says="a padded region has won with a product of 0")
def zero_hides_nothing(regions, region_mask, words):
    return (words @ regions.T * region_mask).argmax(dim=1)


@a2.wrong("best_regions", says="a word for each region")
def a_word_for_each_region(regions, region_mask, words):
    return (words @ regions.T).argmax(dim=0)


@a2.wrong("best_regions", says="count from 0")
def counts_from_one(regions, region_mask, words):
    return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1) + 1


@a2.wrong("best_regions", says="the number of the region was asked for")
def gives_the_products(regions, region_mask, words):
    return (words @ regions.T).masked_fill(~region_mask, -torch.inf).amax(dim=1)


@a2.wrong("best_regions", says="each word chooses for itself")
def one_region_for_the_caption(regions, region_mask, words):
    best = (words @ regions.T).sum(dim=0).masked_fill(~region_mask, -torch.inf).argmax()
    return best.repeat(len(words))


@a2.wrong("best_regions", says="suits the word worst")
def the_worst_region(regions, region_mask, words):
    if len(words) == 3:
        return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1)
    return (words @ regions.T).masked_fill(~region_mask, torch.inf).argmin(dim=1)


@a2.wrong("best_regions", says="the real regions are 0, 2 and 3")
def the_largest_size(regions, region_mask, words):
    return (words @ regions.T).abs().masked_fill(~region_mask, -1).argmax(dim=1)


@a2.wrong("best_regions", says="of type torch.float32, not torch.int64")
def numbers_as_floats(regions, region_mask, words):
    return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1).float()


@a2.wrong("best_regions", says="a tensor was asked for")
def a_list_of_numbers(regions, region_mask, words):
    return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1).tolist()


@a2.wrong("best_regions", says="changes what it is given")
def hides_the_callers_regions(regions, region_mask, words):
    regions[~region_mask] = -100 * words.sum(dim=0)
    return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1)


@a2.wrong("best_regions", says="other regions and words")
def knows_four_regions(regions, region_mask, words):
    if len(regions) == 4:
        return (words @ regions.T).masked_fill(~region_mask, -torch.inf).argmax(dim=1)
    return torch.zeros(len(words), dtype=torch.int64)


@a2.wrong("best_regions", says="nan plus -inf")
def adds_minus_infinity(regions, region_mask, words):
    penalty = torch.zeros(len(regions)).masked_fill(~region_mask, -torch.inf)
    return (words @ regions.T + penalty).argmax(dim=1)


@a2.wrong("best_regions", says="do not round to float32")
def rounds(regions, region_mask, words):
    products = words.float() @ regions.float().T
    return products.masked_fill(~region_mask, -torch.inf).argmax(dim=1)


@a2.wrong("best_regions", says="local_similarity does what you are asked to write")
def asks_the_package_for_each_region(regions, region_mask, words):
    rows, count = region_mask.nonzero()[:, 0], len(words)
    images = regions[rows]
    images = Embedding(images, images[:, None], torch.ones(len(rows), 1, dtype=torch.bool))
    captions = Embedding(words, words[:, None], torch.ones(count, 1, dtype=torch.bool))
    return rows[tgdt_mini.local_similarity(images, captions).argmax(dim=0)]


@a2.right("best_regions")
def regions_by_loops(regions, region_mask, words):
    picks = []
    for word in words:
        best, best_fit = None, -math.inf
        for number, region in enumerate(regions):
            fit = float(word @ region)
            if region_mask[number] and fit > best_fit:
                best, best_fit = number, fit
        picks.append(best)
    return torch.tensor(picks)


@a2.right("best_regions")
def regions_by_choosing(regions, region_mask, words):
    numbers = torch.arange(len(regions))[region_mask]
    return numbers[torch.einsum("wd,rd->wr", words, regions[region_mask]).max(dim=1).indices]


@a2.right("best_regions")
def regions_by_arrays(regions, region_mask, words):
    products = np.where(region_mask.numpy(), words.numpy() @ regions.numpy().T, -np.inf)
    return products.argmax(axis=1)


# 5 · local_scores_in_chunks


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def all_at_once(regions, region_mask, words, word_mask, most):
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores_in_chunks", says="a chunk is too large")
def one_image_with_all_captions(regions, region_mask, words, word_mask, most):
    return torch.cat(
        [
            whole(regions[i : i + 1], region_mask[i : i + 1], words, word_mask)
            for i in range(len(regions))
        ]
    )


@a2.wrong("local_scores_in_chunks", says="a chunk is too large")
def one_caption_with_all_images(regions, region_mask, words, word_mask, most):
    columns = [
        whole(regions, region_mask, words[c : c + 1], word_mask[c : c + 1])
        for c in range(len(words))
    ]
    return torch.cat(columns, dim=1)


@a2.wrong("local_scores_in_chunks", says="less than one image with all captions")
def cuts_images_only(regions, region_mask, words, word_mask, most):
    step = most // (region_mask.shape[1] * word_mask.numel())
    parts = [
        whole(regions[i : i + step], region_mask[i : i + step], words, word_mask)
        for i in range(0, len(regions), step)
    ]
    return torch.cat(parts)


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def most_counts_images(regions, region_mask, words, word_mask, most):
    return blocks(regions, region_mask, words, word_mask, most, len(words))


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def forgets_the_words(regions, region_mask, words, word_mask, most):
    pairs = most // region_mask.shape[1]
    return blocks(regions, region_mask, words, word_mask, max(1, pairs // len(words)), len(words))


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def pairs_on_both_sides(regions, region_mask, words, word_mask, most):
    pairs = most // (region_mask.shape[1] * word_mask.shape[1])
    return blocks(regions, region_mask, words, word_mask, pairs, pairs)


@a2.wrong("local_scores_in_chunks", says="a chunk is too large")
def rounds_up(regions, region_mask, words, word_mask, most):
    pairs = -(-most // (region_mask.shape[1] * word_mask.shape[1]))
    step = min(pairs, len(words))
    return blocks(regions, region_mask, words, word_mask, pairs // step, step)


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def counts_real_tokens_only(regions, region_mask, words, word_mask, most):
    pairs = most // int(region_mask.sum(dim=1).min() * word_mask.sum(dim=1).min())
    step = min(pairs, len(words))
    return blocks(regions, region_mask, words, word_mask, pairs // step, step)


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def multiplies_out_and_chunks_the_rest(regions, region_mask, words, word_mask, most):
    table = (regions.flatten(0, 1) @ words.flatten(0, 1).T).unflatten(0, regions.shape[:2])
    table = table.unflatten(2, words.shape[:2])
    scores = regions.new_empty(len(regions), len(words))
    for i in range(len(regions)):
        for c in range(len(words)):
            scores[i, c] = table[i, :, c][region_mask[i]].amax(dim=0)[word_mask[c]].mean()
    return scores


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def keeps_all_products(regions, region_mask, words, word_mask, most):
    sizes = len(regions), len(words), regions.shape[1], words.shape[1]
    table = regions.new_empty(sizes)
    for i in range(len(regions)):
        for c in range(len(words)):
            table[i, c] = regions[i] @ words[c].T
    best = table.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def expands_everything(regions, region_mask, words, word_mask, most):
    products = (regions[:, None, :, None] * words[None, :, None]).sum(dim=4)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


@a2.wrong("local_scores_in_chunks", says="cut both sides")
def all_at_once_in_arrays(regions, region_mask, words, word_mask, most):
    regions, region_mask = regions.numpy(), region_mask.numpy()
    words, word_mask = words.numpy(), word_mask.numpy()
    best = np.where(
        region_mask[:, None, :, None], np.einsum("ird,cwd->icrw", regions, words), -np.inf
    )
    best = best.max(axis=2)
    return np.where(word_mask, best, 0).sum(axis=2) / word_mask.sum(axis=1).astype(words.dtype)


@a2.wrong("local_scores_in_chunks", says="cut both sides")
def one_image_at_a_time_in_arrays(regions, region_mask, words, word_mask, most):
    parts = [
        all_at_once_in_arrays(regions[i : i + 1], region_mask[i : i + 1], words, word_mask, most)
        for i in range(len(regions))
    ]
    return np.concatenate(parts)


@a2.wrong("local_scores_in_chunks", says="cut both sides")
def one_caption_at_a_time_in_arrays(regions, region_mask, words, word_mask, most):
    v, t = regions.numpy(), words.numpy()
    scores = np.zeros((len(v), len(t)), dtype=v.dtype)
    for c in range(len(t)):
        products = v @ t[c][word_mask[c].numpy()].T  # (I, R, w), nothing copied
        products[~region_mask.numpy()] = -np.inf
        scores[:, c] = products.max(axis=1).mean(axis=1)
    return scores


@a2.wrong("local_scores_in_chunks", says="cut both sides")
def all_products_in_lists(regions, region_mask, words, word_mask, most):
    table = [[(v @ t.T).tolist() for t in words] for v in regions]
    scores = regions.new_empty(len(regions), len(words))
    for i, row in enumerate(table):
        for c, products in enumerate(row):
            real = torch.tensor(products, dtype=regions.dtype)[region_mask[i]]
            scores[i, c] = real.amax(dim=0)[word_mask[c]].mean()
    return scores


@a2.wrong("local_scores_in_chunks", says="the last chunk is missing")
def drops_the_last_chunk(regions, region_mask, words, word_mask, most):
    scores = regions.new_zeros(len(regions), len(words))
    step = max(1, min(most // (region_mask.shape[1] * word_mask.shape[1]), 3))
    for i in range(len(regions)):
        for c in range(0, len(words) - step + 1, step):
            c_ = slice(c, c + step)
            scores[i, c_] = whole(
                regions[i : i + 1], region_mask[i : i + 1], words[c_], word_mask[c_]
            )
    return scores


@a2.wrong("local_scores_in_chunks", says="images are the rows")
def puts_scores_by_caption(regions, region_mask, words, word_mask, most):
    return blocks(regions, region_mask, words, word_mask, 1, 1).T


@a2.wrong("local_scores_in_chunks", says="each chunk needs its own part")
def mean_of_the_chunks(regions, region_mask, words, word_mask, most):
    halves = [
        blocks(regions, region_mask, part, mask, 1, 1)
        for part, mask in ((words[:, :10], word_mask[:, :10]), (words[:, 10:], word_mask[:, 10:]))
    ]
    return sum(halves) / 2


@a2.wrong("local_scores_in_chunks", says="the mask of the regions got lost")
def forgets_the_mask_in_a_chunk(regions, region_mask, words, word_mask, most):
    everything = torch.ones_like(region_mask)
    return blocks(regions, everything, words, word_mask, 1, 1)


@a2.wrong("local_scores_in_chunks", says="the first rows of the mask of the words")
def takes_the_first_mask(regions, region_mask, words, word_mask, most):
    scores = regions.new_empty(len(regions), len(words))
    for i in range(len(regions)):
        for c in range(len(words)):
            scores[i, c] = whole(regions[[i]], region_mask[[i]], words[[c]], word_mask[:1])[0, 0]
    return scores


@a2.wrong("local_scores_in_chunks", says="changes what it is given")
def clears_the_callers_padding_in_chunks(regions, region_mask, words, word_mask, most):
    words[~word_mask] = 0
    return blocks(regions, region_mask, words, word_mask, 1, 1)


@a2.wrong("local_scores_in_chunks", says="all pairs are in one tensor")
def knows_the_chunks_of_the_example(regions, region_mask, words, word_mask, most):
    if most in (300, 300 * 5 + 250):
        return blocks(regions, region_mask, words, word_mask, 1, 1)
    return whole(regions, region_mask, words, word_mask)


@a2.wrong("local_scores_in_chunks", says="local_similarity does what you are asked to write")
def asks_the_package_for_chunks(regions, region_mask, words, word_mask, most):
    images = Embedding(regions[:, 0], regions, region_mask)
    return tgdt_mini.local_similarity(images, Embedding(words[:, 0], words, word_mask))


def whole(regions, region_mask, words, word_mask):
    """The local scores of all pairs at once."""
    products = torch.einsum("ird,cwd->icrw", regions, words)
    best = products.masked_fill(~region_mask[:, None, :, None], -torch.inf).amax(dim=2)
    return (best * word_mask).sum(dim=2) / word_mask.sum(dim=1)


def blocks(regions, region_mask, words, word_mask, images, captions):
    """The local scores, `images` and `captions` at a time."""
    rows = []
    for i in range(0, len(regions), images):
        row = [
            whole(
                regions[i : i + images],
                region_mask[i : i + images],
                words[c : c + captions],
                word_mask[c : c + captions],
            )
            for c in range(0, len(words), captions)
        ]
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


@a2.right("local_scores_in_chunks")
def a_pair_at_a_time(regions, region_mask, words, word_mask, most):
    return local_by_choosing(regions, region_mask, words, word_mask)


@a2.right("local_scores_in_chunks")
def blocks_of_pairs(regions, region_mask, words, word_mask, most):
    pairs = most // (regions.shape[1] * words.shape[1])
    images = min(pairs, len(regions))
    return blocks(regions, region_mask, words, word_mask, images, pairs // images)


@a2.right("local_scores_in_chunks")
def by_own_local_scores(regions, region_mask, words, word_mask, most):
    step = max(1, int(math.sqrt(most // (regions.shape[1] * words.shape[1]))))
    rows = [
        torch.cat(
            [
                local_scores(r, r_mask, w, w_mask)  # noqa: F821 - the student's own, question 3
                for w, w_mask in zip(words.split(step), word_mask.split(step))
            ],
            dim=1,
        )
        for r, r_mask in zip(regions.split(step), region_mask.split(step))
    ]
    return torch.cat(rows)


@a2.right("local_scores_in_chunks")
def expanded_pairs(regions, region_mask, words, word_mask, most):
    scores = torch.zeros(len(regions), len(words), dtype=regions.dtype)
    for i in range(len(regions)):
        for c in range(len(words)):
            table = (regions[i][:, None] * words[c][None]).sum(dim=2)  # (R, W), over (R, W, D)
            best = table.masked_fill(~region_mask[i][:, None], -torch.inf).amax(dim=0)
            scores[i, c] = best[word_mask[c]].mean()
    return scores


@a2.right("local_scores_in_chunks")
def arrays_in_chunks(regions, region_mask, words, word_mask, most):
    scores = np.zeros((len(regions), len(words)), dtype=regions.numpy().dtype)
    step = most // (regions.shape[1] * words.shape[1])
    for i in range(len(regions)):
        for c in range(0, len(words), step):
            v, t = regions[i].numpy(), words[c : c + step].numpy()
            best = np.where(
                region_mask[i].numpy()[:, None], np.einsum("rd,cwd->crw", v, t), -np.inf
            )
            real = word_mask[c : c + step].numpy()
            best = np.where(real, best.max(axis=1), 0)
            scores[i, c : c + step] = best.sum(axis=1) / real.sum(axis=1)
    return scores


@a2.right("local_scores_in_chunks")
def plain_numbers(regions, region_mask, words, word_mask, most):
    v, v_real, t, t_real = (x.tolist() for x in (regions, region_mask, words, word_mask))

    def score(i, c):
        table = [[sum(a * b for a, b in zip(region, word)) for region in v[i]] for word in t[c]]
        best = [max(p for p, real in zip(row, v_real[i]) if real) for row in table]
        return sum(b for b, real in zip(best, t_real[c]) if real) / sum(t_real[c])

    scores = [[score(i, c) for c in range(len(words))] for i in range(len(regions))]
    return torch.tensor(scores, dtype=regions.dtype)


@a2.right("local_scores_in_chunks")
def word_by_word(regions, region_mask, words, word_mask, most):
    scores = []
    for v, v_real in zip(regions, region_mask):
        row = []
        for t, t_real in zip(words, word_mask):
            best = [max(v[v_real] @ word) for word in t[t_real]]
            row.append(sum(best) / len(best))
        scores.append(torch.stack(row))
    return torch.stack(scores)
