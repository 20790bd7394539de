"""Detectors' region features: layouts, boxes, and files that do not fit."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from helpers import refusal
from PIL import Image as Picture

from tgdt_mini.data import ImageTokens
from tgdt_mini.photos.boxes import as_fractions, read_sizes
from tgdt_mini.photos.detections import Detections
from tgdt_mini.photos.image_io import size_finder

SIZE = (400, 300)
BOX = np.array([[9, 9, 99, 99]])


def regions(count, width=2048, seed=0):
    """(features, boxes in pixels) as a detector gives them."""
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.uniform(0, 1, (count, 2, 2)), axis=1) * SIZE
    return draw.random((count, width), np.float32), corners.reshape(count, 4).astype(np.float32)


def write(folder, name, layout, count=12, seed=0):
    """Files of one picture in one of the layouts; returns what they hold."""
    features, boxes = regions(count, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "all in one":
        np.savez(
            folder / f"{name}.npz",
            features=features,
            bbox=boxes,
            image_w=SIZE[0],
            image_h=SIZE[1],
            info=np.array({"pickled": 1}, dtype=object),
        )
    elif layout == "fractions":
        np.savez(folder / f"{name}.npz", feat=features, boxes=boxes / np.tile(SIZE, 2))
    elif layout == "beside":
        np.save(folder / f"{name}.npy", features)
        np.save(folder / f"{name}_box.npy", boxes)
    elif layout == "two folders":
        np.savez(folder / f"{name}.npz", feat=features)
        (folder / "boxes").mkdir(exist_ok=True)
        np.save(folder / "boxes" / f"{name}.npy", boxes)
    return features, boxes / np.tile(SIZE, 2)


def reader(folder, layout, **options):
    boxes = folder / "boxes" if layout == "two folders" else None
    sizes = (
        {name: SIZE for name in ("a.jpg", "b.jpg")} if layout in ("beside", "two folders") else None
    )
    return Detections(folder, **({"boxes": boxes, "sizes": sizes} | options))


@pytest.mark.parametrize("layout", ["all in one", "fractions", "beside", "two folders"])
def test_every_layout_gives_features_and_boxes_that_make_a_batch(layout, tmp_path):
    known = [write(tmp_path, "a", layout, 10, seed=1), write(tmp_path, "b", layout, 100, seed=2)]
    found = reader(tmp_path, layout)
    found.check(["a.jpg", "b.jpg"])
    features, boxes = found.read(["b.jpg", "a.jpg"])
    for (wanted, places), one, box in zip(known[::-1], features, boxes):
        assert one.dtype == box.dtype == np.float32 and (one == wanted).all()
        np.testing.assert_allclose(box, places, atol=1e-6)
    tokens = ImageTokens.pad(features, boxes)
    assert tokens.features.shape == (2, 100, 2048) and tokens.mask.sum(dim=1).tolist() == [100, 10]
    assert torch.equal(tokens.boxes[1, :10], torch.from_numpy(boxes[1]))


@pytest.mark.parametrize(
    "image_id, file",
    [
        ("12", "12"),
        ("12.jpg", "12"),
        ("COCO_val2014_000000000012.jpg", "12"),
        ("COCO_train2014_000000100012.jpg", "100012"),
        ("val/x.jpg", "x"),
    ],
)
def test_files_are_found_by_stem_or_by_coco_s_number(image_id, file, tmp_path):
    known, _ = write(tmp_path, file, "fractions")
    assert (Detections(tmp_path).read([image_id])[0][0] == known).all()


def test_files_may_be_called_by_other_names_or_numbers(tmp_path):
    """TERAN's features of Flickr30K are called by the picture's place in Karpathy's file."""
    known = [write(tmp_path, str(place), "fractions", seed=place)[0] for place in range(2)]
    numbers, image_ids = {"1.jpg": 0, "9.jpg": 1}, ["1.jpg", "9.jpg"]
    by_number = Detections(tmp_path)
    by_number.use_numbers(numbers, image_ids)
    for found in (Detections(tmp_path, names=numbers), by_number):
        found.check(image_ids)
        features, _ = found.read(image_ids)
        assert (features[0] == known[0]).all() and (features[1] == known[1]).all()
    by_id = Detections(tmp_path)
    by_id.use_numbers({"0.jpg": 1, "1.jpg": 0}, ["0.jpg", "1.jpg"])  # ids find all of them
    assert (by_id.read(["0.jpg"])[0][0] == known[0]).all()


def test_a_size_comes_from_the_file_or_else_from_the_picture(tmp_path):
    """Files may hold sizes of shape () or (1,), and some none."""
    features, boxes = regions(12)
    arrays = {"feat": features, "bbox": boxes}
    width, height = SIZE
    np.savez(tmp_path / "a.npz", **arrays, image_w=[width], image_h=np.array([height]))
    np.savez(tmp_path / "b.npz", **arrays, image_w=width, image_h=height)
    np.savez(tmp_path / "c.npz", **arrays)
    Picture.new("RGB", SIZE).save(tmp_path / "c.jpg")
    records = Dataset.from_dict({"image": [str(tmp_path / "c.jpg")], "image_id": ["c.jpg"]})
    size_of = size_finder({"test": records.cast_column("image", Image())})
    _, found = Detections(tmp_path, size_of=size_of).read(["a.jpg", "b.jpg", "c.jpg"])
    for fractions in found:
        np.testing.assert_allclose(fractions, boxes / np.tile(SIZE, 2), atol=1e-6)


