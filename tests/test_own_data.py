"""Data as people have them, from a table or a folder to a trained model and a search."""

import json
import shlex
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from helpers import call, done, refusal, refused, saved_encoders, some_scenes

from tgdt_mini.photos import origin
from tgdt_mini.photos.delimited import read_delimited
from tgdt_mini.photos.division import copies, divided, read_shares
from tgdt_mini.photos.feature_folder import open_features
from tgdt_mini.photos.origin import finder
from tgdt_mini.photos.precomputed import Precomputed, open_precomputed
from tgdt_mini.photos.sources import open_source

REGIONS, WIDTH = 6, 24


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What `datasets` keeps of tables goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny encoders, and a folder of thirty pictures; `rows` are (file name, captions)."""
    home = tmp_path_factory.mktemp("world")
    saved_encoders(home)
    (home / "pictures" / "deep").mkdir(parents=True)
    rows = []
    for place, scene in enumerate(some_scenes("validation", 30)):
        name = f"{'deep/' if place % 7 == 3 else ''}{place:04d}.png"
        scene["image"].save(home / "pictures" / name)
        rows.append((name, scene["captions"]))
    return home, rows


def captions_of(records):
    return dict(zip(records["image_id"][:], records["captions"][:]))


# tables


def table_of(rows, path, form):
    """A table of a caption a row."""
    pairs = [(name, caption) for name, captions in rows for caption in captions]
    if form == "jsonl":
        lines = [json.dumps({"file": name, "text": caption}) for name, caption in pairs]
    else:
        between = {"tsv": "\t", "semicolons": ";"}.get(form, ",")
        lines = [f"file_name{between}caption"]
        lines += [f'{name}{between}"{caption}"' for name, caption in pairs]
    path = path / f"captions.{form if form in ('tsv', 'jsonl') else 'csv'}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["csv", "semicolons", "tsv", "jsonl"])
def test_a_table_of_file_names_and_captions_is_a_source(world, form, tmp_path):
    home, rows = world
    path = table_of(rows, tmp_path, form)
    records = open_source(path, home / "pictures", splits={"captions": "test"})["test"]
    assert captions_of(records) == {name: list(captions) for name, captions in rows}
    assert records[0]["image"].size == (112, 112)
    shutil.copytree(home / "pictures", tmp_path, dirs_exist_ok=True)  # or beside the table
    assert len(open_source(path, splits={"captions": "test"})["test"]) == 30


def test_cells_are_text_and_only_an_empty_one_is_nothing(tmp_path):
    path = tmp_path / "t.csv"
    text = '\ufeffimage, text ,caption_2\n0012,none,"two\nlines, and a comma"\n12,NA,\n'
    path.write_text(text, encoding="utf-8")
    table = read_delimited(path)
    assert table.column_names == ["image", "text", "caption_2"]
    assert table[0] == {"image": "0012", "text": "none", "caption_2": "two\nlines, and a comma"}
    assert table[1] == {"image": "12", "text": "NA", "caption_2": None}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "its first line is empty"),
        (b"image,image\na,b\n", "must name each column once"),
        (b"image,caption\na,b,c\n", "cannot be read as a table: .*columns"),
        (b"image,caption\na,caf\xe9\n", "cannot be read as a table"),
        (b"image," + b"x" * 200_000 + b"\na,b\n", "cannot be read as a table: field larger"),
    ],
)
def test_a_table_that_is_none_is_named(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with refusal(f"t.csv .*{message}|{message}"):
        read_delimited(tmp_path / "t.csv")


HEAD = "image\tcaption\tsplit\n"
SWALLOWED = {  # a table, the line of the quote, and the last line that it takes
    "a quote in a later row": (
        "t.tsv",
        f'{HEAD}0\tone\ttrain\n1\t"A man\ttrain\n2\ta dog\ttrain\n3\ta 12" one\ttrain\n',
        (3, 5),
    ),
    "a quote at the end of the next row's cell": (
        "t.tsv",
        f'{HEAD}1\t"A man\ttrain\n3\ta 12"\ttrain\n',
        (2, 3),
    ),
    "no other quote": ("t.tsv", 'image\tcaption\n1\t"A man\n2\ta dog\n3\tx', (2, 4)),
    "a first column": ("t.csv", 'text,image\n"A man,1\r\n\r\na dog,2\r\n12",3\r\n', (2, 5)),
    "a quote in the next row": ("t.tsv", 'text\timage\n"A man\t1\n"A dog\t2\n', (2, 3)),
    "quotes that are doubled": ("t.csv", 'image,text\n1,"A\n2,""so""\n3,of 12"\n4,x\n', (2, 4)),
}


@pytest.mark.parametrize("what", SWALLOWED)
def test_a_lone_quote_that_takes_the_next_rows_for_its_text_is_refused(what, tmp_path):
    name, text, (first, last) = SWALLOWED[what]
    (tmp_path / name).write_bytes(text.encode())
    with refusal(f'{name} .*the " of line {first}, before .* up to line {last} .*double the quo'):
        read_delimited(tmp_path / name)


def test_a_caption_in_quotes_may_have_several_lines(tmp_path):
    captions = [
        "A man walks\nin the rain, slowly",
        "A man,\r\nwalking, slowly,\r\n\r\nin rain",
        'so ""called""\n""rain""',
        'one, "" and, two\nlines, of, text',
        "a\nb,c\nd",
        "a 12 ruler",
    ]
    text = "image,caption\n" + "".join(f'{i},"{c}"\n' for i, c in enumerate(captions))
    text += '9,"A man" walks\n10,a "dog"\n'  # a lone quote that takes no other row
    (tmp_path / "t.csv").write_bytes(text.encode())
    expected = [caption.replace('""', '"') for caption in captions]
    assert read_delimited(tmp_path / "t.csv")["caption"][:] == [*expected, "A man walks", 'a "dog"']
    (tmp_path / "t.csv").write_text('caption\n"one\ntwo"\n"three\n\n', encoding="utf-8")
    assert read_delimited(tmp_path / "t.csv")["caption"][:] == ["one\ntwo", "three\n\n"]


def test_a_column_of_splits_is_found(world, tmp_path):
    home, rows = world
    lines = ["image,caption,split"]
    for place, (name, captions) in enumerate(rows):
        part = ("train", "val", "test")[place % 3]
        lines += [f'{name},"{caption}",{part}' for caption in captions]
    (tmp_path / "all.csv").write_text("\n".join(lines), encoding="utf-8")
    found = open_source(tmp_path / "all.csv", home / "pictures")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 10,
        "validation": 10,
        "test": 10,
    }


def test_what_a_table_lacks_is_said_with_an_option_that_helps(world, tmp_path, capsys):
    home, rows = world
    path = tmp_path / "all.csv"
    extract = f"extract --data {path} --images {home}/pictures --out {tmp_path}/f"
    for header, message in (
        ("image,words", "--columns captions=NAME"),
        ("picture_name,caption", "--columns image=NAME"),
        ("image,caption,text", "--columns captions=NAME"),
    ):
        path.write_text(
            f"{header}\n{rows[0][0]},a star{',x' * header.count('text')}\n", encoding="utf-8"
        )
        message_found = refused(capsys, f"{extract} --splits all=train")
        assert message in message_found and "{" not in message_found
    path.write_text(f"image,caption\n{rows[0][0]},a star\n", encoding="utf-8")
    message = refused(capsys, extract)
    assert "--splits all=test" in message and "--divide 80/10/10" in message
    assert "--images FOLDER" in refused(
        capsys, extract.replace("/pictures", "") + " --splits all=train"
    )


# one split, divided


def test_a_split_is_divided_by_picture_the_same_way_for_a_seed(world, tmp_path):
    home, rows = world
    path = table_of(rows, tmp_path, "csv")
    how = {"shares": [80, 10, 10], "seed": 0}
    parts = open_source(path, home / "pictures", divide=how)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 24,
        "validation": 3,
        "test": 3,
    }
    whole = {}
    for part in parts.values():
        assert not whole.keys() & captions_of(part).keys()
        whole |= captions_of(part)
    assert whole == {name: list(captions) for name, captions in rows}
    again = open_source(path, home / "pictures", divide=how)
    other = open_source(path, home / "pictures", divide=how | {"seed": 1})
    assert again["test"]["image_id"][:] == parts["test"]["image_id"][:]
    assert other["test"]["image_id"][:] != parts["test"]["image_id"][:]
    two = divided(parts["train"], [3, 1], 0)
    assert {split: len(part) for split, part in two.items()} == {"train": 18, "validation": 6}
    with refusal("3 splits, but 2 pictures are too few"):
        divided(parts["train"].select([0, 1]), [8, 1, 1], 0)


def test_split_with_shares_divides_too(world, tmp_path, capsys, monkeypatch):
    sources = []

    def open_pictures(source):
        sources.append(source)
        raise ValueError("enough")

    monkeypatch.setattr(origin, "open_pictures", open_pictures)
    path = table_of(world[1], tmp_path, "csv")
    for option in ("--divide 80/10/10", "--split 80/10/10", "--splits 80/10/10"):
        extract = f"extract --data {path} --seed 3 --out {tmp_path}/f {option}"
        assert "enough" in refused(capsys, extract)
    assert sources[0] == sources[1] == sources[2] and "splits" not in sources[0]
    assert sources[0]["divide"] == {"shares": [80, 10, 10], "seed": 3}


def test_pictures_of_equal_files_stay_together_and_are_noticed_elsewhere(world, tmp_path):
    home, rows = world
    folder = shutil.copytree(home / "pictures", tmp_path / "pictures")
    for name, _ in rows[:8]:
        shutil.copy(folder / name, folder / f"copy_of_{Path(name).name}")
    more = [(f"copy_of_{Path(name).name}", captions) for name, captions in rows[:8]]
    path = table_of([*rows, *more], tmp_path, "csv")
    for seed in range(4):
        parts = open_source(path, folder, divide={"shares": [5, 3, 2], "seed": seed})
        assert not copies(parts)
    records = open_source(path, folder, splits={"captions": "train"})["train"]
    found = copies({"train": records.select(range(30)), "test": records.select(range(30, 38))})
    assert len(found) == 8 and found[0] == (f"train: {rows[0][0]}", f"test: {more[0][0]}")
    (folder / more[0][0]).write_bytes(b"x" * (folder / rows[0][0]).stat().st_size)  # as long only
    assert len(copies({"train": records.select(range(30)), "test": records.select([30])})) == 0


@pytest.mark.parametrize("text", ["80", "80/10/5/5", "a/b", "80/-10/30", "0/1", "nan/1", ""])
def test_shares_that_make_no_splits_are_refused(text):
    with refusal("--divide is .*80/10/10"):
        read_shares(text)
    assert read_shares("80/10/10") == [80, 10, 10] and read_shares("0.9/0.1") == [0.9, 0.1]


def test_only_one_split_can_be_divided(world, tmp_path):
    home, rows = world
    (tmp_path / "d").mkdir()
    for split in ("train", "test"):
        table_of(rows[:4] if split == "train" else rows[4:], tmp_path, "csv").rename(
            tmp_path / "d" / f"{split}.csv"
        )
    for file in (tmp_path / "d").glob("*.csv"):
        datasets.Dataset.from_csv(str(file)).to_parquet(file.with_suffix(".parquet"))
    how = {"shares": [1, 1], "seed": 0}
    with refusal("--divide makes splits of one, but the data has .*--splits train"):
        open_source(tmp_path / "d", home / "pictures", divide=how)
    parts = open_source(tmp_path / "d", home / "pictures", splits=["test"], divide=how)
    assert {split: len(part) for split, part in parts.items()} == {"train": 13, "validation": 13}


def test_a_table_is_divided_extracted_trained_on_judged_and_searched(world, tmp_path, capsys):
    home, rows = world
    path = table_of(rows, tmp_path, "tsv")
    encoders = f"--vision {home}/vision --text {home}/text --device cpu"
    data = f"--data {path} --images {home}/pictures --divide 60/20/20 --seed 3"
    out = done(capsys, f"extract {data} {encoders} --out {tmp_path}/f")
    assert "features of 18 train, 6 validation, 6 test pictures" in out
    code, _, err = call(
        capsys, *shlex.split(f"train --features {tmp_path}/f --epochs 1 --out {tmp_path}/run")
    )
    assert code == 0 and "a batch is 18 pairs, not 512" in err  # fewer pictures than the default
    here = f"--features {tmp_path}/f --model {tmp_path}/run/model"
    assert "6 images and 30 captions" in done(capsys, f"evaluate {here} --out {tmp_path}/e")
    done(capsys, f"search 'a red star' {here} --out {tmp_path}/s")
    assert (tmp_path / "s" / "hits.png").is_file()
    records, _ = open_features(tmp_path / "f", "test")
    picture_of = finder(tmp_path / "f", "test")  # divided again, in the same way
    assert all(picture_of(name).size == (112, 112) for name in records["image_id"])
    ablate = f"ablate --features {tmp_path}/f --variants default --seeds 0 --epochs 1 --batch 7"
    assert "default" in done(capsys, f"{ablate} --out {tmp_path}/a")
    report = json.loads((tmp_path / "a" / "default-0.json").read_text(encoding="utf-8"))
    assert report["trained"]["training"]["batch"] == 7
    assert "default" in done(capsys, f"{ablate} --out {tmp_path}/a")  # nothing is left to train
    assert "differs in batch" in refused(
        capsys, ablate.replace("--batch 7", "--batch 9") + f" --out {tmp_path}/a"
    )


def test_a_picture_in_two_splits_is_refused_across_calls_too(world, tmp_path, capsys):
    home, rows = world
    path = table_of(rows[:8], tmp_path, "csv").rename(tmp_path / "train.csv")
    encoders = f"--vision {home}/vision --text {home}/text --device cpu"
    extract = f"extract --data {path} --images {home}/pictures {encoders} --out {tmp_path}/f"
    done(capsys, extract)
    message = refused(capsys, f"{extract} --splits train=validation")
    assert "8 pictures of validation are in" in message and rows[0][0] in message
    assert not (tmp_path / "f" / "validation").exists()
    done(capsys, extract)  # the same again is no fault
    copy = shutil.copytree(home / "pictures", tmp_path / "pictures") / "copy.png"
    shutil.copy(home / "pictures" / rows[0][0], copy)
    table_of([*rows[:2], ("copy.png", ["a star"])], tmp_path, "csv")
    lines = [
        f"{name},a star,{split}" for name, split in ((rows[0][0], "train"), (copy.name, "dev"))
    ]
    (tmp_path / "two.csv").write_text("image,caption,split\n" + "\n".join(lines), encoding="utf-8")
    line = f"extract --data {tmp_path}/two.csv --images {tmp_path}/pictures {encoders}"
    code, _, err = call(capsys, *shlex.split(f"{line} --out {tmp_path}/g"))
    assert code == 0 and "the same picture is in two splits under two names" in err
    assert f"train: {rows[0][0]} = validation: copy.png" in err


# SCAN's folders


def precomp(folder, counts, repeated=False, names=True):
    """A folder as SCAN has it; returns {split: features (N, R, F)}."""
    folder.mkdir()
    draw, found = np.random.default_rng(0), {}
    for number, (split, count) in enumerate(counts.items()):
        features = draw.random((count, REGIONS, WIDTH), np.float32)
        stored = features.repeat(5, axis=0) if repeated else features
        np.save(folder / f"{split}_ims.npy", stored)
        captions = [
            text for scene in some_scenes("validation", count) for text in scene["captions"]
        ]
        (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
        if names:
            ids = [str(1000 * number + row + 7) for row in range(count) for _ in range(5)]
            (folder / f"{split}_ids.txt").write_text("\n".join(ids), encoding="utf-8")
        found[split] = features
    return found


COUNTS = {"train": 12, "dev": 6, "test": 8, "testall": 9}


@pytest.mark.parametrize("repeated", [False, True])
def test_a_precomp_folder_is_extracted_trained_on_and_judged(world, repeated, tmp_path, capsys):
    home, _ = world
    features = precomp(tmp_path / "f_precomp", COUNTS, repeated)
    extract = f"extract --data {tmp_path}/f_precomp --text {home}/text --device cpu"
    out = done(capsys, f"{extract} --out {tmp_path}/f")
    assert "features of 12 train, 6 validation, 8 test pictures" in out
    records, tokens = open_features(tmp_path / "f", "test")
    assert records["image_id"][:] == [str(2000 + row + 7) for row in range(8)]
    assert records["captions"][:] == some_scenes("validation", 8)["captions"][:]
    batch = tokens.images(torch.arange(8))
    np.testing.assert_allclose(batch.features.numpy(), features["test"], atol=1e-3)
    np.testing.assert_allclose(batch.pooled.numpy(), features["test"].mean(axis=1), atol=1e-3)
    assert batch.mask.all() and (batch.boxes == batch.boxes.new_tensor([0, 0, 1, 1])).all()
    if repeated:
        return
    train = f"train --features {tmp_path}/f --epochs 1 --batch 6 --device cpu --out {tmp_path}/run"
    done(capsys, train)
    here = f"--features {tmp_path}/f --model {tmp_path}/run/model"
    assert "8 images and 40 captions" in done(capsys, f"evaluate {here} --out {tmp_path}/e")
    assert " 2007" in done(capsys, f"search 'a star' -k 8 {here} --out {tmp_path}/s")
    assert "detector's regions" in refused(capsys, f"{extract} --grid 2 --out {tmp_path}/g")


def test_ids_that_only_count_are_made_different_in_each_split(tmp_path):
    precomp(tmp_path / "p", {"train": 4, "test": 3}, names=False)
    for split, count in (("train", 4), ("test", 3)):
        ids = "\n".join(map(str, range(count)))
        (tmp_path / "p" / f"{split}_ids.txt").write_text(ids, encoding="utf-8")
    found = open_precomputed(tmp_path / "p")
    assert found["train"]["image_id"][:] == [f"train-0000{row}" for row in range(4)]
    (tmp_path / "p" / "test_ids.txt").unlink()
    assert open_precomputed(tmp_path / "p")["test"]["image_id"][0] == "test-00000"


def spoil_caps(folder):
    (folder / "train_caps.txt").write_text("one\ntwo\n", encoding="utf-8")


def spoil_ids(folder):
    (folder / "train_ids.txt").write_text("1\n2\n", encoding="utf-8")


def spoil_array(folder):
    np.save(folder / "train_ims.npy", np.zeros((4, 3)))


def spoil_file(folder):
    (folder / "train_ims.npy").write_bytes(b"nothing")


def no_captions(folder):
    (folder / "train_caps.txt").unlink()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_caps, "4 pictures and train_caps.txt 2 captions"),
        (spoil_ids, "2 names for 4 pictures"),
        (spoil_array, r"float64 \(4, 3\); it must be float \(N, R, F\)"),
        (spoil_file, "train_ims.npy cannot be read"),
        (no_captions, "train_caps.txt cannot be read"),
    ],
)
def test_a_precomp_folder_that_does_not_fit_is_named(spoil, message, tmp_path):
    precomp(tmp_path / "p", {"train": 4})
    spoil(tmp_path / "p")
    with refusal(message):
        open_precomputed(tmp_path / "p")


def test_regions_that_are_no_numbers_are_named(tmp_path):
    features = precomp(tmp_path / "p", {"train": 4})["train"]
    features[2, 1, 3] = np.nan
    np.save(tmp_path / "p" / "train_ims.npy", features)
    regions = Precomputed(tmp_path / "p")
    assert regions.arrays(["7"])["features"].shape == (REGIONS, WIDTH)
    with refusal("holds NaN or infinity for image 9"):
        regions.arrays(["7", "9"])
