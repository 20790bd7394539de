"""The commands: what they write and print, and for bad input one line and exit code 2 with nothing
left behind.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import call, suggested
from PIL import Image

from tgdt_mini import cli, scenes
from tgdt_mini.checkpoint import fingerprint, load_model, save_model
from tgdt_mini.commands import common as commands
from tgdt_mini.commands import search as searching
from tgdt_mini.files.paths import shipped
from tgdt_mini.runs import scenes as experiments
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.training import Trainer

SMALL = {"epochs": 1, "train": 80, "other": 30}
TRAIN = ["train", "--quick", "--batch", "16", "--device", "cpu"]
judged = experiments.assess_on_scenes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained model, a folder of pictures and a gallery of them."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "QUICK", SMALL)
        assert cli.main([*TRAIN, "--out", str(home / "run")]) == 0
    (home / "pictures").mkdir()
    for i in range(7):
        scenes.picture(f"test-000{i}").save(home / "pictures" / f"picture {i}.png")
    scenes.picture("test-0008").resize((300, 200)).save(home / "pictures" / "wide.jpg")
    (home / "pictures" / "notes.txt").write_text("no picture", encoding="utf-8")
    arguments = ["--model", str(home / "run" / "model"), "--images", str(home / "pictures")]
    assert cli.main(["index", *arguments, "--out", str(home / "gallery")]) == 0
    return home


def search(home, *arguments):
    return "search", *arguments, "--model", home / "run" / "model"


def rows_of(out):
    return [line.split(maxsplit=2) for line in out.splitlines() if re.match(r" +\d+ +-?\d", line)]


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["train"], ["evaluate"], ["ablate"], ["index"], ["search"], ["bench"]]
)
def test_every_command_explains_itself(capsys, command):
    code, out, err = call(capsys, *command, "--help")
    assert code == 0 and not err and out.startswith("usage: tgdt-mini")
    if command:
        assert {"--device", "--seed", "--out"} <= set(re.findall(r"--[a-z-]+", out))
    if command and command[0] in ("demo", "train"):
        assert {"--quick", "--resume"} <= set(re.findall(r"--[a-z-]+", out))
    if command and command[0] in ("evaluate", "index", "search"):
        assert "--model" in out
    if command == ["search"]:
        assert {"--image", "--shortlist"} <= set(re.findall(r"--[a-z-]+", out)) and "-k" in out


def test_every_option_says_what_it_is_for():
    kinds = next(action for action in cli.parser()._actions if action.choices)
    options = [(name, option) for name, one in kinds.choices.items() for option in one._actions]
    assert len(options) > 80
    assert not [(name, option.dest) for name, option in options if not option.help]


def test_training_writes_a_model_that_can_be_loaded_and_says_what_is_next(made):
    model = load_model(made / "run" / "model")
    assert model.tokenizer is not None and len(model.notes["history"]) == 1
    assert (
        set(model.notes["choice"]) == {"local_weight", "shortlist"}
        and model.notes["training"]["batch"] == 16
    )
    assert {folder.name for folder in (made / "run").iterdir()} == {"best", "last", "model"}


def test_settings_of_the_command_line_reach_the_training(made, monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(commands, "QUICK", SMALL)
    monkeypatch.setattr(
        experiments, "train_on_scenes", lambda config, *rest, **more: seen.append((config, rest))
    )
    call(
        capsys,
        *TRAIN,
        "--seed",
        3,
        "--learning-rate",
        0.01,
        "--recipe",
        "staged",
        "--inter",
        "mean",
        "--no-intra",
        "--patience",
        2,
        "--precision",
        "fp32",
        "--image-tokens",
        "patches",
        "--out",
        tmp_path,
    )
    config, rest = seen[0]
    assert (config.epochs, config.batch, config.seed, config.learning_rate) == (1, 16, 3, 0.01)
    assert (config.recipe, config.inter, config.patience, config.precision) == (
        "staged",
        "mean",
        2,
        "fp32",
    )
    assert not config.use_intra and config.use_global and config.use_local
    assert rest[:5] == (tmp_path, torch.device("cpu"), "patches", 80, 30)


def test_patches_can_be_trained_on_and_searched_with(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "QUICK", SMALL)
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 6))
    assert call(capsys, *TRAIN, "--image-tokens", "patches", "--out", tmp_path)[0] == 0
    model = tmp_path / "model"
    assert (
        call(
            capsys,
            "index",
            "--model",
            model,
            "--images",
            made / "pictures",
            "--out",
            tmp_path / "g",
        )[0]
        == 0
    )
    picture = made / "pictures" / "wide.jpg"
    assert (
        call(capsys, "search", "--image", picture, "--model", model, "--out", tmp_path / "s")[0]
        == 0
    )


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on_and_going_on_ends_as_if_never_stopped(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(commands, "QUICK", SMALL | {"epochs": 2})
    assert call(capsys, *TRAIN, "--out", tmp_path / "whole")[0] == 0
    loss, killed = Trainer.loss, []

    def interrupted(trainer, *rest):
        if trainer.step == 6 and not killed:
            killed.append(os.kill(os.getpid(), signal.SIGINT))
        return loss(trainer, *rest)

    monkeypatch.setattr(Trainer, "loss", interrupted)
    code, _, err = call(capsys, *TRAIN, "--out", tmp_path / "parts")
    last = err.strip().splitlines()[-1]
    assert code == 130 and f"{tmp_path / 'parts'}/last" in last and "--resume" in last
    code, out, _ = call(capsys, *TRAIN, "--out", tmp_path / "parts", "--resume")
    assert code == 0 and "going on after step 7 of 10" in out
    one, other = load_model(tmp_path / "whole" / "model"), load_model(tmp_path / "parts" / "model")
    assert one.tokenizer.to_json() == other.tokenizer.to_json()
    assert fingerprint(one) == fingerprint(other)
    assert one.notes["choice"] == other.notes["choice"]


def test_a_run_in_the_folder_of_an_earlier_one_moves_that_one_aside(
    made, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(commands, "QUICK", SMALL)
    shutil.copytree(made / "run", tmp_path / "run")
    before = {
        path.relative_to(made / "run"): path.read_bytes() for path in (made / "run").rglob("*.*")
    }

    def moved(number):
        return {
            path.relative_to(tmp_path / "run" / f"earlier-{number}"): path.read_bytes()
            for path in (tmp_path / "run" / f"earlier-{number}").rglob("*.*")
        }

    again = [*TRAIN, "--seed", 1, "--out", tmp_path / "run"]
    assert (
        call(capsys, *again, "--batch", 81)[0] == 2
        and not (tmp_path / "run" / "earlier-1").exists()
    )
    code, out, _ = call(capsys, *again)
    assert (
        code == 0
        and f"{tmp_path / 'run'} held a run already, which is now in {tmp_path / 'run' / 'earlier-1'}"
        in out
    )
    assert moved(1) == before
    model = load_model(tmp_path / "run" / "model")
    assert model.notes["training"]["seed"] == 1 and fingerprint(model) != fingerprint(
        load_model(made / "run" / "model")
    )
    shutil.rmtree(tmp_path / "run" / "model")  # as if it had been stopped
    code, out, _ = call(capsys, *again, "--resume")
    assert (
        code == 0
        and "held a run already" not in out
        and not (tmp_path / "run" / "earlier-2").exists()
    )
    stopped = fingerprint(load_model(tmp_path / "run" / "last"))
    assert call(capsys, *TRAIN, "--seed", 2, "--out", tmp_path / "run")[0] == 0
    assert (
        moved(1) == before
        and fingerprint(load_model(tmp_path / "run" / "earlier-2" / "last")) == stopped
    )


def test_the_demo_writes_everything_that_it_names(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "QUICK", SMALL | {"epochs": 2})
    code, out, _ = call(
        capsys, "demo", "--quick", "--batch", 16, "--device", "cpu", "--out", tmp_path / "demo"
    )
    assert code == 0
    folder = tmp_path / "demo"
    named = re.search("figures: (.*)", out)[1].split(", ")
    assert {"loss_curve.png", "shortlist.png", "words.png"} <= set(named)
    for name in named:
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert {"global", "local", "two-stage"} <= set(results["rows"]) and "oracle" in results
    table = (folder / "results.txt").read_text(encoding="utf-8")
    assert table in out and "two-stage" in table
    assert load_model(folder / "model").notes["history"]
    search, evaluate = suggested(out)
    assert search == ["search", scenes.captions_of("test")[0][0], "--model", str(folder / "model")]
    assert evaluate == ["evaluate"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 12))
    code, out, _ = call(capsys, *search)
    assert (
        code == 0 and "encoding the 12 test scenes for this model" in out and "12 searched" in out
    )
    assert all(re.fullmatch(r"test-00\d\d", row[2]) for row in rows_of(out))
    monkeypatch.setattr(
        experiments, "assess_on_scenes", lambda model, split: judged(model, split, 12)
    )
    assert call(capsys, *evaluate)[0] == 0


@pytest.mark.parametrize("more", [[], ["--split", "validation"], ["--images", "pictures"]])
def test_what_train_and_index_say_comes_next_works(made, monkeypatch, tmp_path, capsys, more):
    monkeypatch.setattr(commands, "QUICK", SMALL)
    for split, (first, _) in scenes.SPLITS.items():
        monkeypatch.setitem(scenes.SPLITS, split, (first, 12 if split == "test" else 80))
    monkeypatch.setattr(
        experiments, "assess_on_scenes", lambda model, split: judged(model, split, 12)
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, *TRAIN, "--out", "a run")
    (evaluate,) = suggested(out)
    assert code == 0 and call(capsys, *evaluate)[0] == 0
    more = [made / each if each == "pictures" else each for each in more]
    code, out, _ = call(
        capsys, "index", "--model", Path("a run", "model"), *more, "--out", "a gallery"
    )
    (search,) = suggested(out)
    assert code == 0 and search[2:] == [
        "--gallery",
        "a gallery",
        "--model",
        str(Path("a run", "model")),
    ]
    code, out, _ = call(capsys, *search)
    wanted = {(): r"test-00\d\d", ("--split",): r"validation-00\d\d"}.get(
        tuple(more[:1]), r".*pictures.*"
    )
    assert (
        code == 0
        and len(rows_of(out)) == 5
        and all(re.fullmatch(wanted, row[2]) for row in rows_of(out))
    )
    assert Path("runs", "search", "hits.png").is_file()


def test_what_index_says_comes_next_works_for_the_shipped_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 12))
    monkeypatch.chdir(tmp_path)
    (search,) = suggested(call(capsys, "index")[1])
    assert "--model" not in search and call(capsys, *search)[0] == 0


def test_a_split_of_the_scenes_is_searched_when_asked_for(made, monkeypatch, tmp_path, capsys):
    for split, count in (("test", 6), ("validation", 10)):
        monkeypatch.setitem(scenes.SPLITS, split, (scenes.SPLITS[split][0], count))
    captions = {
        split: {each for own in scenes.captions_of(split) for each in own}
        for split in ("test", "validation")
    }
    for split in captions:
        more = ["--split", split, "--out", tmp_path]
        code, out, _ = call(capsys, *search(made, "a red star", *more))
        assert code == 0 and {row[2][:4] for row in rows_of(out)} == {split[:4]}
        code, out, _ = call(capsys, *search(made, "--image", made / "pictures" / "wide.jpg", *more))
        assert code == 0 and {row[2] for row in rows_of(out)} <= captions[split]
    code, out, _ = call(capsys, "search", "a red star", "--split", "validation", "--out", tmp_path)
    assert code == 0 and "encoding the 10 validation scenes" in out and "10 searched" in out


def test_items_without_a_picture_are_drawn_as_their_names(made, tmp_path, capsys):
    """A file that has gone, or an item that looks like a scene's name and is none."""
    gallery = Gallery.load(made / "gallery")
    items = [
        "test-00012",
        str(tmp_path / "gone.png"),
        "test-0001",
        5,
        str(made / "pictures" / "wide.jpg"),
        "x",
        "y",
        "z",
    ]
    replace(gallery, items=items).save(tmp_path / "gallery")
    model = load_model(made / "run" / "model")
    shown = [searching._shown(model, item) for item in items]
    assert [each if isinstance(each, str) else each.size for each in shown] == [
        "test-00012",
        str(tmp_path / "gone.png"),
        (112, 112),
        "5",
        (300, 200),
        "x",
        "y",
        "z",
    ]
    code, out, _ = call(
        capsys,
        *search(made, "a star", "-k", 8, "--gallery", tmp_path / "gallery", "--out", tmp_path),
    )
    assert code == 0 and len(rows_of(out)) == 8


