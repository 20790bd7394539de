"""Images as tokens: padding and masks, precomputed features, whole splits and the cache."""

import numpy as np
import pytest
import torch
from helpers import refusal, some_scenes, token_set, tokenizer

from tgdt_mini import image_tokens, scenes
from tgdt_mini.data import ImageTokens
from tgdt_mini.photos.subsets import first_images
from tgdt_mini.scenes.tokens import build_token_set, scene_tokens

SIZES = (3, 1, 4)


def detected(sizes=SIZES, width=6, dtype=torch.float32):
    """Random features and boxes as a detector gives them."""
    draw = torch.Generator().manual_seed(0)
    features = [torch.rand(size, width, generator=draw).to(dtype) for size in sizes]
    corners = [
        torch.rand(size, 2, 2, generator=draw).sort(dim=1).values.flatten(1) for size in sizes
    ]
    return features, corners


def parts(tokens):
    return {name: getattr(tokens, name) for name in ("features", "boxes", "mask", "pooled")}


def test_images_of_different_counts_are_padded_to_the_most_and_masked():
    features, boxes = detected()
    tokens = ImageTokens.pad(features, boxes)
    assert (
        len(tokens) == 3 and tokens.features.shape == (3, 4, 6) and tokens.boxes.shape == (3, 4, 4)
    )
    assert tokens.mask.dtype == torch.bool and tokens.mask.sum(dim=1).tolist() == list(SIZES)
    for i, size in enumerate(SIZES):
        assert torch.equal(tokens.features[i, :size], features[i]) and torch.equal(
            tokens.boxes[i, :size], boxes[i]
        )
        assert tokens.mask[i, :size].all() and not tokens.mask[i, size:].any()


def test_without_a_whole_image_feature_the_mean_of_the_regions_stands_for_it():
    features, boxes = detected()
    tokens = ImageTokens.pad(features, boxes)
    torch.testing.assert_close(tokens.pooled, torch.stack([each.mean(dim=0) for each in features]))
    given = torch.rand(3, 6)
    assert torch.equal(ImageTokens.pad(features, boxes, list(given)).pooled, given)


def test_precomputed_numpy_features_of_the_paper_go_in_and_through_a_model():
    from helpers import tiny_model

    features, boxes = detected((36, 12), width=2048)
    tokens = ImageTokens.pad([each.numpy() for each in features], [each.numpy() for each in boxes])
    assert tokens.features.shape == (2, 36, 2048)
    embedding = tiny_model(image_features=2048).encode_images(tokens)
    assert embedding.local_tokens.shape == (2, 36, 32) and embedding.mask.sum(dim=1).tolist() == [
        36,
        12,
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f, b: (f[:2], b), "2 features and 3 boxes; give one of each"),
        (lambda f, b: ([], []), "0 features and 0 boxes"),
        (
            lambda f, b: ([f[0], f[1][:, :5], f[2]], b),
            r"image 1 has features \(1, 5\) .* they must be \(R, 6\)",
        ),
        (
            lambda f, b: (f, [b[0], b[1], b[2][:3]]),
            r"image 2 has features \(4, 6\) and boxes \(3, 4\)",
        ),
        (lambda f, b: ([f[0][:0], *f[1:]], [b[0][:0], *b[1:]]), "image 0 .* with R at least 1"),
        (lambda f, b: ([f[0][0], *f[1:]], b), r"image 0 has features \(6,\)"),
        (
            lambda f, b: (f, [b[0], b[1] * 640, b[2]]),
            "image 1 has boxes from .*; divide them by the image's width",
        ),
        (lambda f, b: (f, [b[0], b[1], b[2] - 1]), "image 2 has boxes from -"),
        (lambda f, b: (f, [b[0], b[1] * float("nan"), b[2]]), "image 1 has boxes"),
    ],
)
def test_features_and_boxes_that_do_not_fit_are_errors_that_name_the_image(change, message):
    with pytest.raises(ValueError, match=message):
        ImageTokens.pad(*change(*detected()))


