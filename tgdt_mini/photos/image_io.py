"""Pictures from files and records: always RGB, upright, and of a size that fits in memory.

Photographs come grey, with a palette, in CMYK, animated, or turned by a mark in their EXIF data.
All code that reads one gets it from here. A file that is no picture is an error that names the
file or the image id. Nothing is resized for an encoder here, and no colour profile is applied.
"""

import io
import os
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tgdt_mini.files.check import named

# what Pillow's decoders raise for a damaged file
BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError)
# pixels a side: a JPEG of at least twice as many is decoded at 1/2, 1/4 or 1/8 of its size
DRAFT_SIDE = 1024
# Pillow warns from its limit on, and refuses only twice as many pixels; here and not around each
# picture, as threads share the filters
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
ONE_AT_A_TIME = threading.Lock()
TURNS = {  # EXIF orientation: what makes the stored pixels upright; 1 is upright already
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as RGB and upright: its first frame, turned as its EXIF orientation says.

    Grey, palette and CMYK are converted, grey of 16 bits is scaled to 8 (Pillow would clip it to
    white), transparency is dropped. ValueError for a mode without a known white, such as floats.
    """
    if 0 in image.size:
        raise ValueError(f"a picture of {image.width} x {image.height} pixels shows nothing")
    image.seek(0)
    image.load()  # first: a TIFF file is turned while it is loaded, and its mark is removed then
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(
            "its pixels are floats, whose white nobody knows; save it with 8 bits a channel"
        )
    picture = image.convert("RGB")  # always a copy
    picture.info = {}  # else the mark would say that it is still to be turned
    return picture


def open_image(source: Path | str | bytes, name: str | None = None) -> Image.Image:
    """A picture from a file, or from the bytes of a file, as RGB and upright.

    name: what errors call it, the path by default. ValueError for a file that is missing, is no
    picture, is cut off, or has more pixels than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS) even at
    the size at which it would be decoded.
    """
    with _opened(source, source if name is None else name) as image:
        image.draft(None, (DRAFT_SIDE, DRAFT_SIDE))
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        return as_rgb(image)


def pictures(records, rows=None):
    """The pictures of records (see `records.py`), one in memory at a time.

    rows: which, in this order; all by default. ValueError, by image id, for a picture that
    `open_image` refuses.
    """
    stored = _undecoded(records)
    for row in range(len(records)) if rows is None else rows:
        yield open_image(*_source(stored[int(row)]))


def size_finder(data: dict):
    """A function from an image id to (width, height) in pixels, None for an unknown id.

    data: {split: records}. A size is read from the header of the file as it is stored, not turned,
    when the function is called: ValueError, by image id, for a file that cannot be read.
    """
    rows = {}
    for records in data.values():
        if "image" in records.column_names:
            stored = _undecoded(records)
            rows |= {name: (stored, row) for row, name in enumerate(records["image_id"][:])}

    def size_of(image_id):
        if image_id not in rows:
            return None
        stored, row = rows[image_id]
        with _opened(*_source(stored[row])) as image:
            return image.size

    return size_of


@contextmanager
def _opened(source, name):
    """An image file, opened but not decoded; an error inside becomes a ValueError with its name."""
    try:
        if not isinstance(source, bytes) and os.path.exists(source) and not os.path.isfile(source):
            raise OSError("it is no file")  # a pipe would keep its reader waiting for ever
        with _open(source) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"image {named(name)} does not exist") from None
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"image {named(name)} is too large ({error}); scale it down, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from None
    except UnidentifiedImageError:  # for bytes, Pillow's words would name an object in memory
        raise ValueError(f"image {named(name)} cannot be read: it is no picture") from None
    except BROKEN as error:
        raise ValueError(f"image {named(name)} cannot be read: {error}") from None


def _open(source):
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombWarning:  # where somebody has made all warnings errors
        with ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _orientation(image):
    """The EXIF orientation of an image, 1 where there is none or it cannot be read.

    Only this tag is read. `ImageOps.exif_transpose` writes all tags again, which fails for a file
    with sound pixels and one malformed tag.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data can be malformed in many ways
        return 1


def _undecoded(records):
    """Records whose column image gives bytes and path instead of a decoded picture."""
    from datasets import Image as ImageFeature

    records = records.select_columns(["image", "image_id"])
    return records.cast_column("image", ImageFeature(decode=False))


def _source(record):
    """(bytes or path, name) of the undecoded picture of a record."""
    image, name = record["image"], record["image_id"]
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise ValueError(f"image {name} is empty: its record has neither bytes nor a path")
    if image["bytes"] is not None:
        return image["bytes"], name
    return image["path"], f"{name} ({image['path']})"
