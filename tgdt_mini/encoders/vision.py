"""Grid cells of a pretrained encoder: any transformers vision model with patch tokens.

The lower part of the encoder (see `load.py`) is run here. A cell's box is the square of the picture
that it stands for. Pictures are resized to the encoder's square input whatever their shape: nothing
is cropped away, so that a box can be anywhere, and things look squashed.
"""

import math

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from tgdt_mini.data import ImageTokens, check_pictures
from tgdt_mini.encoders import LITE, lite
from tgdt_mini.encoders.cutting import run_lower, split_top
from tgdt_mini.encoders.pretrained import (
    key_of,
    lasting_source,
    load,
    preprocessing,
    takes_patches,
)
from tgdt_mini.files.check import one_line

# tokens before the cells: a class token and a few registers; with more the grid is misread
MOST_PREFIX = 8


class VisionBackbone:
    """The frozen part of a vision encoder: pictures to the features and boxes of grid cells.

    source: LITE, or a folder or hub name of a model that gives patch tokens (ViT, DINOv2, CLIP,
    SigLIP ...). The features of the whole image are the class token where there is one, else the
    mean of the cells.
    trained_layers: how many of its last layers are cut off, to be trained (`top`).
    grid: the cells are averaged to grid x grid larger ones, which overlap where the sides do not
    divide; 0 keeps them as they are.
    side: pixels of the square that pictures are resized to, where the encoder does not fix it
    (LITE); 0 for its usual side.
    stages: of LITE's cells, what its last so many stages saw there, side by side; see `lite.py`.
    0 for its last layer alone.
    mirrored: the mean of what it sees in a picture and in its mirror image, turned back.
    bfloat16: it multiplies in bfloat16, which takes less than half of the time on a processor that
    has it. What it sees differs a little: `docs/photographs.md` says how much.
    `metadata` describes it, with the key of its weights. ValueError for settings that do not go
    together, and for an encoder without a square grid.
    """

    def __init__(
        self,
        source: str,
        trained_layers: int = 0,
        grid: int = 0,
        side: int = 0,
        mirrored: bool = False,
        stages: int = 0,
        bfloat16: bool = False,
        device="cpu",
    ):
        self.source, self.device = lasting_source(source), torch.device(device)
        self.trained_layers, self.grid, self.mirrored = trained_layers, grid, mirrored
        self.stages, self.bfloat16 = stages, bfloat16
        self.top, self.prefix, self.aligned = None, 0, None
        if self.source == LITE:
            self._load_lite(side)
        else:
            self._load(side)
        self._check_settings()
        settings = dict(trained_layers=trained_layers, grid=grid, side=side, mirrored=mirrored)
        if stages:
            settings |= {"stages": stages}
        if bfloat16:
            settings |= {"bfloat16": True}
        seen = [self.side, self.mean.tolist(), self.std.tolist(), *(["mirrored"] * mirrored)]
        seen += [f"{stages} stages"] * (stages > 0) + ["bfloat16"] * bfloat16
        key = key_of(self.model, trained_layers, grid, *seen)
        self.metadata = {"source": self.source} | settings | {"key": key}
        if self.trained_layers:
            self.aligned = None  # what goes into a layer is not in the space of both towers
        if self.aligned:
            self.aligned.projection.to(self.device)
            self.metadata["aligned"] = self.aligned.key

    def _load_lite(self, side):
        if self.trained_layers:
            raise ValueError(
                f"trained_layers is {self.trained_layers}; {LITE} has no transformer layers, use 0"
            )
        if side and side < lite.LEAST_SIDE:
            raise ValueError(
                f"side is {side}; {LITE} needs pictures of {lite.LEAST_SIDE} pixels or more"
            )
        self.lite = lite.Stages(self.stages, self.device)
        self.model, self.width, self.side = (
            self.lite.model,
            self.lite.width,
            side or lite.USUAL_SIDE,
        )
        self.mean, self.std = torch.full((3,), lite.MEAN), torch.full((3,), lite.STD)

    def _load(self, side):
        if self.stages:
            raise ValueError(f"stages is {self.stages}, which is for {LITE} only; use 0")
        self.model, self.aligned = load(self.source, "vision")
        self.model = self.model.to(self.device)
        self.side, self.mean, self.std = preprocessing(self.source, self.model.config)
        if side not in (0, self.side):
            raise ValueError(
                f"side is {side}, but {self.source} reads pictures of {self.side} pixels; use 0"
            )
        example = self._try_encoder()
        if self.prefix > 1 and self.trained_layers:
            raise ValueError(
                f"trained_layers is {self.trained_layers}, but {self.source} has {self.prefix} "
                "tokens before its cells, of which only the class token is kept; use 0"
            )
        self.top = split_top(self.model, self.trained_layers, example, first=self.prefix)

    def _check_settings(self):
        layers = self.trained_layers
        if self.grid < 0 or (self.grid and layers):
            raise ValueError(
                f"grid is {self.grid} and trained_layers {layers}; cells are averaged to a grid of "
                "1 or more, and only where no layer is left to be trained: use --grid 0, "
                "or --vision-layers 0"
            )
        if self.mirrored and layers:
            raise ValueError(
                f"mirrored is True and trained_layers {layers}; what goes into a layer is no mean "
                "of two pictures: leave out --mirrored, or use --vision-layers 0"
            )

    @torch.no_grad()
    def _try_encoder(self):
        """The inputs of two drawn pictures that the encoder reads; finds its width and prefix.

        ValueError if it cannot read them or gives no square grid.
        """
        seeded = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, 3, self.side, self.side, generator=seeded).to(self.device)
        try:
            tokens = run_lower(self.model, 0, **self._inputs_of(pixels))
        except Exception as error:  # another kind of model fails in many ways
            raise ValueError(
                f"{self.source} does not read pictures of {self.side} x {self.side} by themselves "
                f"({one_line(error)}); use a vision model"
            ) from error
        cells = _count_cells(tokens, self.side, self.model.config) if tokens.dim() == 3 else 0
        if not cells:
            raise ValueError(
                f"{self.source} gives {tuple(tokens.shape)}, "
                "not the tokens of a square grid of patches"
            )
        self.width, self.prefix = tokens.shape[2], tokens.shape[1] - cells
        return self._inputs_of(pixels)

    def _inputs_of(self, pixels):
        """What the encoder is given of pixels (B, 3, side, side)."""
        if not takes_patches(self.model.config):
            return {"pixel_values": pixels}
        patch, cells = self.model.config.patch_size, self.side // self.model.config.patch_size
        rows = pixels.unflatten(3, (cells, patch)).unflatten(2, (cells, patch))
        patches = rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, R, patch^2 * 3)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
        shapes = torch.full((len(pixels), 2), cells, device=pixels.device)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": mask,
            "spatial_shapes": shapes,
        }

    def pixels(self, images: list) -> torch.Tensor:
        """(B, 3, side, side) float: PIL pictures, resized and normalised as in its pretraining."""
        from PIL import Image

        check_pictures(images := list(images))
        if not images:
            raise ValueError("images is empty; give one picture at least")
        size, way = (self.side, self.side), Image.Resampling.BICUBIC
        small = [np.asarray(image.convert("RGB").resize(size, way)) for image in images]
        pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    def __call__(self, images: list) -> ImageTokens:
        """The grid tokens of PIL pictures."""
        return self.see(images)[0]

    @torch.no_grad()
    def see(self, images: list) -> tuple[ImageTokens, torch.Tensor | None]:
        """(grid tokens of PIL pictures, (B, P) each in the space of both towers, if there are)."""
        pixels = self.pixels(images).to(self.device)
        cells, whole, aligned = self._see(pixels)  # (B, R, F), (B, F), (B, P)
        if self.mirrored:
            mirror_cells, mirror_whole, _ = self._see(pixels.flip(3))
            cells, whole = (cells + turned(mirror_cells)) / 2, (whole + mirror_whole) / 2
        boxes = grid_boxes(cells.shape[1])
        if self.grid:
            cells, boxes = larger_cells(cells, self.grid)
        boxes = boxes.to(self.device).expand(len(cells), -1, -1)
        mask = torch.ones(cells.shape[:2], dtype=torch.bool, device=self.device)
        return ImageTokens(cells, boxes, mask, whole), aligned

    def _see(self, pixels):
        """(cells (B, R, F), the whole image (B, F), in the space of both towers (B, P) or None)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            seen = self._run(pixels)
        return tuple(part if part is None else part.float() for part in seen)

    def _run(self, pixels):
        if self.source == LITE:
            return *self.lite(pixels), None
        aligned = None
        if self.aligned:
            output = self.model(**self._inputs_of(pixels))
            tokens = output.last_hidden_state
            aligned = normalize(self.aligned.projection(output.pooler_output), dim=-1)
        else:
            tokens = run_lower(self.model, self.trained_layers, **self._inputs_of(pixels))
        cells = tokens[:, self.prefix :]
        return cells, tokens[:, 0] if self.prefix else cells.mean(dim=1), aligned


def grid_boxes(cells: int) -> torch.Tensor:
    """(R, 4) boxes of a square grid's cells, row by row, as fractions.

    Of 4 cells the second is (0.5, 0, 1, 0.5). ValueError for a number that is no square.
    """
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(
            f"{cells} cells make no square grid; choose an encoder with a square input"
        )
    row, column = torch.arange(cells) // side, torch.arange(cells) % side
    return torch.stack([column, row, column + 1, row + 1], dim=1) / side


def turned(cells: torch.Tensor) -> torch.Tensor:
    """(B, R, F) the cells of a square grid, left to right: the order of 4 is then 1, 0, 3, 2."""
    side = math.isqrt(cells.shape[1])
    return cells.unflatten(1, (side, side)).flip(2).flatten(1, 2)


def larger_cells(cells: torch.Tensor, grid: int):
    """((B, G, F) means, (G, 4) boxes) of cells (B, R, F) averaged to G = grid * grid.

    Torch's adaptive pooling does it: of 7 cells a side, 4 larger ones are those of cells 0-1, 1-3,
    3-5 and 5-6. ValueError for a grid finer than it was.
    """
    side = math.isqrt(cells.shape[1])
    if grid > side:
        raise ValueError(
            f"grid is {grid}, but the encoder has {side} x {side} cells; use {side} or fewer"
        )
    square = cells.transpose(1, 2).unflatten(2, (side, side))  # (B, F, side, side)
    means = adaptive_avg_pool2d(square, grid).flatten(2).transpose(1, 2)  # (B, G, F)
    first = torch.arange(grid) * side // grid
    last = -(-(torch.arange(grid) + 1) * side // grid)  # rounded up
    row, column = torch.arange(grid * grid) // grid, torch.arange(grid * grid) % grid
    return means, torch.stack([first[column], first[row], last[column], last[row]], dim=1) / side


def _count_cells(tokens, side, config):
    """How many of an encoder's tokens (B, L, F), at its end, are cells of a square grid.

    The patch size says it, but for encoders that merge patches: they are taken to have no other
    token. 0 if it cannot be said.
    """
    count, patch = tokens.shape[1], getattr(config, "patch_size", None)
    patch = set(patch) if isinstance(patch, list | tuple) else {patch}
    if len(patch) == 1 and isinstance(size := next(iter(patch)), int):
        cells = (side // size) ** 2
        if 0 <= count - cells <= MOST_PREFIX:
            return cells
    if patch != {None}:
        return count if math.isqrt(count) ** 2 == count else 0
    squares = (count - first for first in range(MOST_PREFIX + 1))  # of timm, which does not say it
    return next((cells for cells in squares if 0 < cells == math.isqrt(cells) ** 2), 0)