@pytest.mark.parametrize(
    "pooled", [torch.rand(3, 5), torch.rand(2, 6), [torch.rand(6), torch.rand(5), torch.rand(6)]]
)
def test_whole_image_features_of_another_size_are_an_error(pooled):
    with pytest.raises(ValueError, match="pooled"):
        ImageTokens.pad(*detected(), pooled=list(pooled))


def test_parts_of_different_shapes_make_no_batch():
    tokens = ImageTokens.pad(*detected())
    with pytest.raises(
        ValueError, match=r"mask has shape \(3, 3\); with features \(3, 4, 6\) it must be \(3, 4\)"
    ):
        ImageTokens(tokens.features, tokens.boxes, tokens.mask[:, :3], tokens.pooled)


@pytest.mark.parametrize("kind", ["regions", "things", "patches"])
def test_tokens_of_pictures_are_those_of_the_kind(kind):
    pictures = some_scenes()["image"][:3]
    tokens = ImageTokens.of(pictures, kind)
    for i, picture in enumerate(pictures):
        features, boxes = getattr(image_tokens, kind)(picture)
        assert torch.equal(tokens.features[i, : len(features)], torch.tensor(features))
        assert torch.equal(tokens.boxes[i, : len(boxes)], torch.tensor(boxes))
        assert int(tokens.mask[i].sum()) == len(features)
        assert torch.equal(
            tokens.pooled[i], torch.tensor(image_tokens.whole(picture, patches=kind == "patches"))
        )


def test_another_kind_of_tokens_is_an_error():
    with pytest.raises(
        ValueError, match="kind is 'pixels'; it must be one of regions, things, patches"
    ):
        ImageTokens.of(some_scenes()["image"][:1], "pixels")


def test_rows_of_a_set_are_the_tokens_of_their_pictures():
    dataset, tokens = some_scenes(), token_set()
    rows = torch.tensor([7, 0, 31, 7])
    batch, known = tokens.images(rows), ImageTokens.of([dataset[int(row)]["image"] for row in rows])
    real = known.mask[..., None]
    assert torch.equal(batch.mask, known.mask) and torch.equal(batch.pooled, known.pooled)
    assert torch.equal(batch.features * real, known.features * real) and torch.equal(
        batch.boxes, known.boxes
    )
    assert not (
        batch.features[~batch.mask]
    ).any()  # nothing of a neighbour's regions in the padding


def test_a_set_knows_which_image_each_caption_belongs_to():
    dataset, tokens = some_scenes(), token_set()
    assert tokens.image_count == 40 and tokens.image_ids == tuple(dataset["image_id"])
    assert tokens.caption_image.tolist() == [i for i in range(40) for _ in range(5)]
    assert tokens.captions == tuple(caption for own in dataset["captions"] for caption in own)
    known = tokenizer()(list(tokens.captions))
    assert torch.equal(tokens.text.ids, known.ids) and torch.equal(
        tokens.text.word_mask, known.word_mask
    )


def test_captions_may_be_more_or_fewer_for_each_image():
    records = (
        some_scenes()
        .select(range(3))
        .remove_columns("captions")
        .add_column("captions", [["a star"] * 2, ["a"], ["b"] * 3])
    )
    tokens = build_token_set(records, tokenizer())
    assert tokens.caption_image.tolist() == [0, 0, 1, 2, 2, 2]
    cut = first_images(tokens, 2)
    assert cut.captions == ("a star", "a star", "a") and cut.image_count == 2


def test_what_is_no_dataset_is_refused():
    for wrong in (torch.zeros(2), [{"image": None}], None):
        with refusal("dataset is .*; give one with the columns image, image_id and", TypeError):
            build_token_set(wrong, tokenizer())


