"""A folder of features by tiny pretrained encoders: written, gone on with, opened, refused."""

import shutil
from functools import cache

import numpy as np
import pytest
import torch
from helpers import refusal, save_encoder, some_scenes, text_encoder, tokenizer, vision_encoder

from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.files.manifest import read_json, write_sealed
from tgdt_mini.photos import extraction, feature_folder, origin
from tgdt_mini.photos.feature_folder import difference, extract, open_features
from tgdt_mini.photos.subsets import first_images

PICTURES = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@cache
def records(split, count):
    """Scenes as records of photographs: words that speak of an object are phrases, with its box."""
    rows = []
    for scene in some_scenes(split, count):
        phrases = [
            {
                "caption": link["caption"],
                "text": scene["captions"][link["caption"]][link["start"] : link["end"]],
                "region": str(link["objects"][0]),
                "kind": ["object"],
            }
            for link in scene["links"]
        ]
        boxes = [{"region": str(i), "box": box} for i, box in enumerate(scene["boxes"])]
        rows.append((boxes, phrases))
    boxes, phrases = map(list, zip(*rows))
    plain = some_scenes(split, count).select_columns(["image", "image_id", "captions"])
    return plain.add_column("boxes", boxes).add_column("phrases", phrases)


def data(train=24, other=12):
    return {
        "train": records("train", train),
        "validation": records("validation", other),
        "test": records("test", other),
    }


