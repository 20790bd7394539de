"""Pictures as callers have them (files, arrays, PIL), read, and encoded some hundred at a time."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from tgdt_mini import scenes
from tgdt_mini.embedding import Embedding
from tgdt_mini.files.progress import progress_bar
from tgdt_mini.photos.image_io import as_rgb, open_image

GROUP = 100  # pictures that are in memory at a time
Picture: TypeAlias = Image.Image | str | Path | np.ndarray | torch.Tensor
TAKEN = "a PIL picture, a file's path, an array (H, W, 3) of uint8, or several of them"


def several(values, name, taken):
    """A list of one value or of several. ValueError for none, TypeError for what is neither."""
    if values is None:
        raise TypeError(f"{name} is None; give {taken}")
    if isinstance(values, (str, Path, Image.Image)) or getattr(values, "ndim", 0) in (2, 3):
        return [values]
    try:
        values = list(values)
    except TypeError:
        raise TypeError(f"{name} is a {type(values).__name__}; give {taken}") from None
    if not values:
        raise ValueError(f"{name} is empty; give {taken}")
    return values


def as_picture(image: Picture) -> Image.Image:
    """A PIL picture as RGB, of a picture, a path or an array; see `Retriever.encode_images`."""
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if isinstance(image, (str, Path)):
        return open_image(image)
    if isinstance(image, torch.Tensor):
        image = image.cpu().numpy()
    if isinstance(image, np.ndarray):
        known = image.ndim == 2 or image.shape[2:] == (3,)
        if image.dtype == np.uint8 and known and image.size:
            return Image.fromarray(image).convert("RGB")
        raise ValueError(f"an image is an array {image.shape} of {image.dtype}; give {TAKEN}")
    raise TypeError(f"an image is a {type(image).__name__}; give {TAKEN}")


def encode_in_groups(encode: Callable, images: list, progress: bool = True) -> Embedding:
    """Embedding of many pictures, of which GROUP are in memory at a time.

    encode(group) gives an Embedding.
    """
    return Embedding.cat(encoded_groups(encode, images, progress))


def encoded_groups(encode: Callable, images: list, progress: bool = True) -> list[Embedding]:
    """The Embedding of each group of GROUP pictures; none for a group that encode makes None of."""
    groups, parts = [images[start : start + GROUP] for start in range(0, len(images), GROUP)], []
    with progress_bar(progress=progress, total=len(images), desc="encoding", unit=" images") as bar:
        for group in groups:
            parts.append(encode(group))
            bar.update(len(group))
    return [part for part in parts if part is not None]


def readable(pictures: dict, read: list, refused: dict) -> Iterator[Image.Image]:
    """The pictures of {mark: picture or path} that can be read, one by one.

    Their marks are added to `read`; of each other mark, `refused` gets the reason.
    """
    for mark, picture in pictures.items():
        try:
            opened = as_picture(picture)
        except ValueError as error:
            refused[mark] = str(error)
            continue
        read.append(mark)
        yield opened


@dataclass(frozen=True)
class PictureFinder:
    """From an item to its picture, if it is a file or a drawn scene, else to its name.

    drawn: whether items may be drawn scenes; a file of one's own may be called like one.
    """

    drawn: bool

    def __call__(self, item):
        try:
            if isinstance(item, str) and os.path.isfile(item):
                return open_image(item)
        except (OSError, ValueError):  # no picture any more, or a caption too long for a file name
            return str(item)
        return scenes.picture(item) if self.drawn and scenes.is_id(item) else str(item)
