"""A folder of features by tiny pretrained encoders: written, gone on with, opened, and refused
where it is stale.
"""

import shutil
from functools import cache

import numpy as np
import pytest
import torch
from helpers import save_encoder, some_scenes, text_encoder, tokenizer, vision_encoder

from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.photos import feature_folder
from tgdt_mini.photos.feature_folder import extract, first_images, open_features

PICTURES = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@cache
def records(split, count):
    """Scenes as records of photographs: their words that speak of an object are phrases, its boxes
    are theirs.
    """
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
        rows.append((scene["boxes"], phrases))
    boxes = [[{"region": str(i), "box": box} for i, box in enumerate(own)] for own, _ in rows]
    found = some_scenes(split, count).select_columns(["image", "image_id", "captions"])
    return found.add_column("boxes", boxes).add_column("phrases", [phrases for _, phrases in rows])


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


@pytest.fixture(scope="module")
def features(tmp_path_factory, sources):
    """The features of a small data set, the encoders' last layers to be trained."""
    out = tmp_path_factory.mktemp("photos") / "features"
    extract(data(), *encoders(sources), out, progress=False)
    return out


def content(folder):
    """{path: bytes} of the features in a folder, without the tables."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "records.arrow"
    }


@pytest.mark.parametrize("trained", [0, 1])
def test_features_on_disk_are_those_of_the_encoders(tmp_path, sources, trained):
    vision, text = encoders(sources, trained)
    extract({"test": records("test", 12)}, vision, text, tmp_path, progress=False)
    found, tokens = open_features(tmp_path, "test")
    assert tokens.image_ids == tuple(records("test", 12)["image_id"])
    assert (
        found["phrases"][:] == records("test", 12)["phrases"][:]
        and "image" not in found.column_names
    )
    rows = torch.tensor([7, 2, 11])
    direct = vision([records("test", 12)[row]["image"] for row in rows.tolist()])
    stored = tokens.images(rows)
    assert torch.equal(stored.features, direct.features.half()) and torch.equal(
        stored.whole, direct.whole.half()
    )
    assert torch.equal(stored.boxes, direct.boxes) and torch.equal(stored.mask, direct.mask)
    some = [31, 0, 59, 8]
    direct, stored = text([tokens.captions[row] for row in some]), tokens.text[some]
    for name in ("ids", "mask", "words"):
        assert torch.equal(getattr(stored, name), getattr(direct, name))
    assert (stored.features - direct.features.half())[
        stored.mask
    ].abs().max() < 0.01  # a batch rounds in its own way
    assert [tokens.captions[row] for row in some] == [
        records("test", 12)["captions"][row // 5][row % 5] for row in some
    ]


def test_the_first_pictures_of_stored_features_are_read_from_the_disk_too(features):
    _, tokens = open_features(features, "train")
    cut, rows = first_images(tokens, 7), torch.tensor([6, 0, 3])
    assert (
        cut.image_count == 7
        and cut.image_ids == tokens.image_ids[:7]
        and cut.captions == tokens.captions[:35]
    )
    assert cut.text.features is tokens.text.features and all(
        isinstance(array, np.memmap) for array in cut.features.arrays
    )
    for name, part in vars(cut.images(rows)).items():
        assert torch.equal(part, getattr(tokens.images(rows), name)), name
    assert torch.equal(cut.text[[34, 5]].features, tokens.text[[34, 5]].features)
    with pytest.raises(ValueError, match="images is 25; this set has 24"):
        first_images(tokens, 25)


def test_int8_features_take_half_the_room_and_give_about_the_same(tmp_path, sources, features):
    extract(data(), *encoders(sources), tmp_path, precision="int8", progress=False)
    one, other = (open_features(folder, "train")[1] for folder in (features, tmp_path))
    exact, found = (tokens.images(torch.arange(24)).features.float() for tokens in (one, other))
    bound = exact.abs().amax(dim=2, keepdim=True) / 254
    assert ((found - exact).abs() <= 1.01 * bound + 0.01).all() and not torch.equal(found, exact)
    sizes = [
        (folder / "train/images/shard-00000/features.npy").stat().st_size
        for folder in (features, tmp_path)
    ]
    assert sizes[1] < 0.6 * sizes[0]


def stop(*_, **__):
    raise KeyboardInterrupt


def test_a_stopped_extraction_goes_on_where_it_was_and_ends_with_the_same_bytes(
    tmp_path, sources, features, monkeypatch
):
    vision, text = encoders(sources)
    with monkeypatch.context() as patch:
        patch.setattr(feature_folder, "_words", stop)
        with pytest.raises(KeyboardInterrupt):
            extract(data(), vision, text, tmp_path, progress=False)
    with pytest.raises(ValueError, match="is no finished features folder"):
        open_features(tmp_path, "train")
    seen, cells = [], feature_folder._cells
    with monkeypatch.context() as patch:
        patch.setattr(
            feature_folder,
            "_cells",
            lambda vision, records, rows: seen.append(len(records)) or cells(vision, records, rows),
        )
        extract(data(), vision, text, tmp_path, progress=False)
        assert seen == [12, 12]  # the training pictures were done
        extract(data(), vision, text, tmp_path, progress=False)
        assert seen == [12, 12]  # and now everything is
    assert content(tmp_path) == content(features)


def test_splits_may_be_extracted_one_by_one(tmp_path, sources, features):
    """The folder is the one that a single extraction makes, and each split knows where it came
    from.
    """
    every = data()
    for place, splits in enumerate((["test"], ["validation", "train"], ["test"])):
        some = {split: every[split] for split in splits}
        extract(
            some, *encoders(sources), tmp_path, source={"data": f"source {place}"}, progress=False
        )
    assert feature_folder.encoders_of(tmp_path)["splits"] == ["train", "validation", "test"]
    assert (tmp_path / "encoders.json").read_bytes() == (features / "encoders.json").read_bytes()
    for split, place in (("train", 1), ("validation", 1), ("test", 2)):
        assert open_features(tmp_path, split)[1].image_count == len(every[split])
        assert feature_folder.source_of(tmp_path, split) == {"data": f"source {place}"}


def test_splits_may_be_extracted_side_by_side(tmp_path, sources, monkeypatch):
    every, words, begun = data(), feature_folder._words, []

    def meanwhile(text, captions, rows):
        if not begun:
            begun.append(
                "validation"
            )  # another process begins and ends while this one reads captions
            extract(
                {"validation": every["validation"]}, *encoders(sources), tmp_path, progress=False
            )
            with pytest.raises(
                ValueError, match="has no split test; it has validation: extract that, too"
            ):
                open_features(tmp_path, "test")
        return words(text, captions, rows)

    monkeypatch.setattr(feature_folder, "_words", meanwhile)
    extract({"test": every["test"]}, *encoders(sources), tmp_path, progress=False)
    assert feature_folder.encoders_of(tmp_path)["splits"] == ["validation", "test"]
    for split in ("validation", "test"):
        assert open_features(tmp_path, split)[1].image_count == 12


@pytest.mark.parametrize("part", ["vision", "text"])
def test_a_split_of_another_encoder_is_refused_before_anything_is_written(
    tmp_path, sources, monkeypatch, part
):
    extract({"train": records("train", 8)}, *encoders(sources), tmp_path, progress=False)
    before = content(tmp_path)
    given = dict(zip(("vision", "text"), encoders(sources)))
    given[part] = dict(zip(("vision", "text"), encoders(sources, 2)))[part]
    for name in ("_cells", "_words"):
        monkeypatch.setattr(feature_folder, name, stop)
    with pytest.raises(
        ValueError, match=f"was begun with another {part} encoder or other options of it"
    ) as caught:
        extract({"test": records("test", 12)}, *given.values(), tmp_path, progress=False)
    assert len(str(caught.value).splitlines()) == 1 and "choose another folder" in str(caught.value)
    assert content(tmp_path) == before and not (tmp_path / "test").exists()


def test_another_encoder_that_came_first_meanwhile_is_named_and_its_list_stays(
    tmp_path, sources, monkeypatch
):
    every, words, begun = data(), feature_folder._words, []

    def meanwhile(text, captions, rows):
        if not begun:
            begun.append("validation")
            extract(
                {"validation": every["validation"]}, *encoders(sources, 2), tmp_path, progress=False
            )
        return words(text, captions, rows)

    monkeypatch.setattr(feature_folder, "_words", meanwhile)
    with pytest.raises(ValueError, match="was begun with another vision encoder"):
        extract({"test": every["test"]}, *encoders(sources), tmp_path, progress=False)
    assert feature_folder.encoders_of(tmp_path)["splits"] == ["validation"]
    with pytest.raises(ValueError, match="holds records that are not those|of another encoder"):
        open_features(tmp_path, "test")


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
        extract(
            images, *encoders((vision, text), 2 if what == "layers" else 1), out, progress=False
        )
    assert content(out) == before


def test_features_of_the_same_data_by_the_same_encoders_have_one_identity(
    tmp_path, sources, features
):
    small = data(8, 4)
    extract(small, *encoders(sources), tmp_path / "one", progress=False)
    copied = small | {"train": with_pictures(small["train"], {0: raw_pictures(small["train"])[0]})}
    extract(copied, *encoders(sources), tmp_path / "again", progress=False)
    found = feature_folder.identity(tmp_path / "one")
    assert len(found) == 16 and feature_folder.identity(
        tmp_path / "again"
    ) == found != feature_folder.identity(features)
    other = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    extract(small, *encoders((other, sources[1])), tmp_path / "other", progress=False)
    assert feature_folder.identity(tmp_path / "other") != found


def test_pictures_are_known_by_their_bytes_or_by_their_files(
    tmp_path, sources, features, monkeypatch
):
    for part in ("_cells", "_words"):
        monkeypatch.setattr(feature_folder, part, stop)
    copied = data() | {"train": with_pictures(records("train", 24), {})}
    extract(
        copied, *encoders(sources), shutil.copytree(features, tmp_path / "features"), progress=False
    )  # all is there
    monkeypatch.undo()
    place = tmp_path / "picture.png"
    place.write_bytes(raw_pictures(records("test", 12))[0]["bytes"])
    four = with_pictures(
        records("test", 12).select(range(4)), {0: {"bytes": None, "path": str(place)}}
    )
    extract({"test": four}, *encoders(sources), tmp_path / "files", progress=False)
    place.write_bytes(raw_pictures(records("test", 12))[5]["bytes"])
    with pytest.raises(ValueError, match="so its features are stale"):
        extract({"test": four}, *encoders(sources), tmp_path / "files", progress=False)


def test_new_phrases_are_taken_over_without_extracting_again(
    tmp_path, sources, features, monkeypatch
):
    out = shutil.copytree(features, tmp_path / "features")
    monkeypatch.setattr(feature_folder, "_cells", stop)
    monkeypatch.setattr(feature_folder, "_words", stop)
    bare = {split: each.remove_columns("phrases") for split, each in data().items()}
    extract(bare, *encoders(sources), out, progress=False)
    assert open_features(out, "test")[0].column_names == ["image_id", "captions", "boxes"]


def test_a_picture_that_cannot_be_read_is_named(tmp_path, sources):
    from datasets import Dataset, Image, List, Value
    from datasets import Features as Columns

    columns = Columns(
        {"image": Image(), "image_id": Value("string"), "captions": List(Value("string"))}
    )
    for image, message in (
        ({"bytes": b"no picture", "path": None}, "image two cannot be read"),
        ({"bytes": None, "path": str(tmp_path / "gone.png")}, "image two cannot be read"),
    ):
        whole = {
            "bytes": some_scenes("test", 1).cast_column("image", Image(decode=False))[0]["image"][
                "bytes"
            ],
            "path": None,
        }
        broken = {
            "image": [whole, image],
            "image_id": ["one", "two"],
            "captions": [["a red star"], ["two moons"]],
        }
        with pytest.raises(ValueError, match=message):
            extract(
                {"test": Dataset.from_dict(broken, features=columns)},
                *encoders(sources),
                tmp_path / "out",
                progress=False,
            )


MIXED = {  # what was put in the place of a part, and what the error says
    "records of other captions": "holds records that are not those of its features",
    "records of other pictures": "holds records that are not those of its features",
    "no records": "has no split test; it has train, validation: extract that, too",
    "damaged records": "records.arrow is damaged",
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
        table.unlink()
    elif what == "damaged records":
        table.write_bytes(table.read_bytes()[:-500])
    elif "another encoder" in what:
        extract(
            {"test": records("test", 12)}, *encoders(sources, 2), tmp_path / "other", progress=False
        )
        part = {
            "another encoder's images": "test/images",
            "another encoder's captions": "test/captions",
        }.get(what)
        if part:
            shutil.rmtree(out / part)
            shutil.copytree(tmp_path / "other" / part, out / part)
        else:
            shutil.copy(tmp_path / "other" / "encoders.json", out)
    elif what == "no encoders.json":
        (out / "encoders.json").unlink()
    with pytest.raises(ValueError, match=MIXED[what]):
        open_features(out, "test")
