"""The command extract and what follows it: regions, phrases, columns, splits, layers."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from helpers import (
    call,
    done,
    refused,
    saved_encoders,
    some_scenes,
    suggested,
    text_encoder,
    vision_encoder,
)
from PIL import Image
from test_entities import annotated, annotation

from tgdt_mini import cli
from tgdt_mini.checkpoint import load_model
from tgdt_mini.encoders.cutting import layers_of
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoding import encode
from tgdt_mini.evaluation import both_ways, mean_of_folds
from tgdt_mini.losses import cmc_loss
from tgdt_mini.photos import extraction, feature_folder, origin
from tgdt_mini.photos.feature_folder import open_features
from tgdt_mini.reports import plots
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.runs import ablations
from tgdt_mini.runs import photos as photo_experiments
from tgdt_mini.runs.photos import assess_on_photos
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import global_similarity

COUNTS = {"train": 20, "validation": 10, "test": 12}
WIDTH, SIDE = 24, 112
TRAIN = "train --epochs 1 --batch 8 --device cpu"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What `datasets` keeps of parquet files goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def every():
    """(split, place in it, file name, scene) of the pictures, called by numbers as Flickr's are."""
    for number, (split, count) in enumerate(COUNTS.items()):
        for place, scene in enumerate(some_scenes(split, count)):
            yield split, place, f"{1000 * (number + 1) + place}.png", scene