def epochs_of(monkeypatch, tmp_path, capsys, *arguments):
    """With how many epochs a command would train."""

    def train(config, *_, **__):
        raise ValueError(f"epochs: {config.epochs}")

    monkeypatch.setattr(experiments, "train_on_scenes", train)
    return call(capsys, *arguments, "--device", "cpu", "--out", tmp_path)[2].strip()


def test_quick_changes_the_number_of_epochs_only_where_none_is_given(monkeypatch, tmp_path, capsys):
    for command, usual in (("train", 30), ("demo", commands.DEMO_EPOCHS)):
        for options, expected in (
            ([], usual),
            (["--quick"], 6),
            (["--quick", "--epochs", 1], 1),
            (["--epochs", 2], 2),
            (["--quick", "--epochs", 9], 9),
        ):
            assert (
                epochs_of(monkeypatch, tmp_path, capsys, command, *options)
                == f"error: epochs: {expected}"
            )


def test_evaluate_prints_a_table_and_writes_it_as_json(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        experiments, "assess_on_scenes", lambda model, split: judged(model, split, 30)
    )
    for split in ("test", "validation"):
        code, out, _ = call(
            capsys,
            "evaluate",
            "--model",
            made / "run" / "model",
            "--split",
            split,
            "--out",
            tmp_path,
        )
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert code == 0 and f"{results['rows']['two-stage']['rsum']:.1f}" in out
        assert results["oracle"] == json.loads(json.dumps(scenes.oracle(split, 30)))


