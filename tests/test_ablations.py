"""The ablation runner: what each recipe changes, what is stored, and that nothing is trained twice."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from tgdt_mini import ablations, cli, commands, experiments


def report(rsum, seed=0):
    row = {"i2t": {"1": rsum / 6}, "t2i": {"1": rsum / 8}, "rsum": rsum}
    ways = ("global", "local", "two-stage")
    return {"rows": dict.fromkeys(ways, row), "share_of_oracle": dict.fromkeys(ways, 50.0),
            "hard_pairs": dict.fromkeys(ways, 70.0), "grounding": {"right": 80.0}, "seed": seed}  # fmt: skip


def store(folder, name, *rsums):
    for seed, rsum in enumerate(rsums):
        path = ablations.path_of(folder, name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report(rsum, seed)), encoding="utf-8")


@pytest.mark.parametrize("name", ablations.RECIPES)
def test_a_recipe_differs_from_the_default_in_what_its_name_says(name):
    photos = name in ablations.PHOTOS_ONLY
    default, own = (asdict(ablations.settings(each, photos=photos)) for each in ("default", name))
    changed = {key for key in default if default[key] != own[key]}
    assert changed == {
        "default": set(), "patches": set(), "global only": {"use_local", "hard_captions"}, "no intra": {"use_intra"},
        "local only": {"use_global", "use_intra"}, "InfoNCE": {"inter"}, "mean hinge": {"inter"},
        "hardest": {"inter"}, "staged": {"recipe"}, "no hard captions": {"hard_captions"},
        "random start": {"start"},
    }[name]  # fmt: skip
    assert ablations.RECIPES[name][1] == ("patches" if name == "patches" else "regions")


def test_every_recipe_of_photographs_has_something_to_learn_in_each_epoch():
    names = ablations.names_for("features")
    assert names[0] == "default" and len(names) == 8 and "random start" in names
    for name in names:
        config = ablations.settings(name, photos=True)
        assert {config.stage_at(epoch) for epoch in range(config.epochs)} == {"joint"}  # no layers for stages apart


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
    store(tmp_path, "default", 500)
    begun = tmp_path / "runs" / "no_intra-0" / "last"
    begun.mkdir(parents=True)
    (begun / "state.json").write_text("{}", encoding="utf-8")
    seen = []

    def train(*args):
        seen.append(args)
        return SimpleNamespace(notes={"history": []})

    monkeypatch.setattr(experiments, "train_on_scenes", train)
    monkeypatch.setattr(experiments, "assess_on_scenes", lambda *args: (report(450), None, None))
    ablations.run(tmp_path, ("default", "no intra", "patches"), (0,), 3, progress=False)
    assert [(args[0].use_intra, args[0].epochs, args[3], args[6]) for args in seen] == [
        (False, 3, "regions", True),
        (True, 3, "patches", False),
    ]
    assert set(ablations.read(tmp_path)) == {"default", "no intra", "patches"}


def test_the_command_trains_judges_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "QUICK", commands.QUICK | {"train": 70, "other": 20})
    assert cli.main(["ablate", "--recipes", "staged", "--seeds", "3", "--quick", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "staged, seed 3" in out and "| staged | global |" in out
    stored = json.loads(ablations.path_of(tmp_path, "staged", 3).read_text(encoding="utf-8"))
    assert [row["epoch"] for row in stored["history"]] == [1, 2]
    assert stored["trained"]["training"]["recipe"] == "staged" and stored["trained"]["training"]["seed"] == 3


def test_an_unknown_recipe_on_the_command_line_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert cli.main(["ablate", "--recipes", "nonsense", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: recipe is 'nonsense'")
