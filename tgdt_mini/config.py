"""Every size and choice of a model, as values that JSON can hold: what `load_model` needs beside
the weights.

Three presets: `mini()` for the drawn scenes, `photos()` for features of pretrained encoders, and
`paper()` with the sizes of the released code (LCFractal/TGDT). How a model is trained is no part of
it: that is in `training_config.py`.
"""

from dataclasses import asdict, dataclass, fields

from tgdt_mini.image_tokens import REGION_WIDTH


@dataclass(frozen=True)
class TGDTConfig:
    """Every size of a model. `mini()` for the drawn scenes, `paper()` for the released code's
    sizes.
    """

    width: int = 128  # of the common space
    heads: int = 4
    feedforward: int = 256
    local_layers: int = 1  # in the common space, up to the local tokens
    image_local_layers: int | None = (
        None  # the same for the image branch alone; None: as many as local_layers
    )
    global_layers: int = 1  # on top of them, up to the global token
    # how much of slot 0 is added to each local token: what attention brings, without its weights
    context: float = 0.0
    alone: float = (
        0.0  # share of items whose local layers, in training, let no token see its neighbours
    )
    image_features: int = REGION_WIDTH  # numbers a region comes with
    image_power: float = (
        1.0  # each of those numbers becomes sign(x) |x|^image_power before the branch reads it
    )
    image_hidden: int = (
        256  # of the two-layer perceptron that reads them; 0 for a single linear layer
    )
    box_waves: int = (
        4  # sines and cosines of each box number, at so many frequencies; 0 as in the released code
    )
    image_width: int = 128
    image_layers: int = 0  # of the modality's own, before the common space
    image_heads: int = 4
    image_feedforward: int = 256
    image_slot: str = (
        "whole"  # slot 0 of an image: its whole-image features, or "zero" as in the released code
    )
    vocabulary: int = 400
    most_tokens: int = 40
    text_width: int = 128
    # words that each word sees before attention, itself in the middle; 0 for none, as in BERT
    text_window: int = 9
    text_layers: int = 0
    text_heads: int = 4
    text_feedforward: int = 256
    dropout: float = 0.0
    # layer norm before attention learns faster from scratch; the released code has it after
    norm_first: bool = True
    image_tokens: str = (
        "regions"  # or "patches": how pixels are cut, kept here so that a query is cut the same way
    )
    image_source: dict | None = (
        None  # what describes the pretrained encoder of pictures (see encoders/load.py), if any
    )
    text_source: dict | None = None  # the same for captions
    # slot 0 of a caption with features: those of its start token, or the "mean" of its words
    text_slot: str = "start"
    text_features: int = 0  # numbers that each token comes with; 0: words of the model's own
    image_top: dict | None = None  # last layers of image_source, trained here; None: it is frozen
    text_top: dict | None = None  # the same of text_source
    image_feature_dropout: float = (
        0.0  # of the numbers that regions come with, the same ones in a whole image
    )
    text_feature_dropout: float = (
        0.0  # of those that words come with, the same ones in a whole caption
    )

    @classmethod
    def mini(cls, **changes) -> "TGDTConfig":
        """About one million parameters, for the embedded scenes.

        A local token stands for one region or one word, and is trained to keep to it: regions are
        not mixed before they are compared with words, and half of the captions of a batch leave out
        attention before their local tokens.
        """
        return cls(**(dict(image_local_layers=0, global_layers=2, alone=0.5) | changes))

    @classmethod
    def photos(cls, **changes) -> "TGDTConfig":
        """For image_features and text_features of pretrained encoders; the sizes were chosen on
        Flickr8k's dev split.

        With some thousand pictures, layers learn them by heart; so do linear maps, until half of
        the features are hidden from them at each step. What attention would bring to local tokens,
        they get from slot 0 as it is. The square root keeps few strong features from drowning the
        rest (power normalisation, Perronnin et al., ECCV 2010).
        """
        sizes = dict(
            width=256,
            local_layers=0,
            global_layers=0,
            image_hidden=0,
            image_width=256,
            text_width=256,
            text_window=0,
            text_slot="mean",
            context=3.0,
            image_tokens="features",
            image_feature_dropout=0.5,
            text_feature_dropout=0.3,
            image_power=0.5,
        )
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes) -> "TGDTConfig":
        """The released code's sizes: 2048-d regions, 4 image layers, 6 BERT-sized text layers,
        1024-d common space.
        """
        sizes = dict(
            width=1024,
            heads=4,
            feedforward=2048,
            local_layers=2,
            global_layers=2,
            image_features=2048,
            image_hidden=2048,
            image_width=2048,
            image_layers=4,
            image_heads=4,
            image_feedforward=2048,
            image_slot="zero",
            box_waves=0,
            vocabulary=30522,
            most_tokens=512,
            text_width=768,
            text_window=0,
            text_layers=6,
            text_heads=12,
            text_feedforward=3072,
            dropout=0.1,
            norm_first=False,
        )
        return cls(**(sizes | changes))

    @classmethod
    def from_dict(cls, values: dict) -> "TGDTConfig":
        """A configuration read from JSON. ValueError names a key that this version does not
        know.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown model setting {unknown[0]!r}; known settings are {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_dict(self) -> dict:
        return asdict(self)

    def __post_init__(self):
        for width, heads in (
            ("width", "heads"),
            ("image_width", "image_heads"),
            ("text_width", "text_heads"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} is {getattr(self, width)}; it must be a multiple of {heads}, {getattr(self, heads)}"
                )
        if not 0 <= self.alone <= 1:
            raise ValueError(f"alone is {self.alone}; it is a share, from 0 to 1")
        if self.image_power <= 0:
            raise ValueError(
                f"image_power is {self.image_power}; it must be above 0, and 1 changes nothing"
            )
        if self.context < 0:
            raise ValueError(f"context is {self.context}; it is a weight of slot 0, 0 or more")
        for name, choices in (
            ("image_slot", ("whole", "zero")),
            ("text_slot", ("start", "mean")),
            ("image_tokens", ("regions", "patches", "features")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}"
                )