def test_index_without_pictures_of_ones_own_takes_the_test_scenes(
    made, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 12))
    code, out, _ = call(
        capsys, "index", "--model", made / "run" / "model", "--out", tmp_path / "gallery"
    )
    assert code == 0 and "12 pictures" in out
    code, out, _ = call(
        capsys,
        *search(made, "a red star", "--gallery", tmp_path / "gallery", "--out", tmp_path / "s"),
    )
    assert code == 0 and all(re.fullmatch(r"test-00\d\d", row[2]) for row in rows_of(out))


def test_search_by_a_caption_prints_a_table_and_draws_the_hits(made, tmp_path, capsys):
    code, out, _ = call(
        capsys,
        *search(
            made,
            "a red star above a blue circle",
            "--gallery",
            made / "gallery",
            "-k",
            3,
            "--out",
            tmp_path,
        ),
    )
    rows = rows_of(out)
    assert code == 0 and [row[0] for row in rows] == ["1", "2", "3"]
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    names = {str(path) for path in (made / "pictures").iterdir() if path.suffix != ".txt"}
    assert {row[2] for row in rows} <= names and "8 searched" in out
    with Image.open(tmp_path / "hits.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


def test_search_for_more_than_there_is_gives_all(made, tmp_path, capsys):
    code, out, _ = call(
        capsys,
        *search(
            made,
            "a star",
            "--gallery",
            made / "gallery",
            "-k",
            99,
            "--shortlist",
            500,
            "--out",
            tmp_path,
        ),
    )
    assert code == 0 and len(rows_of(out)) == 8


def test_search_by_a_picture_finds_captions(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 10))
    captions = {caption for own in scenes.captions_of("test") for caption in own}
    for name in ("picture 3.png", "wide.jpg"):
        code, out, _ = call(
            capsys, *search(made, "--image", made / "pictures" / name, "--out", tmp_path)
        )
        assert code == 0 and len(rows_of(out)) == 5 and {row[2] for row in rows_of(out)} <= captions
        assert (tmp_path / "hits.png").is_file()