def saved_sources(root):
    """Folders, in `root`, of a tiny ViT and a tiny BERT."""
    return (
        save_encoder(vision_encoder(), root / "vision", pictures=PICTURES),
        save_encoder(text_encoder(), root / "text", tokenizer()),
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return saved_sources(tmp_path_factory.mktemp("encoders"))


def encoders(sources, trained=1):
    return VisionBackbone(sources[0], trained), TextBackbone(sources[1], trained)


def extracted(out, pictures, sources, trained=1, **options):
    """The folder `out` of features, the encoders' last layers to be trained."""
    extract(pictures, *encoders(sources, trained), out, progress=False, **options)
    return out


@pytest.fixture(scope="module")
def features(tmp_path_factory, sources):
    return extracted(tmp_path_factory.mktemp("photos") / "features", data(), sources)


def content(folder):
    """{path: bytes} of the features in a folder, without the tables."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "records.arrow"
    }


@pytest.mark.parametrize("trained", [0, 1])
def test_features_on_disk_are_those_of_the_encoders(tmp_path, sources, trained):
    (vision, text), scenes = encoders(sources, trained), records("test", 12)
    extract({"test": scenes}, vision, text, tmp_path, progress=False)
    table, tokens = open_features(tmp_path, "test")
    assert tokens.image_ids == tuple(scenes["image_id"])
    assert table["phrases"][:] == scenes["phrases"][:] and "image" not in table.column_names
    rows = torch.tensor([7, 2, 11])
    direct, stored = vision([scenes[row]["image"] for row in rows.tolist()]), tokens.images(rows)
    assert torch.equal(stored.features, direct.features.half())
    assert torch.equal(stored.pooled, direct.pooled.half())
    assert torch.equal(stored.boxes, direct.boxes) and torch.equal(stored.mask, direct.mask)
    rows = [31, 0, 59, 8]
    captions = [tokens.captions[row] for row in rows]
    assert captions == [scenes["captions"][row // 5][row % 5] for row in rows]
    direct, stored = text(captions), tokens.text[rows]
    for name in ("ids", "mask", "word_mask"):
        assert torch.equal(getattr(stored, name), getattr(direct, name))
    error = (stored.features - direct.features.half())[stored.mask].abs().max()
    assert error < 0.01  # a batch rounds in its own way


def test_the_first_pictures_of_stored_features_are_read_from_the_disk_too(features):
    _, tokens = open_features(features, "train")
    cut, rows = first_images(tokens, 7), torch.tensor([6, 0, 3])
    assert cut.image_count == 7 and cut.image_ids == tokens.image_ids[:7]
    assert cut.captions == tokens.captions[:35] and cut.text.features is tokens.text.features
    assert all(isinstance(array, np.memmap) for array in cut.features.arrays)
    for name, part in vars(cut.images(rows)).items():
        assert torch.equal(part, getattr(tokens.images(rows), name)), name
    assert torch.equal(cut.text[[34, 5]].features, tokens.text[[34, 5]].features)
    with pytest.raises(ValueError, match="images is 25; this set has 24"):
        first_images(tokens, 25)


def test_int8_features_take_half_the_room_and_give_about_the_same(tmp_path, sources, features):
    extracted(tmp_path, data(), sources, precision="int8")
    one, other = (open_features(folder, "train")[1] for folder in (features, tmp_path))
    exact, found = (tokens.images(torch.arange(24)).features.float() for tokens in (one, other))
    bound = exact.abs().amax(dim=2, keepdim=True) / 254
    assert ((found - exact).abs() <= 1.01 * bound + 0.01).all() and not torch.equal(found, exact)
    path = "train/images/shard-00000/features.npy"
    assert (tmp_path / path).stat().st_size < 0.6 * (features / path).stat().st_size


def stop(*_, **__):
    raise KeyboardInterrupt


def test_a_stopped_extraction_goes_on_where_it_was_and_ends_with_the_same_bytes(
    tmp_path, sources, features, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "words", stop)
        extracted(tmp_path, data(), sources)
    with pytest.raises(ValueError, match="is no finished features folder"):
        open_features(tmp_path, "train")
    seen, cells = [], extraction.cells

    def watched(vision, records, rows):
        seen.append(len(records))
        return cells(vision, records, rows)

    monkeypatch.setattr(extraction, "cells", watched)
    for _ in range(2):
        extracted(tmp_path, data(), sources)
        assert seen == [12, 12]  # the training pictures were done, and then everything is
    assert content(tmp_path) == content(features)


def test_splits_may_be_extracted_one_by_one(tmp_path, sources, features):
    """To the folder that a single extraction makes; each split knows where it came from."""
    every = data()
    for turn, splits in enumerate((["test"], ["validation", "train"], ["test"])):
        pictures = {split: every[split] for split in splits}
        extracted(tmp_path, pictures, sources, source={"data": f"source {turn}"})
    assert feature_folder.encoders_of(tmp_path)["splits"] == ["train", "validation", "test"]
    assert (tmp_path / "encoders.json").read_bytes() == (features / "encoders.json").read_bytes()
    for split, turn in (("train", 1), ("validation", 1), ("test", 2)):
        assert open_features(tmp_path, split)[1].image_count == len(every[split])
        assert origin.source_of(tmp_path, split) == {"data": f"source {turn}"}


@pytest.mark.parametrize("alike", [True, False])
def test_another_process_may_extract_meanwhile_by_the_same_encoders(
    tmp_path, sources, monkeypatch, alike
):
    every, words, begun = data(), extraction.words, []

    def meanwhile(text, captions, rows):
        if not begun:
            begun.append("validation")
            other = {"validation": every["validation"]}
            extracted(tmp_path, other, sources, trained=1 if alike else 2)
            with pytest.raises(ValueError, match="has no split test; it has validation: extract"):
                open_features(tmp_path, "test")
        return words(text, captions, rows)

    monkeypatch.setattr(extraction, "words", meanwhile)
    if alike:
        extracted(tmp_path, {"test": every["test"]}, sources)
    else:
        with pytest.raises(ValueError, match="was begun with another vision encoder"):
            extracted(tmp_path, {"test": every["test"]}, sources)
        with pytest.raises(ValueError, match="records that are not those|of another encoder"):
            open_features(tmp_path, "test")
    found = feature_folder.encoders_of(tmp_path)["splits"]
    assert found == (["validation", "test"] if alike else ["validation"])
    assert all(open_features(tmp_path, split)[1].image_count == 12 for split in found)


@pytest.mark.parametrize("part", ["vision", "text"])
def test_a_split_of_another_encoder_is_refused_before_anything_is_written(
    tmp_path, sources, monkeypatch, part
):
    extracted(tmp_path, {"train": records("train", 8)}, sources)
    before = content(tmp_path)
    given = dict(zip(("vision", "text"), encoders(sources)))
    given[part] = dict(zip(("vision", "text"), encoders(sources, 2)))[part]
    for name in ("cells", "words"):
        monkeypatch.setattr(extraction, name, stop)
    message = f"was begun with another {part} encoder or other options of it.*choose another"
    with pytest.raises(ValueError, match=message):
        extract({"test": records("test", 12)}, *given.values(), tmp_path, progress=False)
    assert content(tmp_path) == before and not (tmp_path / "test").exists()


def raw_pictures(dataset):
    """The pictures as they are stored: {bytes, path} each."""
    from datasets import Image

    return dataset.cast_column("image", Image(decode=False))["image"][:]


def with_pictures(dataset, changes):
    """The same records, some pictures (by row) exchanged for others."""
    from datasets import Dataset

    pictures = [changes.get(row, picture) for row, picture in enumerate(raw_pictures(dataset))]
    return Dataset.from_dict({**dataset.to_dict(), "image": pictures}, features=dataset.features)


STALE = ["weights", "preprocessing", "layers", "text weights", "caption", "picture", "order"]


@pytest.mark.parametrize("what", STALE)
def test_stale_features_are_refused(tmp_path, sources, features, what):
    out, images = shutil.copytree(features, tmp_path / "features"), data()
    vision, text = sources
    train = images["train"]
    if what == "weights":
        vision = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    elif what == "preprocessing":
        vision = save_encoder(
            vision_encoder(), tmp_path / "vision", pictures=PICTURES | {"image_mean": [0.4] * 3}
        )
    elif what == "text weights":
        text = save_encoder(text_encoder(seed=1), tmp_path / "text", tokenizer())
    elif what == "caption":
        captions = train["captions"][:]
        captions[3] = [*captions[3][:4], "a red star"]
        images["train"] = train.remove_columns("captions").add_column("captions", captions)
    elif what == "picture":
        images["train"] = with_pictures(train, {3: raw_pictures(train)[4]})
    elif what == "order":
        images["train"] = train.select([1, 0, *range(2, 24)])
    before = content(out)
    with pytest.raises(ValueError, match="so its features are stale"):
        extracted(out, images, (vision, text), trained=2 if what == "layers" else 1)
    assert content(out) == before


def test_features_of_the_same_data_by_the_same_encoders_have_one_identity(
    tmp_path, sources, features
):
    small, found = data(8, 4), {}
    copied = small | {"train": with_pictures(small["train"], {0: raw_pictures(small["train"])[0]})}
    other = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    for name, pictures, vision in (
        ("one", small, sources[0]),
        ("again", copied, sources[0]),
        ("another encoder", small, other),
    ):
        out = extracted(tmp_path / name, pictures, (vision, sources[1]))
        found[name] = feature_folder.identity(out)
    assert len(found["one"]) == 16 and found["one"] == found["again"]
    assert len({*found.values(), feature_folder.identity(features)}) == 3


def test_pictures_are_known_by_their_bytes_or_by_their_files(
    tmp_path, sources, features, monkeypatch
):
    for part in ("cells", "words"):
        monkeypatch.setattr(extraction, part, stop)
    copied = data() | {"train": with_pictures(records("train", 24), {})}
    extracted(shutil.copytree(features, tmp_path / "features"), copied, sources)  # all is there
    monkeypatch.undo()
    picture, scenes = tmp_path / "picture.png", records("test", 12)
    picture.write_bytes(raw_pictures(scenes)[0]["bytes"])
    by_path = {0: {"bytes": None, "path": str(picture)}}
    four = {"test": with_pictures(scenes.select(range(4)), by_path)}
    extracted(tmp_path / "files", four, sources)
    picture.write_bytes(raw_pictures(scenes)[5]["bytes"])
    with pytest.raises(ValueError, match="so its features are stale"):
        extracted(tmp_path / "files", four, sources)


def test_new_phrases_are_taken_over_without_extracting_again(
    tmp_path, sources, features, monkeypatch
):
    out = shutil.copytree(features, tmp_path / "features")
    monkeypatch.setattr(extraction, "cells", stop)
    monkeypatch.setattr(extraction, "words", stop)
    bare = {split: each.remove_columns("phrases") for split, each in data().items()}
    extracted(out, bare, sources)
    assert open_features(out, "test")[0].column_names == ["image_id", "captions", "boxes"]


@pytest.mark.parametrize("broken", [b"no picture", None])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, sources, broken):
    image = {"bytes": broken, "path": None if broken else str(tmp_path / "gone.png")}
    pictures = with_pictures(records("test", 12).select(range(4)), {2: image})
    with pytest.raises(ValueError, match="image test-0002 cannot be read"):
        extracted(tmp_path / "out", {"test": pictures}, sources)


MIXED = {  # what was put in the place of a part, and what the error says
    "records of other captions": "holds records that are not those of its features",
    "records of other pictures": "holds records that are not those of its features",
    "no records": "has no split test; it has train, validation: extract that, too",
    "no table": "records.arrow is damaged",
    "damaged records": "records.arrow is damaged",
    "changed records": "records.arrow is damaged",
    "another encoder's images": "holds features of another encoder than encoders.json",
    "another encoder's captions": "holds records that are not those of its features",
    "another encoders.json": "extract them again",
    "no encoders.json": "is no finished features folder",
}


@pytest.mark.parametrize("what", MIXED)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, sources, features, what):
    out = shutil.copytree(features, tmp_path / "features")
    table, test = out / "test" / "records.arrow", records("test", 12)
    if what == "records of other captions":
        swapped = [captions[::-1] for captions in test["captions"]]  # as many as before
        other = test.select_columns(["image_id"]).add_column("captions", swapped)
        feature_folder._write_records(other, out / "test")
    elif what == "records of other pictures":
        feature_folder._write_records(records("validation", 12), out / "test")
    elif what == "no records":
        table.with_name("records.json").unlink()
    elif what == "no table":
        table.unlink()
    elif what == "damaged records":
        table.write_bytes(table.read_bytes()[:-500])
    elif what == "changed records":  # such as one box of one phrase
        content = bytearray(table.read_bytes())
        content[len(content) // 2] ^= 1
        table.write_bytes(content)
    elif "another encoder" in what:
        other = extracted(tmp_path / "other", {"test": test}, sources, trained=2)
        part = {"another encoder's images": "images", "another encoder's captions": "captions"}
        part = part.get(what)
        if part:
            shutil.rmtree(out / "test" / part)
            shutil.copytree(other / "test" / part, out / "test" / part)
        else:
            shutil.copy(other / "encoders.json", out)
    elif what == "no encoders.json":
        (out / "encoders.json").unlink()
    with pytest.raises(ValueError, match=MIXED[what]):
        open_features(out, "test")


def test_splits_whose_folders_were_exchanged_are_refused(tmp_path, features):
    out = shutil.copytree(features, tmp_path / "features")
    for old, new in (("train", "other"), ("test", "train"), ("other", "test")):
        (out / old).rename(out / new)
    for split, there in (("train", "test"), ("test", "train")):
        with refusal(f"{split} holds the split '{there}', .*call it {there} again"):
            open_features(out, split)
    with refusal("holds the split"):
        feature_folder.check_features(out)


def test_a_split_that_does_not_note_its_name_is_read(tmp_path, features):
    out = shutil.copytree(features, tmp_path / "features")
    path = out / "test" / "records.json"
    sums = read_json(path, {"split": "test"}, "checksum", "")
    del sums["split"]
    write_sealed(path, sums)
    assert open_features(out, "test", check_all=True)[1].image_count == 12


def test_a_difference_of_encoders_is_told_in_options():
    there = {"source": "a", "grid": 0, "side": 288, "key": "1"}
    wanted = {"source": "a", "grid": 4, "side": 288, "stages": 5, "key": "2"}
    assert difference(there, wanted) == "grid 0, not 4, stages 0, not 5"
    assert difference(wanted, there) == "grid 4, not 0, stages 5, not 0"
    assert difference(there, there | {"key": "3"}) == "weights 1, not 3"
