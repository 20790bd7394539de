"""The two branches of TGDT: tokens in, one global token and a set of local tokens out, in one
common space.

Both modalities use the same class, `TokenBranch`; they share no weights. The sizes are in
`config.py`, the layers in `layers.py`. Scoring is in `similarity.py`, what to learn from it in
`losses.py`.
"""

import torch
from torch import nn
from torch.nn.functional import normalize

from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import ImageTokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.image_tokens import geometry
from tgdt_mini.layers import Layers, sinusoids, waves
from tgdt_mini.photos.reader import DropFeatures
from tgdt_mini.text_tokens import TextTokens


class TokenBranch(nn.Module):
    """Embedded tokens of one modality to local tokens and a global token. Slot 0 is the seat of the
    global token.

    own layers (in the modality's width) -> Linear to the common width -> local layers -> LOCAL
    tokens
                                                                       -> global layers -> slot 0 is
                                                                       the GLOBAL token
    """

    def __init__(
        self,
        config: TGDTConfig,
        width: int,
        own_layers: int,
        heads: int,
        feedforward: int,
        local_layers: int | None = None,
    ):
        super().__init__()
        self.own = Layers(own_layers, width, heads, feedforward, config)
        self.project = nn.Linear(width, config.width)
        common = (config.width, config.heads, config.feedforward, config)
        local_layers = config.local_layers if local_layers is None else local_layers
        self.local_layers = Layers(local_layers, *common, config.alone)
        self.global_layers = Layers(config.global_layers, *common)
        self.context = config.context

    def forward(self, tokens, mask, local_mask, stop_gradient=False) -> Embedding:
        """tokens (B, 1 + L, width), mask (B, 1 + L) real tokens, local_mask (B, 1 + L) those that
        are local tokens.

        stop_gradient: the global layers read the local tokens but do not train what is below them,
        as in the released code (and as in the second stage of the staged recipe).
        """
        tokens = self.project(self.own(tokens, mask))  # (B, 1 + L, D)
        local = self.local_layers(tokens, mask)
        top = self.global_layers.first_slot(
            local.detach() if stop_gradient else local, mask
        )  # (B, D)
        each = (
            local[:, 1:] + self.context * local[:, :1] if self.context else local[:, 1:]
        )  # (B, L, D)
        return Embedding(
            normalize(top.float(), dim=-1),  # (B, D)
            normalize(each.float(), dim=-1),  # (B, L, D)
            local_mask[:, 1:],
        )


