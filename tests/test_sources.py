"""Sources of photographs: each kind gives the same records, memory-mapped, and bad input is
named.
"""

import json
import os
import warnings
import weakref
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from helpers import some_scenes, tokenizer
from PIL import Image

from tgdt_mini import evaluation
from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.sources import PRESETS, from_datasets, karpathy_numbers, open_source
from tgdt_mini.scenes.tokens import build_token_set

COUNTS = {"train": 4, "dev": 2, "test": 3}
FLICKR8K = os.environ.get("TGDT_MINI_FLICKR8K")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No hub, and what `datasets` keeps of parquet files goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")


def number(name):
    """A number of its own for each name, as COCO has them."""
    return zlib.crc32(name.encode("utf-8"))


def photo(name):
    """A picture of its own for each name."""
    return Image.fromarray(
        np.random.default_rng(zlib.crc32(name.encode("utf-8"))).integers(
            0, 256, (12, 16, 3), dtype=np.uint8
        )
    )


def named(split, count):
    return [f"{split}-{i}.png" for i in range(count)]


def captions_of(name, count=5):
    return [f"caption {i} of {name}" for i in range(count)]


def image_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(path.name).save(path)
    return str(path)


def dataset(names, folder, inside=True, **columns):
    """A data set with the pictures' bytes inside, as parquet files and the hub have them, or with
    their paths only.
    """
    files = [Path(image_file(folder / name)) for name in names]
    images = [
        {"bytes": file.read_bytes(), "path": file.name} if inside else str(file) for file in files
    ]
    given = {
        "image": images,
        "image_id": names,
        "captions": [captions_of(name) for name in names],
    } | columns
    made = datasets.Dataset.from_dict(
        {name: each for name, each in given.items() if each is not None}
    )
    return made.cast_column("image", datasets.Image())


def parquet_folder(tmp_path, counts=COUNTS, suffix="", **columns):
    folder = tmp_path / "parquet"
    folder.mkdir(exist_ok=True)
    for split, count in counts.items():
        dataset(named(split, count), tmp_path / "made", **columns).to_parquet(
            folder / f"{split}{suffix}.parquet"
        )
    return folder


def karpathy_file(tmp_path, entries, name="dataset_flickr8k.json"):
    """entries: (file name, split, further keys) of each picture."""
    images = [
        {
            "filename": file,
            "split": split,
            "imgid": place,
            "sentences": [
                {"raw": caption, "tokens": caption.split()} for caption in captions_of(file)
            ],
        }
        | more
        for place, (file, split, more) in enumerate(entries)
    ]
    path = tmp_path / name
    path.write_text(json.dumps({"images": images, "dataset": "flickr8k"}), encoding="utf-8")
    return path


def karpathy_set(tmp_path, counts=COUNTS):
    entries = [
        (name, {"dev": "val"}.get(split, split), {})
        for split in counts
        for name in named(split, counts[split])
    ]
    for name, _, _ in entries:
        image_file(tmp_path / "images" / name)
    return karpathy_file(tmp_path, entries), tmp_path / "images"


