"""Records of photographs: data sets of other columns and splits, and what does not fit."""

import weakref
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers import refusal
from test_sources import (  # noqa: F401  offline is a fixture
    COUNTS,
    captions_of,
    dataset,
    expect,
    image_file,
    named,
    offline,
    photo,
)

from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.records import choose_splits, to_records
from tgdt_mini.photos.sources import open_source

# columns


def test_boxes_and_phrases_come_along(tmp_path):
    boxes = [[{"region": "1", "box": [0.0, 0.25, 0.5, 1.0]}]] * 2
    phrases = [
        {"caption": number, "text": "of", "region": "1", "kind": ["other"]} for number in range(5)
    ]
    made = dataset(named("test", 2), tmp_path, places=boxes, phrases=[phrases] * 2)
    found = to_records({"test": made}, {"boxes": "places"})["test"]
    assert found.column_names == ["image", "image_id", "captions", "boxes", "phrases"]
    assert found["boxes"][:] == boxes and found["phrases"][:] == [phrases] * 2
    cut = to_records({"test": made}, most_captions=2)["test"]
    assert cut["phrases"][0] == phrases[:2]
    assert cut["captions"][0] == captions_of("test-0.png", 2)


@pytest.mark.parametrize("kind", ["embedded", "bytes", "struct", "paths"])
def test_pictures_may_be_stored_in_several_ways(kind, tmp_path):
    made = dataset(names := named("test", 3), tmp_path / "made")
    contents = [(tmp_path / "made" / name).read_bytes() for name in names]
    columns = {
        "embedded": None,
        "bytes": contents,
        "paths": names,
        "struct": [{"bytes": content, "path": None} for content in contents],
    }[kind]
    if columns is not None:
        made = made.remove_columns("image").add_column("photo", columns)
    given = {} if kind == "embedded" else {"image": "photo"}
    expect(to_records({"test": made}, given, images=tmp_path / "made"), {"test": 3})


def test_one_column_may_be_the_picture_and_its_id(tmp_path):
    for name in named("test", 3):
        image_file(tmp_path / name)
    columns = {"file": named("test", 3), "captions": list(map(captions_of, named("test", 3)))}
    made = datasets.Dataset.from_dict(columns)
    expect(
        to_records({"test": made}, {"image": "file", "image_id": "file"}, images=tmp_path),
        {"test": 3},
    )


def test_captions_in_several_columns_are_put_together_and_gaps_left_out(tmp_path):
    names = named("test", 2)
    columns = {f"caption_{i}": [captions_of(name)[i] for name in names] for i in range(5)}
    columns["caption_4"][1] = None
    made = dataset(names, tmp_path, captions=None, **columns)
    found = to_records({"test": made}, {"captions": list(columns)})["test"]
    assert found["captions"][:] == [captions_of(names[0]), captions_of(names[1])[:4]]


def test_rows_of_one_caption_are_put_together_by_image(tmp_path):
    rows = [("a", "a one"), ("b", "b one"), ("a", "a two"), ("c", "c one"), ("b", "b two")]
    names = [f"{name}.png" for name, _ in rows]
    columns = {"caption": [text for _, text in rows], "number": [ord(name[0]) for name in names]}
    made = dataset(names, tmp_path, captions=None, image_id=None, **columns)
    found = to_records({"test": made}, {"captions": "caption", "image_id": "number"})["test"]
    assert found["image_id"][:] == ["97", "98", "99"]
    assert found["captions"][:] == [["a one", "a two"], ["b one", "b two"], ["c one"]]
    for name, picture in zip(("a.png", "b.png", "c.png"), pictures(found)):
        assert (np.asarray(picture) == np.asarray(photo(name))).all()


def test_rows_whose_pictures_cannot_be_told_apart_are_an_error(tmp_path):
    """Pictures of one name may be the same, or come from two folders."""
    names = ["a.png", "b.png", "a.png"]
    made = dataset(names, tmp_path, image_id=None, captions=["one", "two", "three"])
    with pytest.raises(ValueError, match="called 'a.png', .*--columns image_id="):
        to_records({"test": made})
    assert len(to_records({"test": made.select([0, 1])})["test"]) == 2
    told = to_records({"test": made.add_column("name", names)}, {"image_id": "name"})
    assert told["test"]["captions"][:] == [["one", "three"], ["two"]]


