"""The ablation runner: what each recipe changes, what is stored, and nothing is trained twice."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from helpers import call

from tgdt_mini import cli
from tgdt_mini.commands import common as commands
from tgdt_mini.files.paths import shipped
from tgdt_mini.runs import ablations


def report(rsum, seed=0):
    row = {"i2t": {"1": rsum / 6}, "t2i": {"1": rsum / 8}, "rsum": rsum}
    ways = ("global", "local", "two-stage")
    return {
        "rows": dict.fromkeys(ways, row),
        "share_of_oracle": dict.fromkeys(ways, 50.0),
        "hard_pairs": dict.fromkeys(ways, 70.0),
        "grounding": {"right": 80.0},
        "seed": seed,
    }


def store(folder, name, *rsums, **more):
    for seed, rsum in enumerate(rsums):
        path = ablations.path_of(folder, name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report(rsum, seed) | more), encoding="utf-8")


SCENES = {"kind of data": "scenes", "pictures to train on": 6000, "pictures to judge on": 1000}


def made_with(name, epochs=3, **changes):
    """What a report of the scenes tells of its training."""
    training = asdict(ablations.settings(name, epochs=epochs)) | changes
    return {"data": SCENES, "trained": {"training": training}}


@pytest.fixture
def trained(monkeypatch):
    """What trainings were asked for, in place of training and judging."""
    seen = []

    def train(*args):
        seen.append(args)
        return SimpleNamespace(notes={"history": []})

    monkeypatch.setattr(ablations, "train_on_scenes", train)
    monkeypatch.setattr(ablations, "assess_on_scenes", lambda *args: (report(450), None, None))
    return seen


def begin(folder):
    """A run's folder as a training that was stopped leaves it."""
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_a_recipe_differs_from_the_default_in_what_its_name_says(name):
    photos = name in ablations.PHOTOS_ONLY
    default, own = (asdict(ablations.settings(each, photos=photos)) for each in ("default", name))
    changed = {key for key in default if default[key] != own[key]}
    assert (
        changed
        == {
            "default": set(),
            "patches": set(),
            "AdamW": {"optimizer"},
            "no ground": set(),
            "global only": {"use_local", "use_mixed", "hard_captions"},
            "no intra": {"use_intra"},
            "local only": {"use_global", "use_intra", "use_mixed"},
            "InfoNCE": {"contrastive"},
            "mean hinge": {"contrastive"},
            "hardest": {"contrastive"},
            "staged": {"schedule"},
            "no hard captions": {"hard_captions"},
            "curriculum": {"contrastive"},
            "random start": {"start"},
            "curriculum from random": {"contrastive", "start"},
            "local term": {"use_mixed"},
            "shared maps": set(),
            "all words": set(),
        }[name]
    )
    kinds = {"patches": "patches", "no ground": "things"}
    assert ablations.VARIANTS[name].kind == kinds.get(name, "regions")


def test_every_recipe_of_photographs_has_something_to_learn_in_each_epoch():
    names = ablations.names_for("features")
    assert names[0] == "default" and len(names) == 12 and set(ablations.PHOTOS_ONLY) < set(names)
    for name in names:
        config = ablations.settings(name, photos=True)
        stages = {config.stage_at(epoch) for epoch in range(config.epochs)}
        assert stages == {"joint"}  # no layers for stages apart


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="'no such'.*no intra"):
        ablations.settings("no such")


def test_the_table_gives_mean_and_sample_deviation_and_leaves_out_what_was_not_measured(tmp_path):
    store(tmp_path, "no intra", 400, 406)
    store(tmp_path, "default", 500)
    lines = ablations.table(ablations.read(tmp_path)).splitlines()
    assert lines[2].startswith("| default | global | 83.3 | 62.5 | 50.0 | 500.0 | 70.0 |  | 1 |")
    assert lines[5].startswith("| no intra | global |") and "403.0 ± 4.2" in lines[5]  # 3 * sqrt(2)
    assert "| 80.0 ± 0.0 | 2 |" in lines[6]
    assert len({line.count("|") for line in lines}) == 1


def test_a_folder_without_reports_says_how_to_make_some(tmp_path):
    with pytest.raises(ValueError, match="holds no report.*ablate"):
        ablations.read(tmp_path)


def test_what_is_stored_is_not_trained_again_and_a_begun_run_is_taken_up(tmp_path, trained):
    store(tmp_path, "default", 500, **made_with("default", precision="fp32"))
    begin(tmp_path / "runs" / "no_intra-0" / "last")
    ablations.run(tmp_path, ("default", "no intra", "patches"), (0,), 3, progress=False)
    assert [(args[0].use_intra, args[0].epochs, args[3], args[6]) for args in trained] == [
        (False, 3, "regions", True),
        (True, 3, "patches", False),
    ]
    found = ablations.read(tmp_path)
    assert set(found) == {"default", "no intra", "patches"}
    assert found["patches"][0]["data"] == SCENES


def test_a_run_that_was_killed_while_it_moved_its_files_is_taken_up_too(tmp_path, trained):
    begin(tmp_path / "runs" / "default-0" / ".last.tgdt-old")
    ablations.run(tmp_path, ("default",), (0,), 3, progress=False)
    assert [args[6] for args in trained] == [True]


