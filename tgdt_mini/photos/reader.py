"""How a model reads photographs: features of pretrained encoders in, first tokens of a branch out.

The readers of `model.py` for pixels and words have their counterparts here. `photo_config` holds
the sizes that were chosen on Flickr8k's dev split; a configuration names these readers by
`reader="photos"` and keeps their settings in `reader_settings`. An encoder's last layers can be
part of a reader (`top`), and are trained with everything else.

B images, R regions, F numbers of a region, C captions, T tokens, E numbers of a word.
"""

from dataclasses import asdict, dataclass, fields

import torch
from torch import nn
from torch.nn.functional import layer_norm

from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import ImageTokens
from tgdt_mini.encoders.cutting import TopLayers
from tgdt_mini.image_tokens import geometry
from tgdt_mini.layers import waves
from tgdt_mini.model import RegionReader
from tgdt_mini.photos.extraction import CPU_PICTURES, PICTURES
from tgdt_mini.text_tokens import TextTokens

NEEDED = {"image_hidden": 0, "image_slot": "whole", "norm_first": True, "global_residual": 0.0}


@dataclass(frozen=True)
class ReaderSettings:
    """What these readers need beside the sizes of `TGDTConfig`; JSON values."""

    text_features: int  # numbers that a word comes with
    # local tokens have maps of their own, and share none with slot 0; boxes come by box_waves alone
    own_maps: bool = False
    stop_ids: list[int] | None = None  # ids of words without a local token, see `stop_words.py`
    text_slot: str = "mean"  # slot 0 of a caption: the mean of its words, or its "start" token
    image_power: float = 1.0  # each feature x becomes sign(x) |x|^image_power
    image_feature_dropout: float = 0.0  # share of the features hidden in training, of a whole image
    text_feature_dropout: float = 0.0  # the same of a whole caption
    image_source: dict | None = None  # describes the encoder of pictures, see encoders/vision.py
    text_source: dict | None = None  # describes the encoder of captions, see encoders/text.py
    image_top: dict | None = None  # its last layers, which are trained here; None: it is frozen
    text_top: dict | None = None

    def __post_init__(self):
        if self.text_slot not in ("start", "mean"):
            raise ValueError(f"text_slot is {self.text_slot!r}; it must be 'start' or 'mean'")
        if not 0 < self.image_power < float("inf"):
            raise ValueError(
                f"image_power is {self.image_power}; it must be above 0, and 1 changes nothing"
            )


def photo_config(**changes) -> TGDTConfig:
    """A configuration for image_features and text_features of pretrained encoders.

    changes: fields of TGDTConfig or of ReaderSettings. With some thousand pictures, layers learn
    them by heart; so do linear maps, until half of the features are hidden from them at each step.
    Two scores help each other where they differ. So local tokens have maps of their own, nothing of
    slot 0 is added to them, and stop words have none. The square root keeps few strong features
    from drowning the rest (power normalisation, Perronnin et al., ECCV 2010).
    """
    sizes = dict(
        width=256,
        local_layers=0,
        global_layers=0,
        image_hidden=0,
        image_width=256,
        text_width=256,
        text_window=0,
    )
    settings = dict(own_maps=True, image_power=0.5)
    settings |= dict(image_feature_dropout=0.5, text_feature_dropout=0.3)
    known = {field.name for field in fields(ReaderSettings)}
    settings |= {name: value for name, value in changes.items() if name in known}
    sizes |= {name: value for name, value in changes.items() if name not in known}
    return TGDTConfig(reader="photos", reader_settings=asdict(ReaderSettings(**settings)), **sizes)


def settings_of(config: TGDTConfig) -> ReaderSettings | None:
    """The settings of a model's readers; None for a model that does not read photographs."""
    return ReaderSettings(**config.reader_settings) if config.reader == "photos" else None


def readers(config: TGDTConfig) -> tuple[nn.Module, nn.Module]:
    """(reader of images, reader of captions); `model.readers` calls it."""
    return FeatureReader(config), WordFeatureReader(config)


