"""One batch shape for every source of images, and one set of tokens for training and evaluation.

An image becomes features, boxes and a vector of the whole image; captions become ids. Everything is
turned into tokens once, before training: a step gathers rows of tensors and touches no Python
object for each item. Knows no loss and no model.

B images in a batch, R regions, F numbers of a region, I images and C captions of a set.
"""

import json
import zlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from PIL.Image import Image
from torch.nn.utils.rnn import pad_sequence

from tgdt_mini import image_tokens
from tgdt_mini.files.check import one_of, shown, typed
from tgdt_mini.text_tokens import TextTokens

KINDS = ("regions", "things", "patches")  # what a picture is cut into


@dataclass(frozen=True)
class ImageTokens:
    """A batch of B images as tokens.

    features (B, R, F): uint8 pixels, or floats of any detector or encoder. boxes (B, R, 4): x0, y0,
    x1, y1 as fractions. mask (B, R) bool, True is a real region. pooled (B, F): the features of the
    whole image, for slot 0. Raises ValueError when the four do not fit together.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor

    def __post_init__(self):
        for name, tensor in vars(self).items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name} is {shown(tensor)}; it must be a Tensor")
        if self.features.dim() != 3:
            raise ValueError(f"features has shape {tuple(self.features.shape)}; give (B, R, F)")
        images, regions, width = self.features.shape
        shapes = {"boxes": (images, regions, 4), "mask": (images, regions)}
        shapes["pooled"] = (images, width)
        for name, wanted in shapes.items():
            shape = tuple(getattr(self, name).shape)
            if shape != wanted:
                raise ValueError(
                    f"{name} has shape {shape}; with features {tuple(self.features.shape)} it must "
                    f"be {wanted}"
                )

    def __len__(self):
        return len(self.features)

    def to(self, device: torch.device | str) -> "ImageTokens":
        return ImageTokens(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def pad(cls, features: list, boxes: list, pooled: list | None = None) -> "ImageTokens":
        """Images of different region counts, padded: features[i] (R_i, F) and boxes[i] (R_i, 4).

        Arrays or tensors. Use this also for precomputed features, such as the paper's
        bottom-up attention (F = 2048). pooled[i] (F,): by default the mean of the image's regions.
        ValueError names an image that does not fit.
        """
        if not len(features) or len(features) != len(boxes):
            raise ValueError(
                f"{len(features)} features and {len(boxes)} boxes; give one of each for every image"
            )
        features = [torch.as_tensor(array) for array in features]
        boxes = [torch.as_tensor(array, dtype=torch.float32) for array in boxes]
        width = features[0].shape[-1] if features[0].dim() else 1
        for i, (regions, places) in enumerate(zip(features, boxes)):
            shape = tuple(regions.shape)
            if (
                len(shape) != 2
                or not shape[0]
                or shape[1] != width
                or places.shape != (shape[0], 4)
            ):
                raise ValueError(
                    f"image {i} has features {shape} and boxes {tuple(places.shape)}; "
                    f"they must be (R, {width}) and (R, 4) with R at least 1"
                )
            if not (places.min() >= 0 and places.max() <= 1):  # NaN fails too
                raise ValueError(
                    f"image {i} has boxes from {places.min():g} to {places.max():g}; divide them "
                    "by the image's width and height"
                )
        if pooled is None:
            pooled = [regions.float().mean(dim=0).to(regions.dtype) for regions in features]
        pooled = [torch.as_tensor(vector) for vector in pooled]
        shapes = {tuple(vector.shape) for vector in pooled}
        if shapes != {(width,)}:
            raise ValueError(f"pooled has shapes {sorted(shapes)}; each must be ({width},)")
        mask = [torch.ones(len(regions), dtype=torch.bool) for regions in features]
        padded = [pad_sequence(part, batch_first=True) for part in (features, boxes, mask)]
        return cls(padded[0], padded[1], padded[2], torch.stack(pooled))

    @classmethod
    def of(cls, images: list, kind: str = "regions") -> "ImageTokens":
        """The tokens of PIL images, cut into "regions", "things" or "patches" (all of one size)."""
        one_of("kind", kind, KINDS)
        check_pictures(images := list(images))
        features, boxes = zip(*(getattr(image_tokens, kind)(image) for image in images))
        pooled = [image_tokens.whole(image, patches=kind == "patches") for image in images]
        # copies: arrays of PIL are read-only, which torch does not like
        return cls.pad([np.array(f) for f in features], list(boxes), [np.array(p) for p in pooled])


def check_pictures(pictures: list) -> None:
    """TypeError for what is no PIL picture."""
    for picture in pictures:
        if not isinstance(picture, Image):
            raise TypeError(f"a picture is {shown(picture)}; open it with PIL.Image.open")


@dataclass(frozen=True)
class TokenSet:
    """A split as tokens: I images, C captions, and which image each caption belongs to.

    Regions of all images lie one after the other, without padding: those of image i are rows
    starts[i] to starts[i + 1]. caption_image (C,) int64 is the row of each caption's image. hard: a
    hard negative of each caption; its word_mask is all False where there is none.
    """

    features: torch.Tensor  # (all regions, F)
    boxes: torch.Tensor  # (all regions, 4)
    starts: torch.Tensor  # (I + 1,)
    pooled: torch.Tensor  # (I, F)
    text: TextTokens  # C captions
    caption_image: torch.Tensor  # (C,)
    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    hard: TextTokens | None = None

    @property
    def image_count(self) -> int:
        return len(self.pooled)

    @property
    def checksum(self) -> int:
        """CRC-32 of the captions and the images' names, in their order: other data have another."""
        texts = json.dumps([self.captions, self.image_ids, self.caption_image.tolist()])
        return zlib.crc32(texts.encode())

    @typed
    def images(self, rows: torch.Tensor, longest: int | None = None) -> ImageTokens:
        """The images of `rows` (B,) int64, padded to `longest` regions (default: the most).

        Pass `longest` if you know it: finding it makes a GPU wait.
        """
        first, counts = self.starts[rows], self.starts.diff()[rows]  # (B,)
        longest = int(counts.max()) if longest is None else longest
        slots = torch.arange(longest, device=rows.device)
        mask = slots < counts[:, None]  # (B, R)
        take = torch.where(mask, first[:, None] + slots, first[:, None]).reshape(-1)  # (B * R,)
        features = self.features.index_select(0, take).reshape(*mask.shape, -1)  # (B, R, F)
        boxes = self.boxes.index_select(0, take).reshape(*mask.shape, 4)  # (B, R, 4)
        real = mask[..., None]
        return ImageTokens(features * real, boxes * real, mask, self.pooled[rows])

    def to(self, device: torch.device | str) -> "TokenSet":
        """The same set on another device; features on the disk stay there until they are read."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        movable = {name: part for name, part in parts.items() if hasattr(part, "to")}
        return replace(self, **{name: part.to(device) for name, part in movable.items()})
