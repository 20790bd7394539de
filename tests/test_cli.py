"""The commands: what they write and print; bad input is one line and exit code 2, nothing written.

Trainings are of two steps or a few more: that a model learns is tested elsewhere.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import call, suggested
from PIL import Image

import tgdt_mini
from tgdt_mini import bench, cli, scenes
from tgdt_mini.checkpoint import fingerprint, load_model, save_model
from tgdt_mini.commands import arguments, common, demo, train
from tgdt_mini.commands import search as search_command
from tgdt_mini.data import ImageTokens
from tgdt_mini.encoding import encode_texts
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.reports.plots import answers
from tgdt_mini.runs import model_names
from tgdt_mini.runs import scenes as scene_runs
from tgdt_mini.runs.pictures import PictureFinder
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import mixed_similarity
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

SMALL = {"epochs": 1, "train": 32, "other": 12}
TRAIN = ["train", "--quick", "--batch", "16", "--device", "cpu"]
assess_all = scene_runs.assess_on_scenes


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a trained model (run/model), what train said, pictures and their gallery."""
    home = tmp_path_factory.mktemp("home")
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(common, "QUICK", SMALL)
        assert cli.main([*TRAIN, "--out", str(home / "run")]) == 0
    (home / "train.txt").write_text(said.getvalue(), encoding="utf-8")
    (home / "pictures").mkdir()
    for i in range(7):
        scenes.picture(f"test-000{i}").save(home / "pictures" / f"picture {i}.png")
    scenes.picture("test-0008").resize((300, 200)).save(home / "pictures" / "wide.jpg")
    (home / "pictures" / "notes.txt").write_text("no picture", encoding="utf-8")
    pictures = ["--model", str(home / "run" / "model"), "--images", str(home / "pictures")]
    assert cli.main(["index", *pictures, "--out", str(home / "gallery")]) == 0
    return home


@pytest.fixture
def small(monkeypatch):
    """Few scenes for --quick and few in each split."""
    monkeypatch.setattr(common, "QUICK", SMALL)
    for split, count in (("train", 80), ("validation", 14), ("test", 12)):
        monkeypatch.setitem(scenes.SPLITS, split, (scenes.SPLITS[split][0], count))
    monkeypatch.setattr(
        scene_runs, "assess_on_scenes", lambda model, split, _=None: assess_all(model, split, 12)
    )


def search(home, *arguments):
    return "search", *arguments, "--model", home / "run" / "model"


def rows_of(out):
    """[rank, score, item] of each hit that is printed."""
    return [line.split(maxsplit=2) for line in out.splitlines() if re.match(r" +\d+ +-?\d", line)]


def captions_of(split):
    return {text for captions in scenes.captions_of(split) for text in captions}


# the parser


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_every_command_explains_itself(capsys, name):
    code, out, err = call(capsys, *name.split(), "--help")
    assert code == 0 and not err and out.startswith("usage: tgdt-mini")
    options = {"--device", "--seed", "--out"} if name else set()
    if name in ("demo", "train"):
        options |= {"--quick", "--resume"}
    if name in ("evaluate", "index", "search"):
        options |= {"--model"}
    if name == "search":
        options |= {"--image", "--shortlist", "-k"}
    assert options <= set(re.findall(r"--?[a-z-]+", out))