class FeatureReader(RegionReader):
    """Features of regions or grid cells, with their boxes, to the image branch's first tokens.

    encoder: what makes such features of pictures, once `encoders.load.load_encoders` has loaded it.
    """

    encoder = None

    def __init__(self, config: TGDTConfig):
        super().__init__(config)
        self.settings = settings_of(config)
        # pretrained features come at any scale; around size one, branches learn several times
        # faster; with the norm after the layers, as in the released code, features stay as they are
        self.norm = nn.LayerNorm(config.image_features) if config.norm_first else nn.Identity()
        self.feature_dropout = DropFeatures(self.settings.image_feature_dropout)
        self.top = _top(self.settings.image_top)
        if self.settings.own_maps:
            for name, needed in NEEDED.items():
                if (value := getattr(config, name)) != needed:
                    raise ValueError(
                        f"{name} is {value!r} with own_maps True, which needs {needed!r}; "
                        "or use own_maps=False"
                    )
            self.norm = Normed(self.settings.image_power)
            sizes = config.image_features, config.image_width
            self.features, self.cell_features = nn.Linear(*sizes), nn.Linear(*sizes)

    def forward(self, batch: ImageTokens):
        """(tokens (B, 1 + R, width), mask (B, 1 + R)); ValueError for features of another width."""
        if not self.settings.own_maps:
            return super().forward(batch)
        self.check(batch)
        slot, cells = batch.pooled[:, None], batch.features
        if self.top is not None:
            seen = self._through_top(torch.cat([slot, cells], dim=1).float(), batch.mask)
            slot, cells = seen[:, :1], seen[:, 1:]
        slot = self.features(self.feature_dropout(self.norm(slot)))  # (B, 1, width)
        cells = self.cell_features(self.feature_dropout(self.norm(cells)))  # (B, R, width)
        boxes, mask = self.with_slot(batch)
        tokens = torch.cat([slot, cells], dim=1)
        if self.box_embedding is not None:
            tokens = tokens + self.box_embedding(waves(geometry(boxes), self.config.box_waves))
        return tokens, mask

    def prepare(self, features, mask):
        """Features (B, 1 + R, F) through the encoder's last layers, rooted, normed, some hidden."""
        features = features.float()
        if self.top is not None:
            features = self._through_top(features, mask)
        return self.feature_dropout(self.norm(rooted(features, self.settings.image_power)))

    def _through_top(self, features, mask):
        """Features (B, 1 + R, F) after the encoder's last layers."""
        # an encoder without a class token never saw slot 0: its top sees the cells only
        start = 1 - self.top.first
        real = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[:, start:]
        cells = self.top(features[:, start:], real)
        return cells if self.top.first else torch.cat([_mean(cells, mask), cells], dim=1)

    def cut(self, pictures: list):
        """The tokens of PIL pictures, by the encoder. ValueError if it has not been loaded."""
        if self.encoder is None:
            raise ValueError(
                "the model's encoder of pictures is not loaded; call "
                "tgdt_mini.encoders.load.load_encoders(model) first"
            )
        # few pictures stay in the cache of a CPU
        step = CPU_PICTURES if next(self.parameters()).device.type == "cpu" else PICTURES
        parts = [self.encoder(pictures[i : i + step]) for i in range(0, len(pictures), step)]
        names = [field.name for field in fields(ImageTokens)]
        return ImageTokens(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


class WordFeatureReader(nn.Module):
    """Features of word pieces to the text branch's first tokens."""

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.settings = settings_of(config)
        width = self.settings.text_features
        self.features = nn.Linear(width, config.text_width)
        self.norm = nn.LayerNorm(width)
        if self.settings.own_maps:
            self.norm, self.word_features = Normed(), nn.Linear(width, config.text_width)
        self.register_buffer(
            "stop_ids", torch.tensor(self.settings.stop_ids or []), persistent=False
        )
        self.feature_dropout = DropFeatures(self.settings.text_feature_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.top = _top(self.settings.text_top)

    def forward(self, batch: TextTokens):
        """(C, T, width). ValueError for captions without features, or of another width."""
        width = self.settings.text_features
        if batch.features is None or batch.features.shape[2] != width:
            seen = "none" if batch.features is None else batch.features.shape[2]
            raise ValueError(
                f"captions have {seen} features; this model was made for {width}: take them from a "
                "folder made by extract, or load its encoders with "
                "tgdt_mini.encoders.load.load_encoders"
            )
        features = batch.features.float()  # (C, T, E)
        if self.top is not None:
            features = self.top(features, batch.mask)
        if self.settings.text_slot == "mean":
            mean = _mean(features[:, 1:], batch.word_mask[:, 1:])  # (C, 1, E)
            features = torch.cat([mean, features[:, 1:]], dim=1)
        if not self.settings.own_maps:
            return self.dropout(self.features(self.feature_dropout(self.norm(features))))
        slot = self.features(self.feature_dropout(self.norm(features[:, :1])))  # (C, 1, width)
        words = self.word_features(self.feature_dropout(self.norm(features[:, 1:])))
        return self.dropout(torch.cat([slot, words], dim=1))

    def local_mask(self, batch: TextTokens):
        """(C, T) bool: all words but stop words; all words of a caption that has no other."""
        if not len(self.stop_ids):
            return batch.word_mask
        # torch.isin would make a GPU wait
        content = batch.word_mask & (batch.ids[..., None] != self.stop_ids).all(dim=-1)
        return torch.where(content.any(dim=1, keepdim=True), content, batch.word_mask)


class Normed(nn.Module):
    """Features rooted and normed, without weights: a linear map behind it can do what they would.

    Where nothing below learns, it keeps nothing for a backward pass.
    """

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def forward(self, features):
        """(B, L, F) float32 of features (B, L, F)."""
        with torch.set_grad_enabled(features.requires_grad and torch.is_grad_enabled()):
            return layer_norm(rooted(features.float(), self.power), features.shape[-1:])


class DropFeatures(nn.Dropout1d):
    """In training, hides a share p of an item's features from all of its tokens at once.

    Token by token, what is hidden in one region is seen in the next, and the best region of a word
    would be the one whose noise suits it.
    """

    def forward(self, tokens):
        """(B, L, F) of tokens (B, L, F)"""
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


def rooted(features, power: float):
    """sign(x) |x|^power of each number x."""
    if power == 1:
        return features
    if not features.requires_grad:
        root = features.abs()
        return torch.copysign(root.sqrt_() if power == 0.5 else root.pow_(power), features)
    # at 0 a root has no slope that could be learnt from
    return features.sign() * features.abs().clamp(min=1e-8) ** power


def _top(metadata):
    return None if metadata is None else TopLayers.rebuild(metadata)


def _mean(tokens, mask):
    """(B, 1, F) mean of the real tokens."""
    return (tokens * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
