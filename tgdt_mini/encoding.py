"""Sets of images and captions to embeddings, a batch at a time, dropout off, without gradients.

`validate` judges a model by them after each epoch of training.
"""

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.evaluation import both_ways
from tgdt_mini.model import TGDT
from tgdt_mini.similarity import global_similarity, local_similarity
from tgdt_mini.text_tokens import TextTokens

BATCH = 250  # items: some 50 MB of activations of the mini model


@torch.no_grad()
def encode(model: TGDT, tokens: TokenSet, batch: int = BATCH) -> tuple[Embedding, Embedding]:
    """(Embedding of all images, Embedding of all captions) of a set, on the model's device."""
    was_training = model.training
    model.eval()  # dropout off; forgotten, every score is a little too low and nobody sees why
    device = next(model.parameters()).device
    rows = torch.arange(tokens.image_count, device=tokens.starts.device)
    images = [model.encode_images(tokens.images(part).to(device)) for part in rows.split(batch)]
    captions = _encode_tokens(model, tokens.text, batch)
    model.train(was_training)
    return Embedding.cat(images), captions


@torch.no_grad()
def encode_texts(model: TGDT, captions: list[str], batch: int = BATCH) -> Embedding:
    """Embedding of captions given as words; the model must have a tokenizer and be in eval mode."""
    parts = [captions[start : start + batch] for start in range(0, len(captions) or 1, batch)]
    return Embedding.cat([_encode_tokens(model, model.tokenizer(part), batch) for part in parts])


@torch.no_grad()
def encode_pictures(model: TGDT, pictures: list) -> Embedding:
    """Embedding of PIL pictures, cut as in the model's training; the model must be in eval mode."""
    tokens = model.image_reader.cut(pictures)
    return model.encode_images(tokens.to(next(model.parameters()).device))


def validate(model: TGDT, tokens: TokenSet, local_weight: float = 1.0) -> dict[str, float]:
    """rsum of a set by global, local and mixed score; everything is scored, without a shortlist."""
    images, captions = encode(model, tokens)
    caption_image = tokens.caption_image.to(images.mask.device)
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    scores = {"global": by_global, "local": by_local, "mixed": by_global + local_weight * by_local}
    return {f"rsum_{name}": both_ways(table, caption_image).rsum for name, table in scores.items()}


def _encode_tokens(model: TGDT, text: TextTokens, batch: int) -> Embedding:
    device = next(model.parameters()).device
    parts = [text[start : start + batch].to(device) for start in range(0, len(text), batch)]
    return Embedding.cat([model.encode_captions(part) for part in parts])