def test_the_version_is_told(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0 and out == f"tgdt-mini {tgdt_mini.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_error_names_the_help_of_its_command(capsys, name):
    needed = {"search": ["a star"], "extract": ["--data", "x"]}.get(name, [])
    for wrong in ("--nonsense", "--seed=x"):
        code, _, err = call(capsys, name, *needed, wrong)
        assert code == 2 and wrong.split("=")[0] in err
        assert err.endswith(f"see tgdt-mini {name} --help\n") and err.count("\n") == 1
    assert call(capsys, "nonsense")[2].endswith("see tgdt-mini --help\n")


def test_every_option_says_what_it_is_for():
    commands = next(action for action in cli.parser()._actions if action.choices).choices
    options = [(name, option) for name, command in commands.items() for option in command._actions]
    assert len(options) > 80
    assert not [(name, option.dest) for name, option in options if not option.help]


def test_help_and_the_parsers_errors_need_no_torch():
    code = "import sys; from tgdt_mini import cli; cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_options_of_train_are_what_the_fields_of_training_config_take():
    types = {field.name: field.type for field in fields(TrainingConfig)}
    kinds = {arguments.whole: int, arguments.real: float}
    for field, takes, _ in train.SETTINGS.values():
        if takes in kinds:
            assert types[field] is kinds[takes], field
        else:
            for value in takes if isinstance(takes, tuple) else [takes]:
                assert isinstance(value, types[field]), field
                TrainingConfig(**{field: value})  # is no ValueError


def config_of(monkeypatch, capsys, *arguments):
    """(TrainingConfig, the other arguments) of the training that a command would begin; stderr."""
    begun = []
    monkeypatch.setattr(
        scene_runs, "train_on_scenes", lambda *arguments, **_: begun.append(arguments)
    )
    err = call(capsys, *arguments)[2]
    return begun[0][0], begun[0][1:], err


def test_options_reach_the_training(monkeypatch, tmp_path, capsys, small):
    options = (
        "--seed 3 --learning-rate 0.01 --schedule staged --contrastive mean --no-intra "
        "--patience 2 --precision fp32 --compile --image-tokens patches"
    )
    config, rest, err = config_of(
        monkeypatch, capsys, *TRAIN, *options.split(), "--out", tmp_path / "run"
    )
    default = TrainingConfig(epochs=1, batch=16, **scene_runs.SCENE_DEFAULTS)
    assert not err and config == replace(
        default,
        seed=3,
        learning_rate=0.01,
        schedule="staged",
        contrastive="mean",
        use_intra=False,
        patience=2,
        precision="fp32",
        compile=True,
    )
    assert rest == (tmp_path / "run", torch.device("cpu"), "patches", 32, 12)
    config, _, _ = config_of(monkeypatch, capsys, *TRAIN, "--no-hard-captions", "--optimizer=adamw")
    assert config == replace(default, hard_captions=0.0, optimizer="adamw")
    for option, field in (("--no-global", "use_global"), ("--no-local", "use_local")):
        config, _, _ = config_of(monkeypatch, capsys, *TRAIN, option)  # no term on their sum
        assert config == replace(default, use_mixed=False, **{field: False})


def test_old_names_of_options_work_with_a_warning_that_names_the_new_ones(monkeypatch, capsys):
    for old, new, value in (
        ("--inter", "--contrastive", "mean"),
        ("--recipe", "--schedule", "staged"),
    ):
        config, _, err = config_of(monkeypatch, capsys, "train", old, value)
        assert config == config_of(monkeypatch, capsys, "train", new, value)[0] != TrainingConfig()
        assert err.startswith("warning: ") and err.count("\n") == 1 and new in err and old in err
        code, _, err = call(capsys, "train", old, "cake")
        assert code == 2 and old in err and "cake" in err
    args = cli.parser().parse_args(["ablate", "--variants", "default", "no intra"])
    with pytest.warns(UserWarning, match="--variants"):
        assert cli.parser().parse_args(["ablate", "--recipes", "default", "no intra"]) == args


@pytest.mark.parametrize("command, usual", [("train", 30), ("demo", demo.EPOCHS)])
def test_quick_changes_the_number_of_epochs_only_where_none_is_given(
    monkeypatch, tmp_path, capsys, command, usual
):
    class Begun(ValueError):
        pass

    def begin(config, *_, **__):
        raise Begun(f"epochs: {config.epochs}")

    monkeypatch.setattr(scene_runs, "train_on_scenes", begin)
    for options, expected in (
        ([], usual),
        (["--quick"], common.QUICK["epochs"]),
        (["--quick", "--epochs", 1], 1),
        (["--epochs", 2], 2),
        (["--quick", "--epochs", 9], 9),
    ):
        err = call(capsys, command, *options, "--device", "cpu", "--out", tmp_path)[2]
        assert err == f"error: epochs: {expected}\n"


# train and demo


def test_training_writes_a_model_that_can_be_loaded(home):
    model = load_model(home / "run" / "model")
    assert model.tokenizer is not None and len(model.notes["history"]) == 1
    assert set(model.notes["choice"]) == {"local_weight", "shortlist"}
    assert model.notes["training"]["batch"] == 16
    assert {folder.name for folder in (home / "run").iterdir()} == {"best", "last", "model"}


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on_and_ends_as_if_never_stopped(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(common, "QUICK", SMALL | {"epochs": 3})
    assert call(capsys, *TRAIN, "--out", tmp_path / "whole")[0] == 0
    loss, killed = Trainer.loss, []

    def interrupted(trainer, *rest):
        if trainer.step == 3 and not killed:
            killed.append(os.kill(os.getpid(), signal.SIGINT))
        return loss(trainer, *rest)

    monkeypatch.setattr(Trainer, "loss", interrupted)
    code, _, err = call(capsys, *TRAIN, "--out", tmp_path / "parts")
    last = err.strip().splitlines()[-1]
    assert code == 130 and str(tmp_path / "parts" / "last") in last and "--resume" in last
    code, out, _ = call(capsys, *TRAIN, "--out", tmp_path / "parts", "--resume")
    assert code == 0 and "step 4 of 6" in out
    one, other = (load_model(tmp_path / name / "model") for name in ("whole", "parts"))
    assert one.tokenizer.to_json() == other.tokenizer.to_json()
    assert fingerprint(one) == fingerprint(other) and one.notes["choice"] == other.notes["choice"]


def test_a_run_in_the_folder_of_an_earlier_one_moves_that_one_aside(home, tmp_path, capsys, small):
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)

    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}

    again = [*TRAIN, "--seed", 1, "--out", run]
    assert call(capsys, *again, "--batch", 81)[0] == 2 and not (run / "earlier-1").exists()
    code, out, _ = call(capsys, *again)
    assert code == 0 and str(run / "earlier-1") in out
    assert contents(run / "earlier-1") == contents(home / "run")
    assert load_model(run / "model").notes["training"]["seed"] == 1
    shutil.rmtree(run / "model")  # as if it had been stopped
    code, out, _ = call(capsys, *again, "--resume")
    assert code == 0 and "earlier" not in out and not (run / "earlier-2").exists()
    stopped = contents(run / "last")
    assert call(capsys, *TRAIN, "--seed", 2, "--out", run)[0] == 0
    assert contents(run / "earlier-1") == contents(home / "run")
    assert contents(run / "earlier-2" / "last") == stopped