def test_search_finds_what_scoring_everything_finds(made, tmp_path, capsys):
    from tgdt_mini.data import ImageTokens
    from tgdt_mini.encoding import encode_texts
    from tgdt_mini.photos.image_io import open_image
    from tgdt_mini.reports.choice import stored_settings
    from tgdt_mini.similarity import mixed_similarity

    query = "a tiny purple moon left of a big green square"
    code, out, _ = call(
        capsys, *search(made, query, "--gallery", made / "gallery", "-k", 8, "--out", tmp_path)
    )
    model = load_model(made / "run" / "model")
    names = sorted(path for path in (made / "pictures").iterdir() if path.suffix != ".txt")
    with torch.no_grad():
        tokens = ImageTokens.of([open_image(name).resize((112, 112)) for name in names])
        known = mixed_similarity(
            model.encode_images(tokens),
            encode_texts(model, [query]),
            stored_settings(model).local_weight,
        )
    scores = dict(zip(map(str, names), known[:, 0].tolist()))
    for _, score, name in rows_of(out):
        assert float(score) == pytest.approx(scores[name], abs=3e-3)


def test_a_caption_longer_than_the_limit_is_cut_with_one_line_of_warning(made, tmp_path, capsys):
    query = "a red star above a blue circle and " * 10 + "a ring"
    code, out, err = call(
        capsys, *search(made, query, "--gallery", made / "gallery", "--out", tmp_path)
    )
    assert code == 0 and len(rows_of(out)) == 5
    assert (
        err.startswith("warning: 1 of 1 captions are cut to") and len(err.strip().splitlines()) == 1
    )