def test_the_first_images_of_a_set_are_a_set_of_the_first_images():
    cut, known = first_images(token_set(), 6), token_set("validation", 6)
    rows = torch.arange(6)
    assert (
        cut.captions == known.captions and cut.image_ids == known.image_ids and cut.image_count == 6
    )
    assert torch.equal(cut.caption_image, known.caption_image) and torch.equal(
        cut.text.ids, known.text.ids
    )
    for name, part in parts(cut.images(rows)).items():
        assert torch.equal(part, parts(known.images(rows))[name]), name
    assert len(cut.features) == len(cut.boxes) == int(cut.starts[-1])
    for images in (0, 41, -1):
        with pytest.raises(
            ValueError, match=f"images is {images}; this set has 40, so use 1 to 40"
        ):
            first_images(token_set(), images)


@pytest.mark.parametrize("kind", ["regions", "things", "patches"])
def test_tokens_from_the_cache_are_the_fresh_ones(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    dataset = some_scenes().select(range(4))
    first, fresh = (
        build_token_set(dataset, tokenizer(), kind, key="four"),
        build_token_set(dataset, tokenizer(), kind),
    )
    monkeypatch.setattr(image_tokens, kind, None)  # reading needs no cutting
    again = build_token_set(dataset, tokenizer(), kind, key="four")
    for known in (first, again):
        for name, part in parts(known.images(torch.arange(4))).items():
            cut = parts(fresh.images(torch.arange(4)))[name]
            assert part.dtype == cut.dtype and torch.equal(part, cut), name
    assert [folder.name for folder in tmp_path.iterdir()] == [f"tokens-four-{kind}"]


@pytest.mark.parametrize("kind", ["regions", "things", "patches"])
def test_the_first_scenes_of_a_split_have_the_tokens_of_the_whole_split(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    few = some_scenes("validation").select(range(9))
    monkeypatch.setattr(scenes, "load", lambda *args: few.select(range(args[2] or 9)))
    _, fresh = scene_tokens("validation", tokenizer(), kind, first=4)
    assert not list(tmp_path.iterdir())  # a part of a split is not kept
    scene_tokens("validation", tokenizer(), kind)
    monkeypatch.setattr(image_tokens, kind, None)  # reading needs no cutting
    for first in (1, 4, 9):
        dataset, kept = scene_tokens("validation", tokenizer(), kind, first=first)
        assert len(dataset) == len(kept.image_ids) == first and len(kept.captions) == 5 * first
        assert len(kept.features) == len(kept.boxes) == int(kept.starts[-1])
        assert len(kept.pooled) == first == len(kept.starts) - 1
        assert kept.features.untyped_storage().nbytes() == kept.features.numel()
        places = torch.arange(min(first, 4))
        for name, part in parts(kept.images(places)).items():
            cut = parts(fresh.images(places))[name]
            assert part.dtype == cut.dtype and torch.equal(part, cut), name


def test_the_cache_holds_one_folder_for_each_version_of_data_and_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "load", lambda split, *_: some_scenes().select(range(3)))

    def folders():
        scene_tokens("validation", tokenizer())
        return {folder.name for folder in tmp_path.iterdir()}

    known = folders()
    assert len(known) == 1 == len(folders())
    other = tmp_path.parent / "other code.py"
    other.write_text("NEAR = 45\n", encoding="utf-8")
    monkeypatch.setattr(image_tokens, "__file__", str(other))
    assert len(folders()) == 2
    published = scenes.published("validation")
    monkeypatch.setattr(scenes, "published", lambda split: published | {"pixels": "0" * 64})
    assert len(folders()) == 3
    scene_tokens("validation", tokenizer(), first=3)
    monkeypatch.setattr(scenes, "published", lambda split: published | {"pixels": "1" * 64})
    scene_tokens("validation", tokenizer(), first=3)
    assert (
        len(list(tmp_path.iterdir())) == 3
    )  # a part of a split is not kept under the name of the whole


def test_a_cache_that_cannot_be_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        build_token_set(some_scenes().select(range(2)), tokenizer(), key="two")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "features", [torch.tensor([1.0, 2.0]), torch.zeros(2, 3), torch.zeros(0, 2)]
)
def test_what_is_no_list_of_features_is_one_line(features):
    with pytest.raises(ValueError, match="features .*boxes") as refused:
        ImageTokens.pad(features, [torch.zeros(1, 4)] * len(features))
    assert "\n" not in str(refused.value)