class TGDT(nn.Module):
    """Token-guided dual transformer: `encode_images` and `encode_captions`, each to an
    Embedding.
    """

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.config = config
        self.read_region = _perceptron(
            config.image_features + 5, config.image_hidden, config.image_width
        )
        # five box numbers drown among a thousand features, and no relation can be learnt: place has
        # a path of its own
        self.place = (
            nn.Linear(5 + 10 * config.box_waves, config.image_width) if config.box_waves else None
        )
        self.window = None
        if config.text_features:
            self.read_word = nn.Linear(config.text_features, config.text_width)
        else:
            self.word = nn.Embedding(config.vocabulary, config.text_width)
            self.position = nn.Embedding(config.most_tokens, config.text_width)
            nn.init.normal_(self.word.weight, std=0.5)
            with (
                torch.no_grad()
            ):  # learnt from here on; sinusoids make "the word before" easy to find from the start
                self.position.weight.copy_(
                    0.5 * sinusoids(torch.arange(config.most_tokens), config.text_width)
                )
            if config.text_window:
                self.window = nn.Conv1d(
                    config.text_width, config.text_width, config.text_window, padding="same"
                )
        self.text_dropout = nn.Dropout(config.dropout)
        self.image_feature_dropout = DropFeatures(config.image_feature_dropout)
        self.text_feature_dropout = DropFeatures(config.text_feature_dropout)
        # pretrained features come at any scale; from numbers of size one the branches learn several
        # times faster
        pretrained = config.image_tokens == "features" and config.norm_first
        self.image_norm = nn.LayerNorm(config.image_features) if pretrained else nn.Identity()
        self.text_norm = (
            nn.LayerNorm(config.text_features) if config.text_features else nn.Identity()
        )
        self.image_top, self.text_top = (
            _top(about) for about in (config.image_top, config.text_top)
        )
        c = config
        self.image_branch = TokenBranch(
            c,
            c.image_width,
            c.image_layers,
            c.image_heads,
            c.image_feedforward,
            c.image_local_layers,
        )
        self.text_branch = TokenBranch(
            c, c.text_width, c.text_layers, c.text_heads, c.text_feedforward
        )

    def encode_images(self, batch: ImageTokens, stop_gradient: bool = False) -> Embedding:
        """Embedding of B images; local tokens are the regions. ValueError for features of another
        width.
        """
        if batch.features.shape[2] != self.config.image_features:
            raise ValueError(
                f"regions have {batch.features.shape[2]} features; this model was made for {self.config.image_features}"
            )
        features = torch.cat([batch.whole[:, None], batch.features], dim=1)  # (B, 1 + R, F)
        features = (
            features.float() / 127.5 - 1 if features.dtype == torch.uint8 else features.float()
        )
        mask = torch.cat([torch.ones_like(batch.mask[:, :1]), batch.mask], dim=1)
        if self.image_top is not None:
            seen = features[
                :, 1 - self.image_top.first :
            ]  # without a class token the top sees the cells only
            found = self.image_top(seen, mask[:, 1 - self.image_top.first :])
            features = (
                found
                if self.image_top.first
                else torch.cat([_mean(found, batch.mask), found], dim=1)
            )
        if self.config.image_power != 1:  # at 0 a root has no slope that could be learnt from
            features = features.sign() * features.abs().clamp(min=1e-8) ** self.config.image_power
        features = self.image_feature_dropout(self.image_norm(features))
        boxes = torch.cat(
            [torch.zeros_like(batch.boxes[:, :1]), batch.boxes], dim=1
        )  # (B, 1 + R, 4)
        if self.config.image_slot == "whole":
            boxes[:, 0, 2:] = 1
        else:
            features = torch.cat([torch.zeros_like(features[:, :1]), features[:, 1:]], dim=1)
        box = geometry(boxes)
        tokens = self.read_region(torch.cat([features, box], dim=-1))
        if self.place is not None:
            tokens = tokens + self.place(waves(box, self.config.box_waves))
        return self.image_branch(tokens, mask, mask, stop_gradient)

    def encode_captions(self, batch: TextTokens, stop_gradient: bool = False) -> Embedding:
        """Embedding of C captions; local tokens are word pieces, special tokens are masked out.

        ValueError for an id outside the vocabulary's size or a caption longer than `most_tokens`.
        """
        if self.config.text_features:
            return self.text_branch(self._read_words(batch), batch.mask, batch.words, stop_gradient)
        longest = batch.ids.shape[1]
        if longest > self.config.most_tokens:
            raise ValueError(
                f"a caption has {longest} tokens; this model reads {self.config.most_tokens} at most"
            )
        if (
            batch.ids.device.type == "cpu" and (batch.ids >= self.config.vocabulary).any()
        ):  # a GPU would have to wait
            raise ValueError(
                f"a token has id {int(batch.ids.max())}, but the vocabulary {self.config.vocabulary} ids: "
                "use the tokenizer that the model was trained with"
            )
        places = torch.arange(longest, device=batch.ids.device)
        tokens = self.word(batch.ids)  # (C, T, text_width)
        if self.window is not None:
            known = (
                tokens * batch.mask[..., None]
            )  # else a caption's last word would see how long the batch is
            tokens = tokens + self.window(known.transpose(1, 2)).transpose(1, 2)
        tokens = self.text_dropout(tokens + self.position(places))
        return self.text_branch(tokens, batch.mask, batch.words, stop_gradient)

    def _read_words(self, batch):
        """(C, T, text_width) from the features of a pretrained encoder."""
        if batch.features is None or batch.features.shape[2] != self.config.text_features:
            found = "none" if batch.features is None else batch.features.shape[2]
            raise ValueError(
                f"captions have {found} features; this model was made for {self.config.text_features}: take them from "
                "a folder made by extract, or load its encoders with tgdt_mini.encoders.load.load_encoders"
            )
        features = batch.features.float()
        if self.text_top is not None:
            features = self.text_top(features, batch.mask)
        if self.config.text_slot == "mean":
            features = torch.cat(
                [_mean(features[:, 1:], batch.words[:, 1:]), features[:, 1:]], dim=1
            )
        return self.text_dropout(
            self.read_word(self.text_feature_dropout(self.text_norm(features)))
        )

    def forward(self, images: ImageTokens, captions: TextTokens, stop_gradient: bool = False):
        """(Embedding of the images, Embedding of the captions)."""
        return self.encode_images(images, stop_gradient), self.encode_captions(
            captions, stop_gradient
        )


def _perceptron(width, hidden, out):
    if not hidden:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def _top(about):
    if about is None:
        return None
    from tgdt_mini.encoders.cutting import TopLayers

    return TopLayers.rebuild(about)


def _mean(tokens, mask):
    """(B, 1, D) mean of the real tokens."""
    return (tokens * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