def image_folder(tmp_path, counts=COUNTS):
    for split, count in counts.items():
        folder = tmp_path / "folder" / split
        lines = [
            json.dumps({"file_name": name, "captions": captions_of(name)})
            for name in named(split, count)
        ]
        for name in named(split, count):
            image_file(folder / name)
        (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "folder"


def expect(found, counts=COUNTS, name=lambda split, file: file):
    """The records are those of `named`, whatever they were made from."""
    assert list(found) == [{"dev": "validation"}.get(split, split) for split in counts]
    for (split, count), data in zip(counts.items(), found.values()):
        assert data.column_names[:3] == ["image", "image_id", "captions"]
        assert data.features["image"] == datasets.Image()
        assert data["image_id"][:] == [name(split, file) for file in named(split, count)]
        assert data["captions"][:] == [captions_of(file) for file in named(split, count)]
        for file, picture in zip(named(split, count), pictures(data)):
            assert (np.asarray(picture) == np.asarray(photo(file))).all()


# one record format


def test_a_folder_of_parquet_files_is_a_source_and_other_files_are_left_aside(tmp_path):
    folder = parquet_folder(tmp_path, COUNTS | {"extra": 2})
    expect(open_source(folder))
    expect(open_source(str(folder)))
    asked = open_source(folder, splits=["extra", "dev"])
    assert {split: len(data) for split, data in asked.items()} == {"validation": 2, "extra": 2}
    assert list(open_source(folder, splits=["validation"])) == ["validation"]
    assert list(open_source(folder, splits={"extra": "test", "train": "train"})) == [
        "train",
        "test",
    ]
    assert open_source(folder, splits={"extra": "test"})["test"]["image_id"][:] == named("extra", 2)


def test_parquet_files_named_as_the_hub_names_them_are_a_source(tmp_path):
    expect(open_source(parquet_folder(tmp_path, suffix="-00000-of-00001")))
    moved = tmp_path / "converted" / "default"
    for path in sorted((tmp_path / "parquet").iterdir()):
        place = moved / path.name.split("-")[0] / "0000.parquet"
        place.parent.mkdir(parents=True)
        path.rename(place)
    expect(open_source(tmp_path / "converted"))
    files = {split: [str(moved / split / "0000.parquet")] for split in COUNTS}
    expect(open_source(files))
    expect(open_source([file for (file,) in files.values()]))
    assert list(open_source(moved / "test" / "0000.parquet")) == ["test"]


def test_a_changed_parquet_file_is_read_anew(tmp_path):
    folder = parquet_folder(tmp_path)
    open_source(folder)
    parquet_folder(tmp_path, {"train": 6})
    assert len(open_source(folder)["train"]) == 6


def test_an_image_folder_with_a_metadata_file_is_a_source(tmp_path):
    expect(open_source(image_folder(tmp_path)), name=lambda split, file: f"{split}/{file}")


def test_a_metadata_file_may_be_parquet(tmp_path):
    folder = image_folder(tmp_path, {"train": 3, "test": 2})
    for metadata in folder.rglob("metadata.jsonl"):
        lines = [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines()]
        datasets.Dataset.from_list(lines).to_parquet(metadata.with_suffix(".parquet"))
        metadata.unlink()
    expect(open_source(folder), {"train": 3, "test": 2}, name=lambda split, file: f"{split}/{file}")


def test_pictures_of_one_name_in_two_folders_are_two_pictures(tmp_path):
    folder = image_folder(tmp_path, {"train": 1, "test": 1})
    for split in ("train", "test"):
        (folder / split / f"{split}-0.png").rename(folder / split / "0.png")
        (folder / split / "metadata.jsonl").write_text(
            '{"file_name": "0.png", "captions": ["a"]}', encoding="utf-8"
        )
    assert [data["image_id"][:] for data in open_source(folder).values()] == [
        ["train/0.png"],
        ["test/0.png"],
    ]


def test_data_sets_saved_to_disk_or_in_memory_are_a_source(tmp_path):
    sets = {
        split: dataset(named(split, count), tmp_path / "made") for split, count in COUNTS.items()
    }
    expect(open_source(sets))
    expect(open_source(datasets.DatasetDict(sets)))
    datasets.DatasetDict(sets).save_to_disk(str(tmp_path / "saved"))
    expect(open_source(tmp_path / "saved"))
    sets["train"].save_to_disk(str(tmp_path / "alone"))
    expect(open_source(tmp_path / "alone"), {"train": 4})


def test_boxes_and_phrases_come_along(tmp_path):
    boxes = [[{"region": "1", "box": [0.0, 0.25, 0.5, 1.0]}]] * 2
    phrases = [
        [{"caption": c, "text": "of", "region": "1", "kind": ["other"]} for c in range(5)]
    ] * 2
    made = dataset(named("test", 2), tmp_path, places=boxes, phrases=phrases)
    found = open_source({"test": made}, columns={"boxes": "places"})["test"]
    assert found.column_names == ["image", "image_id", "captions", "boxes", "phrases"]
    assert found["boxes"][:] == boxes and found["phrases"][:] == phrases
    cut = open_source({"test": made}, most_captions=2)["test"]
    assert [phrase["caption"] for phrase in cut["phrases"][0]] == [0, 1] and cut["captions"][
        0
    ] == captions_of("test-0.png", 2)


@pytest.mark.parametrize("kind", ["embedded", "bytes", "struct", "paths"])
def test_pictures_may_be_stored_in_several_ways(kind, tmp_path):
    made = dataset(names := named("test", 3), tmp_path / "made")
    files = [tmp_path / "made" / name for name in names]
    columns = {
        "embedded": None,
        "bytes": [file.read_bytes() for file in files],
        "paths": names,
        "struct": [{"bytes": file.read_bytes(), "path": None} for file in files],
    }[kind]
    if columns is not None:
        made = made.remove_columns("image").add_column("photo", columns)
    given = {} if kind == "embedded" else {"image": "photo"}
    expect(open_source({"test": made}, columns=given, images=tmp_path / "made"), {"test": 3})


def test_captions_in_several_columns_are_put_together_and_gaps_left_out(tmp_path):
    names = named("test", 2)
    columns = {f"caption_{i}": [captions_of(name)[i] for name in names] for i in range(5)}
    columns["caption_4"][1] = None
    made = dataset(names, tmp_path, captions=None, **columns)
    found = open_source({"test": made}, columns={"captions": [f"caption_{i}" for i in range(5)]})[
        "test"
    ]
    assert found["captions"][:] == [captions_of(names[0]), captions_of(names[1])[:4]]


def test_rows_of_one_caption_are_put_together_by_image(tmp_path):
    rows = [
        ("a.png", "a one"),
        ("b.png", "b one"),
        ("a.png", "a two"),
        ("c.png", "c one"),
        ("b.png", "b two"),
    ]
    made = dataset(
        [name for name, _ in rows],
        tmp_path,
        captions=None,
        image_id=None,
        caption=[text for _, text in rows],
        number=[ord(name[0]) for name, _ in rows],
    )
    found = open_source({"test": made}, columns={"captions": "caption", "image_id": "number"})[
        "test"
    ]
    assert found["image_id"][:] == ["97", "98", "99"]
    assert found["captions"][:] == [["a one", "a two"], ["b one", "b two"], ["c one"]]
    for name, picture in zip(("a.png", "b.png", "c.png"), pictures(found)):
        assert (np.asarray(picture) == np.asarray(photo(name))).all()


def test_rows_of_one_file_are_one_picture(tmp_path):
    folder, rows = (
        tmp_path / "imgs",
        [("a0.png", "a one"), ("a1.png", "b one"), ("a0.png", "a two"), ("a1.png", "b two")],
    )
    for name in ("a0.png", "a1.png"):
        image_file(folder / name)
    (folder / "metadata.csv").write_text(
        "file_name,text\n" + "\n".join(map(",".join, rows)), encoding="utf-8"
    )
    found = open_source(folder, columns={"captions": "text"})["train"]
    assert found["image_id"][:] == ["a0.png", "a1.png"]
    assert found["captions"][:] == [["a one", "a two"], ["b one", "b two"]]
    for name, picture in zip(("a0.png", "a1.png"), pictures(found)):
        assert (np.asarray(picture) == np.asarray(photo(name))).all()
    most = open_source(folder, columns={"captions": "text"}, most_captions=1)["train"]
    assert most["captions"][:] == [["a one"], ["b one"]]


def test_files_of_one_name_in_two_folders_are_two_pictures_though_each_has_several_rows(tmp_path):
    for place in ("x", "y"):
        photo(place).save(Path(image_file(tmp_path / place / "0.png")))
    files = [str(tmp_path / place / "0.png") for place in "xyxy"]
    made = datasets.Dataset.from_dict(
        {"image": files, "text": ["x one", "y one", "x two", "y two"]}
    )
    found = open_source({"test": made}, columns={"captions": "text"})["test"]
    assert found["image_id"][:] == ["test-00000", "test-00001"]
    assert found["captions"][:] == [["x one", "x two"], ["y one", "y two"]]
    for place, picture in zip("xy", pictures(found)):
        assert (np.asarray(picture) == np.asarray(photo(place))).all()


def test_rows_whose_pictures_cannot_be_told_apart_are_an_error(tmp_path):
    """The bytes are in the rows: pictures of one name may be the same, or come from two folders."""
    made = dataset(
        ["a.png", "b.png", "a.png"], tmp_path, image_id=None, captions=["one", "two", "three"]
    )
    with pytest.raises(
        ValueError,
        match=r"^test has one caption a row and several rows .* called 'a.png', .*columns=\{'image_id'",
    ):
        open_source({"test": made})
    assert len(open_source({"test": made.select([0, 1])})["test"]) == 2
    unused = made.add_column("split", ["test", "test", "unused"])
    assert len(open_source({"all": unused}, columns={"split": "split"})["test"]) == 2
    named_rows = open_source(
        {"test": made.add_column("name", ["a", "b", "a"])}, columns={"image_id": "name"}
    )
    assert named_rows["test"]["captions"][:] == [["one", "three"], ["two"]]


def test_a_file_that_stands_twice_with_lists_of_captions_is_an_error(tmp_path):
    made = dataset(["a.png", "b.png", "a.png"], tmp_path, inside=False, image_id=None)
    with pytest.raises(ValueError, match="^image_id 'a.png' stands for two records of test"):
        open_source({"test": made})


def test_restval_stays_away_when_refused_whatever_is_asked_for(tmp_path):
    counts = {"train": 3, "restval": 2, "val": 1, "test": 1}
    entries = [(name, split, {}) for split, count in counts.items() for name in named(split, count)]
    for name, _, _ in entries:
        image_file(tmp_path / "images" / name)
    path = karpathy_file(tmp_path, entries)
    for splits in (
        None,
        ["train", "validation", "test"],
        {"train": "train", "val": "validation", "test": "test"},
    ):
        found = open_source(path, images=tmp_path / "images", splits=splits, restval=False)
        assert found["train"]["image_id"][:] == named("train", 3)
    found = open_source(path, images=tmp_path / "images", splits=["train", "validation"])
    assert found["train"]["image_id"][:] == named("train", 3) + named("restval", 2)
    for splits in (["train", "restval"], {"restval": "train"}, "restval"):
        with pytest.raises(
            ValueError, match=r"^splits is .*restval.* and restval is False \(--no-restval\)"
        ):
            open_source(path, images=tmp_path / "images", splits=splits, restval=False)


@pytest.mark.parametrize("kind", ["text", "class"])
def test_a_split_may_be_a_column(kind, tmp_path):
    names = [*named("train", 4), *named("dev", 2), *named("test", 3), "odd.png"]
    splits = [
        {"dev": "val", "odd.png": "unused"}.get(name.split("-")[0], name.split("-")[0])
        for name in names
    ]
    made = dataset(names, tmp_path, split=splits)
    if kind == "class":
        made = made.class_encode_column("split")
    mixed = made.select(
        [9, 4, 0, 6, 1, 7, 5, 2, 8, 3]
    )  # in no order, but each split's pictures are
    expect(open_source({"all": mixed}, columns={"split": "split"}))
    made.to_parquet(tmp_path / "everything.parquet")
    expect(open_source(tmp_path / "everything.parquet", columns={"split": "split"}))
    asked = open_source({"all": made}, columns={"split": "split"}, splits=["unused"])
    assert asked["unused"]["image_id"][:] == ["odd.png"]


def test_pictures_without_an_id_are_called_by_file_or_by_row(tmp_path):
    made = dataset(named("test", 2), tmp_path, image_id=None)
    assert open_source({"test": made})["test"]["image_id"][:] == named("test", 2)
    twice = datasets.concatenate_datasets([made, made])
    assert open_source({"test": twice})["test"]["image_id"][:] == [
        f"test-{row:05d}" for row in range(4)
    ]
    nameless = [
        {"bytes": (tmp_path / name).read_bytes(), "path": None} for name in named("test", 2)
    ]
    made = made.remove_columns("image").add_column("image", nameless)
    assert open_source({"test": made})["test"]["image_id"][:] == ["test-00000", "test-00001"]


def test_captions_may_be_more_or_fewer_than_five(tmp_path):
    counts = [1, 5, 7]
    names = named("test", 3)
    made = dataset(
        names, tmp_path, captions=[captions_of(name, count) for name, count in zip(names, counts)]
    )
    assert [len(own) for own in open_source({"test": made})["test"]["captions"]] == counts
    assert [
        len(own) for own in open_source({"test": made}, most_captions=5)["test"]["captions"]
    ] == [1, 5, 5]
    with pytest.raises(ValueError, match="most_captions is 0; keep at least 1"):
        open_source({"test": made}, most_captions=0)


# presets and hub names


def as_on_the_hub(preset, names, folder):
    """A set with the columns that the preset's set has."""
    every, bare = [captions_of(name) for name in names], {"captions": None, "image_id": None}
    if preset == "flickr8k":
        return dataset(
            names,
            folder,
            **bare,
            **{f"caption_{i}": list(each) for i, each in enumerate(zip(*every))},
        )
    if preset == "flickr30k":
        more = {"split": ["somewhere"] * len(names), "img_id": [str(i) for i in range(len(names))]}
        return dataset(names, folder, **bare, filename=names, caption=every, **more)
    rows = [(name, caption) for name, own in zip(names, every) for caption in own]
    more = {
        "cocoid": [number(name) for name, _ in rows],
        "caption": [caption for _, caption in rows],
    }
    return dataset(
        [name for name, _ in rows], folder, **bare, filename=[name for name, _ in rows], **more
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_the_columns_that_the_hub_s_sets_have(preset, tmp_path, monkeypatch):
    """With sets of the published columns and split names; the hub itself is out of reach here."""
    asked = []

    def load(name):
        asked.append(name)
        validation = "val" if preset == "flickr30k" else "validation"
        return datasets.DatasetDict(
            {
                {"dev": validation}.get(split, split): as_on_the_hub(
                    preset, named(split, count), tmp_path
                )
                for split, count in COUNTS.items()
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    expect(
        open_source(preset),
        name=lambda split, file: str(number(file)) if preset == "coco" else file,
    )
    open_source("somebody/else", columns=PRESETS[preset]["columns"])
    assert asked == [PRESETS[preset]["name"], "somebody/else"]


def test_a_preset_s_columns_can_be_changed(tmp_path, monkeypatch):
    made = dataset(
        named("test", 2),
        tmp_path,
        image_id=None,
        captions=None,
        img_id=["x", "y"],
        caption=[captions_of(name) for name in named("test", 2)],
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"test": made})
    assert open_source("flickr30k", columns={"image_id": "img_id"})["test"]["image_id"][:] == [
        "x",
        "y",
    ]


@pytest.mark.parametrize("spec", ["flickr9k", "somebody/flickr30k"])
def test_a_hub_that_cannot_be_reached_is_one_line(spec):
    with pytest.raises(
        ValueError, match=f"^'{spec}' is no file or folder here and no preset .flickr8k, .*hub name"
    ) as e:
        open_source(spec)
    assert len(str(e.value).splitlines()) == 1


# Karpathy's JSON


def test_karpathy_s_json_and_a_folder_are_a_source(tmp_path):
    path, images = karpathy_set(tmp_path)
    found = open_source(path, images=images)
    expect(found)
    stored = found["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert (
        stored["bytes"] is None and Path(stored["path"]) == images / "train-0.png"
    )  # a path, no picture
    assert karpathy_numbers(path)["dev-1.png"] == "5"


@pytest.mark.parametrize("nested", [True, False])
def test_coco_s_folders_and_restval_are_understood(nested, tmp_path):
    entries = [
        ("train.png", "train", {"filepath": "train2014", "cocoid": 9}),
        ("spare.png", "restval", {"filepath": "val2014", "cocoid": 8}),
        ("test.png", "test", {"filepath": "val2014", "cocoid": 7}),
    ]
    for name, _, more in entries:
        image_file(tmp_path / "coco" / (more["filepath"] if nested else "") / name)
    path = karpathy_file(tmp_path, entries, "dataset_coco.json")
    found = open_source(path, images=tmp_path / "coco")
    assert {split: data["image_id"][:] for split, data in found.items()} == {
        "train": ["train.png", "spare.png"],
        "test": ["test.png"],
    }
    assert [
        (np.asarray(p) == np.asarray(photo("spare.png"))).all() for p in pictures(found["train"])
    ] == [False, True]
    assert open_source(path, tmp_path / "coco", restval=False)["train"]["image_id"][:] == [
        "train.png"
    ]
    assert karpathy_numbers(path) == {"train.png": "9", "spare.png": "8", "test.png": "7"}


def test_a_picture_that_karpathy_s_json_names_in_vain_is_an_error(tmp_path):
    path, images = karpathy_set(tmp_path)
    (images / "train-2.png").unlink()
    with pytest.raises(
        ValueError,
        match=r"^1 of 4 pictures are missing, such as .*train-2\.png; unpack .* as images$",
    ):
        open_source(path, images=images)


@pytest.mark.parametrize(
    "content, message",
    [
        ("no json", "is not one of Karpathy's dataset_.*json files"),
        ("[]", "is not one of Karpathy's"),
        ('{"pictures": []}', "is not one of Karpathy's .*: 'images'"),
        ('{"images": [{"filename": "a.png", "split": "test"}]}', r"images\[0\] has no sentences"),
        (
            '{"images": [{"filename": "a.png", "split": "test", "sentences": [{"tokens": []}]}]}',
            "has no raw in its",
        ),
    ],
)
def test_a_json_that_is_not_karpathy_s_is_an_error(content, message, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        open_source(path, images=tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("images", [None, "nowhere"])
def test_karpathy_s_json_needs_its_pictures(images, tmp_path):
    path, _ = karpathy_set(tmp_path)
    with pytest.raises(
        ValueError, match=f"^images is {images}; dataset_flickr8k.json needs the folder"
    ):
        open_source(path, images=images)
    with pytest.raises(ValueError, match="columns is .* but .* names are fixed"):
        open_source(path, images=tmp_path, columns={"captions": "raw"})
    with pytest.raises(ValueError, match=r"none\.json does not exist; give one of Karpathy's"):
        open_source(tmp_path / "none.json", images=tmp_path)


# bad input


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            {"captions": "text"},
            "^test has no column 'text' for captions; it has image, image_id, captions: name the right",
        ),
        ({"captions": ["captions", "more"]}, "^test has no column 'more' for captions"),
        (
            {"image": "photo"},
            "^test has no column 'photo' for image; it has image, image_id, captions",
        ),
        ({"image_id": "id"}, "^test has no column 'id' for image_id"),
        ({"split": "part"}, "^test has no column 'part' for split"),
        ({"boxes": "box"}, "^test has no column 'box' for boxes"),
        (
            {"caption": "text"},
            r"^columns names \['caption'\]; it may name image, captions, image_id, split",
        ),
        ({"image": "captions"}, "^the column for image holds List.*, no pictures; name another"),
        (
            {"captions": "image"},
            "^column 'image' holds Image.*; captions must be text, or lists of text",
        ),
    ],
)
def test_columns_that_are_not_there_are_named_with_those_that_are(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        open_source({"test": dataset(named("test", 2), tmp_path)}, columns=columns)
    assert len(str(caught.value).splitlines()) == 1


def test_default_columns_that_are_not_there_are_named_too(tmp_path):
    made = dataset(named("test", 2), tmp_path, captions=None, caption=["a", "b"])
    with pytest.raises(
        ValueError,
        match=r"no column 'captions' .* it has image, image_id, caption: .*columns=\{'captions",
    ):
        open_source({"test": made})


@pytest.mark.parametrize(
    "captions, message",
    [
        (
            [["a"], []],
            r"^image 'test-1.png' of test has no captions; write one, or leave the picture out$",
        ),
        ([["a"], None], r"^image 'test-1.png' of test has no captions"),
        (
            [["a", ""], ["b"]],
            r"^captions\[1\] of image 'test-0.png' of test is ''; write it, or leave it out$",
        ),
        ([["a"], [" \n"]], r"^captions\[0\] of image 'test-1.png' of test is ' \\n'"),
        ([["a"], ["b", None]], r"^captions\[1\] of image 'test-1.png' of test is None"),
        (["a", ""], r"^captions\[0\] of image 'test-1.png' of test is ''"),
        (["a", None], r"^captions\[0\] of image 'test-1.png' of test is None"),
        ([1, 2], "^column 'captions' holds Value.*int64.*; captions must be text, or lists"),
        ([[["a"]], [["b"]]], "^column 'captions' holds List.*; captions must be text, or lists"),
    ],
)
def test_missing_and_empty_captions_are_named_by_image(captions, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source({"test": dataset(named("test", 2), tmp_path, captions=captions)})


def test_an_id_that_stands_twice_is_an_error(tmp_path):
    made = dataset(named("test", 3), tmp_path, image_id=["x", "y", "x"])
    with pytest.raises(
        ValueError, match="^image_id 'x' stands for two records of test; name each once, or another"
    ):
        open_source({"test": made})
    made = dataset(named("test", 3), tmp_path, image_id=["x", None, "z"])
    with pytest.raises(
        ValueError, match="^test has no image_id in row 1; give every picture a name"
    ):
        open_source({"test": made})


def test_an_image_in_two_splits_is_an_error(tmp_path):
    sets = {
        "train": dataset(named("train", 3), tmp_path),
        "dev": dataset(["dev-0.png", "train-1.png"], tmp_path),
    }
    with pytest.raises(
        ValueError,
        match="^image 'train-1.png' is both in train and in validation: what is tested on",
    ):
        open_source(sets)
    assert len(open_source(sets, splits=["train"])["train"]) == 3  # nobody is tested
    rows = dataset(["a.png", "a.png"], tmp_path, captions=["one", "two"], split=["train", "test"])
    with pytest.raises(ValueError, match="^image 'a.png' is both in train and in test"):
        open_source({"all": rows}, columns={"split": "split"})


@pytest.mark.parametrize("inside", [True, False])
def test_a_picture_under_two_names_in_two_splits_is_a_warning(inside, tmp_path):
    sets = {
        split: dataset(named(split, 3), tmp_path / split, inside) for split in ("train", "test")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(sets)
    copy = (tmp_path / "train" / "train-2.png").read_bytes()
    (tmp_path / "test" / "test-1.png").write_bytes(copy)
    if inside:
        images = sets["test"].cast_column("image", datasets.Image(decode=False))["image"][:]
        images[1]["bytes"] = copy
        sets["test"] = sets["test"].remove_columns("image").add_column("image", images)
    with pytest.warns(
        UserWarning,
        match="^1 pictures are in two splits .* train-2.png in train and test-1.png in te",
    ):
        found = open_source(sets)
    assert [len(data) for data in found.values()] == [3, 3]


def test_pictures_of_one_size_that_differ_are_no_copies(tmp_path):
    """Uncompressed files of one format have the same size and can share their first and last
    bytes.
    """
    sets = {}
    for place, split in enumerate(("train", "test")):
        image = Image.new("RGB", (40, 40), "white")
        image.putpixel((20, 20), (place, 0, 0))
        image.save(tmp_path / f"{split}.bmp")
        sets[split] = datasets.Dataset.from_dict(
            {"image": [str(tmp_path / f"{split}.bmp")], "image_id": [split], "captions": [["a"]]}
        ).cast_column("image", datasets.Image())
    assert (tmp_path / "train.bmp").stat().st_size == (tmp_path / "test.bmp").stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(sets)


def test_a_spoilt_picture_is_named_when_it_is_read_and_not_before(tmp_path):
    path, images = karpathy_set(tmp_path)
    (images / "test-1.png").write_bytes((images / "test-1.png").read_bytes()[:100])
    found = open_source(path, images=images)["test"]
    with pytest.raises(ValueError, match=r"^image test-1\.png \(.*\) cannot be read: "):
        list(pictures(found))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: p / "nowhere", "nowhere does not exist; give a file or a folder, a preset"),
        (lambda p: "photos.parquet", "photos.parquet does not exist"),
        (lambda p: p, "holds neither parquet files nor pictures"),
        (lambda p: 3, "source is a int; give"),
        (
            lambda p: {"test": p / "no.parquet"},
            "no.parquet does not exist; give the parquet files of test",
        ),
    ],
)
def test_what_is_not_understood_is_said(make, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        open_source(make(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_files_of_no_known_split_are_listed(tmp_path):
    folder = parquet_folder(tmp_path, {"photos": 2, "more": 1})
    with pytest.raises(
        ValueError,
        match="^no file belongs to train, validation or test; there are more.parquet, photos",
    ):
        open_source(folder)
    with pytest.raises(ValueError, match=r"^no file belongs to \['none'\]; there are"):
        open_source(folder, splits=["none"])
    with pytest.raises(
        ValueError,
        match=r"^none is train, validation or test; the data has the splits photos: choose",
    ):
        open_source({"photos": dataset(named("photos", 2), tmp_path)})
    with pytest.raises(
        ValueError, match=r"^splits asks for \['gone'\]; the data has the splits test"
    ):
        open_source({"test": dataset(named("test", 2), tmp_path)}, splits=["test", "gone"])


@pytest.mark.parametrize("spoil", ["text", "cut", "middle"])
def test_a_spoilt_parquet_file_is_named_with_its_cause(spoil, tmp_path):
    path = parquet_folder(tmp_path, {"train": 9}) / "train.parquet"
    content = path.read_bytes()
    middle = content[:200] + bytes([7]) * 3000 + content[3200:]
    path.write_bytes({"text": b"no parquet", "cut": content[:-100], "middle": middle}[spoil])
    with pytest.raises(
        ValueError, match=r"train\.parquet cannot be read as parquet: (Arrow\w+|OSError): "
    ) as caught:
        open_source(path.parent)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "metadata, message",
    [
        (
            '{"captions": ["a"]}',
            "cannot be read as an image folder with a metadata file: ValueError: ",
        ),
        ('{"file_name"', "cannot be read as an image folder with a metadata file: "),
        ('{"file_name": "elsewhere.png", "captions": ["a"]}', r"elsewhere\.png|no captions"),
        (None, "^train has no column 'captions' for captions; it has image"),
    ],
)
def test_metadata_that_does_not_fit_its_folder_is_named(metadata, message, tmp_path):
    folder = image_folder(tmp_path, {"train": 1})
    (folder / "train" / "metadata.jsonl").unlink()
    if metadata:
        (folder / "train" / "metadata.jsonl").write_text(metadata, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        open_source(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_shown_unless_asked_for(tmp_path, capfd):
    folder = parquet_folder(tmp_path)
    capfd.readouterr()
    open_source(folder)
    assert capfd.readouterr() == ("", "")
    datasets.utils.logging.enable_progress_bar()
    from_datasets(parquet_folder(tmp_path, {"train": 7}), progress=True)
    assert "examples" in capfd.readouterr().err


# what the records are for


def test_pictures_are_not_held_in_memory(tmp_path):
    """Going through the records leaves nothing but the last picture alive."""
    seen = []
    for picture in pictures(open_source(parquet_folder(tmp_path, {"train": 20}))["train"]):
        seen.append(weakref.ref(picture))
        assert sum(each() is not None for each in seen) <= 2
    assert len(seen) == 20


def test_rows_are_neither_copied_nor_rewritten(tmp_path):
    """The pictures' bytes stay in the file that `datasets` maps into memory, for splits by column
    too.
    """
    names = named("train", 6)
    made = dataset(names, tmp_path / "made", split=["train", "test"] * 3)
    made.to_parquet(tmp_path / "all.parquet")
    found = open_source(tmp_path / "all.parquet", columns={"split": "split"})
    (one,) = {file["filename"] for data in found.values() for file in data.cache_files}
    assert Path(one).is_relative_to(tmp_path / "datasets cache")
    assert [data["image_id"][:] for data in found.values()] == [names[::2], names[1::2]]


def coco_like(tmp_path, images=20):
    """Karpathy's JSON of drawn scenes with five to seven captions each, all in one test split."""
    entries, data = [], some_scenes("test", images)
    for place, (scene, captions) in enumerate(zip(pictures(data), data["captions"])):
        name = f"COCO_val2014_{place:012d}.png"
        (tmp_path / "val2014").mkdir(exist_ok=True)
        scene.save(tmp_path / "val2014" / name)
        sentences = [{"raw": caption} for caption in [*captions, *captions][: 5 + place % 3]]
        entries.append(
            (name, "test", {"filepath": "val2014", "cocoid": place, "sentences": sentences})
        )
    return karpathy_file(tmp_path, entries, "dataset_coco.json")


def hits(scores, owner, k):
    """Percent of images with a caption of their own among the first k, and the other way round,
    counted one by one.
    """
    images, captions = scores.shape
    by_image = scores.topk(min(k, captions), dim=1).indices.tolist()
    by_caption = scores.topk(min(k, images), dim=0).indices.T.tolist()
    found = [any(owner[c] == image for c in row) for image, row in enumerate(by_image)]
    return 100 * sum(found) / images, 100 * sum(
        owner[c] in row for c, row in enumerate(by_caption)
    ) / captions


@pytest.mark.parametrize("most, total", [(None, 119), (5, 100)])
def test_both_protocols_of_coco_follow_from_the_records(most, total, tmp_path):
    """5K: everything against everything. 1K: five folds in the order of the file, each alone, and
    their mean.
    """
    data = open_source(coco_like(tmp_path), images=tmp_path, most_captions=most)["test"]
    tokens = build_token_set(data, tokenizer())
    owner = tokens.caption_image.tolist()
    assert tokens.image_count == 20 and len(owner) == total
    scores = torch.rand(20, total, generator=torch.Generator().manual_seed(0))
    scores[owner, range(total)] += 0.3  # better than chance, and not perfect
    full = evaluation.both_ways(scores, tokens.caption_image)
    mean = evaluation.mean_of_folds(scores, tokens.caption_image)
    folds = []
    for first in range(0, 20, 4):
        captions = [c for c, image in enumerate(owner) if first <= image < first + 4]
        assert [int(tokens.image_ids[owner[c]][-16:-4]) // 4 for c in captions] == [
            first // 4
        ] * len(captions)
        folds.append((scores[first : first + 4][:, captions], [owner[c] - first for c in captions]))
    for k in (1, 5, 10):
        assert (full.i2t[k], full.t2i[k]) == pytest.approx(hits(scores, owner, k))
        known = np.mean([hits(*fold, k) for fold in folds], axis=0)
        assert (mean.i2t[k], mean.t2i[k]) == pytest.approx(tuple(known))
    assert full.rsum < mean.rsum < 600  # a smaller gallery is easier


@pytest.mark.skipif(
    not FLICKR8K, reason="TGDT_MINI_FLICKR8K names no folder with train, dev and test.parquet"
)
def test_flickr8k_has_its_official_splits():
    found = open_source(FLICKR8K)
    assert {split: len(data) for split, data in found.items()} == {
        "train": 6000,
        "validation": 1000,
        "test": 1000,
    }
    for data in found.values():
        assert {len(own) for own in data["captions"]} == {5}
    first = next(pictures(found["test"]))
    assert first.mode == "RGB" and min(first.size) >= 100
