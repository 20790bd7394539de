"""The command extract and what follows it: regions, phrases, columns, splits, layers."""

import io
import json
import os
import re
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
    save_encoder,
    some_scenes,
    suggested,
    text_encoder,
    tokenizer,
    vision_encoder,
)
from PIL import Image
from test_entities import annotated, annotation

from tgdt_mini import cli
from tgdt_mini.checkpoint import load_model
from tgdt_mini.encoders.cutting import layers_of
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
PICTURES = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
WIDTH, SIDE = 24, 112
TRAIN = ["--epochs", "1", "--batch", "8", "--device", "cpu"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What `datasets` keeps of parquet files goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")


def done(capsys, *arguments):
    """stdout of a command that must succeed."""
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    return out


def refused(capsys, *arguments):
    """The one line on stderr of a command that must fail."""
    code, _, err = call(capsys, *arguments)
    lines = [line for line in err.strip().splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def every():
    """(split, place in it, file name, scene) of the pictures; their names are numbers, as Flickr's
    are.
    """
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
    for name in ("pictures", "regions", "boxes", "all in one"):
        (home / name).mkdir()
    entries = []
    for place, (split, _, name, scene) in enumerate(every()):
        scene["image"].save(home / "pictures" / name)
        sentences = [{"raw": caption} for caption in scene["captions"]]
        entries.append(
            {
                "filename": name,
                "split": {"validation": "val"}.get(split, split),
                "imgid": place,
                "sentences": sentences,
            }
        )
        features, boxes = detected(place)
        stem = Path(name).stem
        np.savez(home / "regions" / f"{stem}.npz", feat=features)
        np.save(home / "boxes" / f"{stem}.npy", boxes)
        np.savez(
            home / "all in one" / f"{stem}.npz",
            features=features,
            bbox=boxes,
            image_w=SIDE,
            image_h=SIDE,
        )
        marked = []
        for number, caption in enumerate(scene["captions"]):
            line, last = "", 0
            for link in sorted(
                (each for each in scene["links"] if each["caption"] == number),
                key=lambda e: e["start"],
            ):
                phrase = caption[link["start"] : link["end"]]
                line += (
                    f"{caption[last : link['start']]}[/EN#{link['objects'][0] + 1}/other {phrase}]"
                )
                last = link["end"]
            marked.append(line + caption[last:])
        things = [
            ([str(i + 1)], [[round(SIDE * x) for x in box]]) for i, box in enumerate(scene["boxes"])
        ]
        annotated(home / "entities", stem, marked, annotation(*things, width=SIDE, height=SIDE))
    (home / "dataset.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    save_encoder(text_encoder(), home / "text", tokenizer())
    save_encoder(vision_encoder(), home / "vision", pictures=PICTURES)
    return home


def karpathy(world, *more):
    return (
        "extract",
        "--data",
        world / "dataset.json",
        "--text",
        world / "text",
        "--device",
        "cpu",
        *more,
    )


def regions(world, *more):
    return karpathy(
        world,
        "--detections",
        world / "regions",
        "--boxes",
        world / "boxes",
        "--width",
        WIDTH,
        *more,
    )


def trained(capsys, features, out, *more):
    done(capsys, "train", "--features", features, *TRAIN, "--out", out, *more)
    return out / "model"


# a detector's regions


@pytest.fixture(scope="module")
def detections(world, tmp_path_factory):
    """Features of the regions and phrases, made by one command."""
    out = tmp_path_factory.mktemp("detections") / "features"
    more = ["--images", world / "pictures", "--entities", world / "entities", "--out", out]
    assert cli.main([str(each) for each in regions(world, *more)]) == 0
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
            assert torch.equal(
                batch.features[row, : len(features)], torch.from_numpy(features).half()
            )
            np.testing.assert_allclose(batch.boxes[row, : len(boxes)], boxes / SIDE, atol=1e-6)
            np.testing.assert_allclose(batch.pooled[row], features.mean(axis=0), atol=1e-3)
        assert records.column_names == ["image_id", "captions", "boxes", "phrases"]
        scenes = some_scenes(split, count)
        assert records["captions"][:] == scenes["captions"][:]
        for record, scene in zip(records, scenes):
            found = [(each["caption"], each["text"], each["region"]) for each in record["phrases"]]
            links = sorted(scene["links"], key=lambda each: (each["caption"], each["start"]))
            known = [
                (
                    each["caption"],
                    scene["captions"][each["caption"]][each["start"] : each["end"]],
                    str(each["objects"][0] + 1),
                )
                for each in links
            ]
            assert found == known
            np.testing.assert_allclose(
                [box["box"] for box in record["boxes"]], scene["boxes"], atol=0.01
            )
        start += count
    about = feature_folder.encoders_of(detections)
    assert (
        about["vision"]["source"] == "bottom-up attention"
        and about["vision"]["trained_layers"] == 0
    )


def test_a_model_of_regions_is_trained_judged_searched_and_indexed(
    world, detections, tmp_path, capsys
):
    model = trained(capsys, detections, tmp_path / "run")
    judge = [
        "evaluate",
        "--features",
        detections,
        "--model",
        model,
        "--check-all",
        "--folds",
        3,
        "--out",
        tmp_path,
    ]
    out = done(capsys, *judge)
    report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (
        "12 images and 60 captions, each a query; an image is found by any of its own, which are 5"
        in out
    )
    assert report["pointing"]["phrases with a box"] > 50 and "pointing game" in out
    assert report["mean_of_folds"]["folds"] == 3 and "the mean of 3 folds" in out
    caption = some_scenes("test", 12)["captions"][0][0]
    here = ["--features", detections, "--model", model]
    out = done(capsys, "search", caption, *here, "-k", 3, "--out", tmp_path / "search")
    names = re.findall(r"^ +\d +\S+ +(\d+\.png)$", out, re.M)
    assert len(names) == 3 and set(names) <= {
        name for split, _, name, _ in every() if split == "test"
    }
    with Image.open(tmp_path / "search" / "hits.png") as drawn:
        assert drawn.format == "PNG"
    done(capsys, "index", *here, "--out", tmp_path / "gallery")
    again = done(
        capsys,
        "search",
        caption,
        *here,
        "-k",
        3,
        "--gallery",
        tmp_path / "gallery",
        "--out",
        tmp_path / "s",
    )
    assert re.findall(r"(\d+\.png)$", again, re.M) == names
    for command in (
        ["search", "--image", world / "pictures" / "3000.png"],
        ["index", "--images", world / "pictures"],
    ):
        message = refused(capsys, *command, "--model", model, "--out", tmp_path / "none")
        assert "the model reads regions that a detector (bottom-up attention) found" in message


def test_regions_need_no_pictures_where_their_files_say_all(world, tmp_path, capsys):
    out = done(
        capsys,
        *karpathy(
            world, "--detections", world / "all in one", "--width", WIDTH, "--out", tmp_path / "f"
        ),
    )
    assert "features of 20 train, 10 validation, 12 test pictures" in out
    _, tokens = open_features(tmp_path / "f", "test")
    np.testing.assert_allclose(
        tokens.boxes[: int(tokens.starts[1])], detected(30)[1] / SIDE, atol=1e-6
    )
    model = trained(capsys, tmp_path / "f", tmp_path / "run")
    here = ["--features", tmp_path / "f", "--model", model, "--out", tmp_path / "s"]
    assert ".png" in done(capsys, "search", "a red star", *here)  # hits are drawn as their names
    assert (tmp_path / "s" / "hits.png").is_file()


def test_captions_may_come_from_a_table_without_pictures(world, tmp_path, capsys):
    folder = parquet(tmp_path / "p")
    datasets.Dataset.from_parquet(str(folder / "all.parquet")).remove_columns("photo").to_parquet(
        folder / "all.parquet"
    )
    command = [
        "extract",
        "--data",
        folder,
        "--columns",
        *MAPPED[1:],
        "--text",
        world / "text",
        "--device",
        "cpu",
    ]
    found = ["--detections", world / "all in one", "--width", WIDTH]
    done(capsys, *command, *found, "--most-captions", 2, "--out", tmp_path / "f")
    records, tokens = open_features(tmp_path / "f", "test")
    assert records["captions"][:] == [own[:2] for own in some_scenes("test", 12)["captions"]]
    assert tokens.image_count == 12
    message = refused(capsys, *command, "--out", tmp_path / "g")  # an encoder needs them
    assert "has no column 'image' for image" in message


def test_sizes_may_come_from_a_file(world, tmp_path, capsys):
    sizes = {name: [SIDE, SIDE] for _, _, name, _ in every()}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    done(capsys, *regions(world, "--sizes", tmp_path / "sizes.json", "--out", tmp_path / "f"))
    _, tokens = open_features(tmp_path / "f", "train")
    boxes = tokens.boxes[: int(tokens.starts[1])]
    np.testing.assert_allclose(boxes, detected(0)[1] / SIDE, atol=1e-6)


def test_regions_may_be_called_by_the_number_in_karpathy_s_file(world, tmp_path, capsys):
    for place, (_, _, name, _) in enumerate(every()):
        (tmp_path / "regions").mkdir(exist_ok=True)
        shutil.copy(
            world / "all in one" / f"{Path(name).stem}.npz", tmp_path / "regions" / f"{place}.npz"
        )
    done(
        capsys,
        *karpathy(
            world, "--detections", tmp_path / "regions", "--width", WIDTH, "--out", tmp_path / "f"
        ),
    )
    batch = open_features(tmp_path / "f", "test")[1].images(torch.tensor([5]))
    assert torch.equal(batch.features[0], torch.from_numpy(detected(35)[0]).half())


def test_regions_of_another_detector_are_not_taken_for_the_same(world, tmp_path, capsys):
    all_in_one = karpathy(world, "--detections", world / "all in one", "--width", WIDTH)
    done(capsys, *all_in_one, "--out", tmp_path / "one")
    done(capsys, *all_in_one, "--vision", "VinVL", "--out", tmp_path / "two")
    model = trained(capsys, tmp_path / "one", tmp_path / "run")
    message = refused(
        capsys,
        "evaluate",
        "--features",
        tmp_path / "two",
        "--model",
        model,
        "--out",
        tmp_path / "e",
    )
    assert (
        "holds features of the vision encoder VinVL" in message and "bottom-up attention" in message
    )


def test_regions_that_do_not_fit_are_named_before_anything_is_written(world, tmp_path, capsys):
    shutil.copytree(world / "regions", tmp_path / "regions")
    (tmp_path / "regions" / "2009.npz").unlink()
    command = karpathy(world, "--detections", tmp_path / "regions", "--boxes", world / "boxes")
    message = refused(capsys, *command, "--width", WIDTH, "--out", tmp_path / "f")
    assert "image 2009.png has no features in" in message and not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "option", [["--vision-layers", 2], ["--grid", 4], ["--side", 288], ["--mirrored"]]
)
def test_options_of_cells_are_refused_for_regions(world, tmp_path, capsys, option):
    message = refused(capsys, *regions(world, *option, "--out", tmp_path / "f"))
    assert message.startswith(f"error: {option[0]} is ") and "detector's regions" in message


def test_strays_are_left_aside_when_asked_and_so_are_pictures_of_other_splits(
    world, tmp_path, capsys
):
    folder = shutil.copytree(world / "all in one", tmp_path / "regions")
    command = karpathy(world, "--detections", folder, "--width", WIDTH)
    done(
        capsys, *command, "--splits", "test", "--out", tmp_path / "test"
    )  # the JSON knows the others' pictures
    np.savez(folder / "77.npz", feat=detected(0)[0])
    assert "belong to no image" in refused(capsys, *command, "--out", tmp_path / "all")
    done(capsys, *command, "--allow-strays", "--out", tmp_path / "all")
    message = refused(
        capsys, "train", "--features", tmp_path / "test", *TRAIN, "--out", tmp_path / "run"
    )
    assert "has no split train; it has test" in message


@pytest.mark.parametrize(
    "option", [["--boxes", "b"], ["--sizes", "s"], ["--width", "9"], ["--allow-strays"]]
)
def test_options_of_regions_need_regions(world, tmp_path, capsys, option):
    message = refused(capsys, *karpathy(world, *option, "--out", tmp_path / "f"))
    assert (
        message.startswith(f"error: {option[0]} speaks of a detector's regions")
        and "--detections" in message
    )


# a run that was killed


KILLED = """
import os, signal, sys
from tgdt_mini import cli
from tgdt_mini.photos import features

save, written = features.np.save, []
def save_and_die(path, array, **options):
    save(path, array, **options)
    if "captions" in str(path) and "validation" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)

features.np.save = save_and_die
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_extract_goes_on_after_a_kill_to_the_same_bytes_and_refuses_other_data(
    world, detections, tmp_path, capsys
):
    out = tmp_path / "features"
    more = ["--images", world / "pictures", "--entities", world / "entities", "--out", out]
    command = [str(each) for each in regions(world, *more)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command],
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
    message = refused(capsys, "train", "--features", out, *TRAIN, "--out", tmp_path / "run")
    assert "is no finished features folder" in message
    changed = shutil.copytree(world / "regions", tmp_path / "regions")
    np.savez(changed / "1000.npz", feat=detected(0)[0] + 1)
    other = [str(changed) if each == str(world / "regions") else each for each in command]
    assert "begun with another key, so its features are stale" in refused(capsys, *other)
    done(capsys, *command)
    assert all(path.stat().st_mtime_ns == time for path, time in begun.items())
    for path in sorted(detections.rglob("*.npy")):
        assert (out / path.relative_to(detections)).read_bytes() == path.read_bytes()
    done(capsys, "train", "--features", out, "--check-all", *TRAIN, "--out", tmp_path / "run")


def test_a_stopped_extraction_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_folder, "extract", stop)
    code, _, err = call(
        capsys, *regions(world, "--images", world / "pictures", "--out", tmp_path / "f")
    )
    assert code == 130
    last = err.strip().splitlines()[-1]
    assert (
        last == f"stopped; what is whole in {tmp_path / 'f'} is kept, go on with the same command"
    )


# columns, splits, captions


def parquet(folder, **columns):
    """One parquet file with every picture, its split in a column, its captions in five; `columns`
    change it.
    """
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


MAPPED = [
    "image=photo",
    "image_id=name",
    "split=part",
    "captions=caption_0,caption_1,caption_2,caption_3,caption_4",
]


def of_parquet(world, folder, columns, *more):
    return [
        "extract",
        "--data",
        folder,
        "--columns",
        *columns,
        "--text",
        world / "text",
        "--vision",
        world / "vision",
        "--device",
        "cpu",
        *more,
    ]


def test_columns_splits_and_the_first_captions_are_chosen_on_the_command_line(
    world, tmp_path, capsys, monkeypatch
):
    folder, out = parquet(tmp_path / "p"), tmp_path / "f"
    command = of_parquet(
        world, folder, MAPPED, "--splits", "train", "test=validation", "validation=test"
    )
    done(capsys, *command, "--most-captions", 3, "--out", out)
    records, tokens = open_features(out, "validation")
    assert records["image_id"][:] == [name for split, _, name, _ in every() if split == "test"]
    assert records["captions"][:] == [own[:3] for own in some_scenes("test", 12)["captions"]]
    model = trained(capsys, out, tmp_path / "run")
    monkeypatch.chdir(tmp_path)  # the data set is found again from anywhere
    out = done(capsys, "evaluate", "--features", "f", "--model", model, "--out", "e")
    assert (
        "10 images and 30 captions" in out
        and "which are not 5 for all (3 for 10): no figure to compare" in out
    )
    assert ".png" in done(
        capsys, "search", "a star", "--features", "f", "--model", model, "--out", "s"
    )
    for way in (["evaluate"], ["search", "a star"]):
        assert "damaged" not in done(
            capsys, *way, "--features", "f", "--model", model, "--check-all", "--out", "s"
        )


@pytest.mark.parametrize(
    "columns, message",
    [
        (["image"], "--columns image is not OURS=THEIRS"),
        (["image=photo", "captions=caption_0,caption_9"], "no column 'caption_9' for captions"),
        (["picture=photo"], "columns names ['picture']"),
    ],
)
def test_columns_that_are_not_there_are_named(world, tmp_path, capsys, columns, message):
    folder = parquet(tmp_path / "p")
    command = of_parquet(world, folder, columns, "--splits", "all=train", "--out", tmp_path / "f")
    assert message in refused(capsys, *command) and not (tmp_path / "f").exists()


def test_records_that_do_not_fit_are_named(world, tmp_path, capsys):
    folder = parquet(tmp_path / "p", name=["x", *map(str, range(40)), "x"])
    message = refused(capsys, *of_parquet(world, folder, MAPPED, "--out", tmp_path / "f"))
    assert "image 'x' is both in train and in test" in message and not (tmp_path / "f").exists()


def test_restval_is_for_training_unless_refused(world, tmp_path, capsys):
    data = json.loads((world / "dataset.json").read_text(encoding="utf-8"))
    for entry in data["images"][:4]:
        entry["split"] = "restval"
    (tmp_path / "coco.json").write_text(json.dumps(data), encoding="utf-8")
    common = [
        "extract",
        "--data",
        tmp_path / "coco.json",
        "--images",
        world / "pictures",
        "--text",
        world / "text",
        "--vision",
        world / "vision",
        "--device",
        "cpu",
    ]
    assert "20 train, 10 validation" in done(capsys, *common, "--out", tmp_path / "with")
    assert "16 train, 10 validation" in done(
        capsys, *common, "--no-restval", "--out", tmp_path / "without"
    )
    assert "--splits =test is not THEIRS=OURS" in refused(
        capsys, *common, "--splits", "=test", "--out", tmp_path / "x"
    )


def test_a_picture_that_cannot_be_read_is_named_and_one_in_cmyk_is_read(world, tmp_path, capsys):
    folder = shutil.copytree(world / "pictures", tmp_path / "pictures")
    path = folder / "3004.png"
    with Image.open(path) as scene:
        cmyk = scene.convert("CMYK")
    path.write_bytes(path.read_bytes()[:300])
    command = karpathy(world, "--images", folder, "--vision", world / "vision")
    message = refused(capsys, *command, "--out", tmp_path / "none")
    assert re.search(r"image 3004\.png \(.*\) cannot be read", message)
    cmyk.save(path, "TIFF")
    done(capsys, *command, "--out", tmp_path / "f")
    batch = open_features(tmp_path / "f", "test")[1].images(torch.tensor([4]))
    assert batch.features.shape == (1, 16, 16) and batch.features.isfinite().all()


def test_splits_are_extracted_one_by_one_into_one_folder(world, tmp_path, capsys):
    common = karpathy(
        world, "--images", world / "pictures", "--vision", world / "vision", "--out", tmp_path / "f"
    )
    out = done(capsys, *common, "--splits", "train")
    assert "next: extract validation into the same folder, too, which train needs" in out
    out = done(capsys, *common, "--splits", "val", "test", "--most-captions", 2)
    assert "next: python -m tgdt_mini train --features" in out
    assert [len(open_features(tmp_path / "f", split)[0]["captions"][0]) for split in COUNTS] == [
        5,
        2,
        2,
    ]
    model = trained(capsys, tmp_path / "f", tmp_path / "run")
    for split, first in (("test", 3000), ("validation", 2000)):
        find = origin.finder(tmp_path / "f", split)
        scene = next(scene for _, _, name, scene in every() if name == f"{first}.png")
        assert (np.asarray(find(f"{first}.png")) == np.asarray(scene["image"])).all()
        here = [
            "--features",
            tmp_path / "f",
            "--split",
            split,
            "--model",
            model,
            "--out",
            tmp_path / "s",
        ]
        assert ".png" in done(capsys, "search", "a red star", *here)


# what comes next


@pytest.fixture(scope="module")
def cells(world, tmp_path_factory):
    """Features of a tiny vision encoder, and a model that was trained on them."""
    home = tmp_path_factory.mktemp("cells")
    more = [
        "--images",
        world / "pictures",
        "--vision",
        world / "vision",
        "--out",
        home / "features",
    ]
    assert cli.main([str(each) for each in karpathy(world, *more)]) == 0
    train = ["train", "--features", home / "features", *TRAIN, "--out", home / "run"]
    assert cli.main([str(each) for each in train]) == 0
    return home


@pytest.mark.parametrize("split", ["test", "validation"])
def test_what_each_command_says_comes_next_works(world, tmp_path, capsys, monkeypatch, split):
    """For a folder that has a space in its name, with a test split and without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        photo_experiments,
        "PHOTO_DEFAULTS",
        photo_experiments.PHOTO_DEFAULTS | {"epochs": 1, "batch": 8},
    )
    some = ["train", "val", "test"] if split == "test" else ["train", "val"]
    (train,) = suggested(
        done(
            capsys,
            *karpathy(
                world,
                "--images",
                world / "pictures",
                "--vision",
                world / "vision",
                "--splits",
                *some,
                "--out",
                "my features",
            ),
        )
    )
    (evaluate,) = suggested(done(capsys, *train))
    assert f"{ {'test': 12, 'validation': 10}[split] } images and" in done(capsys, *evaluate)
    index = [
        "index",
        "--features",
        "my features",
        "--model",
        Path(train[-1], "model"),
        "--split",
        split,
    ]
    (search,) = suggested(done(capsys, *index, "--out", "my gallery"))
    names = re.findall(r"^ +\d +\S+ +(\d+\.png)$", done(capsys, *search), re.M)
    assert len(names) == 5 and {name[0] for name in names} == {
        {"test": "3", "validation": "2"}[split]
    }
    index = [
        "index",
        "--images",
        world / "pictures",
        "--model",
        Path(train[-1], "model"),
        "--out",
        "my gallery",
    ]
    (search,) = suggested(done(capsys, *index))
    assert "--features" not in search and ".png" in done(capsys, *search)


def test_photographs_are_not_searched_in_the_shipped_gallery(cells, tmp_path, capsys):
    message = refused(
        capsys, "search", "two dogs", "--model", cells / "run" / "model", "--out", tmp_path
    )
    assert "the model knows photographs, and none are given" in message


def test_photographs_that_are_called_as_scenes_are_not_drawn_as_scenes(
    cells, tmp_path, capsys, monkeypatch
):
    """Sets that name no picture have them called by split and row."""
    model, drawn = cells / "run" / "model", []
    done(
        capsys,
        "index",
        "--features",
        cells / "features",
        "--model",
        model,
        "--out",
        tmp_path / "photos",
    )
    items = ["test-0003", *(f"test-{i:05d}" for i in range(11))]
    replace(Gallery.load(tmp_path / "photos"), items=items).save(tmp_path / "gallery")
    monkeypatch.setattr(plots, "hits", lambda asked, found, *rest: drawn.extend(found[0]))
    here = ["--gallery", tmp_path / "gallery", "--model", model, "-k", 12, "--out", tmp_path]
    done(capsys, "search", "a red star", *here)
    assert sorted(drawn) == sorted(items)


# quick


def test_quick_takes_the_first_quarter_of_each_split(cells, tmp_path, capsys):
    start = [
        "train",
        "--features",
        cells / "features",
        "--quick",
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    ]
    assert "batch is 512, but there are 5 images" in refused(capsys, *start)
    out = done(capsys, *start, "--batch", 4, "--epochs", 2)
    assert "5 images, 25 captions" in out
    model = load_model(tmp_path / "run" / "model")
    assert len(model.notes["history"]) == 2
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["identity"]["images"] == 5
    report = assess_on_photos(model, cells / "features", share=0.25)
    assert report["images"] == 3 and assess_on_photos(model, cells / "features")["images"] == 12


def test_quick_ablations_train_and_judge_on_a_quarter(cells, tmp_path, capsys, monkeypatch):
    seen = []
    fit = photo_experiments.fit
    monkeypatch.setattr(photo_experiments, "fit", lambda *every: seen.append(every) or fit(*every))
    defaults = photo_experiments.PHOTO_DEFAULTS | {"batch": 4}
    monkeypatch.setattr(ablations, "PHOTO_DEFAULTS", defaults)
    quick = [
        "ablate",
        "--features",
        cells / "features",
        "--recipes",
        "default",
        "--quick",
        "--device",
        "cpu",
    ]
    done(capsys, *quick, "--out", tmp_path / "a")
    ((_, train, validation, *_),) = seen
    assert (train.image_count, validation.image_count) == (5, 2)
    report = json.loads((tmp_path / "a" / "default-0.json").read_text(encoding="utf-8"))
    assert report["images"] == 3 and len(report["history"]) == 2
    done(capsys, *quick, "--epochs", 1, "--out", tmp_path / "b")
    assert seen[1][4].epochs == 1


# phrases


def test_phrases_are_added_by_the_same_options_without_computing_a_feature(
    world, tmp_path, capsys, monkeypatch
):
    options = ["--vision", world / "vision", "--grid", 2, "--text-states", 2]
    common = karpathy(world, "--images", world / "pictures", "--out", tmp_path / "f")
    done(capsys, *common, *options)
    before = {path: path.read_bytes() for path in (tmp_path / "f").rglob("*.npy")}
    for name in ("cells", "words"):
        monkeypatch.setattr(extraction, name, lambda *_: pytest.fail("a feature is computed again"))
    message = refused(capsys, *common, *options[:2], "--entities", world / "entities")
    assert "was begun with another vision encoder or other options of it" in message
    assert "phrases" not in open_features(tmp_path / "f", "test")[0].column_names
    done(capsys, *common, *options, "--entities", world / "entities")
    assert any(open_features(tmp_path / "f", "test")[0]["phrases"])
    assert {path: path.read_bytes() for path in (tmp_path / "f").rglob("*.npy")} == before


def test_annotations_that_fit_no_picture_are_refused(world, tmp_path, capsys):
    annotated(tmp_path / "others", "77")
    command = karpathy(
        world, "--images", world / "pictures", "--vision", world / "vision", "--out", tmp_path / "f"
    )
    message = refused(capsys, *command, "--entities", tmp_path / "others")
    assert "annotates none of the pictures" in message and not (tmp_path / "f").exists()
    assert "has no Annotations/" in refused(capsys, *command, "--entities", world)


def test_phrases_without_a_box_are_no_game_and_no_error(world, tmp_path, capsys):
    for split, _, name, _ in every():
        if split == "train":
            for kind, suffix in (("Annotations", "xml"), ("Sentences", "txt")):
                (tmp_path / "some" / kind).mkdir(parents=True, exist_ok=True)
                place = f"{kind}/{Path(name).stem}.{suffix}"
                shutil.copy(world / "entities" / place, tmp_path / "some" / place)
    done(
        capsys,
        *karpathy(
            world,
            "--images",
            world / "pictures",
            "--vision",
            world / "vision",
            "--entities",
            tmp_path / "some",
            "--out",
            tmp_path / "f",
        ),
    )
    assert any(open_features(tmp_path / "f", "train")[0]["phrases"])
    model = trained(capsys, tmp_path / "f", tmp_path / "run")
    done(
        capsys, "evaluate", "--features", tmp_path / "f", "--model", model, "--out", tmp_path / "e"
    )
    assert "pointing" not in json.loads(
        (tmp_path / "e" / "results.json").read_text(encoding="utf-8")
    )


# layers that learn


@pytest.fixture(scope="module")
def layered(world, tmp_path_factory):
    """Features below the last two of a text encoder's first two layers (all it has then), and a
    vision encoder's last two of three.
    """
    out = tmp_path_factory.mktemp("layered") / "features"
    more = [
        "--images",
        world / "pictures",
        "--vision",
        world / "vision",
        "--vision-layers",
        2,
        "--text-depth",
        2,
    ]
    assert (
        cli.main([str(each) for each in karpathy(world, *more, "--text-layers", 2, "--out", out)])
        == 0
    )
    return out


LAYERS = {  # train's options: which layers learn
    "all": ([], {"vision": [0, 1], "text": [0, 1]}),
    "one of the text encoder's": (
        ["--text-layers", 1, "--vision-layers", 0],
        {"vision": [], "text": [1]},
    ),
    "one of the vision encoder's": (
        ["--text-layers", 0, "--vision-layers", 1],
        {"vision": [1], "text": []},
    ),
}


@pytest.mark.parametrize("which", LAYERS)
def test_exactly_the_layers_that_were_asked_for_learn_and_are_saved(
    world, layered, tmp_path, capsys, which
):
    options, learning = LAYERS[which]
    folder = trained(
        capsys, layered, tmp_path / "run", *options, "--epochs", 2, "--learning-rate", 0.01
    )
    model = load_model(folder)
    pretrained = {"vision": layers_of(vision_encoder())[1:], "text": layers_of(text_encoder())[:2]}
    for name, top in (("vision", model.image_reader.top), ("text", model.text_reader.top)):
        assert len(top.layers) == 2
        for place, (mine, before) in enumerate(zip(top.layers, pretrained[name])):
            learns, weights = place in learning[name], before.state_dict()
            assert all(parameter.requires_grad == learns for parameter in mine.parameters())
            for part, value in mine.state_dict().items():
                if value.dim() > 1:
                    assert torch.equal(value, weights[part]) != learns, (name, place, part)
    tokens = open_features(layered, "test")[1]
    images, captions = model.train()(
        tokens.images(torch.arange(8)), tokens.text[torch.arange(0, 40, 5)]
    )
    cmc_loss(images, captions, torch.arange(8)).total.backward()
    for name, top in (("vision", model.image_reader.top), ("text", model.text_reader.top)):
        for place, layer in enumerate(top.layers):
            grads = [parameter.grad for parameter in layer.parameters()]
            reached = [grad is not None and bool(grad.abs().sum() > 0) for grad in grads]
            assert (
                sum(reached) >= len(grads) - 1 if place in learning[name] else not any(reached)
            )  # keys have a bias
    # index, evaluate and search read what was learnt
    done(capsys, "index", "--features", layered, "--model", folder, "--out", tmp_path / "gallery")
    images, captions = encode(model.eval(), tokens)
    gallery = Gallery.load(tmp_path / "gallery", expect_model=model.fingerprint)
    assert (gallery.global_tokens - images.global_token).abs().max() < 1e-5
    done(capsys, "evaluate", "--features", layered, "--model", folder, "--out", tmp_path / "e")
    report = json.loads((tmp_path / "e" / "results.json").read_text(encoding="utf-8"))
    known = both_ways(global_similarity(images, captions), tokens.caption_image).rsum
    assert report["rows"]["global"]["rsum"] == pytest.approx(known)
    out = done(
        capsys,
        "search",
        "--image",
        world / "pictures" / "3000.png",
        "--features",
        layered,
        "--model",
        folder,
        "--out",
        tmp_path / "s",
    )
    assert len(re.findall(r"^ +\d +-?\d\.\d+ ", out, re.M)) == 5


def test_layers_that_were_not_left_cannot_learn(layered, tmp_path, capsys):
    start = ["train", "--features", layered, *TRAIN, "--out", tmp_path / "run"]
    message = refused(capsys, *start, "--text-layers", 3)
    assert "--text-layers is 3, but the features leave 2 layers" in message
    assert "--vision-layers is -1" in refused(capsys, *start, "--vision-layers", -1)
    for option in ("--text-layers", "--top-rate"):
        assert "add --features FOLDER" in refused(
            capsys, "train", *TRAIN, option, 1, "--out", tmp_path / "run"
        )


def test_the_rate_of_an_encoders_layers_is_a_share_of_the_rate(layered, tmp_path, capsys):
    """At a share of 0 the layers stay as they were, and what is above them learns."""
    model = load_model(
        trained(capsys, layered, tmp_path / "run", "--top-rate", 0, "--learning-rate", 0.01)
    )
    assert model.notes["training"]["top_rate"] == 0
    pretrained = {
        "image_reader": layers_of(vision_encoder())[1:],
        "text_reader": layers_of(text_encoder())[:2],
    }
    for name, layers in pretrained.items():
        for mine, before in zip(getattr(model, name).top.layers, layers):
            for part, value in before.state_dict().items():
                assert torch.equal(mine.state_dict()[part], value), (name, part)


def test_a_run_does_not_go_on_with_other_layers(layered, tmp_path, capsys):
    trained(capsys, layered, tmp_path / "run", "--text-layers", 1)
    start = ["train", "--features", layered, *TRAIN, "--resume", "--out", tmp_path / "run"]
    assert "is of a model with another text_top" in refused(capsys, *start)
    done(capsys, *start, "--text-layers", 1)


# judging


def test_folds_are_judged_each_alone(detections, tmp_path, capsys):
    model = load_model(trained(capsys, detections, tmp_path / "run"))
    tokens = open_features(detections, "test")[1]
    report = assess_on_photos(model, detections, folds=4)
    scores = global_similarity(*encode(model, tokens))
    known = mean_of_folds(scores, tokens.caption_image, 4)
    assert report["mean_of_folds"]["rows"]["global"]["rsum"] == pytest.approx(known.rsum)
    assert (
        report["mean_of_folds"]["rows"]["two-stage"]["rsum"] >= report["rows"]["two-stage"]["rsum"]
    )  # smaller galleries
    assert stored_settings(model).local_weight == report["choice"]["local_weight"]
    message = refused(
        capsys,
        "evaluate",
        "--features",
        detections,
        "--model",
        tmp_path / "run" / "model",
        "--folds",
        13,
    )
    assert "folds is 13; with 12 images it must be from 1 to 12" in message
    assert "add --features FOLDER" in refused(
        capsys, "evaluate", "--model", tmp_path / "run" / "model"
    )
    assert "--folds is given, but no features are" in refused(capsys, "evaluate", "--folds", 5)


@pytest.mark.parametrize("command", ["train", "evaluate", "ablate", "index", "search"])
def test_a_changed_feature_is_found_when_all_is_checked(detections, tmp_path, capsys, command):
    broken = shutil.copytree(detections, tmp_path / "f")
    path = broken / "train" / "images" / "shard-00000" / "features.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(bytes(content))
    more = ["a star"] if command == "search" else []
    message = refused(
        capsys, command, *more, "--features", broken, "--check-all", "--out", tmp_path / "out"
    )
    assert re.search(r"train.images.shard-00000.features\.npy is missing or damaged", message)
    assert "add --features FOLDER" in refused(
        capsys, command, *more, "--check-all", "--out", tmp_path / "out"
    )
