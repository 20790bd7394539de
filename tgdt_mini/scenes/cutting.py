"""A picture cut into image tokens by another process: without torch, which takes long to import."""

import io

from PIL import Image

from tgdt_mini import image_tokens


def cut(picture, kind: str):
    """(features (R, F), boxes (R, 4), of the whole (F,)) of a PIL picture, or of a PNG's bytes.

    Each as (type, shape, bytes), which other processes can send.
    """
    picture = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    features, boxes = getattr(image_tokens, kind)(picture)
    arrays = features, boxes, image_tokens.whole(picture, patches=kind == "patches")
    return tuple((array.dtype.str, array.shape, array.tobytes()) for array in arrays)