@pytest.mark.parametrize("form", ["ours", "coco"])
def test_sizes_are_read_from_json(form, tmp_path):
    content = {"a.jpg": [640, 480]}
    if form == "coco":
        content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}]}
    (tmp_path / "sizes.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_sizes(tmp_path / "sizes.json") == {"a.jpg": (640, 480)}


@pytest.mark.parametrize("content", ["no json", "[]", '{"a.jpg": 5}', '{"images": [{}]}'])
def test_sizes_that_cannot_be_read_are_named(content, tmp_path):
    (tmp_path / "sizes.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"sizes .*sizes\.json cannot be read"):
        read_sizes(tmp_path / "sizes.json")


def test_pixels_become_fractions_and_rounding_is_cut_off():
    boxes = as_fractions(np.array([[0, 0, 50, 100], [-0.5, 30, 100.9, 200.7]]), 100, 200, "x")
    np.testing.assert_allclose(boxes, [[0, 0, 0.5, 0.5], [0, 0.15, 1, 1]], atol=1e-7)


@pytest.mark.parametrize(
    "box, message",
    [
        ((0, 0, 102, 50), "box .* of x is outside its size of 100 x 200"),
        ((-2, 0, 50, 50), "outside"),
        ((0, 0, 50, 202), "outside"),
        ((0, np.nan, 50, 50), "outside"),
        ((0, 0, np.inf, 50), "outside"),
        ((50, 0, 50, 50), "no area"),
        ((0, 60, 50, 50), "no area"),
    ],
)
def test_boxes_that_are_not_in_the_picture_are_errors(box, message):
    with pytest.raises(ValueError, match=message):
        as_fractions(np.array([(1, 1, 2, 2), box]), 100, 200, "x")


def test_fractions_beyond_the_picture_are_errors_too():
    with pytest.raises(ValueError, match="outside its size of 1 x 1"):
        as_fractions(np.array([(0, 0, 1.02, 1)]), 1, 1, "x")
    with pytest.raises(ValueError, match=r"boxes of x have shape \(4,\)"):
        as_fractions(np.zeros(4), 1, 1, "x")


@pytest.mark.parametrize(
    "arrays, message",
    [
        (
            dict(feat=np.ones((36, 1024))),
            r"a\.npz holds features \(36, 1024\); it must hold feat \(R, 2048\)",
        ),
        (
            dict(feat=np.ones((2048, 36))),
            r"holds features \(2048, 36\); it must hold feat \(R, 2048\)",
        ),
        (dict(feat=np.ones((0, 2048))), r"holds features \(0, 2048\)"),
        (dict(feat=np.ones(2048)), r"holds features \(2048,\)"),
        (
            dict(x=np.ones((36, 2048)), bbox=np.ones((36, 4))),
            r"a\.npz holds arrays x, bbox; it must hold feat",
        ),
        (
            dict(feat=np.full((36, 2048), np.nan)),
            "holds NaN or infinity; extract the features of image a.jpg again",
        ),
        (
            dict(feat=np.ones((36, 2048))),
            r"image a.jpg has features but no boxes: .*a_box\.npy is missing",
        ),
        (
            dict(feat=np.ones((2, 2048)), bbox=np.ones((3, 4))),
            r"image a.jpg has features \(2, 2048\) but boxes \(3, 4\)",
        ),
        (
            dict(feat=np.ones((1, 2048)), bbox=BOX),
            r"image a.jpg has boxes in pixels \(.*\), but its size is not known: give sizes",
        ),
        (
            dict(feat=np.ones((1, 2048)), bbox=BOX, image_w=50, image_h=100),
            r"image a.jpg \(.*a\.np.\) is outside its size of 50 x 100",
        ),
    ],
)
def test_features_that_do_not_fit_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with refusal(message):
        Detections(tmp_path).read(["a.jpg"])


def test_another_width_is_fine_when_it_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", feat=np.ones((3, 1024)), boxes=np.array([[0, 0, 1, 1]] * 3))
    assert Detections(tmp_path, width=1024).read(["a"])[0][0].shape == (3, 1024)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("spoil", ["text", "empty", "truncated"])
def test_damaged_files_are_named(spoil, suffix, tmp_path):
    write(tmp_path, "a", "fractions" if suffix == ".npz" else "beside")
    path = tmp_path / f"a{suffix}"
    content = {"text": b"no array", "empty": b"", "truncated": path.read_bytes()[:5000]}[spoil]
    path.write_bytes(content)
    with refusal(rf"a\{suffix} cannot be read: .*; extract it again"):
        reader(tmp_path, "beside").read(["a.jpg"])


def test_features_and_pictures_must_belong_together(tmp_path):
    for name in ("a", "b", "stray"):
        write(tmp_path, name, "fractions")
    found = Detections(tmp_path)
    with pytest.raises(
        ValueError,
        match="^image c.jpg has no features in .*, neither .npz nor .npy of c.jpg or c; ext",
    ):
        found.check(["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(ValueError, match="^image c.jpg has no features"):
        found.read(["c.jpg"])
    with pytest.raises(
        ValueError, match=r"^1 feature files of .* belong to no image, such as stray\.npz"
    ):
        found.check(["a.jpg", "b.jpg"])
    with pytest.raises(
        ValueError,
        match=r"^images a.jpg and a.png would share .*a\.npz; name the file of each",
    ):
        found.check(["a.jpg", "a.png", "b.jpg"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"folder": "nowhere"}, "folder is .*nowhere, which is no folder"),
        ({"folder": "", "boxes": "nowhere"}, "boxes is .*nowhere, which is no folder"),
        ({"folder": ""}, "folder .* holds no .npz or .npy features"),
    ],
)
def test_folders_that_are_not_there_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Detections(**{name: tmp_path / path for name, path in options.items()})
