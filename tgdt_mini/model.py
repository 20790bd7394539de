"""The two branches of TGDT: tokens in, a global token and local tokens out, in one common space.

Both modalities use the same class, `TokenBranch`; they share no weights. In front of each stands a
reader, which turns a batch into the branch's first tokens: the two readers here read pixels and
words, those of `photos/reader.py` read features of pretrained encoders. The sizes are in
`config.py`, the layers in `layers.py`. Scoring is in `similarity.py`, learning in `losses.py`.

B images, R regions, C captions, T word pieces and special tokens, L local tokens, D common width.
"""

from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import ImageTokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.files.check import typed
from tgdt_mini.image_tokens import geometry
from tgdt_mini.layers import Layers, perceptron, sinusoids, waves
from tgdt_mini.text_tokens import TextTokenizer, TextTokens


class TokenBranch(nn.Module):
    """First tokens of one modality to local tokens and a global token, which grows in slot 0.

    own layers (in the modality's width) -> Linear to the common width
        -> local layers -> LOCAL tokens -> global layers -> slot 0 is the GLOBAL token
    """

    def __init__(self, config, width, own_layers, heads, feedforward, local_layers=None):
        super().__init__()
        self.own = Layers(own_layers, width, heads, feedforward, config)
        self.project = nn.Linear(width, config.width)
        common = (config.width, config.heads, config.feedforward, config)
        local_layers = config.local_layers if local_layers is None else local_layers
        self.local_layers = Layers(local_layers, *common, config.neighbour_dropout)
        self.global_layers = Layers(config.global_layers, *common)
        self.global_residual = config.global_residual

    def forward(self, tokens, mask, local_mask, stop_gradient: bool = False) -> Embedding:
        """Embedding of tokens (B, 1 + L, width).

        mask (B, 1 + L): real tokens; local_mask (B, 1 + L): those that are local tokens.
        stop_gradient: the global layers read the local tokens, but do not train what is below them,
        as in the released code (and in the second stage of the staged schedule).
        """
        tokens = self.project(self.own(tokens, mask))  # (B, 1 + L, D)
        tokens = self.local_layers(tokens, mask)  # (B, 1 + L, D)
        below = tokens.detach() if stop_gradient else tokens
        global_token = self.global_layers.first_slot(below, mask)  # (B, D)
        local_tokens = tokens[:, 1:]  # (B, L, D)
        if self.global_residual:
            local_tokens = local_tokens + self.global_residual * tokens[:, :1]
        return Embedding(
            normalize(global_token.float(), dim=-1),
            normalize(local_tokens.float(), dim=-1),
            local_mask[:, 1:],
        )


class RegionReader(nn.Module):
    """Pixels of regions and their boxes to the image branch's first tokens."""

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.config = config
        width = config.image_width
        self.features = perceptron(config.image_features + 5, config.image_hidden, width)
        # five box numbers have little effect among a thousand features; with a layer of their own
        # relations such as "left of" can be learnt
        boxes = 5 + 10 * config.box_waves
        self.box_embedding = nn.Linear(boxes, width) if config.box_waves else None

    def forward(self, batch: ImageTokens):
        """(tokens (B, 1 + R, width), mask (B, 1 + R)); ValueError for features of another width."""
        self.check(batch)
        features = torch.cat([batch.pooled[:, None], batch.features], dim=1)  # (B, 1 + R, F)
        features, (boxes, mask) = self.prepare(features, batch.mask), self.with_slot(batch)
        if self.config.image_slot == "zero":
            features = torch.cat([torch.zeros_like(features[:, :1]), features[:, 1:]], dim=1)
        boxes = geometry(boxes)  # (B, 1 + R, 5) with the area
        tokens = self.features(torch.cat([features, boxes], dim=-1))  # (B, 1 + R, width)
        if self.box_embedding is not None:
            tokens = tokens + self.box_embedding(waves(boxes, self.config.box_waves))
        return tokens, mask

    def check(self, batch):
        """ValueError for regions of another width than the model was made for."""
        if (seen := batch.features.shape[2]) != (known := self.config.image_features):
            raise ValueError(f"regions have {seen} features; this model was made for {known}")

    def with_slot(self, batch):
        """(boxes (B, 1 + R, 4), mask (B, 1 + R)), slot 0 before the regions.

        Slot 0 is the whole picture, and its box all of it; or zeros, as in the released code.
        """
        boxes = torch.cat([torch.zeros_like(batch.boxes[:, :1]), batch.boxes], dim=1)
        if self.config.image_slot == "whole":
            boxes[:, 0, 2:] = 1
        return boxes, torch.cat([torch.ones_like(batch.mask[:, :1]), batch.mask], dim=1)

    def prepare(self, features, mask):
        """Features (B, 1 + R, F) as floats around 0; pixels come as 0 to 255."""
        return features.float() / 127.5 - 1 if features.dtype == torch.uint8 else features.float()

    def cut(self, pictures: list) -> ImageTokens:
        """The tokens of PIL pictures, cut as in training."""
        size = (self.config.image_side, self.config.image_side)
        pictures = [image if image.size == size else image.resize(size) for image in pictures]
        return ImageTokens.of(pictures, self.config.image_tokens)


