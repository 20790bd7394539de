"""Pretrained encoders as the source of tokens: words from any transformers text model, grid cells from a vision model.

An encoder is cut in two. What lies below the cut is frozen: it runs once for each picture or caption, and its output is
kept on disk (see `features.py`). The `trained_layers` above the cut become a part of the TGDT model, begin with
the pretrained weights and are trained with everything else; 0 freezes the whole encoder, and as many as it has trains
all of it but the embeddings. So fine-tuning costs what its layers cost, and training reads one kind of batch.

A grid cell's box is the square of the picture that it stands for. Pictures are resized to the encoder's square input
whatever their shape: nothing is cropped away, so that a box can be anywhere, and things look squashed. No loss here.
"""

import copy
import math

import numpy as np
import torch

from tgdt_mini.cutting import below, cut, layers_of
from tgdt_mini.data import ImageTokens
from tgdt_mini.pretrained import LITE, MINILM, key_of, lite, load, minilm, one_line, preprocessing
from tgdt_mini.text_tokens import TextTokenizer, TextTokens

MOST_PREFIX = 8  # tokens before the cells: a class token and a few registers; more would be a grid misread


class TextBackbone:
    """The frozen part of a text encoder: captions to ids, mask and the features (C, T, width) of each token.

    source: MINILM, or a folder or hub name that transformers' AutoModel loads. layers: only its first so many, as the
    paper takes 6 of BERT's 12; 0 for all. trained_layers: how many of those are cut off, to be trained (`top`).
    states: each token's features are what its last so many layers made of it, side by side, the last layer's last.
    It stands in for a TextTokenizer wherever a model has features of words. ValueError if nothing can be loaded, or
    what is loaded does not read captions, both ways.
    """

    def __init__(self, source: str, trained_layers: int = 0, layers: int = 0, states: int = 1,
                 most_tokens: int = 40, device="cpu"):  # fmt: skip
        self.source, self.trained_layers, self.device = str(source), trained_layers, torch.device(device)
        self.states = states
        where = minilm() if self.source == MINILM else self.source
        self.model = load(where).to(self.device)
        self.tokenizer = _tokenizer(where, most_tokens)
        self.pieces, self.to_json = self.tokenizer.pieces, self.tokenizer.to_json
        positions = getattr(self.model.config, "max_position_embeddings", None) or 0
        if 0 < positions < most_tokens:
            raise ValueError(f"most_tokens is {most_tokens}; {source} reads {positions} tokens at most")
        if layers:
            _keep_first(self.model, layers)
        example, mask = self._check()
        self.top = cut(self.model, trained_layers, example, mask, first=0)
        self._check_states()
        about = dict(source=self.source, trained_layers=trained_layers, layers=layers, states=states,
                     most_tokens=most_tokens)  # fmt: skip
        settings = {name: value for name, value in about.items() if name != "source"}
        self.about = about | {"key": key_of(self.model, settings, self.tokenizer.to_json())}

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> TextTokens:
        """Captions as ids and features; errors as in `TextTokenizer`."""
        tokens = self.tokenizer(captions).to(self.device)
        if self.states > 1:
            states = self.model(**_inputs(tokens), output_hidden_states=True).hidden_states
            found = torch.cat(states[-self.states :], dim=2)  # (C, T, states * hidden)
        else:
            found = below(self.model, self.trained_layers, **_inputs(tokens))
        return TextTokens(tokens.ids, tokens.mask, tokens.words, found)

    def _check_states(self):
        layers = len(layers_of(self.model)) if self.states > 1 else 1
        if not 1 <= self.states <= layers:
            raise ValueError(f"states is {self.states}; {self.source} has {layers} layers, use 1 to {layers}")
        if self.states > 1 and self.trained_layers:
            raise ValueError(
                f"states is {self.states} and trained_layers {self.trained_layers}: layers that are trained have no "
                "states to keep; use states=1, or trained_layers=0"
            )
        self.width = self.width * self.states

    @torch.no_grad()
    def _check(self):
        """(inputs, mask) of two captions that the encoder reads as it must; ValueError if it does not.

        What pads a caption must not change it, and its first token must have seen the others: TGDT makes it the global
        token.
        """
        words = copy.copy(self.tokenizer)
        words.most_tokens = max(32, words.most_tokens)  # else both may be cut to the same
        tokens = words(["a few words", "a few words about a photograph"]).to(self.device)
        if len(tokens.ids[tokens.words].unique()) == 1:  # transformers makes up a tokenizer where files are missing
            raise ValueError(f"the tokenizer of {self.source} knows no words; put its files beside the weights")
        try:
            alone, both = (below(self.model, 0, **_inputs(some)) for some in (tokens[:1], tokens))
        except Exception as error:  # whatever another kind of model raises
            raise ValueError(
                f"{self.source} does not read captions by themselves ({one_line(error)}); use a text encoder"
            ) from error
        if torch.allclose(both[0, 0], both[1, 0], rtol=1e-5, atol=1e-6):
            raise ValueError(
                f"the first token of {self.source} sees none after it; choose an encoder that reads both ways"
            )
        if not torch.allclose(both[0, : alone.shape[1]], alone[0], rtol=1e-3, atol=1e-3):
            raise ValueError(f"in {self.source} padding changes a caption's tokens; choose an encoder that masks it")
        self.width = both.shape[2]
        return _inputs(tokens), tokens.mask


