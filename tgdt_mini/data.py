"""One batch shape for every source of images, and one set of tokens that training and evaluation read.

An image becomes features, boxes and a whole-image vector; captions become ids. Everything is turned into tokens once,
before training: a step gathers rows of tensors and touches no Python object an item. Knows no loss and no model.
"""

import hashlib
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tgdt_mini import image_tokens
from tgdt_mini.hard_captions import Lexicon, hard_caption
from tgdt_mini.paths import cache, whole_folder
from tgdt_mini.pictures import pictures
from tgdt_mini.text_tokens import TextTokenizer, TextTokens


@dataclass(frozen=True)
class ImageTokens:
    """A batch of B images as tokens.

    features (B, R, F): uint8 pixels, or floats from any detector or encoder; boxes (B, R, 4): x0, y0, x1, y1 as
    fractions; mask (B, R) bool, True is a real region; whole (B, F): the features of the whole image, for slot 0.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor
    whole: torch.Tensor

    def __post_init__(self):
        images, regions, width = self.features.shape
        for name, shape in (("boxes", (images, regions, 4)), ("mask", (images, regions)), ("whole", (images, width))):
            if tuple(getattr(self, name).shape) != shape:
                found = tuple(getattr(self, name).shape)
                known = (images, regions, width)
                raise ValueError(f"{name} has shape {found}; with features {known} it must be {shape}")

    def __len__(self):
        return len(self.features)

    def to(self, device) -> "ImageTokens":
        moved = (part.to(device) for part in (self.features, self.boxes, self.mask, self.whole))
        return ImageTokens(*moved)

    @classmethod
    def pad(cls, features: list, boxes: list, whole: list | None = None) -> "ImageTokens":
        """Images of different region counts, padded: features[i] (R_i, F) and boxes[i] (R_i, 4), arrays or tensors.

        This is also the door for precomputed features, such as the paper's bottom-up attention (F = 2048). Without
        `whole`, the mean of an image's regions stands for the whole image. ValueError names an image that does not fit.
        """
        if not features or len(features) != len(boxes):
            raise ValueError(f"{len(features)} features and {len(boxes)} boxes; give one of each for every image")
        features = [torch.as_tensor(each) for each in features]
        boxes = [torch.as_tensor(each, dtype=torch.float32) for each in boxes]
        width = features[0].shape[-1]
        for i, (here, box) in enumerate(zip(features, boxes)):
            if here.dim() != 2 or not len(here) or here.shape[1] != width or tuple(box.shape) != (len(here), 4):
                raise ValueError(
                    f"image {i} has features {tuple(here.shape)} and boxes {tuple(box.shape)}; "
                    f"they must be (R, {width}) and (R, 4) with R at least 1"
                )
            if not (box.min() >= 0 and box.max() <= 1):  # NaN too
                found = f"{box.min():g} to {box.max():g}"
                raise ValueError(f"image {i} has boxes from {found}; divide them by the image's width and height")
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
        """The tokens of PIL images, all of one size with kind="patches". ValueError for another kind."""
        if kind not in ("regions", "patches"):
            raise ValueError(f"kind is {kind!r}; it must be 'regions' or 'patches'")
        cut = getattr(image_tokens, kind)
        found = [cut(image) for image in images]
        whole = [image_tokens.whole(image, patches=kind == "patches") for image in images]
        return cls.pad([np.array(f) for f, _ in found], [b for _, b in found], [np.array(w) for w in whole])


@dataclass(frozen=True)
class TokenSet:
    """A whole split as tokens: I images, C captions, and which image each caption belongs to.

    Regions of all images lie one after the other (no padding is stored): those of image i are rows starts[i] to
    starts[i + 1]. caption_image (C,) int64 is the row of each caption's image.
    """

    features: torch.Tensor  # (all regions, F)
    boxes: torch.Tensor  # (all regions, 4)
    starts: torch.Tensor  # (I + 1,)
    whole: torch.Tensor  # (I, F)
    text: TextTokens  # C captions
    caption_image: torch.Tensor  # (C,)
    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    hard: TextTokens | None = None  # a hard negative of each caption; a row without a word where there is none

    @property
    def image_count(self) -> int:
        return len(self.whole)

    def images(self, rows: torch.Tensor) -> ImageTokens:
        """The images of `rows` (B,) int64, padded to the most regions among them."""
        sizes = (self.starts[1:] - self.starts[:-1])[rows]
        longest = int(sizes.max())
        slots = torch.arange(longest, device=rows.device)
        mask = slots < sizes[:, None]  # (B, R)
        places = torch.where(mask, self.starts[rows][:, None] + slots, self.starts[rows][:, None])
        take = places.reshape(-1)
        features = self.features.index_select(0, take).reshape(*mask.shape, -1)
        boxes = self.boxes.index_select(0, take).reshape(*mask.shape, 4)
        return ImageTokens(features * mask[..., None], boxes * mask[..., None], mask, self.whole[rows])

    def to(self, device) -> "TokenSet":
        names = ("features", "boxes", "starts", "whole", "text", "caption_image", *(("hard",) if self.hard else ()))
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def with_hard_captions(self, tokenizer: TextTokenizer, lexicon: Lexicon, seed: int = 0) -> "TokenSet":
        """The same set with a hard negative beside each caption that allows one."""
        rng = random.Random(seed)
        hard = [hard_caption(caption, lexicon, rng) for caption in self.captions]
        tokens = tokenizer([text or caption for text, caption in zip(hard, self.captions)])
        real = torch.tensor([bool(text) for text in hard])[:, None]
        return replace(self, hard=replace(tokens, words=tokens.words & real))

    def first(self, images: int) -> "TokenSet":
        """The same set cut to its first images."""
        captions = int((self.caption_image < images).sum())
        end = int(self.starts[images])
        return TokenSet(
            self.features[:end], self.boxes[:end], self.starts[: images + 1], self.whole[:images],
            self.text[slice(captions)], self.caption_image[:captions],
            self.captions[:captions], self.image_ids[:images], self.hard and self.hard[slice(captions)],
        )  # fmt: skip

    def thinned(self, captions: int) -> "TokenSet":
        """The same images with at most so many captions each, their first ones."""
        order = torch.argsort(self.caption_image, stable=True)
        owner = self.caption_image[order]
        place = torch.arange(len(owner)) - torch.searchsorted(owner, owner)  # of each caption among its image's
        keep = order[place < captions].sort().values
        return replace(self, text=self.text[keep], caption_image=self.caption_image[keep], hard=None,
                       captions=tuple(self.captions[row] for row in keep.tolist()))  # fmt: skip

    @classmethod
    def build(cls, dataset, tokenizer: TextTokenizer, kind: str = "regions", key: str = "", progress: bool = False):
        """The TokenSet of a dataset with columns image, image_id and captions (see `scenes.load`).

        With a `key` that names data and preprocessing, image tokens are kept in the cache under it and read back.
        """
        folder = cache() / f"tokens-{key}-{kind}"
        if not key or not folder.exists():
            arrays = _cut_all(dataset, kind, progress)
            if key:
                with whole_folder(folder) as beside:
                    for name, array in arrays.items():
                        np.save(beside / f"{name}.npy", array)
        else:
            arrays = {name: np.load(folder / f"{name}.npy") for name in ("features", "boxes", "starts", "whole")}
        captions = dataset["captions"]
        owner = [row for row, own in enumerate(captions) for _ in own]
        flat = [caption for own in captions for caption in own]
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(**tensors, text=tokenizer(flat), caption_image=torch.tensor(owner), captions=tuple(flat),
                   image_ids=tuple(dataset["image_id"]))  # fmt: skip


def scene_tokens(split: str, tokenizer: TextTokenizer, kind: str = "regions", first: int | None = None, progress=False):
    """(dataset, TokenSet) of a split of the embedded scenes, image tokens cached; `first` as in `scenes.load`.

    The cache's key holds the scenes' checksum and that of the code that cuts images, so a stale one is never read.
    """
    from tgdt_mini import scenes

    dataset = scenes.load(split, progress, first)
    code = hashlib.sha256(Path(image_tokens.__file__).read_bytes()).hexdigest()[:8]
    key = "" if first is not None else f"scenes-{split}-{scenes.published(split)['pixels'][:8]}-{code}"
    return dataset, TokenSet.build(dataset, tokenizer, kind, key, progress)


def _cut_all(dataset, kind, progress):
    from tqdm import tqdm

    cut, features, boxes, whole = getattr(image_tokens, kind), [], [], []
    bar = tqdm(pictures(dataset), f"finding {kind}", len(dataset), unit=" images", disable=not progress)
    for picture in bar:
        found, where = cut(picture)
        features.append(found)
        boxes.append(where)
        whole.append(image_tokens.whole(picture, patches=kind == "patches"))
    starts = np.cumsum([0] + [len(each) for each in features])
    return {"features": np.concatenate(features), "boxes": np.concatenate(boxes), "starts": starts,
            "whole": np.stack(whole)}  # fmt: skip