def judged_on(data):
    return made_with("default") | {"data": SCENES | data}


@pytest.mark.parametrize(
    "name, made, message",
    [
        ("no intra", made_with("no intra", 2), "no_intra-0.json differs in epochs .2 instead of 3"),
        ("no intra", made_with("default"), "no_intra-0.json differs in use_intra .True"),
        ("default", made_with("default", seed=4), "default-0.json differs in seed .4 instead of 0"),
        ("default", judged_on({"pictures to judge on": 250}), "to judge on .250 instead of 1000"),
        ("default", judged_on({"pictures to train on": 1500}), "to train on .1500"),
        ("default", judged_on({"kind of data": "photographs"}), "in kind of data .'photographs'"),
        ("default", {}, "default-0.json is no report of a variant for scenes"),
        ("random start", made_with("default"), "random_start-0.json is no report of a variant"),
    ],
)
def test_a_report_that_was_made_otherwise_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, name, made, message
):
    store(tmp_path, name, 500, **made)
    monkeypatch.setattr(ablations, "train_on_scenes", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        ablations.run(tmp_path, ("staged",), (1,), 3, progress=False)


def test_photographs_do_not_stand_beside_scenes_nor_beside_those_of_other_features(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ablations, "identity", lambda folder: "b" * 16)
    monkeypatch.setattr(ablations, "read_manifest", lambda folder: {"items": 6000})
    trained = {"training": asdict(ablations.settings("default", photos=True))}
    everything = SCENES | dict.fromkeys(("pictures to train on", "pictures to judge on"), "all")
    everything["kind of data"] = "photographs"
    for data, message in (
        (SCENES, "kind of data .'scenes' instead of 'photographs'"),
        (everything | {"features": "a" * 16}, "features .'a*' instead of 'b*'"),
        (everything, "features .None instead of 'b*'"),
    ):
        store(tmp_path, "default", 500, trained=trained, data=data)
        with pytest.raises(ValueError, match=message):
            ablations.run(tmp_path, ("default",), (0,), progress=False, features=tmp_path)
    store(tmp_path, "default", 500, trained=trained, data=everything | {"features": "b" * 16})
    ablations.run(tmp_path, ("default",), (0,), progress=False, features=tmp_path)
    with pytest.raises(ValueError, match="pictures to train on .'all' instead of '25%'"):
        ablations.run(tmp_path, ("default",), (0,), progress=False, features=tmp_path, share=0.25)


def test_the_shipped_reports_were_made_alike(tmp_path):
    """With all of them stored nothing is left to train; another budget is refused."""
    folder = shipped() / "results" / "ablations"
    ablations.run(folder, ablations.names_for(), (0, 1, 2), progress=False)
    with pytest.raises(ValueError, match="differs in epochs .8 instead of 9"):
        ablations.run(folder, ("default",), (0,), 9, progress=False)


def test_features_that_are_not_there_fail_before_anything_is_read(tmp_path, capsys):
    store(tmp_path, "default", 500, **made_with("default", 8))
    nowhere = str(tmp_path / "nowhere")
    command = ["ablate", "--variants", "default", "--out", tmp_path, "--features", nowhere]
    code, out, err = call(capsys, *command)
    assert code == 2 and "nowhere is no finished features folder" in err and not out


def test_reports_of_any_seed_are_read_in_the_order_of_seeds(tmp_path):
    for seed in (1000, 9, 10):
        path = ablations.path_of(tmp_path, "no intra", seed)
        path.write_text(json.dumps(report(400, seed)), encoding="utf-8")
    (tmp_path / "no_intra-first.json").write_text("mine", encoding="utf-8")
    assert [each["seed"] for each in ablations.read(tmp_path)["no intra"]] == [9, 10, 1000]


def test_a_damaged_report_is_named(tmp_path):
    ablations.path_of(tmp_path, "default", 0).write_text('{"rows": ', encoding="utf-8")
    with pytest.raises(ValueError, match="default-0.json is damaged"):
        ablations.read(tmp_path)


def test_the_command_trains_judges_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "QUICK", commands.QUICK | {"train": 70, "other": 20})
    command = ["ablate", "--variants", "staged", "--seeds", 3, "--quick", "--out", tmp_path]
    code, out, _ = call(capsys, *command)
    assert code == 0 and "staged, seed 3" in out and "| staged | global |" in out
    stored = json.loads(ablations.path_of(tmp_path, "staged", 3).read_text(encoding="utf-8"))
    assert [row["epoch"] for row in stored["history"]] == [1, 2]
    training = stored["trained"]["training"]
    assert (training["schedule"], training["seed"]) == ("staged", 3)


def test_an_unknown_recipe_on_the_command_line_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert cli.main(["ablate", "--variants", "nonsense", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: variant is 'nonsense'")


def test_a_seed_below_0_has_a_report_too(tmp_path):
    for seed in (2, -1, 10):
        ablations.path_of(tmp_path, "no intra", seed).write_text("{}", encoding="utf-8")
    (tmp_path / "no_intra-old.json").write_text("{}", encoding="utf-8")
    assert list(ablations._stored(tmp_path, "no intra")) == [-1, 2, 10]
