"""Shared by the tests: random embeddings, small models and small sets of scenes."""

from functools import cache

import torch
from torch.nn.functional import normalize

from tgdt_mini import scenes
from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.model import TGDT, TGDTConfig
from tgdt_mini.text_tokens import TextTokenizer


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


@cache
def some_scenes(split="validation", first=40):
    """The first records of a split."""
    return scenes.load(split, first=first)


@cache
def tokenizer():
    """A vocabulary learnt from the first training captions."""
    return TextTokenizer.learn([caption for own in some_scenes("train", 200)["captions"] for caption in own])


@cache
def token_set(split="validation", first=40, kind="regions"):
    """The same scenes as tokens."""
    return TokenSet.build(some_scenes(split, first), tokenizer(), kind)


def tiny_config(**changes):
    """A configuration of one layer and 32 numbers everywhere, without dropout."""
    sizes = {"width": 32, "heads": 2, "feedforward": 64, "local_layers": 1, "global_layers": 1, "dropout": 0.0,
             "image_local_layers": None, "alone": 0.0}  # fmt: skip
    for modality in ("image", "text"):
        sizes |= {f"{modality}_{name}": value for name, value in
                  (("width", 32), ("layers", 1), ("heads", 2), ("feedforward", 64))}  # fmt: skip
    sizes |= {"image_hidden": 32, "vocabulary": tokenizer().vocabulary, "most_tokens": tokenizer().most_tokens}
    return TGDTConfig.mini(**(sizes | changes))


def tiny_model(seed=0, **changes):
    """A TGDT of `tiny_config`, the same for the same seed, in training mode."""
    torch.manual_seed(seed)
    return TGDT(tiny_config(**changes))
