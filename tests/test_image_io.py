"""Pictures from files and records: all become RGB and upright, what is no picture is named."""

import io
import os
import struct
import warnings

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from helpers import refusal
from PIL import Image
from PIL import features as codecs

from tgdt_mini import scenes
from tgdt_mini.files.manifest import read_json
from tgdt_mini.photos import image_io as module
from tgdt_mini.photos.image_io import as_rgb, open_image, pictures, size_finder

RED, GREEN = (255, 0, 0), (0, 255, 0)
TURNED = {  # EXIF orientation: how the upright picture was turned before it was stored
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(image, kind="PNG", **options):
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def records(files):
    """Records of {image_id: bytes or path}."""
    images = [
        {"bytes": each} if isinstance(each, bytes) else {"path": str(each)}
        for each in files.values()
    ]
    images = [{"bytes": None, "path": None} | image for image in images]
    features = Features(image=ImageFeature(), image_id=Value("string"))
    return Dataset.from_dict({"image": images, "image_id": list(files)}, features=features)


def noise(width=64, height=48, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize(
    "mode, colour, kind, known",
    [
        ("RGB", RED, "PNG", RED),
        ("L", 90, "PNG", (90, 90, 90)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (90, 128), "PNG", (90, 90, 90)),
        ("RGBA", (10, 20, 30, 128), "PNG", (10, 20, 30)),
        ("CMYK", (0, 255, 255, 0), "TIFF", RED),
        ("CMYK", (0, 255, 255, 0), "JPEG", (254, 0, 0)),
        ("I;16", 65535, "PNG", (255, 255, 255)),
        ("I;16", 128 * 257, "PNG", (128, 128, 128)),
        ("I;16B", 128 * 257, "TIFF", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, kind, known):
    picture = open_image(stored(Image.new(mode, (9, 7), colour), kind))
    assert picture.mode == "RGB" and picture.size == (9, 7)
    assert np.abs(np.array(picture.getpixel((4, 3))) - known).max() <= 2  # JPEG is lossy


def test_grey_of_16_bits_keeps_its_shades():
    """Pillow's own conversion clips all above 255 to white."""
    shades = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    assert (
        np.asarray(open_image(stored(Image.fromarray(shades))))[..., 0].reshape(-1)
        == np.arange(256)
    ).all()


def test_floats_have_no_known_white():
    with pytest.raises(
        ValueError, match="^image heights cannot be read: its pixels are floats.* 8 bits"
    ):
        open_image(stored(Image.new("F", (4, 4), 0.5), "TIFF"), "heights")


@pytest.mark.parametrize("transparent", [0, bytes([0, 255])])
def test_a_palette_becomes_its_colours(transparent):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*GREEN, *RED])
    image.putpixel((0, 0), 0)
    picture = open_image(stored(image, transparency=transparent))
    assert picture.getpixel((3, 3)) == RED and picture.getpixel((0, 0)) == GREEN


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_shows_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert open_image(data).getpixel((4, 4)) == RED
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert as_rgb(image).getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_photograph_is_upright_and_turned_only_once(orientation, kind):
    upright, exif = noise(), Image.Exif()
    exif[0x0112] = orientation
    lying = upright if TURNED[orientation] is None else upright.transpose(TURNED[orientation])
    picture = open_image(stored(lying, kind, exif=exif))
    assert picture.size == upright.size and (np.asarray(picture) == np.asarray(upright)).all()
    assert (np.asarray(as_rgb(picture)) == np.asarray(upright)).all()


MALFORMED = {  # a second EXIF tag: number, type and four bytes of its value
    "70000 as a short number": (0x0103, 4, struct.pack("<I", 70000)),
    "text instead of a number": (0x0103, 2, b"one\0"),
    "a pointer below zero": (0x8769, 9, struct.pack("<i", -8)),
    "NaN instead of a fraction": (0x011A, 11, struct.pack("<f", float("nan"))),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_exif_tag_does_not_keep_a_photograph_from_being_turned(what):
    tag, kind, value = MALFORMED[what]
    turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    tags = turned + struct.pack("<HHI", tag, kind, 4 if kind == 2 else 1) + value
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    picture = open_image(stored(Image.new("RGB", (64, 48), RED), "JPEG", exif=exif))
    assert picture.size == (48, 64)


def test_exif_data_that_cannot_be_read_leave_a_photograph_as_it_is():
    picture = open_image(stored(noise(), "JPEG", exif=b"Exif\0\0no tags at all"))
    assert picture.size == (64, 48)


def test_the_caller_s_image_stays_as_it_is():
    exif, lying = Image.Exif(), noise()
    exif[0x0112] = 6
    lying = Image.open(io.BytesIO(stored(lying, exif=exif)))
    assert as_rgb(lying).size == (48, 64) and lying.size == (64, 48)


@pytest.mark.parametrize(
    "size, known",
    [
        ((640, 480), (640, 480)),
        ((2047, 2047), (2047, 2047)),
        ((2048, 3000), (1024, 1500)),
        ((4096, 4100), (1024, 1025)),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(size, known):
    assert open_image(stored(Image.new("RGB", size, RED), "JPEG")).size == known
    if size != known:
        assert open_image(stored(Image.new("RGB", size, RED), "PNG", compress_level=1)).size == size


@pytest.mark.parametrize(
    "width, kind, fits",
    [
        (100, "PNG", True),
        (101, "PNG", False),
        (201, "PNG", False),
        (201, "JPEG", False),
        (150, "JPEG", True),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_picture_beyond_pillow_s_limit_is_named(width, kind, fits, monkeypatch):
    """Up to twice the limit Pillow only warns; a JPEG may still be decoded small enough."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 10)
    monkeypatch.setattr(module, "DRAFT_SIDE", 5)
    data = stored(Image.new("RGB", (width, 10)), kind)
    if fits:
        open_image(data, "wide")
    else:
        with pytest.raises(
            ValueError,
            match=r"^image wide is too large \(.*\); scale it down, or raise PIL\.Image\.",
        ):
            open_image(data, "wide")


def test_without_a_limit_no_picture_is_too_large(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(stored(Image.new("RGB", (300, 200)))).size == (300, 200)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^image .*nowhere\.png does not exist$"):
        open_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("spoil", ["text", "empty", "truncated", "folder"])
def test_a_file_that_is_no_picture_is_named(spoil, tmp_path):
    path = tmp_path / "picture.png"
    if spoil == "folder":
        path.mkdir()
    elif spoil == "truncated":
        scenes.picture("test-0000").save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text("no picture" if spoil == "text" else "", encoding="utf-8")
    with refusal(r"^image .*picture\.png cannot be read: "):
        open_image(path)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", *(["AVIF"] if codecs.check("avif") else [])]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_cut_off_or_spoilt_is_a_picture_or_an_error_by_name(kind):
    data, draw = stored(noise(24, 16), kind), np.random.default_rng(0)
    for case in range(60):
        spoilt = bytearray(data[: draw.integers(len(data))] if case % 2 else data)
        for place in draw.integers(0, max(1, len(spoilt)), 4 * (case % 2 == 0)):
            spoilt[place] = draw.integers(256)
        try:
            assert open_image(bytes(spoilt), "some name").mode == "RGB"
        except ValueError as error:
            assert str(error).startswith("image some name ")


def test_records_give_their_pictures_one_by_one_in_the_order_asked_for(tmp_path):
    known = [noise(seed=seed) for seed in range(3)]
    known[1].save(tmp_path / "b.png")
    some = records({"a": stored(known[0]), "b": tmp_path / "b.png", "c": stored(known[2])})
    found = list(pictures(some))
    assert (
        all((np.asarray(one) == np.asarray(other)).all() for one, other in zip(found, known))
        and len(found) == 3
    )
    found = [np.asarray(picture) for picture in pictures(some, [2, 0])]
    assert (found[0] == np.asarray(known[2])).all() and (found[1] == np.asarray(known[0])).all()


def test_the_size_of_a_picture_is_found_by_its_id(tmp_path):
    noise(40, 30).save(tmp_path / "b.png")
    with_pictures = records({"a": stored(noise()), "b": tmp_path / "b.png"})
    without = Dataset.from_dict({"image_id": ["c"], "captions": [["one"]]})
    size_of = size_finder({"train": with_pictures, "test": without})
    assert [size_of(name) for name in "abcd"] == [(64, 48), (40, 30), None, None]


def test_a_spoilt_picture_among_records_is_named_by_its_id_when_its_turn_comes(tmp_path):
    some = records(
        {"fine": stored(noise()), "cut": stored(noise())[:900], "gone": tmp_path / "gone.png"}
    )
    stream = pictures(some)
    assert next(stream).size == (64, 48)
    with pytest.raises(ValueError, match="^image cut cannot be read: .*truncated"):
        next(stream)
    with pytest.raises(ValueError, match=r"^image gone \(.*gone\.png\) does not exist$"):
        next(pictures(some, [2]))
    with pytest.raises(ValueError, match=r"^image gone \(.*gone\.png\) does not exist$"):
        size_finder({"test": some})("gone")


def test_a_record_without_a_picture_is_named():
    some = Dataset.from_dict(
        {"image": [None], "image_id": ["void"]}, features=records({"a": b""}).features
    )
    with pytest.raises(ValueError, match="^image void is empty"):
        next(pictures(some))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_no_picture_and_no_manifest(tmp_path):
    """Its reader would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with refusal("image .*pipe cannot be read: it is no file"):
        open_image(tmp_path / "pipe")
    with refusal("pipe is no file; make another"):
        read_json(tmp_path / "pipe", {}, "list", "make another")


def test_a_limit_of_pillow_is_an_error_also_where_warnings_are(tmp_path, monkeypatch):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # Pillow warns here, and refuses at 3000
    for action in ("ignore", "error"):
        with warnings.catch_warnings(), refusal("a.png is too large"):
            warnings.simplefilter(action)
            open_image(tmp_path / "a.png")
