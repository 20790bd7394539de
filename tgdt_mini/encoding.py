"""Whole sets of images and captions to embeddings, some at a time, dropout off and without
gradients.
"""

import torch

from tgdt_mini.data import ImageTokens, TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.image_tokens import SIDE
from tgdt_mini.model import TGDT


@torch.no_grad()
def encode(model: TGDT, tokens: TokenSet, batch: int = 250) -> tuple[Embedding, Embedding]:
    """Embeddings of all images and of all captions of a set, in its order, dropout off, on the
    model's device.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    images = [
        model.encode_images(tokens.images(rows).to(device))
        for rows in torch.arange(tokens.image_count, device=tokens.starts.device).split(batch)
    ]
    captions = _encode_text(model, tokens.text, batch)
    model.train(was_training)
    return Embedding.cat(images), captions


@torch.no_grad()
def encode_texts(model: TGDT, captions: list[str], batch: int = 250) -> Embedding:
    """Embedding of captions given as words; the model must have a tokenizer and be in eval mode."""
    if model.config.text_features:  # a pretrained encoder reads them first: some at a time, too
        parts = [captions[start : start + batch] for start in range(0, len(captions) or 1, batch)]
        return Embedding.cat([_encode_text(model, model.tokenizer(part), batch) for part in parts])
    return _encode_text(model, model.tokenizer(captions), batch)


def _encode_text(model, text, batch):
    device = next(model.parameters()).device
    parts = [text[slice(start, start + batch)].to(device) for start in range(0, len(text), batch)]
    return Embedding.cat([model.encode_captions(part) for part in parts])


@torch.no_grad()
def encode_pictures(model: TGDT, pictures: list) -> Embedding:
    """Embedding of PIL pictures, cut as the model was trained; its encoder, if it has one, must be
    attached.
    """
    if model.config.image_source:
        tokens = model.vision(pictures)
    else:  # a mini model knows pictures of one size only
        size = (SIDE, SIDE)
        pictures = [
            picture if picture.size == size else picture.resize(size) for picture in pictures
        ]
        tokens = ImageTokens.of(pictures, model.config.image_tokens)
    return model.encode_images(tokens.to(next(model.parameters()).device))