def test_bench_writes_its_report_its_table_and_its_picture(monkeypatch, tmp_path, capsys):
    from tgdt_mini import bench

    asked = []
    point = {"shortlist": 10, "ms": 1.0, "agreement": 90.0}
    report = {
        "machine": {name: "x" for name in ("processor", "cores", "system", "python", "torch")},
        "quick": True,
        "repeats": 3,
        "rows": [],
        "engines": [],
        "precisions": [],
        "missed": {"1000": {"1": {"10": 5.0}}},
        "curves": {"1000": {"full": 20.0, "two-stage": [point]}},
        "scenes": {
            "t2i": {"1": {"10": 1.0}},
            "i2t": {"1": {"10": 2.0}},
            "rsum": {"10": 0.25},
            "enough": 10,
        },
    }
    monkeypatch.setattr(bench, "run", lambda *arguments: asked.append(arguments) or report)
    code, out, _ = call(capsys, "bench", "--quick", "--sizes", 2000, "--million", "--out", tmp_path)
    assert code == 0 and asked == [([2000], True, tmp_path, True, [], None)]
    assert json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "bench.md").read_text(
        encoding="utf-8"
    ).strip() in out and "K 10 is the smallest" in out
    with Image.open(tmp_path / "search_times.png") as picture:
        assert picture.format == "PNG"
    call(capsys, "bench", "--out", tmp_path)
    assert asked[1] == (bench.SIZES, False, None, True, [], None)
    call(capsys, "bench", "--only", "training", "million", "--out", tmp_path)
    assert asked[2] == (bench.SIZES, False, tmp_path, True, ["training", "million"], report), (
        "the rest is kept"
    )


