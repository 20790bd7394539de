"""Shared by the tests: random embeddings."""

import torch
from torch.nn.functional import normalize

from tgdt_mini.embedding import Embedding


def random_embedding(seed, items, lengths, width=8, dtype=torch.float64):
    """An Embedding of random unit vectors; lengths is the number of real tokens, one int for all or one for each item.

    Masked tokens hold unit vectors too, never zeros: a score that reads them differs.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([lengths] * items if isinstance(lengths, int) else list(lengths))
    longest = int(lengths.max())
    global_token = normalize(torch.randn(items, width, generator=generator, dtype=torch.float64), dim=-1)
    local_tokens = normalize(torch.randn(items, longest, width, generator=generator, dtype=torch.float64), dim=-1)
    mask = torch.arange(longest) < lengths[:, None]
    return Embedding(global_token.to(dtype), local_tokens.to(dtype), mask)
