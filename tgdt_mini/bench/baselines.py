"""Other ways to the same results, which the package is measured against. All on the CPU.

`released_loop` has the structure of the released code's evaluation (evaluate_utils/evaluation.py,
functions i2t and t2i, with the similarity of models/loss.py): one query at a time. What only a GPU
needs is left out, and so are its mistakes: here padding is -inf before the max, a miss has no rank,
and all words count.
"""

from functools import partial

import numpy as np
import torch
from torch.nn.functional import pad

from tgdt_mini.embedding import Embedding


def einsum_similarity(images: Embedding, captions: Embedding) -> torch.Tensor:
    """(I, C) local similarity: all products in one einsum, padding masked, max, mean."""
    products = torch.einsum("ird,cwd->icwr", images.local_tokens, captions.local_tokens)
    products = products.masked_fill(~images.mask[:, None, None], -float("inf"))
    best = products.max(3).values.masked_fill(~captions.mask, 0)  # (I, C, W)
    return best.sum(2) / captions.mask.sum(1)


def gathered_similarity(
    words: torch.Tensor, tokens: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """(K,) local similarity of words (W, D) with the items ids (K,) of tokens (G, R, D)."""
    candidates = tokens.index_select(0, ids)  # (K, R, D)
    # words first: the other way round the same product takes 2.5 times as long
    products = words @ candidates.flatten(0, 1).to(words.dtype).T  # (W, K * R)
    return products.unflatten(1, candidates.shape[:2]).amax(2).mean(0)


def released_loop(
    images: Embedding,
    captions: Embedding,
    local_weight: float,
    shortlists: tuple[int, int],
    longest: tuple[int, int],
    queries: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the first queries of both kinds by two-stage search, inf for a miss.

    Captions 5i to 5i + 4 are those of image i. shortlists: captions for an image and images for a
    caption (released code: 50, 100). longest: regions and words that tokens are padded to (released
    code: 37, 88 for any data). queries: how many images, how many captions.
    """
    regions, words = (
        pad(side.local_tokens, (0, 0, 0, length - side.mask.shape[1]))
        for side, length in ((images, longest[0]), (captions, longest[1]))
    )
    region_counts, word_counts = images.mask.sum(1).tolist(), captions.mask.sum(1).tolist()
    i2t, t2i = np.full(queries[0], np.inf), np.full(queries[1], np.inf)

    def ranked(query, gallery, shortlist, local_of):
        """The shortlist of one query's global token (1, D), best first; local_of(ids): (K,)."""
        by_global = torch.mm(query, gallery.T).numpy().flatten()
        order = np.argsort(by_global)[::-1]
        ids = list(order[:shortlist])
        local = local_of(ids).numpy().flatten()
        return order[np.argsort(by_global[ids] + local_weight * local)[::-1]]

    def local(i, c):
        """Scores of images i with captions c; one of both is a single row."""
        counts = [region_counts[row] for row in i], [word_counts[row] for row in c]
        return _expanded_similarity(regions[i], words[c], *counts)

    for i in range(queries[0]):
        query = images.global_token[i : i + 1]
        order = ranked(query, captions.global_token, shortlists[0], partial(local, [i]))
        ranks = [np.where(order == c)[0] for c in range(5 * i, 5 * i + 5)]
        i2t[i] = min(np.concatenate(ranks), default=np.inf)
    for c in range(queries[1]):
        query = captions.global_token[c : c + 1]
        order = ranked(query, images.global_token, shortlists[1], partial(local, c=[c]))
        t2i[c] = min(np.where(order == c // 5)[0], default=np.inf)
    return i2t, t2i


def _expanded_similarity(regions, words, region_counts, word_counts):
    """(I, C) from padded tokens: both sides expanded to all pairs, masks made row by row."""
    regions = regions.unsqueeze(1).expand(-1, len(words), -1, -1)  # (I, C, R, D)
    words = words.unsqueeze(0).expand(len(regions), -1, -1, -1)  # (I, C, W, D)
    products = torch.matmul(regions, words.permute(0, 1, 3, 2))  # (I, C, R, W)
    no_region = torch.zeros(len(regions), regions.shape[2], dtype=torch.bool)
    for row, count in zip(no_region, region_counts):
        row[count:] = True
    no_word = torch.zeros(words.shape[1], words.shape[2], dtype=torch.bool)
    for row, count in zip(no_word, word_counts):
        row[count:] = True
    no_pair = no_region[:, None, :, None].expand(-1, len(no_word), -1, no_word.shape[1])
    products.masked_fill_(no_pair, -float("inf"))
    best = products.max(2)[0].masked_fill_(no_word, 0)  # (I, C, W)
    return best.sum(2) / torch.tensor(word_counts)
