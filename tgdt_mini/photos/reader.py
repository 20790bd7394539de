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

from tgdt_mini.config import TGDTConfig
from tgdt_mini.encoders.cutting import TopLayers
from tgdt_mini.model import RegionReader
from tgdt_mini.text_tokens import TextTokens


@dataclass(frozen=True)
class ReaderSettings:
    """What these readers need beside the sizes of `TGDTConfig`; JSON values."""

    text_features: int  # numbers that a word comes with
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
    What attention would bring to local tokens, they get from slot 0 as it is (`global_residual`).
    The square root keeps few strong features from drowning the rest (power normalisation, Perronnin
    et al., ECCV 2010).
    """
    sizes = dict(
        width=256,
        local_layers=0,
        global_layers=0,
        global_residual=3.0,
        image_hidden=0,
        image_width=256,
        text_width=256,
        text_window=0,
    )
    settings = dict(image_power=0.5, image_feature_dropout=0.5, text_feature_dropout=0.3)
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

    def prepare(self, features, mask):
        """Features (B, 1 + R, F) through the encoder's last layers, rooted, normed, some hidden."""
        features = features.float()
        if self.top is not None:
            # an encoder without a class token never saw slot 0: its top sees the cells only
            start = 1 - self.top.first
            real = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[:, start:]
            cells = self.top(features[:, start:], real)
            features = cells if self.top.first else torch.cat([_mean(cells, mask), cells], dim=1)
        power = self.settings.image_power
        if power != 1:  # at 0 a root has no slope that could be learnt from
            features = features.sign() * features.abs().clamp(min=1e-8) ** power
        return self.feature_dropout(self.norm(features))

    def cut(self, pictures: list):
        """The tokens of PIL pictures, by the encoder. ValueError if it has not been loaded."""
        if self.encoder is None:
            raise ValueError(
                "the model's encoder of pictures is not loaded; call "
                "tgdt_mini.encoders.load.load_encoders(model) first"
            )
        return self.encoder(pictures)


class WordFeatureReader(nn.Module):
    """Features of word pieces to the text branch's first tokens."""

    def __init__(self, config: TGDTConfig):
        super().__init__()
        self.settings = settings_of(config)
        width = self.settings.text_features
        self.features = nn.Linear(width, config.text_width)
        self.norm = nn.LayerNorm(width)
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
        return self.dropout(self.features(self.feature_dropout(self.norm(features))))


class DropFeatures(nn.Dropout1d):
    """In training, hides a share p of an item's features from all of its tokens at once.

    Token by token, what is hidden in one region is seen in the next, and the best region of a word
    would be the one whose noise suits it.
    """

    def forward(self, tokens):
        """(B, L, F) of tokens (B, L, F)"""
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


def _top(metadata):
    return None if metadata is None else TopLayers.rebuild(metadata)


def _mean(tokens, mask):
    """(B, 1, F) mean of the real tokens."""
    return (tokens * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