class WordReader(nn.Module):
    """Ids of word pieces to the text branch's first tokens."""

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.config = config
        width, longest = config.text_width, config.most_tokens
        self.word_embedding = nn.Embedding(config.vocabulary, width)
        self.position_embedding = nn.Embedding(longest, width)
        nn.init.normal_(self.word_embedding.weight, std=0.5)
        with torch.no_grad():
            # learnt from here on; sinusoids make "the word before" easy to find from the start
            self.position_embedding.weight.copy_(0.5 * sinusoids(torch.arange(longest), width))
        self.window = None
        if config.text_window:
            self.window = nn.Conv1d(width, width, config.text_window, padding="same")
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: TextTokens):
        """(C, T, width); ValueError for an unknown id or a caption longer than most_tokens."""
        longest = batch.ids.shape[1]
        if longest > self.config.most_tokens:
            raise ValueError(
                f"a caption has {longest} tokens; at most {self.config.most_tokens} are read here"
            )
        # a GPU would have to wait for the answer
        if batch.ids.device.type == "cpu" and (batch.ids >= self.config.vocabulary).any():
            raise ValueError(
                f"a token has id {int(batch.ids.max())}, above the vocabulary of "
                f"{self.config.vocabulary}: use the tokenizer that the model was trained with"
            )
        tokens = self.word_embedding(batch.ids)  # (C, T, width)
        if self.window is not None:
            # without the mask, a caption's last words would see how long the batch is
            real = tokens * batch.mask[..., None]
            tokens = tokens + self.window(real.transpose(1, 2)).transpose(1, 2)
        positions = torch.arange(longest, device=batch.ids.device)
        return self.dropout(tokens + self.position_embedding(positions))

    def local_mask(self, batch: TextTokens):
        """(C, T) bool: which tokens become local tokens, here all words."""
        return batch.word_mask


def readers(config: TGDTConfig) -> tuple[Any, Any]:
    """(reader of images, reader of captions): those above, or of the folder `config.reader`."""
    if config.reader == "pixels":
        return RegionReader(config), WordReader(config)
    return import_module(f"tgdt_mini.{config.reader}.reader").readers(config)


class TGDT(nn.Module):
    """Token-guided dual transformer: `encode_images` and `encode_captions`, each to an Embedding.

    Source: Liu et al., IEEE TIP 2023, and its released code; what differs is in docs/method.md.
    """

    @typed
    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.config = c = config
        # what `load_model` finds beside the weights; an encoder may stand in for the tokenizer
        self.tokenizer: TextTokenizer | None = None
        self.notes: dict[str, Any] = {}
        self.fingerprint: str | None = None
        self.image_reader, self.text_reader = readers(c)
        image = (c.image_width, c.image_layers, c.image_heads, c.image_feedforward)
        text = (c.text_width, c.text_layers, c.text_heads, c.text_feedforward)
        self.image_branch = TokenBranch(c, *image, local_layers=c.image_local_layers)
        self.text_branch = TokenBranch(c, *text)

    @typed
    def encode_images(self, batch: ImageTokens, stop_gradient: bool = False) -> Embedding:
        """Embedding of B images: a local token for each region. ValueError as in the reader."""
        tokens, mask = self.image_reader(batch)
        return self.image_branch(tokens, mask, mask, stop_gradient)

    @typed
    def encode_captions(self, batch: TextTokens, stop_gradient: bool = False) -> Embedding:
        """Embedding of C captions: a local token for each word of the reader's `local_mask`."""
        tokens = self.text_reader(batch)
        return self.text_branch(
            tokens, batch.mask, self.text_reader.local_mask(batch), stop_gradient
        )

    def forward(
        self, images: ImageTokens, captions: TextTokens, stop_gradient: bool = False
    ) -> tuple[Embedding, Embedding]:
        """(Embedding of the images, Embedding of the captions)."""
        embedded = self.encode_images(images, stop_gradient)
        return embedded, self.encode_captions(captions, stop_gradient)