def test_pictures_without_an_id_are_called_by_file_or_by_row(tmp_path):
    made = dataset(named("test", 2), tmp_path, image_id=None)
    assert to_records({"test": made})["test"]["image_id"][:] == named("test", 2)
    twice = to_records({"test": datasets.concatenate_datasets([made, made])})
    assert twice["test"]["image_id"][:] == [f"test-{row:05d}" for row in range(4)]
    contents = [(tmp_path / name).read_bytes() for name in named("test", 2)]
    nameless = [{"bytes": content, "path": None} for content in contents]
    made = made.remove_columns("image").add_column("image", nameless)
    assert to_records({"test": made})["test"]["image_id"][:] == ["test-00000", "test-00001"]


@pytest.mark.parametrize("columns", ["text", ["text", "more"]])
def test_lists_written_as_text_are_refused_and_a_caption_in_brackets_is_not(columns, tmp_path):
    lists = ['["a red star", "two moons", "it\\u0027s one"]', "['a ring', \"it's red\"]", None]
    made = dataset(named("test", 3), tmp_path, captions=None, text=lists, more=["one"] * 3)
    with refusal("column 'text' holds lists written as text, .*--columns captions=NAME,NAME"):
        to_records({"test": made}, {"captions": columns})
    for other in ("[a star]", "[1, 2]", "[]", "a star"):  # one that is none, and all are captions
        texts = [*lists[:2], other]
        made = dataset(named("test", 3), tmp_path, captions=texts)
        found = to_records({"test": made})["test"]
        assert found["captions"][:] == [[text] for text in texts]


def test_captions_may_be_more_or_fewer_than_five(tmp_path):
    counts, names = [1, 5, 7], named("test", 3)
    made = dataset(names, tmp_path, captions=list(map(captions_of, names, counts)))
    assert [len(texts) for texts in to_records({"test": made})["test"]["captions"]] == counts
    cut = to_records({"test": made}, most_captions=5)["test"]
    assert [len(texts) for texts in cut["captions"]] == [1, 5, 5]
    with pytest.raises(ValueError, match="most_captions is 0"):
        to_records({"test": made}, most_captions=0)


def test_pictures_may_be_left_away(tmp_path):
    made = dataset(named("test", 2), tmp_path).remove_columns("image")
    with pytest.raises(ValueError, match="no column 'image' for image"):
        to_records({"test": made})
    found = to_records({"test": made}, need_pictures=False)["test"]
    assert found.column_names == ["image_id", "captions"]


# splits


@pytest.mark.parametrize("kind", ["text", "class"])
def test_a_split_may_be_a_column(kind, tmp_path):
    names = [*named("train", 4), *named("dev", 2), *named("test", 3), "odd.png"]
    splits = [{"odd.png": "unused"}.get(name, name.split("-")[0]) for name in names]
    made = dataset(names, tmp_path, split=splits)
    if kind == "class":
        made = made.class_encode_column("split")
    mixed = made.select([9, 4, 0, 6, 1, 7, 5, 2, 8, 3])  # in each split the order is the same
    expect(to_records({"all": mixed}, {"split": "split"}))
    asked = to_records({"all": made}, {"split": "split"}, splits=["unused"])
    assert asked["unused"]["image_id"][:] == ["odd.png"]


@pytest.mark.parametrize(
    "splits, restval, chosen",
    [
        (None, True, {"train": "train", "restval": "train", "dev": "validation"}),
        (None, False, {"train": "train", "dev": "validation"}),
        (["extra", "dev"], True, {"extra": "extra", "dev": "validation"}),
        (["validation"], True, {"dev": "validation"}),
        ("restval", True, {"restval": "train"}),
        (["train"], False, {"train": "train"}),
        ({"extra": "test", "train": "train"}, True, {"extra": "test", "train": "train"}),
    ],
)
def test_splits_are_chosen_by_their_name_there_or_here(splits, restval, chosen):
    assert choose_splits(["train", "restval", "dev", "extra", None], splits, restval) == chosen


@pytest.mark.parametrize(
    "splits, chosen",
    [
        (None, {"Train ": "train", " DEV": "validation", "tEST": "test"}),
        (["train", "Extra"], {"Train ": "train", "extra ": "Extra"}),
        ({"dev": "test", "EXTRA": "train"}, {" DEV": "test", "extra ": "train"}),
    ],
)
def test_spaces_around_the_name_of_a_split_and_its_case_do_not_count(splits, chosen):
    assert choose_splits(["Train ", " DEV", "tEST", "extra "], splits) == chosen


def test_a_cell_of_a_split_column_may_have_spaces_around_it(tmp_path):
    names = named("train", 3)
    made = dataset(names, tmp_path, split=["train", "Train ", "test"])
    found = to_records({"all": made}, {"split": "split"})
    assert {split: len(part) for split, part in found.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    "splits, restval, message",
    [
        (
            ["test", "gone"],
            True,
            r"splits asks for gone; the data has the splits restval, te",
        ),
        ({"gone": "test"}, True, r"splits asks for gone"),
        (["restval"], False, r"splits asks for restval.*--no-restval"),
    ],
)
def test_splits_that_are_not_there_are_named(splits, restval, message):
    with pytest.raises(ValueError, match=message):
        choose_splits(["test", "restval"], splits, restval)