def test_training_that_cannot_begin_says_why_in_its_last_line(small, tmp_path, capsys):
    for options, words in (
        (["--batch", 33], ("batch is 33", "32 images")),
        (["--batch", 16, "--resume"], (str(Path("last", "config.json")),)),
    ):
        code, _, err = call(capsys, "train", "--quick", *options, "--out", tmp_path)
        last = err.strip().splitlines()[-1]
        assert code == 2 and last.startswith("error: ") and all(word in last for word in words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_demo_writes_everything_that_it_names(monkeypatch, tmp_path, capsys, small):
    monkeypatch.setattr(common, "QUICK", SMALL | {"epochs": 2})
    folder = tmp_path / "demo"
    code, out, _ = call(
        capsys, "demo", "--quick", "--batch", 16, "--device", "cpu", "--out", folder
    )
    assert code == 0
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
    code, out, _ = call(capsys, *search)
    assert code == 0 and "12 test scenes" in out and "12 searched" in out
    assert all(re.fullmatch(r"test-00\d\d", row[2]) for row in rows_of(out))
    assert call(capsys, *evaluate)[0] == 0


# evaluate, index, search


def test_evaluate_prints_a_table_and_writes_it_as_json(home, tmp_path, capsys, small):
    assert suggested((home / "train.txt").read_text(encoding="utf-8")) == [
        ["evaluate", "--model", str(home / "run" / "model")]
    ]
    for split in ("test", "validation"):
        command = ["evaluate", "--model", home / "run" / "model", "--split", split]
        code, out, _ = call(capsys, *command, "--out", tmp_path)
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert code == 0 and f"{results['rows']['two-stage']['rsum']:.1f}" in out
        assert results["oracle"] == json.loads(json.dumps(scenes.oracle(split, 12)))
        open_ = [s for own in scenes.readings(split, 12) for c in own for s in c.values() if s < 1]
        grounding = results["grounding"]
        assert open_ and grounding["chance"] < grounding["oracle"] < grounding["possible"]
        assert 50 < grounding["settled"] < 100
        code, printed, err = call(capsys, *command, "--out", tmp_path, "--json")
        written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert code == 0 and not err and json.loads(printed) == written


@pytest.mark.parametrize(
    "options, count, item",
    [
        ([], 12, r"test-00\d\d"),
        (["--split", "validation"], 14, r"validation-00\d\d"),
        (["--images", "pictures"], 8, r".*pictures.*"),
    ],
)
def test_what_index_says_comes_next_works(
    home, monkeypatch, tmp_path, capsys, small, options, count, item
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "run" / "model", "a model")
    shutil.copytree(home / "pictures", "pictures")
    code, out, _ = call(capsys, "index", "--model", "a model", *options, "--out", "a gallery")
    (search,) = suggested(out)
    assert code == 0 and f"{count} pictures" in out
    assert search[2:] == ["--gallery", "a gallery"]  # which knows its model
    code, out, _ = call(capsys, *search)
    found = [row[2] for row in rows_of(out)]
    assert code == 0 and len(found) == 5 and all(re.fullmatch(item, name) for name in found)
    assert Path("runs", "search", "hits.png").is_file()


def test_what_index_says_comes_next_works_for_the_shipped_model(
    monkeypatch, tmp_path, capsys, small
):
    monkeypatch.chdir(tmp_path)
    (search,) = suggested(call(capsys, "index")[1])
    assert "--model" not in search and call(capsys, *search)[0] == 0


def test_search_by_a_caption_prints_a_table_and_draws_the_hits(home, tmp_path, capsys):
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, out, _ = call(capsys, *search(home, "a red star above a blue circle", "-k", 3, *here))
    rows = rows_of(out)
    assert code == 0 and [row[0] for row in rows] == ["1", "2", "3"] and "8 searched" in out
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    names = {str(path) for path in (home / "pictures").iterdir() if path.suffix != ".txt"}
    assert {row[2] for row in rows} <= names
    with Image.open(tmp_path / "hits.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5
    more = ["-k", 99, "--shortlist", 500]  # than there are
    code, out, _ = call(capsys, *search(home, "a star", *more, *here))
    assert code == 0 and {row[2] for row in rows_of(out)} == names


def test_search_finds_what_scoring_everything_finds(home, tmp_path, capsys):
    query = "a tiny purple moon left of a big green square"
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, out, _ = call(capsys, *search(home, query, "-k", 8, *here))
    model = load_model(home / "run" / "model")
    names = sorted(path for path in (home / "pictures").iterdir() if path.suffix != ".txt")
    with torch.no_grad():
        tokens = ImageTokens.of([open_image(name).resize((112, 112)) for name in names])
        known = mixed_similarity(
            model.encode_images(tokens),
            encode_texts(model, [query]),
            stored_settings(model).local_weight,
        )
    scores = dict(zip(map(str, names), known[:, 0].tolist()))
    assert code == 0 and len(rows_of(out)) == 8
    for _, score, name in rows_of(out):
        assert float(score) == pytest.approx(scores[name], abs=3e-3)


def test_a_split_of_the_scenes_is_searched_when_asked_for(home, tmp_path, capsys, small):
    for split in ("test", "validation"):
        more = ["--split", split, "--out", tmp_path]
        code, out, _ = call(capsys, *search(home, "a red star", *more))
        assert code == 0 and {row[2][:4] for row in rows_of(out)} == {split[:4]}
        for name in ("picture 3.png", "wide.jpg"):
            picture = home / "pictures" / name
            code, out, _ = call(capsys, *search(home, "--image", picture, *more))
            found = {row[2] for row in rows_of(out)}
            assert code == 0 and len(rows_of(out)) == 5 and found <= captions_of(split)
    code, out, _ = call(capsys, "search", "a red star", "--split", "validation", "--out", tmp_path)
    assert code == 0 and "14 validation scenes" in out and "14 searched" in out


def test_patches_can_be_trained_on_and_searched_with(home, tmp_path, capsys, small):
    patches = [*TRAIN, "--image-tokens", "patches", "--out", tmp_path]
    assert call(capsys, *patches, "--quiet") == (0, "", "")
    model, out = ["--model", tmp_path / "model"], ["--out", tmp_path / "out"]
    assert call(capsys, "index", *model, "--images", home / "pictures", *out)[0] == 0
    picture = home / "pictures" / "wide.jpg"
    assert call(capsys, "search", "--image", picture, *model, *out)[0] == 0


def test_items_without_a_picture_are_drawn_as_their_names(home, tmp_path, capsys):
    """A file that has gone, or an item that looks like a scene's name and is none."""
    gone, wide = str(tmp_path / "gone.png"), str(home / "pictures" / "wide.jpg")
    items = ["test-00012", gone, "test-0001", 5, wide, "x", "y", "z"]
    shown = list(map(PictureFinder(drawn=True), items))
    sizes = [tile if isinstance(tile, str) else tile.size for tile in shown]
    assert sizes == ["test-00012", gone, (112, 112), "5", (300, 200), "x", "y", "z"]
    assert PictureFinder(drawn=False)("test-0001") == "test-0001"
    replace(Gallery.load(home / "gallery"), items=items).save(tmp_path / "gallery")
    here = ["--gallery", tmp_path / "gallery", "--out", tmp_path]
    code, out, _ = call(capsys, *search(home, "a star", "-k", 8, *here))
    assert code == 0 and len(rows_of(out)) == 8


def test_a_model_of_photographs_is_not_given_the_drawn_scenes(home, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(model_names, "knows_photographs", lambda model: True)
    picture = home / "pictures" / "wide.jpg"
    for command, cure in (
        (["search", "two dogs"], "--gallery"),
        (["search", "--image", picture], "--features"),
        (["index"], "--images"),
        (["evaluate"], "--features"),
    ):
        out = tmp_path / command[0]
        code, said, err = call(capsys, *command, "--model", home / "run" / "model", "--out", out)
        assert code == 2 and not said and "photographs" in err and cure in err
        assert not out.exists()


def test_a_caption_longer_than_the_limit_is_cut_with_one_line_of_warning(home, tmp_path, capsys):
    query = "a red star above a blue circle and " * 10 + "a ring"
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, out, err = call(capsys, *search(home, query, *here))
    assert code == 0 and len(rows_of(out)) == 5
    assert err.startswith("warning: 1 of 1 captions") and err.count("\n") == 1


def test_a_page_of_hits_is_drawn_and_all_are_printed(home, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(search_command, "MOST_DRAWN", 6)
    monkeypatch.setattr(answers, "IN_A_ROW", 4)
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, out, _ = call(capsys, *search(home, "a star", "-k", 8, *here))
    assert code == 0 and len(rows_of(out)) == 8 and "the first 6 are drawn in" in out
    drawn = open_image(tmp_path / "hits.png")
    code, out, _ = call(capsys, *search(home, "a star", "-k", 4, *here))
    assert "the hits are drawn in" in out
    one_row = open_image(tmp_path / "hits.png")
    assert drawn.width == pytest.approx(one_row.width, rel=0.05)
    assert drawn.height == pytest.approx(2 * one_row.height, rel=0.1)


def test_words_that_the_model_has_never_seen_are_named(home, tmp_path, capsys):
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, _, err = call(capsys, *search(home, "A Dog above a star, a dog and CAKE", *here))
    assert code == 0 and err == (
        "warning: the model has never seen 'dog', 'cake', and can only guess what is meant\n"
    )
    code, _, err = call(capsys, *search(home, "You can see a Red star", *here))
    assert code == 0 and not err


def test_a_command_that_lacks_a_package_says_what_brings_it(home, monkeypatch, tmp_path, capsys):
    for name in ("matplotlib", "datasets"):
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
    here = ["--gallery", home / "gallery", "--out", tmp_path]
    code, out, _ = call(capsys, *search(home, "a star", *here))
    assert code == 0 and len(rows_of(out)) == 5
    assert (
        "nothing is drawn: matplotlib is not installed" in out
        and "pip install -e '.[plots]'" in out
    )
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path / "cache"))
    code, _, err = call(capsys, *TRAIN, "--out", tmp_path / "run")
    assert code == 2 and err.splitlines()[-1] == (
        "error: datasets is not installed; it comes with `pip install -e '.[data]'` in the "
        "project's folder"
    )


def test_a_full_disk_is_one_line_and_the_old_gallery_stays(home, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = files_in(home)
    monkeypatch.setattr(np.lib.format, "write_array", full)
    pictures = ["--model", home / "run" / "model", "--images", home / "pictures"]
    code, _, err = call(capsys, "index", *pictures, "--out", home / "gallery")
    assert code == 2 and len(err.splitlines()) == 1
    words = "error: the disk is full ([Errno 28] No space left on device), that of --out"
    assert err.startswith(f"{words} {home / 'gallery'} or of the cache ") and "make room" in err
    assert files_in(home) == before


# bench


def test_bench_writes_its_report_its_table_and_its_picture(monkeypatch, tmp_path, capsys):
    asked = []
    point = {"shortlist": 10, "ms": 1.0, "agreement": 90.0}
    report = {
        "machine": {name: "x" for name in ("processor", "cores", "system", "python", "torch")},
        "quick": True,
        "speed": {"read": 20.0, "multiply": 80.0},
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
    assert bench.read(tmp_path / "bench.json") == report  # its seal fits, and is left out
    table = (tmp_path / "bench.md").read_text(encoding="utf-8").strip()
    assert table in out and "K 10 is the smallest" in table
    with Image.open(tmp_path / "search_times.png") as picture:
        assert picture.format == "PNG"
    call(capsys, "bench", "--out", tmp_path)
    assert asked[1] == (bench.SIZES, False, None, True, [], None)
    call(capsys, "bench", "--only", "training", "million", "--out", tmp_path)
    only = ["training", "million"]
    assert asked[2] == (bench.SIZES, False, tmp_path, True, only, report), "the rest is kept"


# bad input


BAD = {  # arguments: what the message names
    "search --image {bad}/nowhere.png": "nowhere.png",
    "search --image {home}/pictures/notes.txt": "notes.txt",
    "search ''": "caption 0 is ''",
    "search '  '": "caption 0",
    "search 'a star' -k 0": "-k is 0",
    "search 'a star' -k -2": "-k is -2",
    "search 'a star' --shortlist 0": "shortlist is 0",
    "search 'a star' -k five": "argument -k: .*'five'",
    "search": "give a caption.*--image FILE",
    "search 'a star' --image {home}/pictures/wide.jpg": "--image.*caption",
    "search 'a star' --model {bad}/none": r"none.config\.json",
    "search 'a star' --model {home}/pictures/notes.txt": r"notes\.txt",
    "search 'a star' --model {bad}/corrupt": r"model\.safetensors",
    "search 'a star' --model {bad}/wordless": r"wordless.*tokenizer\.json",
    "search 'a star' --model {bad}/other": "gallery.*another model",
    "search 'a star' --gallery {bad}/none": r"none.gallery\.json.*--model photographs --out",
    "search --image {home}/pictures/wide.jpg --gallery x": "--gallery.*--image.*--features",
    "search 'a star' --qdrant {bad} --gallery {bad}": "--gallery.*--qdrant",
    "search 'a star' --out {home}/pictures/notes.txt": r"--out .*notes\.txt is a file",
    "search 'a star' --out {home}/pictures/notes.txt/deep/er": r"notes\.txt is a file",
    "index --images {home}/pictures --features {bad}": "--images.*--features",
    "index --images {home}/pictures --split validation": "--split is validation.*--images",
    "index --out {home}/pictures/notes.txt": "--out .*is a file",
    "index --images {home}/pictures --out {home}/run": "run .*gallery",
    "index --images {bad}/none": "--images .*none",
    "index --images {bad}/empty": "--images .*empty",
    "index --images {bad}/broken": r"image .*b\.png",
    "evaluate --out {home}/pictures/notes.txt": "--out .*is a file",
    "evaluate --model {bad}/none": r"none.config\.json",
    "evaluate --quick": "--quick",
    "evaluate --folds 5": "--folds.*--features",
    "evaluate --check-all": "--check-all.*--features",
    "evaluate --device mps": "device is 'mps'",
    "ablate --quick --epochs 0": "epochs is 0",
    "train --features {bad} --image-tokens patches": "--image-tokens patches.*--features",
    "train --top-rate 0.5": "--top-rate.*--features",
    "train --quick --out {home}/pictures/notes.txt": "--out .*is a file",
    "train --epochs 0": "epochs is 0",
    "train --quick --batch 0": "batch is 0",
    "train --quick --no-global --no-local": "use_global.*use_local",
    "train --schedule cake": "--schedule.*'cake'",
    "demo --quick --out {home}/pictures/notes.txt": "--out .*is a file",
    "bench --out {home}/pictures/notes.txt": "--out .*is a file",
    "bench --only nonsense": "only .*'nonsense'.*by-image",
    "bench --sizes 10": "sizes .*10.*1,000",
    "bake": "'bake'",
    "": "COMMAND",
}


@pytest.fixture(scope="module")
def bad(home, tmp_path_factory):
    """Broken things."""
    bad = tmp_path_factory.mktemp("bad")
    model = load_model(home / "run" / "model")
    save_model(model, bad / "corrupt", model.tokenizer, model.notes)
    save_model(model, bad / "wordless", None, model.notes)
    with torch.no_grad():
        model.text_reader.word_embedding.weight[0, 0] += 1
    save_model(model, bad / "other", model.tokenizer, model.notes)
    weights = bad / "corrupt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (bad / "empty").mkdir()
    (bad / "broken").mkdir()
    whole = (home / "pictures" / "picture 0.png").read_bytes()
    (bad / "broken" / "b.png").write_bytes(whole[:500])
    return bad


def files_in(*folders):
    """{path: time of change} of all files; of folders only the names."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {path: path.is_file() and path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(
    line, home, bad, capsys, tmp_path, monkeypatch
):
    if "mps" in line and torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    monkeypatch.chdir(tmp_path)
    arguments = [part.format(bad=bad, home=home) for part in shlex.split(line)]
    command = arguments[0] if arguments else ""
    if command in ("search", "evaluate", "index") and "--model" not in arguments:
        arguments += ["--model", str(home / "run" / "model")]
    if line.startswith("search '") and "--gallery" not in line:
        arguments += ["--gallery", str(home / "gallery")]
    before = files_in(home, bad)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and re.search(BAD[line], err), err
    assert files_in(home, bad) == before
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_where_a_file_belongs_is_one_line_with_its_path(home, tmp_path, capsys):
    (tmp_path / "hits.png").mkdir()
    arguments = search(home, "a star", "--gallery", home / "gallery", "--out", tmp_path)
    code, _, err = call(capsys, *arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert "this is a folder; name a file" in err and str(tmp_path / "hits.png") in err


# fresh processes


def test_the_module_is_a_command_and_passes_its_exit_code_on():
    done = subprocess.run(
        [sys.executable, "-m", "tgdt_mini", "search"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("error: ")


FRESH = """
import json, sys
from tgdt_mini import cli, scenes
scenes.SPLITS["test"] = (2_000_000, 10)
codes = [cli.main(["search", *query, "--out", sys.argv[1]]) for query in json.loads(sys.argv[2])]
ours = ("tgdt_mini", "seaborn")
print(json.dumps([codes, [name for name in sys.modules if name.startswith(ours)]]))
"""


def test_the_shipped_model_answers_searches_soon_and_loads_nothing_that_trains(tmp_path):
    weights, gallery = shipped() / "weights", shipped() / "gallery"
    assert weights.is_dir() and gallery.is_dir(), "data/weights and data/gallery are shipped"
    assert sum(path.stat().st_size for path in weights.iterdir()) <= 8e6
    assert "seed" in load_model(weights).notes["training"]
    queries = [["a red star above a blue circle"], ["--image", str(shipped() / "query.png")]]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path), json.dumps(queries)],
        capture_output=True,
        text=True,
    )
    assert time.perf_counter() - began < 60  # 5 seconds on an idle machine
    assert done.returncode == 0, done.stderr
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0] and len(rows_of(done.stdout)) == 10
    assert "1000 searched" in done.stdout and "50 searched" in done.stdout
    assert (tmp_path / "hits.png").is_file()
    training = ("tgdt_mini.training", "tgdt_mini.scaling.distributed", "tgdt_mini.runs.fit")
    assert "seaborn" not in done.stdout.splitlines()[-1]
    assert "tgdt_mini.model" in modules and not {*training} & {*modules}


@pytest.mark.parametrize(
    ("name", "value", "then"),
    [
        (None, None, "10000"),
        ("GOMP_SPINCOUNT", "7", "7"),
        ("OMP_WAIT_POLICY", "ACTIVE", None),
    ],
)
def test_threads_that_wait_soon_sleep_unless_the_environment_says_otherwise(name, value, then):
    others = {n: v for n, v in os.environ.items() if n not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = others | ({name: value} if name else {})
    code = "import tgdt_mini, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().strip() == str(then)


@pytest.mark.parametrize(
    "words", [("extract", "--data", ""), ("extract", "--data="), ("index", "--images", " ")]
)
def test_an_empty_value_is_refused_by_the_name_of_its_option(capsys, words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    assert ended.value.code == 2
    option = words[1].removesuffix("=")
    assert capsys.readouterr().err.startswith(f"error: {option} is empty; ")