def detected(place):
    """(features (R, WIDTH), boxes (R, 4) in pixels) of a picture, 10 to 100 regions."""
    draw = np.random.default_rng(place)
    count = 100 if place % 7 == 3 else 10 + place % 5
    corners = np.sort(draw.uniform(1, SIDE - 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return draw.random((count, WIDTH), np.float32), corners.astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set in the forms that are published: Karpathy's JSON, pictures, regions, Entities; and
    tiny encoders.
    """
    home = tmp_path_factory.mktemp("world")
    for name in ("pictures", "regions", "boxes", "all_in_one"):
        (home / name).mkdir()
    entries = []
    for place, (split, _, name, scene) in enumerate(every()):
        scene["image"].save(home / "pictures" / name)
        entry = {"filename": name, "split": split.replace("validation", "val"), "imgid": place}
        entries.append(entry | {"sentences": [{"raw": text} for text in scene["captions"]]})
        features, boxes = detected(place)
        stem = Path(name).stem
        np.savez(home / "regions" / f"{stem}.npz", feat=features)
        np.save(home / "boxes" / f"{stem}.npy", boxes)
        whole = dict(features=features, bbox=boxes, image_w=SIDE, image_h=SIDE)
        np.savez(home / "all_in_one" / f"{stem}.npz", **whole)
        marked = scene["captions"][:]
        for link in sorted(scene["links"], key=lambda link: -link["start"]):  # from the end
            text, thing = marked[link["caption"]], link["objects"][0] + 1
            start, end = link["start"], link["end"]
            phrase = f"[/EN#{thing}/other {text[start:end]}]"
            marked[link["caption"]] = text[:start] + phrase + text[end:]
        things = [
            ([str(i + 1)], [[round(SIDE * x) for x in box]]) for i, box in enumerate(scene["boxes"])
        ]
        annotated(home / "entities", stem, marked, annotation(*things, width=SIDE, height=SIDE))
    (home / "dataset.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    saved_encoders(home)
    return home


def karpathy(world, more=""):
    return f"extract --data {world}/dataset.json --text {world}/text --device cpu {more}"


def seen(world, more=""):
    """The same, with the pictures and the encoder that sees them."""
    return karpathy(world, f"--images {world}/pictures --vision {world}/vision {more}")


def regions(world, more=""):
    found = f"--detections {world}/regions --boxes {world}/boxes --width {WIDTH}"
    return karpathy(world, f"{found} {more}")


def all_in_one(world, more=""):
    return karpathy(world, f"--detections {world}/all_in_one --width {WIDTH} {more}")


def trained(capsys, features, out, more=""):
    done(capsys, f"{TRAIN} --features {features} --out {out} {more}")
    return out / "model"


# a detector's regions


@pytest.fixture(scope="module")
def detections(world, tmp_path_factory):
    """Features of the regions and phrases, made by one command."""
    out = tmp_path_factory.mktemp("detections") / "features"
    more = f"--images {world}/pictures --entities {world}/entities --out {out}"
    assert cli.main(shlex.split(regions(world, more))) == 0
    return out


def test_regions_captions_and_phrases_become_features_by_one_command(world, detections):
    start = 0
    for split, count in COUNTS.items():
        records, tokens = open_features(detections, split)
        assert tokens.image_count == count and tokens.features.shape[1] == WIDTH
        batch = tokens.images(torch.arange(count))
        for row in range(count):
            features, boxes = detected(start + row)
            assert batch.mask[row].sum() == len(features) and 10 <= len(features) <= 100
            stored = batch.features[row, : len(features)]
            assert torch.equal(stored, torch.from_numpy(features).half())
            np.testing.assert_allclose(batch.boxes[row, : len(boxes)], boxes / SIDE, atol=1e-6)
            np.testing.assert_allclose(batch.pooled[row], features.mean(axis=0), atol=1e-3)
        assert records.column_names == ["image_id", "captions", "boxes", "phrases"]
        scenes = some_scenes(split, count)
        assert records["captions"][:] == scenes["captions"][:]
        for record, scene in zip(records, scenes):
            found = [(each["caption"], each["text"], each["region"]) for each in record["phrases"]]
            links = sorted(scene["links"], key=lambda each: (each["caption"], each["start"]))
            texts = [scene["captions"][e["caption"]][e["start"] : e["end"]] for e in links]
            known = [
                (each["caption"], text, str(each["objects"][0] + 1))
                for each, text in zip(links, texts)
            ]
            assert found == known
            boxes = [box["box"] for box in record["boxes"]]
            np.testing.assert_allclose(boxes, scene["boxes"], atol=0.01)
        start += count
    vision = feature_folder.encoders_of(detections)["vision"]
    assert (vision["source"], vision["trained_layers"]) == ("bottom-up attention", 0)


def test_a_model_of_regions_is_trained_judged_searched_and_indexed(
    world, detections, tmp_path, capsys
):
    model = trained(capsys, detections, tmp_path / "run")
    here = f"--features {detections} --model {model}"
    out = done(capsys, f"evaluate {here} --check-all --folds 3 --out {tmp_path}")
    report = results(tmp_path)
    told = "12 images and 60 captions, each a query; an image is found by any of its own"
    assert f"{told}, which are 5" in out
    assert report["pointing"]["phrases"]["count"] > 50 and "pointing game" in out
    assert report["mean_of_folds"]["folds"] == 3 and "the mean of 3 folds" in out
    search = f"search '{some_scenes('test', 12)['captions'][0][0]}' {here} -k 3"
    out = done(capsys, f"{search} --out {tmp_path}/search")
    names = re.findall(r"^ +\d +\S+ +(\d+\.png)$", out, re.M)
    tested = {name for split, _, name, _ in every() if split == "test"}
    assert len(names) == 3 and set(names) <= tested
    with Image.open(tmp_path / "search" / "hits.png") as drawn:
        assert drawn.format == "PNG"
    done(capsys, f"index {here} --out {tmp_path}/gallery")
    again = done(capsys, f"{search} --gallery {tmp_path}/gallery --out {tmp_path}/s")
    assert re.findall(r"(\d+\.png)$", again, re.M) == names
    for command in (
        f"search --image {world}/pictures/3000.png",
        f"index --images {world}/pictures",
    ):
        message = refused(capsys, f"{command} --model {model} --out {tmp_path}/none")
        assert "the model reads regions that a detector (bottom-up attention) found" in message


def first_boxes(features, split):
    """The boxes of a split's first picture."""
    tokens = open_features(features, split)[1]
    return tokens.boxes[: int(tokens.starts[1])]


def test_regions_need_no_pictures_where_their_files_say_all(world, tmp_path, capsys):
    out = done(capsys, all_in_one(world, f"--out {tmp_path}/f"))
    assert "features of 20 train, 10 validation, 12 test pictures" in out
    boxes = detected(30)[1] / SIDE
    np.testing.assert_allclose(first_boxes(tmp_path / "f", "test"), boxes, atol=1e-6)
    model = trained(capsys, tmp_path / "f", tmp_path / "run")
    here = f"--features {tmp_path}/f --model {model} --out {tmp_path}/s"
    assert ".png" in done(capsys, f"search 'a red star' {here}")  # hits are drawn as their names
    assert (tmp_path / "s" / "hits.png").is_file()


def test_captions_may_come_from_a_table_without_pictures(world, tmp_path, capsys):
    table = parquet(tmp_path / "p") / "all.parquet"
    datasets.Dataset.from_parquet(str(table)).remove_columns("photo").to_parquet(table)
    command = of_parquet(world, tmp_path / "p", MAPPED.partition(" ")[2], "--most-captions 2")
    found = f"--detections {world}/all_in_one --width {WIDTH} --vision VinVL"
    done(capsys, f"{command} {found} --out {tmp_path}/f")
    records, tokens = open_features(tmp_path / "f", "test")
    assert records["captions"][:] == [own[:2] for own in some_scenes("test", 12)["captions"]]
    assert tokens.image_count == 12
    message = refused(capsys, f"{command} --out {tmp_path}/g")  # an encoder needs them
    assert "has no column 'image' for image" in message


def test_sizes_may_come_from_a_file(world, tmp_path, capsys):
    sizes = {name: [SIDE, SIDE] for _, _, name, _ in every()}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    done(capsys, regions(world, f"--sizes {tmp_path}/sizes.json --out {tmp_path}/f"))
    boxes = detected(0)[1] / SIDE
    np.testing.assert_allclose(first_boxes(tmp_path / "f", "train"), boxes, atol=1e-6)


def test_regions_may_be_called_by_the_number_in_karpathy_s_file(world, tmp_path, capsys):
    (tmp_path / "r").mkdir()
    for place, (_, _, name, _) in enumerate(every()):
        shutil.copy(world / "all_in_one" / f"{Path(name).stem}.npz", tmp_path / f"r/{place}.npz")
    found = f"--detections {tmp_path}/r --width {WIDTH}"
    done(capsys, karpathy(world, f"{found} --out {tmp_path}/f"))
    batch = open_features(tmp_path / "f", "test")[1].images(torch.tensor([5]))
    assert torch.equal(batch.features[0], torch.from_numpy(detected(35)[0]).half())


def test_regions_of_another_detector_are_not_taken_for_the_same(world, tmp_path, capsys):
    done(capsys, all_in_one(world, f"--out {tmp_path}/one"))
    done(capsys, all_in_one(world, f"--vision VinVL --out {tmp_path}/two"))
    model = trained(capsys, tmp_path / "one", tmp_path / "run")
    command = f"evaluate --features {tmp_path}/two --model {model} --out {tmp_path}/e"
    message = refused(capsys, command)
    assert "another vision encoder" in message
    assert "source VinVL, not bottom-up attention" in message


def test_regions_that_do_not_fit_are_named_before_anything_is_written(world, tmp_path, capsys):
    shutil.copytree(world / "regions", tmp_path / "regions")
    (tmp_path / "regions" / "2009.npz").unlink()
    command = regions(world, f"--out {tmp_path}/f").replace(f"{world}/reg", f"{tmp_path}/reg")
    assert "image 2009.png has no features in" in refused(capsys, command)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "option", ["--vision-layers 2", "--grid 4", "--side 288", "--mirrored", "--bfloat16"]
)
def test_options_of_cells_are_refused_for_regions(world, tmp_path, capsys, option):
    message = refused(capsys, regions(world, f"{option} --out {tmp_path}/f"))
    assert f"error: {option.split()[0]} is " in message and "detector's regions" in message


@pytest.mark.parametrize("option", ["--boxes b", "--sizes s", "--width 9", "--allow-strays"])
def test_options_of_regions_need_regions(world, tmp_path, capsys, option):
    message = refused(capsys, karpathy(world, f"{option} --out {tmp_path}/f"))
    assert f"error: {option.split()[0]} " in message and "--detections" in message


def test_strays_are_left_aside_when_asked_and_so_are_pictures_of_other_splits(
    world, tmp_path, capsys
):
    folder = shutil.copytree(world / "all_in_one", tmp_path / "regions")
    command = karpathy(world, f"--detections {folder} --width {WIDTH}")
    # the JSON knows the others' pictures
    done(capsys, f"{command} --splits test --out {tmp_path}/test")
    np.savez(folder / "77.npz", feat=detected(0)[0])
    assert "belong to no image" in refused(capsys, f"{command} --out {tmp_path}/all")
    done(capsys, f"{command} --allow-strays --out {tmp_path}/all")
    message = refused(capsys, f"{TRAIN} --features {tmp_path}/test --out {tmp_path}/run")
    assert "has no split train; it has test" in message


# a run that was killed


KILLED = """
import os, signal, sys
from tgdt_mini import cli
from tgdt_mini.files import store

save = store.save_array
def save_and_die(path, array):
    save(path, array)
    if "captions" in str(path) and "validation" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)

store.save_array = save_and_die
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_extract_goes_on_after_a_kill_to_the_same_bytes_and_refuses_other_data(
    world, detections, tmp_path, capsys
):
    out = tmp_path / "features"
    command = regions(world, f"--images {world}/pictures --entities {world}/entities --out {out}")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *shlex.split(command)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    begun = {path: path.stat().st_mtime_ns for path in out.rglob("features.npy")}
    del begun[out / "validation" / "captions" / "shard-00000" / "features.npy"]  # not whole
    assert {path.relative_to(out).parts[:2] for path in begun} == {
        ("train", "images"),
        ("train", "captions"),
        ("validation", "images"),
    }
    train = f"{TRAIN} --features {out} --out {tmp_path}/run"
    assert "is no finished features folder" in refused(capsys, train)
    changed = shutil.copytree(world / "regions", tmp_path / "regions")
    np.savez(changed / "1000.npz", feat=detected(0)[0] + 1)
    message = refused(capsys, command.replace(f"{world}/regions", str(changed)))
    assert "begun with another key, so its features are stale" in message
    done(capsys, command)
    assert all(path.stat().st_mtime_ns == time for path, time in begun.items())
    for path in sorted(detections.rglob("*.npy")):
        assert (out / path.relative_to(detections)).read_bytes() == path.read_bytes()
    done(capsys, f"{train} --check-all")


def test_a_stopped_extraction_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_folder, "extract", stop)
    command = regions(world, f"--images {world}/pictures --out {tmp_path}/f")
    code, _, err = call(capsys, *shlex.split(command))
    last = err.strip().splitlines()[-1]
    assert code == 130 and last.startswith("stopped; ") and str(tmp_path / "f") in last
    assert last.endswith("go on with the same command")


# columns, splits, captions


def parquet(folder, **columns):
    """A parquet file with every picture, its split in a column, its captions in five; changed."""
    rows = list(every())
    table = {
        "photo": [{"bytes": png(scene["image"]), "path": name} for _, _, name, scene in rows],
        "name": [name for _, _, name, _ in rows],
        "part": [split for split, _, _, _ in rows],
    }
    table |= {f"caption_{i}": [scene["captions"][i] for _, _, _, scene in rows] for i in range(5)}
    made = datasets.Dataset.from_dict(table | columns).cast_column("photo", datasets.Image())
    folder.mkdir()
    made.to_parquet(folder / "all.parquet")
    return folder


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


MAPPED = (
    "image=photo image_id=name split=part "
    "captions=caption_0,caption_1,caption_2,caption_3,caption_4"
)


def of_parquet(world, folder, columns, more=""):
    encoders = f"--text {world}/text --vision {world}/vision --device cpu"
    return f"extract --data {folder} --columns {columns} {encoders} {more}"


def test_columns_splits_and_the_first_captions_are_chosen_on_the_command_line(
    world, tmp_path, capsys, monkeypatch
):
    folder, out = parquet(tmp_path / "p"), tmp_path / "f"
    splits = "--splits train test=validation validation=test"
    done(capsys, of_parquet(world, folder, MAPPED, f"{splits} --most-captions 3 --out {out}"))
    records, tokens = open_features(out, "validation")
    assert records["image_id"][:] == [name for split, _, name, _ in every() if split == "test"]
    assert records["captions"][:] == [own[:3] for own in some_scenes("test", 12)["captions"]]
    here = f"--features f --model {trained(capsys, out, tmp_path / 'run')} --out s"
    monkeypatch.chdir(tmp_path)  # the data set is found again from anywhere
    out = done(capsys, f"evaluate {here}")
    assert "10 images and 30 captions" in out and "not 5 for all (3 for 10)" in out
    assert ".png" in done(capsys, f"search 'a star' {here}")
    for way in ("evaluate", "search 'a star'"):
        assert "damaged" not in done(capsys, f"{way} {here} --check-all")


@pytest.mark.parametrize(
    "columns, message",
    [
        ("image", "--columns image is not OURS=THEIRS"),
        ("image=photo captions=caption_0,caption_9", "no column 'caption_9' for captions"),
        ("picture=photo", "columns names ['picture']"),
    ],
)
def test_columns_that_are_not_there_are_named(world, tmp_path, capsys, columns, message):
    folder = parquet(tmp_path / "p")
    command = of_parquet(world, folder, columns, f"--splits all=train --out {tmp_path}/f")
    assert message in refused(capsys, command) and not (tmp_path / "f").exists()


def test_records_that_do_not_fit_are_named(world, tmp_path, capsys):
    folder = parquet(tmp_path / "p", name=["x", *map(str, range(40)), "x"])
    message = refused(capsys, of_parquet(world, folder, MAPPED, f"--out {tmp_path}/f"))
    assert "image 'x' is both in train and in test" in message and not (tmp_path / "f").exists()


def test_restval_is_for_training_unless_refused(world, tmp_path, capsys):
    data = json.loads((world / "dataset.json").read_text(encoding="utf-8"))
    for entry in data["images"][:4]:
        entry["split"] = "restval"
    (tmp_path / "coco.json").write_text(json.dumps(data), encoding="utf-8")
    common = seen(world).replace(f"{world}/dataset.json", f"{tmp_path}/coco.json")
    assert "20 train, 10 validation" in done(capsys, f"{common} --out {tmp_path}/with")
    without = done(capsys, f"{common} --no-restval --out {tmp_path}/without")
    assert "16 train, 10 validation" in without
    message = refused(capsys, f"{common} --splits =test --out {tmp_path}/x")
    assert "--splits =test is not THEIRS=OURS" in message


def test_splits_are_extracted_one_by_one_into_one_folder(world, tmp_path, capsys):
    features = tmp_path / "f"
    out = done(capsys, seen(world, f"--out {features} --splits train"))
    assert "next: extract validation into the same folder, too, which train needs; data" in out
    out = done(capsys, seen(world, f"--out {features} --splits val test --most-captions 2"))
    assert "next: python -m tgdt_mini train --features" in out
    for split, most in (("train", 5), ("validation", 2), ("test", 2)):
        assert len(open_features(features, split)[0]["captions"][0]) == most
    model = trained(capsys, features, tmp_path / "run")
    for split, first in (("test", "3000.png"), ("validation", "2000.png")):
        picture = origin.finder(features, split)(first)
        scene = next(scene for _, _, name, scene in every() if name == first)
        assert (np.asarray(picture) == np.asarray(scene["image"])).all()
        here = f"--features {features} --split {split} --model {model} --out {tmp_path}/s"
        assert ".png" in done(capsys, f"search 'a red star' {here}")


# what comes next


@pytest.fixture(scope="module")
def cells(world, tmp_path_factory):
    """Features of a tiny vision encoder, and a model that was trained on them."""
    home = tmp_path_factory.mktemp("cells")
    train = f"{TRAIN} --features {home}/features --out {home}/run"
    for command in (seen(world, f"--out {home}/features"), train):
        assert cli.main(shlex.split(command)) == 0
    return home


@pytest.mark.parametrize("split", ["test", "validation"])
def test_what_each_command_says_comes_next_works(world, tmp_path, capsys, monkeypatch, split):
    """For a folder that has a space in its name, with a test split and without."""
    monkeypatch.chdir(tmp_path)
    defaults = photo_experiments.PHOTO_DEFAULTS | {"epochs": 1, "batch": 8}
    monkeypatch.setattr(photo_experiments, "PHOTO_DEFAULTS", defaults)
    count, digit, some = {
        "test": (12, "3", "train val test"),
        "validation": (10, "2", "train val"),
    }[split]
    extracted = done(capsys, seen(world, f"--splits {some} --out 'my features'"))
    (train,) = suggested(extracted)
    (evaluate,) = suggested(done(capsys, shlex.join(train)))
    assert f"{count} images and" in done(capsys, shlex.join(evaluate))
    index = f"index --model {train[-1]}/model --out 'my gallery'"
    out = done(capsys, f"{index} --features 'my features' --split {split}")
    (search,) = suggested(out)
    names = re.findall(r"^ +\d +\S+ +(\d+\.png)$", done(capsys, shlex.join(search)), re.M)
    assert len(names) == 5 and {name[0] for name in names} == {digit}
    (search,) = suggested(done(capsys, f"{index} --images {world}/pictures"))
    assert "--features" not in search and ".png" in done(capsys, shlex.join(search))


def test_photographs_that_are_called_as_scenes_are_not_drawn_as_scenes(
    cells, tmp_path, capsys, monkeypatch
):
    """Sets that name no picture have them called by split and row."""
    model, drawn = cells / "run" / "model", []
    done(capsys, f"index --features {cells}/features --model {model} --out {tmp_path}/photos")
    items = ["test-0003", *(f"test-{i:05d}" for i in range(11))]
    replace(Gallery.load(tmp_path / "photos"), items=items).save(tmp_path / "gallery")
    monkeypatch.setattr(plots, "hits", lambda asked, found, *rest: drawn.extend(found[0]))
    here = f"--gallery {tmp_path}/gallery --model {model} -k 12 --out {tmp_path}"
    done(capsys, f"search 'a red star' {here}")
    assert sorted(drawn) == sorted(items)


# quick


def test_quick_takes_the_first_quarter_of_each_split(cells, tmp_path, capsys):
    start = f"train --features {cells}/features --quick --device cpu --out {tmp_path}/run"
    capped = call(capsys, *shlex.split(f"{start} --epochs 1"))
    assert capped[0] == 0 and "a batch is 5 pairs, not 512" in capped[2]
    out = done(capsys, f"{start} --batch 4 --epochs 2")
    assert "5 images, 25 captions" in out  # the run before is set aside
    model = load_model(tmp_path / "run" / "model")
    assert len(model.notes["history"]) == 2
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["identity"]["images"] == 5
    report = assess_on_photos(model, cells / "features", share=0.25)
    assert report["images"] == 3 and assess_on_photos(model, cells / "features")["images"] == 12


@pytest.mark.parametrize(
    "options, terms",
    [
        ("", (True, False, True)),
        ("--no-local", (True, False, False)),
        ("--no-global --no-intra", (False, True, False)),
    ],
)
def test_photographs_learn_from_the_terms_that_were_asked_for(
    cells, tmp_path, capsys, options, terms
):
    """Of global, local and mixed scores; no mixed score without one of the two."""
    model = trained(capsys, cells / "features", tmp_path / "run", options)
    settings = load_model(model).notes["training"]
    assert tuple(settings[f"use_{name}"] for name in ("global", "local", "mixed")) == terms
    learnt = load_model(model).notes["history"][-1]
    found = [learnt[f"inter_{name}"] > 0 for name in ("global", "local", "mixed")]
    assert tuple(found) == terms


def test_quick_ablations_train_and_judge_on_a_quarter(cells, tmp_path, capsys, monkeypatch):
    given, fit = [], photo_experiments.fit
    monkeypatch.setattr(photo_experiments, "fit", lambda *every: given.append(every) or fit(*every))
    defaults = photo_experiments.PHOTO_DEFAULTS | {"batch": 4}
    monkeypatch.setattr(ablations, "PHOTO_DEFAULTS", defaults)
    quick = f"ablate --features {cells}/features --recipes default --quick --device cpu"
    done(capsys, f"{quick} --out {tmp_path}/a")
    ((_, train, validation, *_),) = given
    assert (train.image_count, validation.image_count) == (5, 2)
    report = json.loads((tmp_path / "a" / "default-0.json").read_text(encoding="utf-8"))
    assert report["images"] == 3 and len(report["history"]) == 2
    done(capsys, f"{quick} --epochs 1 --out {tmp_path}/b")
    assert given[1][4].epochs == 1


# phrases


def test_phrases_are_added_by_the_same_options_without_computing_a_feature(
    world, tmp_path, capsys, monkeypatch
):
    cells = seen(world, f"--out {tmp_path}/f --grid 2")
    phrases = f"--entities {world}/entities"
    done(capsys, f"{cells} --text-states 2")
    before = {path: path.read_bytes() for path in (tmp_path / "f").rglob("*.npy")}
    for name in ("cells", "words"):
        monkeypatch.setattr(extraction, name, lambda *_: pytest.fail("a feature is computed again"))
    message = refused(capsys, f"{cells} {phrases} --grid 0 --text-states 2")
    assert "was begun with another vision encoder or other options of it" in message
    assert "phrases" not in open_features(tmp_path / "f", "test")[0].column_names
    done(capsys, f"{cells} {phrases} --text-states 2")
    assert any(open_features(tmp_path / "f", "test")[0]["phrases"])
    assert {path: path.read_bytes() for path in (tmp_path / "f").rglob("*.npy")} == before


def test_annotations_that_fit_no_picture_are_refused(world, tmp_path, capsys):
    annotated(tmp_path / "others", "77")
    for folder, words in (
        (tmp_path / "others", "annotates none of the pictures"),
        (world, "has no Annotations/"),
    ):
        message = refused(capsys, seen(world, f"--out {tmp_path}/f --entities {folder}"))
        assert words in message and not (tmp_path / "f").exists()


def test_phrases_without_a_box_are_no_game_and_no_error(world, tmp_path, capsys):
    some = shutil.copytree(world / "entities", tmp_path / "some")
    for split, _, name, _ in every():
        if split != "train":
            for path in some.glob(f"*/{Path(name).stem}.*"):
                path.unlink()
    done(capsys, seen(world, f"--entities {some} --out {tmp_path}/f"))
    assert any(open_features(tmp_path / "f", "train")[0]["phrases"])
    model = trained(capsys, tmp_path / "f", tmp_path / "run")
    done(capsys, f"evaluate --features {tmp_path}/f --model {model} --out {tmp_path}/e")
    assert "pointing" not in results(tmp_path / "e")


# layers that learn


@pytest.fixture(scope="module")
def layered(world, tmp_path_factory):
    """Features below the last two of a text encoder's first two layers, and of a vision encoder."""
    out = tmp_path_factory.mktemp("layered") / "features"
    layers = "--vision-layers 2 --text-depth 2 --text-layers 2"
    assert cli.main(shlex.split(seen(world, f"{layers} --out {out}"))) == 0
    return out


def pretrained():
    """The layers that are left to be trained, as they were: {"vision" and "text": layers}."""
    return {"vision": layers_of(vision_encoder())[1:], "text": layers_of(text_encoder())[:2]}


def tops(model):
    return {"vision": model.image_reader.top, "text": model.text_reader.top}


LAYERS = {  # train's options: which layers learn
    "": {"vision": [0, 1], "text": [0, 1]},
    "--text-layers 1 --vision-layers 0": {"vision": [], "text": [1]},
    "--text-layers 0 --vision-layers 1": {"vision": [1], "text": []},
}


@pytest.mark.parametrize("options", LAYERS, ids=["all", "one of text", "one of vision"])
def test_exactly_the_layers_that_were_asked_for_learn_and_are_saved(
    world, layered, tmp_path, capsys, options
):
    learning, more = LAYERS[options], f"{options} --epochs 2 --learning-rate 0.01"
    folder = trained(capsys, layered, tmp_path / "run", more)
    model, start = load_model(folder), pretrained()
    for name, top in tops(model).items():
        assert len(top.layers) == 2
        for place, (mine, before) in enumerate(zip(top.layers, start[name])):
            learns, weights = place in learning[name], before.state_dict()
            assert all(parameter.requires_grad == learns for parameter in mine.parameters())
            for part, value in mine.state_dict().items():
                if value.dim() > 1:
                    assert torch.equal(value, weights[part]) != learns, (name, place, part)
    tokens = open_features(layered, "test")[1]
    rows = torch.arange(8)
    images, captions = model.train()(tokens.images(rows), tokens.text[5 * rows])
    cmc_loss(images, captions, rows).total.backward()
    for name, top in tops(model).items():
        for place, layer in enumerate(top.layers):
            grads = [parameter.grad for parameter in layer.parameters()]
            reached = [grad is not None and bool(grad.abs().sum() > 0) for grad in grads]
            enough = sum(reached) >= len(grads) - 1  # keys have a bias
            assert enough if place in learning[name] else not any(reached)
    # index, evaluate and search read what was learnt
    here = f"--features {layered} --model {folder}"
    done(capsys, f"index {here} --out {tmp_path}/gallery")
    images, captions = encode(model.eval(), tokens)
    gallery = Gallery.load(tmp_path / "gallery", expect_model=model.fingerprint)
    assert (gallery.global_tokens - images.global_token).abs().max() < 1e-5
    done(capsys, f"evaluate {here} --out {tmp_path}/e")
    known = both_ways(global_similarity(images, captions), tokens.caption_image).rsum
    assert results(tmp_path / "e")["rows"]["global"]["rsum"] == pytest.approx(known)
    out = done(capsys, f"search --image {world}/pictures/3000.png {here} --out {tmp_path}/s")
    assert len(re.findall(r"^ +\d +-?\d\.\d+ ", out, re.M)) == 5


def test_layers_that_were_not_left_cannot_learn(layered, tmp_path, capsys):
    start = f"{TRAIN} --out {tmp_path}/run"
    for options, words in (
        ("--text-layers 3", "--text-layers is 3, but the features leave 2 layers"),
        ("--vision-layers -1", "--vision-layers is -1"),
    ):
        assert words in refused(capsys, f"{start} --features {layered} {options}")
    assert "add --features FOLDER" in refused(capsys, f"{start} --text-layers 1")


def test_the_rate_of_an_encoders_layers_is_a_share_of_the_rate(layered, tmp_path, capsys):
    """At a share of 0 the layers stay as they were, and what is above them learns."""
    rates = "--top-rate 0 --learning-rate 0.01"
    model = load_model(trained(capsys, layered, tmp_path / "run", rates))
    assert model.notes["training"]["top_rate"] == 0
    for name, layers in pretrained().items():
        for mine, before in zip(tops(model)[name].layers, layers):
            for part, value in before.state_dict().items():
                assert torch.equal(mine.state_dict()[part], value), (name, part)


def test_a_run_does_not_go_on_with_other_layers(layered, tmp_path, capsys):
    trained(capsys, layered, tmp_path / "run", "--text-layers 1")
    start = f"{TRAIN} --features {layered} --resume --out {tmp_path}/run"
    assert "is of a model with another text_top" in refused(capsys, start)
    done(capsys, f"{start} --text-layers 1")


# judging


def test_folds_are_judged_each_alone(detections, tmp_path, capsys):
    folder = trained(capsys, detections, tmp_path / "run")
    model, tokens = load_model(folder), open_features(detections, "test")[1]
    report = assess_on_photos(model, detections, folds=4)
    scores = global_similarity(*encode(model, tokens))
    known = mean_of_folds(scores, tokens.caption_image, 4)
    folds, rows = report["mean_of_folds"]["rows"], report["rows"]
    assert folds["global"]["rsum"] == pytest.approx(known.rsum)
    assert folds["two-stage"]["rsum"] >= rows["two-stage"]["rsum"]  # smaller galleries
    assert stored_settings(model).local_weight == report["choice"]["local_weight"]
    message = refused(capsys, f"evaluate --features {detections} --model {folder} --folds 13")
    assert "folds is 13;" in message and "at most 12" in message


@pytest.mark.parametrize("command", ["train", "evaluate", "ablate", "index", "search"])
def test_a_changed_feature_is_found_when_all_is_checked(detections, tmp_path, capsys, command):
    broken = shutil.copytree(detections, tmp_path / "f")
    path = broken / "train" / "images" / "shard-00000" / "features.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(bytes(content))
    words = "'a star'" if command == "search" else ""
    start = f"{command} {words} --check-all --out {tmp_path}/out"
    message = refused(capsys, f"{start} --features {broken}")
    assert re.search(r"train.images.shard-00000.features\.npy is missing or damaged", message)
    assert "add --features FOLDER" in refused(capsys, start)


# captions with two words swapped


@pytest.fixture(scope="module")
def foiled(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("foiled") / "features"
    assert cli.main(shlex.split(seen(world, f"--foils --splits train --out {out}"))) == 0
    more = f"--foils --splits val test --out {out}"  # the classes come from what lies there
    assert cli.main(shlex.split(seen(world, more))) == 0
    return out


def test_foils_are_captions_of_the_same_words_with_features_of_their_own(foiled, world):
    text = TextBackbone(str(world / "text"))
    for split in COUNTS:
        records, tokens = open_features(foiled, split, check_all=True)
        foils = [foil for group in records["foils"] for foil in group]
        rows = [row for row, foil in enumerate(foils) if foil]
        assert len(foils) == len(tokens.captions) and 0 < len(rows) < len(foils)
        assert tokens.hard.word_mask.any(1).nonzero()[:, 0].tolist() == rows
        for row in rows:
            words = foils[row].split(), tokens.captions[row].split()
            assert len(words[0]) == len(words[1]) and words[0] != words[1]
        some = rows[:7]
        kept, fresh = tokens.hard.part(some)[range(len(some))], text([foils[row] for row in some])
        assert torch.equal(kept.ids, fresh.ids) and torch.equal(kept.word_mask, fresh.word_mask)
        real = fresh.features * fresh.mask[..., None]
        torch.testing.assert_close(kept.features.float(), real, atol=2e-3, rtol=0)


def test_a_model_learns_from_foils_and_is_judged_by_them(foiled, cells, tmp_path, capsys):
    model = trained(capsys, foiled, tmp_path / "run", "--hard-captions 1")
    assert load_model(model).notes["history"][-1]["hard_caption_loss"] > 0
    out = done(capsys, f"evaluate --features {foiled} --model {model} --out {tmp_path}")
    pairs = results(tmp_path)["hard_pairs"]
    tokens = open_features(foiled, "test")[1]
    assert pairs["pairs"] == int(tokens.hard.word_mask.any(1).sum())
    assert f"hard pairs told apart ({pairs['pairs']}): global" in out
    # by hand
    loaded = load_model(model)
    images, captions = encode(loaded, tokens)
    rows = tokens.hard.word_mask.any(1).nonzero()[:, 0]
    images = images[tokens.caption_image[rows]]
    with torch.no_grad():
        false = loaded.encode_captions(tokens.hard.part(rows)[range(len(rows))])
    true, wrong = (
        (images.global_token * texts.global_token).sum(1) for texts in (captions[rows], false)
    )
    assert pairs["global"] == pytest.approx(100 * float((true > wrong).float().mean()), abs=1e-3)
    # without foils
    done(capsys, f"evaluate --features {cells}/features --model {model} --out {tmp_path}")
    assert "hard_pairs" not in results(tmp_path)
    again = f"{TRAIN} --features {cells}/features --hard-captions 1 --out {tmp_path}/none"
    assert "extract with --foils" in refused(capsys, again)


def test_foils_need_the_captions_of_train_and_are_whole(foiled, world, tmp_path, capsys):
    only = seen(world, f"--foils --splits test --out {tmp_path}/features")
    assert "extract train" in refused(capsys, only)
    shutil.copytree(foiled, tmp_path / "copy")
    shard = next((tmp_path / "copy" / "test" / "foils").rglob("features.npy"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ValueError, match="foils"):
        open_features(tmp_path / "copy", "test")
    done(capsys, seen(world, f"--foils --splits test --out {tmp_path}/copy"))
    open_features(tmp_path / "copy", "test", check_all=True)