BAD = {
    "a missing picture": (
        ["search", "--image", "{tmp}/nowhere.png"],
        r"image .*nowhere\.png does not exist",
    ),
    "an unreadable picture": (
        ["search", "--image", "{home}/pictures/notes.txt"],
        r"image .*notes\.txt cannot be read",
    ),
    "an empty caption": (["search", ""], "caption 0 is ''; a caption must hold at least one word"),
    "a caption of spaces": (["search", "  "], "a caption must hold at least one word"),
    "no hits asked for": (["search", "a star", "-k", "0"], "-k is 0; ask for at least 1 hit"),
    "fewer than no hits": (["search", "a star", "-k", "-2"], "-k is -2"),
    "an empty shortlist": (
        ["search", "a star", "--shortlist", "0"],
        "shortlist is 0; it must be at least 1",
    ),
    "k that is no number": (
        ["search", "a star", "-k", "five"],
        "argument -k: invalid int value: 'five'",
    ),
    "nothing to search by": (["search"], "give a caption or --image FILE, one of the two"),
    "two things to search by": (
        ["search", "a star", "--image", "{home}/pictures/wide.jpg"],
        "one of the two",
    ),
    "a missing model": (
        ["search", "a star", "--model", "{tmp}/none"],
        r"none.config\.json is missing",
    ),
    "a file for a model": (
        ["search", "a star", "--model", "{home}/pictures/notes.txt"],
        "notes.txt",
    ),
    "a corrupt model": (
        ["search", "a star", "--model", "{tmp}/corrupt"],
        r"model\.safetensors is damaged",
    ),
    "a model without words": (
        ["search", "a star", "--model", "{tmp}/wordless"],
        r"wordless has no tokenizer\.json",
    ),
    "a gallery of another model": (
        ["search", "a star", "--model", "{tmp}/other"],
        "the gallery was built by another model",
    ),
    "a missing gallery": (
        ["search", "a star", "--gallery", "{tmp}/none"],
        r"none.gallery\.json is missing",
    ),
    "a gallery for a picture": (
        ["search", "--image", "{home}/pictures/wide.jpg", "--gallery", "x"],
        "--gallery.*hold pictures",
    ),
    "two galleries": (
        ["search", "a star", "--qdrant", "{tmp}", "--gallery", "{tmp}"],
        "--gallery and --qdrant name two",
    ),
    "index two sets": (
        ["index", "--images", "{home}/pictures", "--features", "{tmp}"],
        "--images and --features name two",
    ),
    "index a split of files": (
        ["index", "--images", "{home}/pictures", "--split", "validation"],
        "--split is validation, but the pictures of --images have no splits",
    ),
    "ablate without epochs": (
        ["ablate", "--quick", "--epochs", "0"],
        "epochs is 0; it must be above 0",
    ),
    "patches of photographs": (
        ["train", "--image-tokens", "patches", "--features", "{tmp}"],
        "--image-tokens patches is",
    ),
    "an --out that is a file": (
        ["search", "a star", "--out", "{home}/pictures/notes.txt"],
        "--out .*is a file",
    ),
    "an --out in a file": (
        ["search", "a star", "--out", "{home}/pictures/notes.txt/deep/er"],
        "notes.txt is a file",
    ),
    "evaluate into a file": (
        ["evaluate", "--out", "{home}/pictures/notes.txt"],
        "--out .*is a file",
    ),
    "evaluate no model": (["evaluate", "--model", "{tmp}/none"], r"none.config\.json is missing"),
    "index into a file": (["index", "--out", "{home}/pictures/notes.txt"], "--out .*is a file"),
    "index into other things": (
        ["index", "--images", "{home}/pictures", "--out", "{home}/run"],
        "run .*gallery",
    ),
    "index no folder": (["index", "--images", "{tmp}/none"], "--images .*none is not a folder"),
    "index an empty folder": (["index", "--images", "{tmp}/empty"], "holds no picture"),
    "index a broken picture": (
        ["index", "--images", "{tmp}/broken"],
        r"image .*b\.png cannot be read",
    ),
    "train into a file": (
        ["train", "--quick", "--out", "{home}/pictures/notes.txt"],
        "--out .*is a file",
    ),
    "demo into a file": (
        ["demo", "--quick", "--out", "{home}/pictures/notes.txt"],
        "--out .*is a file",
    ),
    "bench into a file": (["bench", "--out", "{home}/pictures/notes.txt"], "--out .*is a file"),
    "bench of nothing": (
        ["bench", "--only", "nonsense"],
        "only holds 'nonsense'; it must be search, by-image",
    ),
    "bench of too few": (["bench", "--sizes", "10"], "sizes holds 10; each must be at least 1,000"),
    "no epochs": (["train", "--epochs", "0"], "epochs is 0; it must be above 0"),
    "an empty batch": (["train", "--quick", "--batch", "0"], "batch is 0"),
    "no terms": (
        ["train", "--quick", "--no-global", "--no-local"],
        "use_global and use_local are both off",
    ),
    "another recipe": (["train", "--recipe", "cake"], "argument --recipe: invalid choice: 'cake'"),
    "another command": (["bake"], "invalid choice: 'bake'"),
    "no command": ([], "required: COMMAND"),
    "an option of another command": (["evaluate", "--quick"], "unrecognized arguments: --quick"),
    "no such device": (
        ["evaluate", "--device", "mps"],
        "device is 'mps', which this machine cannot use",
    ),
}