# bad input


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"captions": "text"}, "'text' for captions; it has image, image_id, captions"),
        ({"captions": ["captions", "more"]}, "column '(more|captions)'"),
        ({"image": "photo"}, "test has no column 'photo' for image; it has image"),
        ({"image_id": "id"}, "test has no column 'id' for image_id"),
        ({"split": "part"}, "test has no column 'part' for split"),
        ({"boxes": "box"}, "test has no column 'box' for boxes"),
        ({"caption": "text"}, r"^columns names \['caption'\]; it may name image, captions"),
        ({"image": "captions"}, "the column for image holds List"),
        ({"captions": "image"}, "column 'image' holds Image"),
    ],
)
def test_columns_that_are_not_there_are_named_with_those_that_are(columns, message, tmp_path):
    with refusal(message):
        to_records({"test": dataset(named("test", 2), tmp_path)}, columns)


def test_a_column_whose_name_holds_nul_is_named(tmp_path):
    made = dataset(named("test", 2), tmp_path)
    with pytest.raises(ValueError, match="test has a column 'image.x00', with a NUL in its"):
        to_records({"test": made.rename_column("image", "image\0")})


@pytest.mark.parametrize(
    "captions, message",
    [
        ([["a"], []], r"^image 'test-1.png' of test has no captions"),
        ([["a"], None], r"^image 'test-1.png' of test has no captions"),
        ([["a", ""], ["b"]], r"^captions\[1\] of image 'test-0.png' of test is ''"),
        ([["a"], [" \n"]], r"^captions\[0\] of image 'test-1.png' of test is ' \\n'"),
        ([["a"], ["\u200b"]], r"^captions\[0\] of image 'test-1.png' of test is '\\u200b'"),
        ([["a"], ["b", None]], r"^captions\[1\] of image 'test-1.png' of test is None"),
        (["a", None], r"^captions\[0\] of image 'test-1.png' of test is None"),
        ([1, 2], "^column 'captions' holds Value.*int64"),
        ([[["a"]], [["b"]]], "^column 'captions' holds List"),
    ],
)
def test_missing_and_empty_captions_are_named_by_image(captions, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_records({"test": dataset(named("test", 2), tmp_path, captions=captions)})


def test_an_id_that_stands_twice_is_an_error(tmp_path):
    made = dataset(named("test", 3), tmp_path, image_id=["x", "y", "x"])
    with pytest.raises(ValueError, match="^image_id 'x' stands for two records of test"):
        to_records({"test": made})
    made = dataset(named("test", 3), tmp_path, image_id=["x", None, "z"])
    with pytest.raises(ValueError, match="^test has no image_id in row 1"):
        to_records({"test": made})


def test_an_image_in_two_splits_is_an_error(tmp_path):
    train, dev = named("train", 3), ["dev-0.png", "train-1.png"]
    sets = {"train": dataset(train, tmp_path), "dev": dataset(dev, tmp_path)}
    with pytest.raises(ValueError, match="^image 'train-1.png' is both in train and in validation"):
        to_records(sets)
    assert len(to_records(sets, splits=["train"])["train"]) == 3
    columns = {"captions": ["one", "two"], "split": ["train", "test"]}
    with pytest.raises(ValueError, match="^image 'a.png' is both in train and in test"):
        to_records({"all": dataset(["a.png"] * 2, tmp_path, **columns)}, {"split": "split"})


# what is kept in memory


def test_pictures_are_not_held_in_memory(tmp_path):
    """Going through the records leaves nothing but the last picture alive."""
    seen = []
    for picture in pictures(to_records({"train": dataset(named("train", 20), tmp_path)})["train"]):
        seen.append(weakref.ref(picture))
        assert sum(reference() is not None for reference in seen) <= 2
    assert len(seen) == 20


def test_rows_are_neither_copied_nor_rewritten(tmp_path):
    """The pictures' bytes stay in the one file that `datasets` maps into memory."""
    names = named("train", 6)
    made = dataset(names, tmp_path / "made", split=["train", "test"] * 3)
    made.to_parquet(tmp_path / "all.parquet")
    found = open_source(tmp_path / "all.parquet", columns={"split": "split"})
    (one,) = {file["filename"] for data in found.values() for file in data.cache_files}
    assert Path(one).is_relative_to(tmp_path / "datasets cache")
    assert [data["image_id"][:] for data in found.values()] == [names[::2], names[1::2]]
