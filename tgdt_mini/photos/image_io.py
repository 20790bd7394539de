"""Pictures from files and records: always RGB, upright and of a size that fits in memory.

Photographs come grey, with a palette, in CMYK, animated, or turned by a mark in their EXIF data;
whoever looks at them gets them from here. What is no picture gets an error that names the file or
the image id. Nothing is resized for an encoder here, and no colour profile is applied.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
)  # what Pillow's decoders raise for a damaged file
# pixels a side: a JPEG of at least twice as many is decoded at 1/2, 1/4 or 1/8 of its size
ENOUGH = 1024


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as RGB and upright: its first frame, turned as its EXIF data says.

    Grey, palette and CMYK are converted, grey of 16 bits is scaled to 8 (Pillow would clip it to
    white), transparency is dropped. ValueError for a mode without a known white, such as floats.
    """
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(
            "its pixels are floats, whose white nobody knows; save it with 8 bits a channel"
        )
    return image.convert("RGB")


def open_image(source: Path | str | bytes, name: str | None = None) -> Image.Image:
    """A picture from a file or from a file's bytes, as RGB and upright.

    name: what errors call it, the path by default. ValueError for what is missing, is no picture,
    is cut off, or has more pixels than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS) even at the size
    at which it would be decoded.
    """
    name = source if name is None else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # its limit is checked below
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with opened as image:
            image.draft(None, (ENOUGH, ENOUGH))
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return as_rgb(image)
    except FileNotFoundError:
        raise ValueError(f"image {name} does not exist") from None
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"image {name} is too large ({error}); scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from None
    except BROKEN as error:
        raise ValueError(f"image {name} cannot be read: {error}") from None


def pictures(records, rows=None):
    """Yield the pictures of records (columns image and image_id; see `photos/sources.py`), one in memory
    at a time.

    rows: which, in this order; all by default. ValueError, by image id, for one that `open_image`
    refuses.
    """
    stored = _undecoded(records)
    for row in range(len(records)) if rows is None else rows:
        yield open_image(*_source(stored[int(row)]))


def picture_sizes(records) -> dict[str, tuple[int, int]]:
    """{image_id: (width, height)} in pixels, read from the files' headers: what boxes in pixels are
    divided by.
    """
    sizes = {}
    for record in _undecoded(records):
        source, name = _source(record)
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                sizes[record["image_id"]] = image.size
        except BROKEN as error:
            raise ValueError(f"image {name} cannot be read: {error}") from None
    return sizes


def _undecoded(records):
    from datasets import Image as ImageFeature

    return records.select_columns(["image", "image_id"]).cast_column(
        "image", ImageFeature(decode=False)
    )


def _source(record):
    """(bytes or path, name) of a record's undecoded picture."""
    image, name = record["image"], record["image_id"]
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise ValueError(f"image {name} is empty: its record has neither bytes nor a path")
    return (
        (image["bytes"], name)
        if image["bytes"] is not None
        else (image["path"], f"{name} ({image['path']})")
    )
