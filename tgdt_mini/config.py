"""The sizes and choices of a model, and the device that it runs on.

With the weights, a `TGDTConfig` is all that `load_model` needs. Two presets: `mini()` for the drawn
scenes, and `paper()` with the sizes of the released code (LCFractal/TGDT). How a model is trained
is no part of it: see `training_config.py`.
"""

import warnings
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from tgdt_mini.files.check import one_of, real_number, shown, true_or_false, whole_number
from tgdt_mini.image_tokens import REGION_WIDTH, SIDE

CHOICES = {
    "image_slot": ("whole", "zero"),
    "image_tokens": ("regions", "things", "patches"),
    "reader": ("pixels", "photos"),
}
MAY_BE_0 = ("layers", "waves", "window", "hidden")  # how the names of such sizes end
MOST_PARAMETERS = 10**10
SHARES = ("dropout", "neighbour_dropout")


@dataclass(frozen=True)
class TGDTConfig:
    """Every size of a model. Example: `TGDTConfig.mini(width=64)`.

    ValueError for a width that its heads do not divide, or a value that is none of the choices.
    """

    # the common space, where both branches end
    width: int = 128
    heads: int = 4
    feedforward: int = 256
    local_layers: int = 1  # up to the local tokens
    image_local_layers: int | None = None  # of the image branch; None: as many as local_layers
    global_layers: int = 1  # on top of them, up to the global token
    neighbour_dropout: float = 0.0  # share of items whose tokens see no neighbours, in training
    global_residual: float = 0.0  # how much of slot 0 is added to each local token
    # the image branch before the common space
    image_tokens: str = "regions"  # things and the ground; only "things"; "patches" of a grid
    image_side: int = SIDE  # pixels; a picture of another size is resized to a square of it
    image_features: int = REGION_WIDTH  # numbers that describe a region
    image_hidden: int = 256  # of the perceptron that reads them; 0: one linear layer instead
    box_waves: int = 4  # sines and cosines of each box number; 0 as in the released code
    image_slot: str = "whole"  # slot 0 begins with the whole picture, or with "zero" (released)
    image_width: int = 128
    image_layers: int = 0
    image_heads: int = 4
    image_feedforward: int = 256
    # the text branch before the common space
    vocabulary: int = 400
    most_tokens: int = 40
    text_width: int = 128
    text_window: int = 9  # neighbouring words that each word reads before attention; 0 as in BERT
    text_layers: int = 0
    text_heads: int = 4
    text_feedforward: int = 256
    # both
    dropout: float = 0.0
    norm_first: bool = True  # learns faster from scratch; the released code has the norm after
    # who turns a batch into tokens: the readers of model.py, or those of photos/ for photographs
    reader: str = "pixels"
    reader_settings: dict | None = None  # what such a reader needs (JSON values)

    @classmethod
    def mini(cls, **changes: Any) -> "TGDTConfig":
        """About 1.5 million parameters, for the drawn scenes.

        A local token stands for one region or one word. Two settings keep it so: regions are not
        mixed before they are compared with words, and three in ten captions of a batch skip the
        attention before their local tokens.
        """
        sizes = dict(image_hidden=512, image_local_layers=0, global_layers=2, neighbour_dropout=0.3)
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "TGDTConfig":
        """The released code's sizes: 4 image layers, 6 of BERT's, a common space of 1,024."""
        common = dict(width=1024, heads=4, feedforward=2048, local_layers=2, global_layers=2)
        image = dict(
            image_features=2048,  # bottom-up attention of a Faster R-CNN
            image_hidden=2048,
            image_slot="zero",
            image_width=2048,
            image_layers=4,
            image_feedforward=2048,
            box_waves=0,
        )
        text = dict(
            vocabulary=30522,
            most_tokens=512,
            text_width=768,
            text_window=0,
            text_layers=6,
            text_heads=12,
            text_feedforward=3072,
        )
        both = dict(dropout=0.1, norm_first=False)
        sizes: dict[str, Any] = common | image | text | both
        return cls(**(sizes | changes))

    @classmethod
    def from_dict(cls, values: dict, where: str = "") -> "TGDTConfig":
        """A configuration read from JSON. ValueError names a key that is not known here.

        where: the beginning of an error, such as the name of the file.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"{where}unknown model setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None

    def to_dict(self) -> dict:
        """JSON values; `from_dict` reads them back."""
        return asdict(self)

    def __post_init__(self):
        for name, kind in {field.name: field.type for field in fields(self)}.items():
            value = getattr(self, name)
            if kind in (int, int | None) and not (value is None and kind is not int):
                least = 0 if name.endswith(MAY_BE_0) else 1
                whole_number(name, value, least, 1000 if name.endswith("layers") else None)
            if kind is float:
                real_number(name, value)
            if kind is bool:
                true_or_false(name, value)
        if not isinstance(self.reader_settings, dict | None):
            raise ValueError(
                f"reader_settings is {shown(self.reader_settings)}; give names, or None"
            )
        for modality in ("", "image_", "text_"):
            width, heads = getattr(self, f"{modality}width"), getattr(self, f"{modality}heads")
            if width % heads:  # each head of attention gets an equal part of the width
                raise ValueError(
                    f"{modality}width is {width}; it must be a multiple of {modality}heads, {heads}"
                )
        for name, known in CHOICES.items():
            one_of(name, getattr(self, name), known)
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:  # NaN fails too
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        if not 0 <= self.global_residual < float("inf"):
            raise ValueError(
                f"global_residual is {self.global_residual}; it is a weight, 0 or more"
            )
        if (size := self._least_parameters()) > MOST_PARAMETERS:
            raise ValueError(
                f"a model of these sizes has more than {size:,} parameters; the most is "
                f"{MOST_PARAMETERS:,}: is a number too long?"
            )

    def _least_parameters(self):
        """How many numbers the large matrices have, those of each layer and of what is read."""
        size = self.vocabulary * self.text_width + self.most_tokens * self.text_width
        size += self.image_features * (self.image_hidden or self.image_width)
        size += (self.text_window * self.text_width + self.box_waves) * self.text_width
        local = self.local_layers + (self.image_local_layers or self.local_layers)
        for layers, width, feedforward in (
            (local + 2 * self.global_layers, self.width, self.feedforward),
            (self.image_layers, self.image_width, self.image_feedforward),
            (self.text_layers, self.text_width, self.text_feedforward),
        ):
            size += layers * (4 * width * width + 2 * width * feedforward)
        return size


def pick_device(name: torch.device | str = "auto") -> torch.device:
    """The device of a name; auto is cuda where there is one, else cpu. ValueError if none is.

    mps is taken only when asked for, with a warning: no result of this project was checked on it.
    """
    if not isinstance(name, str | torch.device):
        raise ValueError(f"device is {shown(name)}; it must be auto, or a name such as cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"device is {shown(name)}, which this machine cannot use ({why}); try cpu"
        ) from error
    if isinstance(name, str) and torch.device(name).type == "mps":
        warnings.warn(
            "device mps: results were not verified there; compare with --device cpu before you "
            "trust them"
        )
    return torch.device(name)
