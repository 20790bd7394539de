"""The ablation runner: what each recipe changes, what is stored, and that nothing is trained
twice.
"""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

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


SCENES = {
    "kind of data": "scenes",
    "pictures to train on": 6000,
    "pictures to judge on": 1000,
}


def made_with(name, epochs=3, **changes):
    """What a report of the scenes tells of its training."""
    return {
        "data": SCENES,
        "trained": {"training": asdict(ablations.settings(name, epochs=epochs)) | changes},
    }


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
            "global only": {"use_local", "hard_captions"},
            "no intra": {"use_intra"},
            "local only": {"use_global", "use_intra"},
            "InfoNCE": {"contrastive"},
            "mean hinge": {"contrastive"},
            "hardest": {"contrastive"},
            "staged": {"schedule"},
            "no hard captions": {"hard_captions"},
            "curriculum": {"contrastive"},
            "random start": {"start"},
            "curriculum from random": {"contrastive", "start"},
        }[name]
    )
    assert ablations.VARIANTS[name].kind == ("patches" if name == "patches" else "regions")


def test_every_recipe_of_photographs_has_something_to_learn_in_each_epoch():
    names = ablations.names_for("features")
    assert names[0] == "default" and len(names) == 9 and set(ablations.PHOTOS_ONLY) < set(names)
    for name in names:
        config = ablations.settings(name, photos=True)
        assert {config.stage_at(epoch) for epoch in range(config.epochs)} == {
            "joint"
        }  # no layers for stages apart


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


def test_what_is_stored_is_not_trained_again_and_a_begun_run_is_taken_up(tmp_path, monkeypatch):
    store(tmp_path, "default", 500, **made_with("default", precision="fp32"))
    begun = tmp_path / "runs" / "no_intra-0" / "last"
    begun.mkdir(parents=True)
    (begun / "state.json").write_text("{}", encoding="utf-8")
    seen = []

    def train(*args):
        seen.append(args)
        return SimpleNamespace(notes={"history": []})

    monkeypatch.setattr(ablations, "train_on_scenes", train)
    monkeypatch.setattr(ablations, "assess_on_scenes", lambda *args: (report(450), None, None))
    ablations.run(tmp_path, ("default", "no intra", "patches"), (0,), 3, progress=False)
    assert [(args[0].use_intra, args[0].epochs, args[3], args[6]) for args in seen] == [
        (False, 3, "regions", True),
        (True, 3, "patches", False),
    ]
    found = ablations.read(tmp_path)
    assert set(found) == {"default", "no intra", "patches"}
    assert found["patches"][0]["data"] == {
        "kind of data": "scenes",
        "pictures to train on": 6000,
        "pictures to judge on": 1000,
    }


def test_a_run_that_was_killed_while_it_moved_its_files_is_taken_up_too(tmp_path, monkeypatch):
    begun = tmp_path / "runs" / "default-0"
    (begun / ".last.tgdt-old").mkdir(parents=True)
    (begun / ".last.tgdt-old" / "state.json").write_text("{}", encoding="utf-8")
    seen = []
    monkeypatch.setattr(
        ablations,
        "train_on_scenes",
        lambda *args: seen.append(args[6]) or SimpleNamespace(notes={"history": []}),
    )
    monkeypatch.setattr(ablations, "assess_on_scenes", lambda *args: (report(450), None, None))
    ablations.run(tmp_path, ("default",), (0,), 3, progress=False)
    assert seen == [True]


@pytest.mark.parametrize(
    "name, made, message",
    [
        (
            "no intra",
            made_with("no intra", 2),
            "no_intra-0.json differs in epochs .2 instead of 3.*; choose another --out",
        ),
        (
            "no intra",
            made_with("default"),
            "no_intra-0.json differs in use_intra .True instead of False",
        ),
        ("default", made_with("default", seed=4), "default-0.json differs in seed .4 instead of 0"),
        (
            "default",
            made_with("default") | {"data": SCENES | {"pictures to judge on": 250}},
            "differs in pictures to judge on .250 instead of 1000",
        ),
        (
            "default",
            made_with("default") | {"data": SCENES | {"pictures to train on": 1500}},
            "in pictures to train on .1500",
        ),
        (
            "default",
            made_with("default") | {"data": {"kind of data": "photographs"}},
            "in kind of data .'photographs'",
        ),
        ("default", {}, "default-0.json is no report of a variant for scenes"),
        (
            "random start",
            made_with("default"),
            "random_start-0.json is no report of a variant for scenes",
        ),
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
    trained = {"training": asdict(ablations.settings("default", photos=True))}
    everything = {
        "kind of data": "photographs",
        "pictures to train on": "all",
        "pictures to judge on": "all",
    }
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
    """With all of them stored nothing is left to train, neither with the budget that made them;
    another is refused.
    """
    folder = shipped() / "results" / "ablations"
    ablations.run(folder, ablations.names_for(), (0, 1, 2), progress=False)
    with pytest.raises(ValueError, match="differs in epochs .8 instead of 9"):
        ablations.run(folder, ("default",), (0,), 9, progress=False)


def test_features_that_are_not_there_fail_before_anything_is_read(tmp_path, capsys):
    store(tmp_path, "default", 500, **made_with("default", 8))
    nowhere = str(tmp_path / "nowhere")
    assert (
        cli.main(["ablate", "--variants", "default", "--out", str(tmp_path), "--features", nowhere])
        == 2
    )
    said = capsys.readouterr()
    assert "nowhere is no finished features folder" in said.err and not said.out


def test_reports_of_any_seed_are_read_in_the_order_of_seeds(tmp_path):
    for seed in (1000, 9, 10):
        ablations.path_of(tmp_path, "no intra", seed).write_text(
            json.dumps(report(400, seed)), encoding="utf-8"
        )
    (tmp_path / "no_intra-first.json").write_text("mine", encoding="utf-8")
    assert [each["seed"] for each in ablations.read(tmp_path)["no intra"]] == [9, 10, 1000]


def test_a_damaged_report_is_named(tmp_path):
    ablations.path_of(tmp_path, "default", 0).write_text('{"rows": ', encoding="utf-8")
    with pytest.raises(ValueError, match="default-0.json is damaged"):
        ablations.read(tmp_path)


def test_the_command_trains_judges_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "QUICK", commands.QUICK | {"train": 70, "other": 20})
    assert (
        cli.main(
            ["ablate", "--variants", "staged", "--seeds", "3", "--quick", "--out", str(tmp_path)]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "staged, seed 3" in out and "| staged | global |" in out
    stored = json.loads(ablations.path_of(tmp_path, "staged", 3).read_text(encoding="utf-8"))
    assert [row["epoch"] for row in stored["history"]] == [1, 2]
    assert (
        stored["trained"]["training"]["schedule"] == "staged"
        and stored["trained"]["training"]["seed"] == 3
    )


def test_an_unknown_recipe_on_the_command_line_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert cli.main(["ablate", "--variants", "nonsense", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: variant is 'nonsense'")
