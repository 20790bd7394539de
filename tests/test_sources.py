"""Sources of photographs: each kind gives the same records, and bad input is named."""

import json
import os
import zlib

import datasets
import numpy as np
import pytest
from helpers import refusal
from PIL import Image

from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.karpathy import karpathy_numbers
from tgdt_mini.photos.sources import PRESETS, open_source, picture_numbers

COUNTS = {"train": 4, "dev": 2, "test": 3}
FLICKR8K = os.environ.get("TGDT_MINI_FLICKR8K")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No hub, and what `datasets` keeps of parquet files goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")


def number(name):
    """A number for each name, as COCO has them."""
    return zlib.crc32(name.encode("utf-8"))


def photo(name):
    """Another picture for each name."""
    draw = np.random.default_rng(number(name))
    return Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))


def named(split, count):
    return [f"{split}-{i}.png" for i in range(count)]


def captions_of(name, count=5):
    return [f"caption {i} of {name}" for i in range(count)]


def image_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(path.name).save(path)
    return path


def dataset(names, folder, **columns):
    """A data set whose rows hold the bytes of pictures, as parquet files and the hub have them.

    columns: change its columns; None leaves one away.
    """
    files = [image_file(folder / name) for name in names]
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "image_id": names,
        "captions": [captions_of(name) for name in names],
    } | columns
    columns = {name: values for name, values in columns.items() if values is not None}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def parquet_folder(folder, counts=COUNTS, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        made = dataset(named(split, count), folder.parent / "made")
        made.to_parquet(folder / f"{split}{suffix}.parquet")
    return folder


def karpathy_file(path, entries):
    """entries: (file name, split, further keys) of each picture."""
    images = []
    for place, (name, split, more) in enumerate(entries):
        sentences = [{"raw": caption, "tokens": []} for caption in captions_of(name)]
        image = {"filename": name, "split": split, "imgid": place, "sentences": sentences}
        images.append(image | more)
    path.write_text(json.dumps({"images": images, "dataset": "flickr8k"}), encoding="utf-8")
    return path


def karpathy_set(folder, counts=COUNTS):
    """(a JSON file, the folder of its pictures)"""
    entries = [(name, split, {}) for split in counts for name in named(split, counts[split])]
    for name, _, _ in entries:
        image_file(folder / "images" / name)
    return karpathy_file(folder / "dataset_flickr8k.json", entries), folder / "images"


def image_folder(folder, counts=COUNTS):
    """Pictures of each split in a folder, with a metadata file."""
    for split, count in counts.items():
        rows = [{"file_name": name, "captions": captions_of(name)} for name in named(split, count)]
        for row in rows:
            image_file(folder / split / row["file_name"])
        lines = "\n".join(map(json.dumps, rows))
        (folder / split / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


def expect(records, counts=COUNTS, name=lambda split, file: file):
    """The records are those of `named`, whatever they were made from."""
    assert list(records) == [{"dev": "validation"}.get(split, split) for split in counts]
    for (split, count), data in zip(counts.items(), records.values()):
        assert data.column_names[:3] == ["image", "image_id", "captions"]
        assert data.features["image"] == datasets.Image()
        assert data["image_id"][:] == [name(split, file) for file in named(split, count)]
        assert data["captions"][:] == [captions_of(file) for file in named(split, count)]
        for file, picture in zip(named(split, count), pictures(data)):
            assert (np.asarray(picture) == np.asarray(photo(file))).all()


# files and folders


def test_a_folder_of_parquet_files_is_a_source_and_other_files_are_left_aside(tmp_path):
    folder = parquet_folder(tmp_path / "parquet", COUNTS | {"extra": 2})
    expect(open_source(folder))
    asked = open_source(str(folder), splits=["extra", "dev"])
    assert {split: len(data) for split, data in asked.items()} == {"validation": 2, "extra": 2}
    renamed = open_source(folder, splits={"extra": "test", "train": "train"})
    assert list(renamed) == ["train", "test"]
    assert renamed["test"]["image_id"][:] == named("extra", 2)
    assert list(open_source(folder / "test.parquet")) == ["test"]


def test_parquet_files_named_as_the_hub_names_them_are_a_source(tmp_path):
    folder = parquet_folder(tmp_path / "parquet", suffix="-00000-of-00001")
    expect(open_source(folder))
    for path in list(folder.iterdir()):
        moved = folder / "default" / path.name.split("-")[0] / "0000.parquet"
        moved.parent.mkdir(parents=True)
        path.rename(moved)
    expect(open_source(folder))


def test_a_changed_parquet_file_is_read_anew(tmp_path):
    open_source(parquet_folder(tmp_path / "parquet"))
    assert len(open_source(parquet_folder(tmp_path / "parquet", {"train": 6}))["train"]) == 6


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_image_folder_with_metadata_files_is_a_source(kind, tmp_path):
    folder = image_folder(tmp_path / "folder")
    for path in folder.rglob("metadata.jsonl"):
        if kind == "parquet":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            datasets.Dataset.from_list(lines).to_parquet(path.with_suffix(".parquet"))
            path.unlink()
    expect(open_source(folder), name=lambda split, file: f"{split}/{file}")


def test_a_picture_of_an_image_folder_may_be_called_like_a_split(tmp_path):
    folder = tmp_path / "folder"
    rows = [{"file_name": name, "captions": ["a"]} for name in ("cat.png", "train.png")]
    for row in rows:
        image_file(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert open_source(folder)["train"]["image_id"][:] == ["cat.png", "train.png"]


def test_rows_of_one_file_are_one_picture(tmp_path):
    rows = [("a.png", "a one"), ("b.png", "b one"), ("a.png", "a two"), ("b.png", "b two")]
    for name, _ in rows:
        image_file(tmp_path / "imgs" / name)
    lines = ["file_name,text", *map(",".join, rows)]
    (tmp_path / "imgs" / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    found = open_source(tmp_path / "imgs", columns={"captions": "text"})["train"]
    assert found["image_id"][:] == ["a.png", "b.png"]
    assert found["captions"][:] == [["a one", "a two"], ["b one", "b two"]]
    for name, picture in zip(("a.png", "b.png"), pictures(found)):
        assert (np.asarray(picture) == np.asarray(photo(name))).all()
    most = open_source(tmp_path / "imgs", columns={"captions": "text"}, most_captions=1)["train"]
    assert most["captions"][:] == [["a one"], ["b one"]]


def test_brackets_in_a_path_are_no_pattern(tmp_path):
    for name, count in (("run [12]", 2), ("run 1", 3), ("run 2", 3)):
        image_folder(tmp_path / name / "folder", {"train": count})
        parquet_folder(tmp_path / name / "parquet", {"train": count})
    for kind in ("folder", "parquet"):
        assert len(open_source(tmp_path / "run [12]" / kind)["train"]) == 2


def test_data_sets_saved_to_disk_or_in_memory_are_a_source(tmp_path):
    sets = {split: dataset(named(split, count), tmp_path) for split, count in COUNTS.items()}
    expect(open_source(sets))
    datasets.DatasetDict(sets).save_to_disk(str(tmp_path / "saved"))
    expect(open_source(tmp_path / "saved"))
    sets["train"].save_to_disk(str(tmp_path / "alone"))
    expect(open_source(tmp_path / "alone"), {"train": 4})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path / "nowhere", "nowhere' is no file or folder here"),
        (lambda path: path, "holds no table"),
        (lambda path: 3, "spec is a int; give"),
        (lambda path: {"test": path}, r"spec\['test'\] is no datasets\.Dataset"),
        (lambda path: image_file(path / "a.png"), r"a\.png is no table"),
    ],
)
def test_what_is_not_understood_is_said(make, message, tmp_path):
    with refusal(message):
        open_source(make(tmp_path))


def test_tables_of_no_known_split_are_listed(tmp_path):
    folder = parquet_folder(tmp_path / "parquet", {"photos": 2, "more": 1})
    with pytest.raises(
        ValueError, match="no split is called train.*; the data has the splits more, photos"
    ):
        open_source(folder)
    with pytest.raises(ValueError, match=r"splits asks for gone"):
        open_source(folder, splits=["gone"])


@pytest.mark.parametrize("spoil", ["text", "cut"])
def test_a_spoilt_parquet_file_is_named_with_its_cause(spoil, tmp_path):
    path = parquet_folder(tmp_path / "parquet", {"train": 9}) / "train.parquet"
    path.write_bytes(b"no parquet" if spoil == "text" else path.read_bytes()[:-100])
    with refusal(r"train\.parquet .* parquet: (Arrow\w+|OSError)"):
        open_source(path.parent)


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_a_file_without_a_row_is_said_to_be_empty(content, tmp_path):
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with refusal(r"train\.jsonl is empty; it must hold a row for each picture"):
        open_source(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    "metadata, message",
    [
        ('{"captions": ["a"]}', "train has no column 'image' for image"),
        ('{"file_name"', r"metadata\.jsonl cannot be read as json"),
        ('{"file_name": "elsewhere.png", "captions": ["a"]}', r"elsewhere\.png"),
        ('{"file_name": null, "captions": ["a"]}', "1 of 1 pictures are missing"),
    ],
)
def test_metadata_that_do_not_fit_their_folder_are_named(metadata, message, tmp_path):
    folder = image_folder(tmp_path, {"train": 1})
    (folder / "train" / "metadata.jsonl").write_text(metadata, encoding="utf-8")
    with refusal(message):
        open_source(folder)


def test_no_progress_bar_is_shown(tmp_path, capfd):
    folder = parquet_folder(tmp_path / "parquet")
    capfd.readouterr()
    open_source(folder)
    assert capfd.readouterr() == ("", "")


# presets and hub names


def as_on_the_hub(preset, names, folder):
    """A set with the columns that the preset's set has."""
    texts, bare = [captions_of(name) for name in names], {"captions": None, "image_id": None}
    if preset == "flickr8k":
        columns = {f"caption_{i}": list(column) for i, column in enumerate(zip(*texts))}
        return dataset(names, folder, **bare, **columns)
    if preset == "flickr30k":
        columns = {"split": ["somewhere"] * len(names), "img_id": list(map(str, range(len(names))))}
        return dataset(names, folder, **bare, filename=names, caption=texts, **columns)
    rows = [(name, caption) for name, own in zip(names, texts) for caption in own]
    names, texts = [name for name, _ in rows], [caption for _, caption in rows]
    columns = {"cocoid": list(map(number, names)), "filename": names, "caption": texts}
    return dataset(names, folder, **bare, **columns)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_the_columns_that_the_hub_s_sets_have(preset, tmp_path, monkeypatch):
    """With sets of the published columns and split names; the hub itself is out of reach here."""
    asked = []

    def load(name):
        asked.append(name)
        return datasets.DatasetDict(
            {
                {"dev": "val"}.get(split, split): as_on_the_hub(
                    preset, named(split, count), tmp_path
                )
                for split, count in COUNTS.items()
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    by_number = preset == "coco"
    expect(open_source(preset), name=lambda _, file: str(number(file)) if by_number else file)
    open_source("somebody/else", columns=PRESETS[preset]["columns"])
    assert asked == [PRESETS[preset]["name"], "somebody/else"]
    if preset == "flickr30k":  # columns that are given change those of a preset
        found = open_source(preset, columns={"image_id": "img_id"}, splits="test")
        assert found["test"]["image_id"][:] == ["0", "1", "2"]


@pytest.mark.parametrize("spec", ["flickr9k", "somebody/flickr30k"])
def test_a_hub_that_cannot_be_reached_is_one_line(spec):
    with refusal(f"'{spec}' is no file .* no preset .flickr8k, "):
        open_source(spec)


# Karpathy's JSON


def test_karpathy_s_json_and_a_folder_are_a_source(tmp_path):
    path, images = karpathy_set(tmp_path)
    records = open_source(path, images=images)
    expect(records)
    stored = records["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert stored == {"bytes": None, "path": str(images / "train-0.png")}  # no picture is read
    assert karpathy_numbers(path)["dev-1.png"] == "5"
    bare = open_source(path, need_pictures=False)
    assert bare["test"].column_names == ["image_id", "captions"]


@pytest.mark.parametrize("nested", [True, False])
def test_coco_s_folders_and_restval_are_understood(nested, tmp_path):
    entries = [
        ("train.png", "train", {"filepath": "train2014", "cocoid": 9}),
        ("spare.png", "restval", {"filepath": "val2014", "cocoid": 8}),
        ("test.png", "test", {"filepath": "val2014", "cocoid": 7}),
    ]
    for name, _, more in entries:
        image_file(tmp_path / "coco" / (more["filepath"] if nested else "") / name)
    path = karpathy_file(tmp_path / "dataset_coco.json", entries)
    records = open_source(path, images=tmp_path / "coco")
    assert records["train"]["image_id"][:] == ["train.png", "spare.png"]
    assert records["test"]["image_id"][:] == ["test.png"]
    spare = list(pictures(records["train"]))[1]
    assert (np.asarray(spare) == np.asarray(photo("spare.png"))).all()
    for splits in (None, ["train", "test"], {"train": "train", "test": "test"}):
        without = open_source(path, tmp_path / "coco", restval=False, splits=splits)
        assert without["train"]["image_id"][:] == ["train.png"]
    with pytest.raises(ValueError, match=r"splits asks for restval.*--no-restval"):
        open_source(path, tmp_path / "coco", restval=False, splits=["train", "restval"])
    assert karpathy_numbers(path) == {"train.png": "9", "spare.png": "8", "test.png": "7"}


def test_a_picture_that_karpathy_s_json_names_in_vain_is_an_error(tmp_path):
    path, images = karpathy_set(tmp_path)
    (images / "train-2.png").unlink()
    with pytest.raises(
        ValueError,
        match=r"dataset_flickr8k\.json: 1 of 9 pictures are missing, such as .*train-2\.png",
    ):
        open_source(path, images=images)
    assert list(open_source(path, images=images, splits="test")) == ["test"]  # others may lack


WRONG = {  # what is wrong with a picture of the file: its keys, what the error says
    "no sentences": ({"sentences": None}, "has no list of sentences"),
    "NaN as a caption": ({"sentences": [{"raw": float("nan")}]}, "raw in sentence 0 .* is nan"),
    "a number as a caption": ({"sentences": [{"raw": "a"}, {"raw": 7}]}, "raw in sentence 1 .*7"),
    "half a sign": ({"sentences": [{"raw": "a dog \ud83d"}]}, "raw in sentence 0 .*ud83d"),
    "no caption": ({"sentences": [{"tokens": []}]}, "raw in sentence 0 .* is None"),
    "no folder": ({"filepath": None}, "filepath .* is None"),
    "no split": ({"split": None}, "split .* is None"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_in_karpathy_s_json_is_named_with_its_picture(what, tmp_path):
    change, message = WRONG[what]
    image_file(tmp_path / "a.png")
    path = karpathy_file(tmp_path / "some.json", [("a.png", "test", change)])
    with pytest.raises(ValueError, match=message) as caught:
        open_source(path, images=tmp_path)
    assert "images[0] (a.png)" in str(caught.value) and "some.json" in str(caught.value)


@pytest.mark.parametrize("content", ["no json", '{"pictures": []}', '{"images": [1]}'])
def test_a_json_that_is_not_karpathy_s_is_an_error(content, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(content, encoding="utf-8")
    with refusal(r"some\.json is not one of Karpathy's .*: "):
        open_source(path, images=tmp_path)


def test_karpathy_s_json_needs_its_pictures(tmp_path):
    path, _ = karpathy_set(tmp_path)
    for images in (None, "nowhere"):
        with pytest.raises(ValueError, match=f"^images is {images}; {path.name} needs the folder"):
            open_source(path, images=images)
    with pytest.raises(ValueError, match="columns is .* names are fixed"):
        open_source(path, images=tmp_path, columns={"captions": "raw"})
    with pytest.raises(ValueError, match=r"none\.json does not exist"):
        open_source(tmp_path / "none.json", images=tmp_path)


# COCO's captions, and arrays


def coco_file(path, names, **changes):
    """COCO's captions of pictures; their captions are mixed, as in the real files."""
    content = {
        "info": {"year": 2017},
        "images": [{"id": number(name), "file_name": name, "license": 4} for name in names],
        "annotations": [
            {"id": 9, "image_id": number(name), "caption": captions_of(name)[i]}
            for i in range(5)
            for name in names[::-1]
        ],
    }
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


@pytest.mark.parametrize("nested", [True, False])
def test_coco_s_captions_are_a_source_whose_split_its_name_says(nested, tmp_path):
    for split, here, there in (("train", "train", "train2017"), ("val", "validation", "val2014")):
        names = named(split, 3)
        for name in names:
            image_file(tmp_path / "coco" / (there if nested else "") / name)
        path = coco_file(tmp_path / f"captions_{there}.json", names)
        records = open_source(path, images=tmp_path / "coco")
        assert list(records) == [here] and records[here]["image_id"][:] == names
        assert records[here]["captions"][:] == [captions_of(name) for name in names]
        first = next(pictures(records[here]))
        assert (np.asarray(first) == np.asarray(photo(names[0]))).all()
        bare = open_source(path, need_pictures=False, most_captions=2)
        assert bare[here]["captions"][0] == captions_of(names[0])[:2]
        assert picture_numbers(path) == {name: str(number(name)) for name in names}


def test_coco_s_captions_can_be_divided_and_called_by_any_split(tmp_path):
    path = coco_file(tmp_path / "annotations.json", named("some", 10))
    for name in named("some", 10):
        image_file(tmp_path / name)
    with pytest.raises(
        ValueError, match="no split is called train, validation or test.*--splits annotations=test"
    ):
        open_source(path, images=tmp_path)
    records = open_source(path, images=tmp_path, divide={"shares": [80, 10, 10], "seed": 0})
    assert [len(data) for data in records.values()] == [8, 1, 1]
    assert list(open_source(path, images=tmp_path, splits={"annotations": "test"})) == ["test"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": [{"file_name": "a.png"}]}, r"id of images\[0\] \(a.png\) is None"),
        ({"images": [{"id": 1}]}, r"file_name of images\[0\] is None"),
        ({"images": [{"id": 1, "file_name": n} for n in "ab"]}, r"images\[1\] \(b\) has the id 1"),
        ({"annotations": [{"image_id": 7, "caption": "a"}]}, r"image_id of annotations\[0\] is 7"),
        ({"annotations": [{"image_id": 1, "bbox": []}]}, r"caption of annotations\[0\] is None"),
        ({"annotations": [1]}, "cannot be read as COCO's captions"),
        ({"images": None}, "cannot be read as COCO's captions"),
        ({"annotations": []}, "'train-0.png' of train has no captions"),
    ],
)
def test_what_is_wrong_in_coco_s_captions_is_named(changes, words, tmp_path):
    image_file(tmp_path / "train-0.png")
    path = coco_file(tmp_path / "captions_train2017.json", ["train-0.png"], **changes)
    with refusal(words):
        open_source(path, images=tmp_path)


def test_coco_s_captions_need_their_pictures(tmp_path):
    path = coco_file(tmp_path / "captions_train2017.json", ["train-0.png"])
    with refusal("images is None; captions_train2017.json needs the folder"):
        open_source(path)
    with refusal(r"1 of 1 pictures are missing, such as .*train-0\.png"):
        open_source(path, images=tmp_path)
    with refusal("columns is .*, but .* is read as COCO's JSON, whose names are fixed"):
        open_source(path, images=tmp_path, columns={"captions": "raw"})


def test_an_array_of_records_is_a_table(tmp_path):
    names = named("train", 4)
    rows = [{"image": name, "caption": text} for name in names for text in captions_of(name)]
    for name in names:
        image_file(tmp_path / "pictures" / name)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    records = open_source(path, images=tmp_path / "pictures")
    expect(records, {"train": 4})
    assert picture_numbers(path) == {}
    wrong = {"[]": "train.json", "[{]": "train.json cannot be read", "[1, 2]": "must be text"}
    for content, words in wrong.items():
        path.write_text(content, encoding="utf-8")
        with refusal(words):
            open_source(path, images=tmp_path / "pictures")


@pytest.mark.skipif(
    not FLICKR8K, reason="TGDT_MINI_FLICKR8K names no folder with train, dev and test.parquet"
)
def test_flickr8k_has_its_official_splits():
    records = open_source(FLICKR8K)
    sizes = {split: len(data) for split, data in records.items()}
    assert sizes == {"train": 6000, "validation": 1000, "test": 1000}
    for data in records.values():
        assert {len(captions) for captions in data["captions"]} == {5}
    first = next(pictures(records["test"]))
    assert first.mode == "RGB" and min(first.size) >= 100


def test_a_column_of_pictures_with_values_of_several_kinds_is_refused_with_its_table(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
    rows = [{"image": "0.png", "captions": ["a"]}, {"image": [1], "captions": ["b"]}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with refusal(
        f"^{path}: the column for image holds Json.*; name another: --columns image=NAME$"
    ):
        open_source(path, tmp_path, splits={"data": "test"})
