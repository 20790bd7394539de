"""The two branches of TGDT: tokens in, one global token and a set of local tokens out, in one common space.

Both modalities use the same class, `TokenBranch`; they share no weights. Sizes of `TGDTConfig.paper()` are those of
the released code (LCFractal/TGDT). Encoder layers are torch's own: notebook 03 builds one by hand and shows that both
agree. Scoring is in `similarity.py`, what to learn from it in `losses.py`.
"""

from dataclasses import asdict, dataclass, fields

import torch
from torch import nn
from torch.nn.functional import normalize

from tgdt_mini.data import ImageTokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.image_tokens import REGION_WIDTH, geometry
from tgdt_mini.text_tokens import TextTokens


@dataclass(frozen=True)
class TGDTConfig:
    """Every size of a model. `mini()` for the drawn scenes, `paper()` for the released code's sizes."""

    width: int = 128  # of the common space
    heads: int = 4
    feedforward: int = 256
    local_layers: int = 1  # in the common space, up to the local tokens
    image_local_layers: int | None = None  # the same for the image branch alone; None: as many as local_layers
    global_layers: int = 1  # on top of them, up to the global token
    context: float = 0.0  # how much of slot 0 is added to each local token: what attention brings, without its weights
    alone: float = 0.0  # share of items whose local layers, in training, let no token see its neighbours
    image_features: int = REGION_WIDTH  # numbers a region comes with
    image_hidden: int = 256  # of the two-layer perceptron that reads them; 0 for a single linear layer
    box_waves: int = 4  # sines and cosines of each box number, at so many frequencies; 0 as in the released code
    image_width: int = 128
    image_layers: int = 0  # of the modality's own, before the common space
    image_heads: int = 4
    image_feedforward: int = 256
    image_slot: str = "whole"  # slot 0 of an image: its whole-image features, or "zero" as in the released code
    vocabulary: int = 400
    most_tokens: int = 40
    text_width: int = 128
    text_window: int = 9  # words that each word sees before attention, itself in the middle; 0 for none, as in BERT
    text_layers: int = 0
    text_heads: int = 4
    text_feedforward: int = 256
    dropout: float = 0.0
    norm_first: bool = True  # layer norm before attention learns faster from scratch; the released code has it after
    image_tokens: str = "regions"  # or "patches": how pixels are cut, kept here so that a query is cut the same way
    image_source: dict | None = None  # what describes the pretrained encoder of pictures (see backbones.py), if any
    text_source: dict | None = None  # the same for captions
    text_slot: str = "start"  # slot 0 of a caption with features: those of its start token, or the "mean" of its words
    text_features: int = 0  # numbers that each token comes with; 0: words of the model's own
    image_top: dict | None = None  # last layers of image_source, trained here; None: it is frozen
    text_top: dict | None = None  # the same of text_source
    image_feature_dropout: float = 0.0  # of the numbers that regions come with, the same ones in a whole image
    text_feature_dropout: float = 0.0  # of those that words come with, the same ones in a whole caption

    @classmethod
    def mini(cls, **changes) -> "TGDTConfig":
        """About one million parameters, for the embedded scenes.

        A local token stands for one region or one word, and is trained to keep to it: regions are not mixed before
        they are compared with words, and half of the captions of a batch leave out attention before their local tokens.
        """
        return cls(**(dict(image_local_layers=0, global_layers=2, alone=0.5) | changes))

    @classmethod
    def photos(cls, **changes) -> "TGDTConfig":
        """For image_features and text_features of pretrained encoders; the sizes were chosen on Flickr8k's dev split.

        With some thousand pictures, layers learn them by heart; so do linear maps, until half of the features are
        hidden from them at each step. What attention would bring to local tokens, they get from slot 0 as it is.
        """
        sizes = dict(
            width=256, local_layers=0, global_layers=0, image_hidden=0, image_width=256, text_width=256,
            text_window=0, text_slot="mean", context=3.0, image_tokens="features", image_feature_dropout=0.5,
            text_feature_dropout=0.3,
        )  # fmt: skip
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes) -> "TGDTConfig":
        """The released code's sizes: 2048-d regions, 4 image layers, 6 BERT-sized text layers, 1024-d common space."""
        sizes = dict(
            width=1024, heads=4, feedforward=2048, local_layers=2, global_layers=2,
            image_features=2048, image_hidden=2048, image_width=2048, image_layers=4, image_heads=4,
            image_feedforward=2048, image_slot="zero", box_waves=0, vocabulary=30522, most_tokens=512,
            text_width=768, text_window=0, text_layers=6, text_heads=12, text_feedforward=3072,
            dropout=0.1, norm_first=False,
        )  # fmt: skip
        return cls(**(sizes | changes))

    @classmethod
    def from_dict(cls, values: dict) -> "TGDTConfig":
        """A configuration read from JSON. ValueError names a key that this version does not know."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown model setting {unknown[0]!r}; known settings are {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict:
        return asdict(self)

    def __post_init__(self):
        for width, heads in (("width", "heads"), ("image_width", "image_heads"), ("text_width", "text_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} is {getattr(self, width)}; it must be a multiple of {heads}, {getattr(self, heads)}"
                )
        if not 0 <= self.alone <= 1:
            raise ValueError(f"alone is {self.alone}; it is a share, from 0 to 1")
        if self.context < 0:
            raise ValueError(f"context is {self.context}; it is a weight of slot 0, 0 or more")
        for name, choices in (
            ("image_slot", ("whole", "zero")),
            ("text_slot", ("start", "mean")),
            ("image_tokens", ("regions", "patches", "features")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")


class Layers(nn.Module):
    """`count` of torch's encoder layers and, with norm_first, a last norm. No layer at all passes tokens through."""

    def __init__(self, count: int, width: int, heads: int, feedforward: int, config: TGDTConfig, alone: float = 0.0):
        super().__init__()
        each = dict(dropout=config.dropout, activation="relu", batch_first=True, norm_first=config.norm_first)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, feedforward, **each) for _ in range(count))
        if alone:
            for layer in self.layers:  # what attention found passes through here before it is added to the token
                layer.dropout1 = nn.Sequential(layer.dropout1, DropItems(alone))
        self.norm = nn.LayerNorm(width) if config.norm_first and count else nn.Identity()

    def forward(self, tokens, mask):
        """tokens (B, L, width), mask (B, L) bool: padding is looked at by nobody, so an item's batch cannot matter."""
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        return self.norm(tokens)

    def first_slot(self, tokens, mask):
        """(B, width) what `forward` makes of slot 0, without the last layer's work on all the other slots."""
        if not self.layers:
            return tokens[:, 0]
        for layer in self.layers[:-1]:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        last, slot = self.layers[-1], tokens[:, :1]  # (B, 1, width)

        def attend(query, keys):
            return last.dropout1(last.self_attn(query, keys, keys, ~mask, need_weights=False)[0])

        def feed(each):
            return last.dropout2(last.linear2(last.dropout(last.activation(last.linear1(each)))))

        if last.norm_first:
            keys = last.norm1(tokens)
            slot = slot + attend(keys[:, :1], keys)
            slot = slot + feed(last.norm2(slot))
        else:
            slot = last.norm1(slot + attend(slot, tokens))
            slot = last.norm2(slot + feed(slot))
        return self.norm(slot)[:, 0]