class VisionBackbone:
    """The frozen part of a vision encoder: pictures to the features of their grid cells, each with its box.

    source: LITE, or a folder or hub name of a model that gives patch tokens (ViT, DINOv2, CLIP, SigLIP ...). The whole
    image's features are the class token where there is one, else the mean of the cells. grid: the cells are averaged
    to grid x grid larger ones, which overlap where the sides do not divide; 0 keeps them as they are.
    """

    def __init__(self, source: str, trained_layers: int = 0, grid: int = 0, device="cpu"):
        self.source, self.trained_layers, self.device = str(source), trained_layers, torch.device(device)
        self.top, self.prefix = None, 0
        if self.source == LITE:
            if trained_layers:
                raise ValueError(f"trained_layers is {trained_layers}; {LITE} has no transformer layers, use 0")
            self.model, self.width, self.side = lite().to(self.device), 1280, 224
            self.mean, self.std = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)
        else:
            self.model = load(self.source, vision=True).to(self.device)
            self.side, self.mean, self.std = preprocessing(self.source, self.model.config)
            example = self._check()
            if self.prefix > 1 and trained_layers:
                raise ValueError(
                    f"trained_layers is {trained_layers}, but {source} has {self.prefix} tokens before its cells, of "
                    "which only the class token is kept; use 0"
                )
            self.top = cut(self.model, trained_layers, example, first=self.prefix)
        if grid < 0 or (grid and trained_layers):
            raise ValueError(
                f"grid is {grid} and trained_layers {trained_layers}; cells are averaged to a grid of 1 or more, and "
                "only where no layer is left to be trained: use grid=0, or trained_layers=0"
            )
        self.grid = grid
        about = dict(source=self.source, trained_layers=trained_layers, grid=grid)
        self.about = about | {
            "key": key_of(self.model, trained_layers, grid, self.side, self.mean.tolist(), self.std.tolist())
        }

    @torch.no_grad()
    def _check(self):
        """The inputs of two drawn pictures that the encoder reads; width and prefix found. ValueError if it cannot."""
        draw = torch.randn(2, 3, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(self.device)
        try:
            tokens = below(self.model, 0, pixel_values=draw)
        except Exception as error:  # whatever another kind of model raises
            raise ValueError(
                f"{self.source} does not read pictures of {self.side} x {self.side} by themselves ({one_line(error)}); "
                "use a vision model"
            ) from error
        cells = _cells(tokens.shape[1], self.side, self.model.config) if tokens.dim() == 3 else 0
        if not cells:
            raise ValueError(f"{self.source} gives {tuple(tokens.shape)}, not the tokens of a square grid of patches")
        self.width, self.prefix = tokens.shape[2], tokens.shape[1] - cells
        return {"pixel_values": draw}

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
        boxes = grid_boxes(cells.shape[1])
        if self.grid:
            cells, boxes = larger_cells(cells, self.grid)
        boxes = boxes.to(self.device).expand(len(cells), -1, -1)
        return ImageTokens(cells, boxes, torch.ones(cells.shape[:2], dtype=torch.bool, device=self.device), whole)


def grid_boxes(cells: int) -> torch.Tensor:
    """(P, 4) boxes of a square grid's cells, row by row, as fractions. Of 4 cells the second is (0.5, 0, 1, 0.5)."""
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(f"{cells} cells make no square grid; choose an encoder with a square input")
    row, column = torch.arange(cells) // side, torch.arange(cells) % side
    return torch.stack([column, row, column + 1, row + 1], dim=1) / side


def larger_cells(cells: torch.Tensor, grid: int):
    """((B, G, F) means, (G, 4) boxes) of cells (B, P, F) averaged to G = grid * grid, as torch's adaptive pooling does.

    Of 7 cells a side, 4 larger ones are those of cells 0-1, 1-3, 3-5 and 5-6. ValueError for a grid finer than it was.
    """
    side = math.isqrt(cells.shape[1])
    if grid > side:
        raise ValueError(f"grid is {grid}, but the encoder has {side} x {side} cells; use {side} or fewer")
    square = cells.transpose(1, 2).unflatten(2, (side, side))  # (B, F, side, side)
    means = torch.nn.functional.adaptive_avg_pool2d(square, grid).flatten(2).transpose(1, 2)  # (B, G, F)
    first = torch.arange(grid) * side // grid
    last = -(-(torch.arange(grid) + 1) * side // grid)
    row, column = torch.arange(grid * grid) // grid, torch.arange(grid * grid) % grid
    return means, torch.stack([first[column], first[row], last[column], last[row]], dim=1) / side


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
    source = model.config.image_source
    if source:
        model.vision = _refusal(source) if "regions" in source else rebuild(VisionBackbone, source, device)


def _refusal(source):
    """What stands for the encoder of a model that reads a detector's features: the detector is not here."""

    def refuse(_):
        raise ValueError(
            f"the model reads regions that a detector ({source['source']}) found, and no detector is run here: "
            "extract its files with --detections, and use --features"
        )

    return refuse


def _inputs(tokens):
    return {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}


def _cells(tokens, side, config):
    """How many of an encoder's tokens are cells of a square grid, at its end; 0 if that cannot be said.

    The patch size says it, but for encoders that merge patches: they are taken to have no other token.
    """
    patch = getattr(config, "patch_size", None)
    patch = set(patch) if isinstance(patch, list | tuple) else {patch}
    if len(patch) == 1 and isinstance(size := patch.pop(), int):
        cells = (side // size) ** 2
        if 0 <= tokens - cells <= MOST_PREFIX:
            return cells
    return tokens if math.isqrt(tokens) ** 2 == tokens else 0


def _keep_first(model, layers):
    """Leave only the first layers of an encoder."""
    stack = layers_of(model)
    if not 0 < layers <= len(stack):
        raise ValueError(f"layers is {layers}; {type(model).__name__} has {len(stack)}, so use 1 to {len(stack)}")
    del stack[layers:]
    model.config.num_hidden_layers = layers


def _tokenizer(where, most_tokens):
    try:
        return TextTokenizer.from_pretrained(where, most_tokens)
    except OSError as error:
        raise ValueError(f"no tokenizer could be loaded from {where}: {one_line(error)}") from error