@pytest.fixture(scope="module")
def bad(made, tmp_path_factory):
    """Things that are broken."""
    home = tmp_path_factory.mktemp("bad")
    model = load_model(made / "run" / "model")
    save_model(model, home / "corrupt", model.tokenizer, model.notes)
    save_model(model, home / "wordless", None, model.notes)
    with torch.no_grad():
        model.word.weight[0, 0] += 1
    save_model(model, home / "other", model.tokenizer, model.notes)
    weights = home / "corrupt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (home / "empty").mkdir()
    (home / "broken").mkdir()
    scenes.picture("test-0000").save(home / "broken" / "a.png")
    (home / "broken" / "b.png").write_bytes((home / "broken" / "a.png").read_bytes()[:500])
    return home


def files_in(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(
    name, made, bad, capsys, tmp_path, monkeypatch
):
    if name == "no such device" and torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    arguments = [part.format(tmp=bad, home=made) for part in arguments]
    command = arguments[0] if arguments else ""
    if command in ("search", "evaluate", "index") and "--model" not in arguments:
        arguments += ["--model", str(made / "run" / "model")]
    if command == "search" and "--gallery" not in arguments and "--image" not in arguments:
        arguments += ["--gallery", str(made / "gallery")]
    before = files_in(made, bad)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and not out
    assert (
        err.startswith("error: ") and len(err.strip().splitlines()) == 1 and re.search(message, err)
    ), err
    assert files_in(made, bad) == before
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_training_that_cannot_begin_says_why_in_its_last_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "QUICK", SMALL)
    for more, message in (
        (["--batch", 81], "batch is 81, but there are 80 images"),
        (["--resume"], r"last.config\.json is missing"),
    ):
        code, _, err = call(capsys, "train", "--quick", "--device", "cpu", *more, "--out", tmp_path)
        assert code == 2 and re.match(f"error: .*{message}", err.strip().splitlines()[-1])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_is_one_line_and_the_old_gallery_stays(made, monkeypatch, capsys, tmp_path):
    from tgdt_mini.files import store

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = files_in(made / "gallery")
    monkeypatch.setattr(store.np, "save", full)
    arguments = [
        "--model",
        made / "run" / "model",
        "--images",
        made / "pictures",
        "--out",
        made / "gallery",
    ]
    code, _, err = call(capsys, "index", *arguments)
    assert code == 2 and err.strip().splitlines() == ["error: [Errno 28] No space left on device"]
    assert files_in(made / "gallery") == before and {path.name for path in made.iterdir()} == {
        "run",
        "pictures",
        "gallery",
    }


def test_the_module_is_a_command_and_passes_its_exit_code_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tgdt_mini", "search", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip().splitlines() == [
        "error: give a caption or --image FILE, one of the two"
    ]


def test_the_shipped_model_answers_a_search(tmp_path):
    weights, gallery = shipped() / "weights", shipped() / "gallery"
    assert weights.is_dir() and gallery.is_dir(), "data/weights and data/gallery are shipped"
    assert sum(path.stat().st_size for path in weights.iterdir()) <= 8e6
    assert "seed" in load_model(weights).notes["training"]
    began = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tgdt_mini",
            "search",
            "a red star above a blue circle",
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(rows_of(done.stdout)) == 5
        and "1000 searched" in done.stdout
        and (tmp_path / "hits.png").is_file()
    )
    assert time.perf_counter() - began < 60  # 15 seconds on an idle machine