class DropItems(nn.Module):
    """In training, each item of a batch becomes zero with a chance of `share`; nothing happens in eval mode.

    On the sum that a layer adds to its input this is stochastic depth (Huang et al., 2016), item by item. Here it hides
    a token's neighbours now and then, so that the token goes on to stand for its own word or region.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, tokens):
        """tokens (B, L, D)"""
        if not self.training:
            return tokens
        return tokens * (torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.share)


class DropFeatures(nn.Dropout1d):
    """In training, hides a share p of an item's features from all of its tokens at once.

    Token by token, what is hidden in one region is seen in the next, and the best region of a word would be the one
    whose noise suits it.
    """

    def forward(self, tokens):
        """tokens (B, L, F)"""
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class TokenBranch(nn.Module):
    """Embedded tokens of one modality to local tokens and a global token. Slot 0 is the seat of the global token.

    own layers (in the modality's width) -> Linear to the common width -> local layers -> LOCAL tokens
                                                                       -> global layers -> slot 0 is the GLOBAL token
    """

    def __init__(self, config: TGDTConfig, width: int, own_layers: int, heads: int, feedforward: int,
                 local_layers: int | None = None):  # fmt: skip
        super().__init__()
        self.own = Layers(own_layers, width, heads, feedforward, config)
        self.project = nn.Linear(width, config.width)
        common = (config.width, config.heads, config.feedforward, config)
        local_layers = config.local_layers if local_layers is None else local_layers
        self.local_layers = Layers(local_layers, *common, config.alone)
        self.global_layers = Layers(config.global_layers, *common)
        self.context = config.context

    def forward(self, tokens, mask, local_mask, stop_gradient=False) -> Embedding:
        """tokens (B, 1 + L, width), mask (B, 1 + L) real tokens, local_mask (B, 1 + L) those that are local tokens.

        stop_gradient: the global layers read the local tokens but do not train what is below them, as in the
        released code (and as in the second stage of the staged recipe).
        """
        tokens = self.project(self.own(tokens, mask))  # (B, 1 + L, D)
        local = self.local_layers(tokens, mask)
        top = self.global_layers.first_slot(local.detach() if stop_gradient else local, mask)  # (B, D)
        each = local[:, 1:] + self.context * local[:, :1] if self.context else local[:, 1:]  # (B, L, D)
        return Embedding(
            normalize(top.float(), dim=-1),  # (B, D)
            normalize(each.float(), dim=-1),  # (B, L, D)
            local_mask[:, 1:],
        )


def sinusoids(places: torch.Tensor, width: int) -> torch.Tensor:
    """(N, width) sines and cosines of places (N,), from fast to slow (Vaswani et al., 2017)."""
    rates = torch.exp(-torch.arange(0, width, 2) / width * 9.21)  # 1 down to about 1 / 10,000
    angles = places[:, None] * rates  # (N, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def waves(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """(..., n) fractions to (..., n + 2 * n * count): themselves, and sines and cosines of 1, 2, 4 ... times pi."""
    angles = [numbers * (torch.pi * 2**k) for k in range(count)]
    return torch.cat([numbers, *(wave(angle) for angle in angles for wave in (torch.sin, torch.cos))], dim=-1)


class TGDT(nn.Module):
    """Token-guided dual transformer: `encode_images` and `encode_captions`, each to an Embedding."""

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.config = config
        self.read_region = _perceptron(config.image_features + 5, config.image_hidden, config.image_width)
        # five box numbers drown among a thousand features, and no relation can be learnt: place has a path of its own
        self.place = nn.Linear(5 + 10 * config.box_waves, config.image_width) if config.box_waves else None
        self.window = None
        if config.text_features:
            self.read_word = nn.Linear(config.text_features, config.text_width)
        else:
            self.word = nn.Embedding(config.vocabulary, config.text_width)
            self.position = nn.Embedding(config.most_tokens, config.text_width)
            nn.init.normal_(self.word.weight, std=0.5)
            with torch.no_grad():  # learnt from here on; sinusoids make "the word before" easy to find from the start
                self.position.weight.copy_(0.5 * sinusoids(torch.arange(config.most_tokens), config.text_width))
            if config.text_window:
                self.window = nn.Conv1d(config.text_width, config.text_width, config.text_window, padding="same")
        self.text_dropout = nn.Dropout(config.dropout)
        self.image_feature_dropout = DropFeatures(config.image_feature_dropout)
        self.text_feature_dropout = DropFeatures(config.text_feature_dropout)
        # pretrained features come at any scale; from numbers of size one the branches learn several times faster
        pretrained = config.image_tokens == "features" and config.norm_first
        self.image_norm = nn.LayerNorm(config.image_features) if pretrained else nn.Identity()
        self.text_norm = nn.LayerNorm(config.text_features) if config.text_features else nn.Identity()
        self.image_top, self.text_top = (_top(about) for about in (config.image_top, config.text_top))
        c = config
        self.image_branch = TokenBranch(c, c.image_width, c.image_layers, c.image_heads, c.image_feedforward,
                                        c.image_local_layers)  # fmt: skip
        self.text_branch = TokenBranch(c, c.text_width, c.text_layers, c.text_heads, c.text_feedforward)

    def encode_images(self, batch: ImageTokens, stop_gradient: bool = False) -> Embedding:
        """Embedding of B images; local tokens are the regions. ValueError for features of another width."""
        if batch.features.shape[2] != self.config.image_features:
            raise ValueError(
                f"regions have {batch.features.shape[2]} features; this model was made for {self.config.image_features}"
            )
        features = torch.cat([batch.whole[:, None], batch.features], dim=1)  # (B, 1 + R, F)
        features = features.float() / 127.5 - 1 if features.dtype == torch.uint8 else features.float()
        mask = torch.cat([torch.ones_like(batch.mask[:, :1]), batch.mask], dim=1)
        if self.image_top is not None:
            seen = features[:, 1 - self.image_top.first :]  # without a class token the top sees the cells only
            found = self.image_top(seen, mask[:, 1 - self.image_top.first :])
            features = found if self.image_top.first else torch.cat([_mean(found, batch.mask), found], dim=1)
        features = self.image_feature_dropout(self.image_norm(features))
        boxes = torch.cat([torch.zeros_like(batch.boxes[:, :1]), batch.boxes], dim=1)  # (B, 1 + R, 4)
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
            raise ValueError(f"a caption has {longest} tokens; this model reads {self.config.most_tokens} at most")
        if batch.ids.device.type == "cpu" and (batch.ids >= self.config.vocabulary).any():  # a GPU would have to wait
            raise ValueError(
                f"a token has id {int(batch.ids.max())}, but the vocabulary {self.config.vocabulary} ids: "
                "use the tokenizer that the model was trained with"
            )
        places = torch.arange(longest, device=batch.ids.device)
        tokens = self.word(batch.ids)  # (C, T, text_width)
        if self.window is not None:
            known = tokens * batch.mask[..., None]  # else a caption's last word would see how long the batch is
            tokens = tokens + self.window(known.transpose(1, 2)).transpose(1, 2)
        tokens = self.text_dropout(tokens + self.position(places))
        return self.text_branch(tokens, batch.mask, batch.words, stop_gradient)

    def _read_words(self, batch):
        """(C, T, text_width) from the features of a pretrained encoder."""
        if batch.features is None or batch.features.shape[2] != self.config.text_features:
            found = "none" if batch.features is None else batch.features.shape[2]
            raise ValueError(
                f"captions have {found} features; this model was made for {self.config.text_features}: take them from "
                "a folder made by extract, or load its encoders with tgdt_mini.backbones.attach"
            )
        features = batch.features.float()
        if self.text_top is not None:
            features = self.text_top(features, batch.mask)
        if self.config.text_slot == "mean":
            features = torch.cat([_mean(features[:, 1:], batch.words[:, 1:]), features[:, 1:]], dim=1)
        return self.text_dropout(self.read_word(self.text_feature_dropout(self.text_norm(features))))

    def forward(self, images: ImageTokens, captions: TextTokens, stop_gradient: bool = False):
        """(Embedding of the images, Embedding of the captions)."""
        return self.encode_images(images, stop_gradient), self.encode_captions(captions, stop_gradient)


def _perceptron(width, hidden, out):
    if not hidden:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def _top(about):
    if about is None:
        return None
    from tgdt_mini.cutting import TopLayers

    return TopLayers.rebuild(about)


def _mean(tokens, mask):
    """(B, 1, D) mean of the real tokens."""
    return (tokens * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
