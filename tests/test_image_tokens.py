"""Patches and regions: nothing of the picture is lost, objects are found, and only pixels are
read.
"""

import json
import random
from collections import deque

import numpy as np
import pytest
import torch
from helpers import some_scenes
from PIL import Image, ImageDraw

from tgdt_mini import image_tokens, scenes
from tgdt_mini.image_tokens import (
    CROP,
    MOST_THINGS,
    PATCH_WIDTH,
    REGION_WIDTH,
    WHOLE,
    connected,
    geometry,
    ground,
    overlap,
    patches,
    regions,
    things,
    whole,
)


def noise(wide, high, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("wide, high, patch", [(112, 112, CROP), (48, 32, 16), (20, 30, 5)])
def test_patches_put_together_again_are_the_image(wide, high, patch):
    image = noise(wide, high)
    features, boxes = patches(image, patch)
    assert features.dtype == np.uint8 and boxes.dtype == np.float32
    assert features.shape == (wide * high // patch**2, patch * patch * 3)
    again = np.zeros((high, wide, 3), np.uint8)
    for feature, box in zip(features, boxes):
        x0, y0, x1, y1 = (
            round(float(value) * side) for value, side in zip(box, (wide, high, wide, high))
        )
        again[y0:y1, x0:x1] = feature.reshape(patch, patch, 3)
    assert np.array_equal(again, np.asarray(image))


def test_patches_of_the_default_size_have_the_width_that_models_are_told():
    assert (
        patches(noise(112, 112))[0].shape[1]
        == PATCH_WIDTH
        == whole(noise(112, 112), patches=True).shape[0]
    )


def test_an_image_that_patches_do_not_fill_is_an_error():
    with pytest.raises(ValueError, match="image is 100 x 112 pixels; resize it to multiples of 16"):
        patches(noise(100, 112))


def test_geometry_adds_the_area():
    boxes = torch.tensor(
        [
            [[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]],
            [[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.0, 0.0]],
        ]
    )
    found = geometry(boxes)
    assert torch.equal(found[..., :4], boxes)
    torch.testing.assert_close(found[..., 4], torch.tensor([[0.25, 1.0], [0.25, 0.0]]))


def test_overlap_is_intersection_over_union():
    box = (0.0, 0.0, 0.5, 0.5)
    assert overlap(box, box) == 1
    assert overlap(box, (0.5, 0.0, 1.0, 0.5)) == 0 == overlap(box, (0.6, 0.6, 1.0, 1.0))
    assert overlap(box, (0.25, 0.0, 0.75, 0.5)) == pytest.approx(1 / 3)
    assert (
        overlap(box, (0.0, 0.0, 1.0, 1.0))
        == pytest.approx(1 / 4)
        == overlap((0.0, 0.0, 1.0, 1.0), box)
    )


def flood_fill(kinds):
    """Labels by walking from each pixel to its like neighbours."""
    labels, label = np.full(kinds.shape, -1), 0
    for start in np.ndindex(kinds.shape):
        if labels[start] >= 0:
            continue
        queue, labels[start] = deque([start]), label
        while queue:
            y, x = queue.popleft()
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= place[0] < kinds.shape[0] and 0 <= place[1] < kinds.shape[1]
                if inside and labels[place] < 0 and kinds[place] == kinds[y, x]:
                    labels[place] = label
                    queue.append(place)
        label += 1
    return labels


def spiral(side):
    """A corridor of 1s that winds to the middle: the longest way that a label can have to walk."""
    kinds, x, y, step = np.zeros((side, side), int), 0, 0, (1, 0)
    kinds[0, 0] = 1
    for length in [side - 1, *sorted([*range(2, side, 2)] * 2, reverse=True)]:
        for _ in range(length):
            if not (0 <= x + step[0] < side and 0 <= y + step[1] < side):
                break
            x, y = x + step[0], y + step[1]
            kinds[y, x] = 1
        step = (-step[1], step[0])
    return kinds


@pytest.mark.parametrize(
    "kinds",
    [
        *(np.random.default_rng(seed).integers(0, 3, (17, 23)) for seed in range(6)),
        spiral(21),
        np.zeros((9, 5), int),
        np.arange(12).reshape(3, 4),
        np.zeros((1, 1), int),
        np.indices((12, 13)).sum(axis=0) % 2,
    ],
)
def test_connected_labels_are_those_of_a_flood_fill(kinds):
    found, known = connected(kinds), flood_fill(kinds)
    pairs = set(zip(found.reshape(-1).tolist(), known.reshape(-1).tolist()))
    assert (
        len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    )  # a renaming


def test_main_colours_take_near_colours_together_and_keep_far_ones_apart():
    pixels = np.zeros((8, 8, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
    pixels[::2] += 16  # a shade of the same red
    pixels[:, 5:] = (30, 30, 200)
    kinds = image_tokens.main_colours(pixels)
    assert (
        len(np.unique(kinds[:, :5])) == 1
        and len(np.unique(kinds[:, 5:])) == 1
        and kinds[0, 0] != kinds[0, 5]
    )


def test_regions_are_found_on_nine_objects_of_ten():
    found, total = 0, 0
    for scene in scenes.scenes_of("validation", 100):
        _, boxes = regions(scenes.world.draw(scene))
        for thing in scene.things:
            total += 1
            found += any(overlap(thing.box, box) >= 0.5 for box in boxes.tolist())
    assert found >= 0.9 * total


def test_regions_of_the_validation_scenes_are_whole_tokens():
    counts = set()
    for image in some_scenes("validation", 40)["image"]:
        features, boxes = regions(image)
        counts.add(len(features))
        assert features.dtype == np.uint8 and features.shape == (len(boxes), REGION_WIDTH)
        assert (
            boxes.dtype == np.float32 and boxes.shape[1] == 4 and 1 <= len(boxes) <= MOST_THINGS + 1
        )
        assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()
        sides = boxes.tolist()
        assert all(overlap(a, b) < 0.75 for i, a in enumerate(sides) for b in sides[:i])
    assert len(counts) > 1


def test_a_region_shows_its_own_pixels_and_where_they_are():
    image = Image.new("RGB", (112, 112), (240, 240, 240))
    ImageDraw.Draw(image).rectangle((20, 40, 59, 79), fill=(200, 30, 30))
    features, boxes = regions(image)
    assert len(features) == 2 and np.abs(boxes[0] * 112 - (20, 40, 60, 80)).max() <= 2
    crop = features[0].reshape(CROP, CROP, 4)
    assert (
        np.abs(crop[4:12, 4:12, :3].astype(int) - (200, 30, 30)).max() <= 2
        and (crop[4:12, 4:12, 3] == 255).all()
    )


def test_the_last_region_is_the_ground_with_its_things_painted_over():
    blank = Image.new("RGB", (112, 112), (90, 140, 200))
    ImageDraw.Draw(blank).rectangle((0, 0, 111, 55), fill=(110, 160, 210))
    image = blank.copy()
    ImageDraw.Draw(image).rectangle((14, 14, 41, 41), fill=(200, 30, 30))
    features, boxes = regions(image)
    crop = features[-1].reshape(CROP, CROP, 4).astype(int)
    assert tuple(boxes[-1]) == WHOLE and (crop[..., 3] == 255).all()
    share = (112 * 56 - 28 * 28) / (112 * 112 - 28 * 28)  # of the ground that is the upper half
    mean = share * np.array((110, 160, 210)) + (1 - share) * np.array((90, 140, 200))
    assert np.abs(crop[3:5, 3:5, :3] - mean).max() <= 2
    expected = whole(blank).reshape(CROP, CROP, 4)
    assert np.array_equal(crop[8:], expected[8:]) and np.array_equal(crop[:, 8:], expected[:, 8:])


def test_an_image_covered_by_things_has_a_grey_ground():
    image, everywhere = scenes.picture("validation-0002"), np.ones((56, 56), bool)
    assert (ground(image, [everywhere]).reshape(-1, 4)[:, :3] == 128).all()
    assert np.array_equal(ground(image, []), whole(image))


def test_things_are_the_regions_without_the_ground():
    for image in some_scenes("validation", 10)["image"]:
        (features, boxes), (known, places) = things(image), regions(image)
        assert np.array_equal(features, known[:-1]) and np.array_equal(boxes, places[:-1])
    blank = Image.new("RGB", (112, 112), (90, 140, 200))
    assert np.array_equal(things(blank)[0], regions(blank)[0])


def test_regions_read_pixels_and_nothing_else(monkeypatch):
    picture = scenes.picture("validation-0007")
    known = regions(picture)
    blind = Image.fromarray(np.asarray(picture))  # no file, no id, no scene
    monkeypatch.setattr(scenes.world, "scene", None)
    monkeypatch.setattr(json, "loads", None)
    assert all(np.array_equal(one, other) for one, other in zip(known, regions(blind)))


def test_the_same_image_gives_the_same_regions_whatever_was_drawn_from_random_before():
    picture = scenes.picture("validation-0001")
    known = regions(picture)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert all(np.array_equal(one, other) for one, other in zip(known, regions(picture)))


@pytest.mark.parametrize("size", [(112, 112), (1, 1), (64, 200)])
def test_a_blank_image_is_one_region_the_whole_of_it(size):
    features, boxes = regions(Image.new("RGB", size, (90, 140, 200)))
    assert boxes.tolist() == [[0, 0, 1, 1]] and features.shape == (1, REGION_WIDTH)
    assert np.array_equal(features[0], whole(Image.new("RGB", size, (90, 140, 200))))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_any_mode_are_read(mode):
    picture = scenes.picture("validation-0002").convert(mode)
    assert len(regions(picture)[0]) >= 1 and patches(picture)[0].shape == (49, PATCH_WIDTH)


def test_noise_does_not_give_too_many_regions():
    assert 1 <= len(regions(noise(112, 112))[0]) <= MOST_THINGS + 1
