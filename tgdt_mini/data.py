"""One batch shape for every source of images, and one set of tokens that training and evaluation
read.

An image becomes features, boxes and a whole-image vector; captions become ids. Everything is turned
into tokens once,
before training: a step gathers rows of tensors and touches no Python object an item. Knows no loss
and no model.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tgdt_mini import image_tokens
from tgdt_mini.text_tokens import TextTokens


@dataclass(frozen=True)
class ImageTokens:
    """A batch of B images as tokens.

    features (B, R, F): uint8 pixels, or floats from any detector or encoder; boxes (B, R, 4): x0,
    y0, x1, y1 as fractions; mask (B, R) bool, True is a real region; whole (B, F): the features of
    the whole image, for slot 0.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor
    whole: torch.Tensor

    def __post_init__(self):
        images, regions, width = self.features.shape
        for name, shape in (
            ("boxes", (images, regions, 4)),
            ("mask", (images, regions)),
            ("whole", (images, width)),
        ):
            if tuple(getattr(self, name).shape) != shape:
                found = tuple(getattr(self, name).shape)
                known = (images, regions, width)
                raise ValueError(
                    f"{name} has shape {found}; with features {known} it must be {shape}"
                )

    def __len__(self):
        return len(self.features)

    def to(self, device) -> "ImageTokens":
        moved = (part.to(device) for part in (self.features, self.boxes, self.mask, self.whole))
        return ImageTokens(*moved)

    @classmethod
    def pad(cls, features: list, boxes: list, whole: list | None = None) -> "ImageTokens":
        """Images of different region counts, padded: features[i] (R_i, F) and boxes[i] (R_i, 4),
        arrays or tensors.

        This is also the door for precomputed features, such as the paper's bottom-up attention (F =
        2048). Without `whole`, the mean of an image's regions stands for the whole image.
        ValueError names an image that does not fit.
        """
        if not features or len(features) != len(boxes):
            raise ValueError(
                f"{len(features)} features and {len(boxes)} boxes; give one of each for every image"
            )
        features = [torch.as_tensor(each) for each in features]
        boxes = [torch.as_tensor(each, dtype=torch.float32) for each in boxes]
        width = features[0].shape[-1]
        for i, (here, box) in enumerate(zip(features, boxes)):
            if (
                here.dim() != 2
                or not len(here)
                or here.shape[1] != width
                or tuple(box.shape) != (len(here), 4)
            ):
                raise ValueError(
                    f"image {i} has features {tuple(here.shape)} and boxes {tuple(box.shape)}; "
                    f"they must be (R, {width}) and (R, 4) with R at least 1"
                )
            if not (box.min() >= 0 and box.max() <= 1):  # NaN too
                found = f"{box.min():g} to {box.max():g}"
                raise ValueError(
                    f"image {i} has boxes from {found}; divide them by the image's width and height"
                )
        pad = torch.nn.utils.rnn.pad_sequence
        mask = pad([torch.ones(len(each), dtype=torch.bool) for each in features], batch_first=True)
        if whole is None:
            whole = [each.float().mean(dim=0).to(each.dtype) for each in features]
        whole = [torch.as_tensor(each) for each in whole]
        if {tuple(each.shape) for each in whole} != {(width,)}:
            raise ValueError(
                f"whole has shapes {sorted({tuple(each.shape) for each in whole})}; each must be ({width},)"
            )
        whole = torch.stack(whole)
        return cls(pad(features, batch_first=True), pad(boxes, batch_first=True), mask, whole)

    @classmethod
    def of(cls, images: list, kind: str = "regions") -> "ImageTokens":
        """The tokens of PIL images, all of one size with kind="patches". ValueError for another
        kind.
        """
        if kind not in ("regions", "patches"):
            raise ValueError(f"kind is {kind!r}; it must be 'regions' or 'patches'")
        cut = getattr(image_tokens, kind)
        found = [cut(image) for image in images]
        whole = [image_tokens.whole(image, patches=kind == "patches") for image in images]
        return cls.pad(
            [np.array(f) for f, _ in found], [b for _, b in found], [np.array(w) for w in whole]
        )


@dataclass(frozen=True)
class TokenSet:
    """A whole split as tokens: I images, C captions, and which image each caption belongs to.

    Regions of all images lie one after the other (no padding is stored): those of image i are rows
    starts[i] to starts[i + 1]. caption_image (C,) int64 is the row of each caption's image.
    """

    features: torch.Tensor  # (all regions, F)
    boxes: torch.Tensor  # (all regions, 4)
    starts: torch.Tensor  # (I + 1,)
    whole: torch.Tensor  # (I, F)
    text: TextTokens  # C captions
    caption_image: torch.Tensor  # (C,)
    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    hard: TextTokens | None = (
        None  # a hard negative of each caption; a row without a word where there is none
    )

    @property
    def image_count(self) -> int:
        return len(self.whole)

    def images(self, rows: torch.Tensor, longest: int | None = None) -> ImageTokens:
        """The images of `rows` (B,) int64, padded to the most regions among them.

        longest: that number or a larger one, if it is known already; to ask a GPU for it is to wait
        for the GPU.
        """
        sizes = (self.starts[1:] - self.starts[:-1])[rows]
        longest = int(sizes.max()) if longest is None else longest
        slots = torch.arange(longest, device=rows.device)
        mask = slots < sizes[:, None]  # (B, R)
        places = torch.where(mask, self.starts[rows][:, None] + slots, self.starts[rows][:, None])
        take = places.reshape(-1)
        features = self.features.index_select(0, take).reshape(*mask.shape, -1)
        boxes = self.boxes.index_select(0, take).reshape(*mask.shape, 4)
        return ImageTokens(
            features * mask[..., None], boxes * mask[..., None], mask, self.whole[rows]
        )

    def to(self, device) -> "TokenSet":
        names = (
            "features",
            "boxes",
            "starts",
            "whole",
            "text",
            "caption_image",
            *(("hard",) if self.hard else ()),
        )
        return replace(self, **{name: getattr(self, name).to(device) for name in names})
