"""Sets of images and captions to embeddings, a batch at a time, dropout off, without gradients.

`validate` judges a model by them after each epoch of training.
"""

from collections.abc import Iterable

import torch

from tgdt_mini.data import TokenSet, check_pictures
from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import both_ways
from tgdt_mini.files.check import texts, whole_number
from tgdt_mini.model import TGDT
from tgdt_mini.similarity import global_similarity, local_similarity
from tgdt_mini.text_tokens import TextTokens

BATCH = 250  # items: some 50 MB of activations of the mini model
PICTURES, PIXELS = 100, 2**24  # of pictures that are in memory at a time: 50 MB


@torch.no_grad()
def encode(model: TGDT, tokens: TokenSet, batch: int = BATCH) -> tuple[Embedding, Embedding]:
    """(Embedding of all images, Embedding of all captions) of a set, on the model's device."""
    was_training = model.training
    model.eval()  # dropout off; without this every score is a little too low
    device = next(model.parameters()).device
    rows = torch.arange(tokens.image_count, device=tokens.starts.device)
    images = [model.encode_images(tokens.images(part).to(device)) for part in rows.split(batch)]
    captions = encode_tokens(model, tokens.text, batch)
    model.train(was_training)
    return Embedding.cat(images), captions


@torch.no_grad()
def encode_texts(model: TGDT, captions: list[str], batch: int = BATCH) -> Embedding:
    """Embedding of captions given as words; the model must have a tokenizer and be in eval mode.

    Errors as in `TextTokenizer`, which is told the captions' numbers.
    """
    captions = texts("caption", captions)
    starts = range(0, len(captions), whole_number("batch", batch, 1))
    tokens = (model.tokenizer(captions[start : start + batch], start) for start in starts)
    return Embedding.cat([encode_tokens(model, part, batch) for part in tokens])


@torch.no_grad()
def encode_pictures(model: TGDT, pictures: Iterable) -> Embedding:
    """Embedding of PIL pictures, cut as in the model's training; the model must be in eval mode.

    A generator's pictures are in memory a few at a time: PICTURES, or until they have PIXELS.
    """
    device = next(model.parameters()).device
    parts = []
    for group in _groups(pictures):
        tokens = model.image_reader.cut(group)
        group.clear()  # before the next ones are read
        parts.append(model.encode_images(tokens.to(device)))
    if not parts:
        raise ValueError("pictures is empty; give one at least")
    return Embedding.cat(parts)


def _groups(pictures):
    """Lists of pictures, each with few enough pixels, or with one picture."""
    group, pixels = [], 0
    for picture in pictures:
        check_pictures([picture])
        size = picture.width * picture.height
        if group and (len(group) == PICTURES or pixels + size > PIXELS):
            yield group
            group, pixels = [], 0
        group.append(picture)
        pixels += size
    if group:
        yield group


def validate(model: TGDT, tokens: TokenSet, local_weight: float = 1.0) -> dict[str, float]:
    """rsum of a set by global, local and mixed score; everything is scored, without a shortlist."""
    images, captions = encode(model, tokens)
    caption_image = tokens.caption_image.to(images.mask.device)
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    scores = {"global": by_global, "local": by_local, "mixed": by_global + local_weight * by_local}
    return {f"rsum_{name}": both_ways(table, caption_image).rsum for name, table in scores.items()}


@torch.no_grad()
def encode_tokens(model: TGDT, text: TextTokens, batch: int = BATCH) -> Embedding:
    """Embedding of C captions given as tokens; the model must be in eval mode."""
    device = next(model.parameters()).device
    # captions of one length together: hardly any padding, 0.6 of the time
    order = text.mask.sum(1).argsort(stable=True)  # (C,)
    parts = [model.encode_captions(text[rows].to(device)) for rows in order.split(batch)]
    return Embedding.cat(parts)[order.argsort().to(device)]
