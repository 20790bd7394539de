"""What the package is measured against: the same results, written the way that comes to mind first.
All on the CPU.

`released_loop` follows the structure of the released code's evaluation
(evaluate_utils/evaluation.py, functions i2t and t2i, with the similarity of models/loss.py), one
query at a time, less what only a GPU needs. Its mistakes are left out: padding is -inf before the
max, a miss has no rank, all words count.
"""

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
    """(K,) local similarity of words (W, D) with the items ids (K,) of tokens (G, R, D): gather,
    matmul, max, mean.
    """
    found = tokens.index_select(0, ids)  # (K, R, D)
    products = found.flatten(0, 1).to(words.dtype) @ words.T  # (K*R, W)
    return products.unflatten(0, found.shape[:2]).amax(1).mean(1)


def released_loop(
    images: Embedding,
    captions: Embedding,
    local_weight: float,
    shortlists: tuple[int, int],
    longest: tuple[int, int],
    queries: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the first queries of both kinds by two-stage search, inf for a miss; image i owns
    captions 5i to 5i + 4.

    shortlists: captions for an image and images for a caption (released code: 50, 100). longest:
    regions and words that tokens are padded to (released code: 37, 88 for any data). queries: how
    many images, how many captions.
    """
    regions, words = (
        pad(side.local_tokens, (0, 0, 0, most - side.mask.shape[1]))
        for side, most in ((images, longest[0]), (captions, longest[1]))
    )
    region_counts, word_counts = images.mask.sum(1).tolist(), captions.mask.sum(1).tolist()
    i2t, t2i = np.full(queries[0], np.inf), np.full(queries[1], np.inf)
    for i in range(queries[0]):
        by_global = (
            torch.mm(images.global_token[i : i + 1], captions.global_token.T).numpy().flatten()
        )
        order = np.argsort(by_global)[::-1]
        top = list(order[: shortlists[0]])
        lengths = list(np.array(word_counts)[top])
        local = (
            _expanded_similarity(regions[i : i + 1], words[top], [region_counts[i]], lengths)
            .numpy()
            .flatten()
        )
        found = order[np.argsort(by_global[top] + local_weight * local)[::-1]]
        places = [np.where(found == c)[0] for c in range(5 * i, 5 * i + 5)]
        i2t[i] = min([place[0] for place in places if len(place)], default=np.inf)
    for c in range(queries[1]):
        by_global = (
            torch.mm(captions.global_token[c : c + 1], images.global_token.T).numpy().flatten()
        )
        order = np.argsort(by_global)[::-1]
        top = list(order[: shortlists[1]])
        lengths = list(np.array(region_counts)[top])
        local = (
            _expanded_similarity(regions[top], words[c : c + 1], lengths, [word_counts[c]])
            .numpy()
            .flatten()
        )
        found = order[np.argsort(by_global[top] + local_weight * local)[::-1]]
        place = np.where(found == c // 5)[0]
        t2i[c] = place[0] if len(place) else np.inf
    return i2t, t2i


def _expanded_similarity(regions, words, region_counts, word_counts):
    """(I, C) from padded tokens: both sides expanded to all pairs, lengths turned into masks one by
    one.
    """
    regions = regions.unsqueeze(1).expand(-1, len(words), -1, -1)  # (I, C, R, D)
    words = words.unsqueeze(0).expand(len(regions), -1, -1, -1)  # (I, C, W, D)
    products = torch.matmul(regions, words.permute(0, 1, 3, 2))  # (I, C, R, W)
    no_region = torch.zeros(len(regions), regions.shape[2], dtype=torch.bool)
    for row, count in zip(no_region, region_counts):
        row[count:] = True
    no_word = torch.zeros(words.shape[1], words.shape[2], dtype=torch.bool)
    for row, count in zip(no_word, word_counts):
        row[count:] = True
    products.masked_fill_(
        no_region[:, None, :, None].expand(-1, len(no_word), -1, no_word.shape[1]), -float("inf")
    )
    best = products.max(2)[0].masked_fill_(no_word, 0)  # (I, C, W)
    return best.sum(2) / torch.tensor(word_counts)
