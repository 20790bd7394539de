"""What the README says and what the project ships agree."""

import json
import re
from pathlib import Path

import pytest
from test_scenes import reader_of_few

from tgdt_mini import bench, scenes
from tgdt_mini.bench import tables
from tgdt_mini.checkpoint import load_model
from tgdt_mini.reports import table as reporting
from tgdt_mini.runs import ablations
from tgdt_mini.scenes.grammar import related
from tgdt_mini.search.gallery import Gallery

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
RESULTS = TOP / "data" / "results"
ON_SCENES = sorted([*RESULTS.glob("*-[0-9].json"), *(RESULTS / "ablations").glob("*.json")])
ON_PHOTOGRAPHS = sorted((RESULTS / "photographs").rglob("*.json"))


def between(start, end):
    return README.split(start, 1)[1].split(end, 1)[0].strip()


def test_the_table_of_results_is_the_one_that_the_stored_reports_give():
    assert between("<!-- results -->", "<!-- end of results -->") == ablations.table(
        ablations.read(TOP / "data" / "results")
    )


def test_the_page_on_photographs_and_the_readme_have_the_tables_that_the_stored_reports_give():
    page = (TOP / "docs" / "photographs.md").read_text(encoding="utf-8")
    for mark, folder in (("photographs", "default"), ("photograph ablations", "ablations")):
        table = page.split(f"<!-- {mark} -->", 1)[1].split(f"<!-- end of {mark} -->", 1)[0].strip()
        assert table == ablations.table(ablations.read(RESULTS / "photographs" / folder))
    of_default = ablations.table(ablations.read(RESULTS / "photographs" / "default"))
    assert between("<!-- photographs -->", "<!-- end of photographs -->") == of_default


def test_the_table_of_speed_is_the_one_that_the_stored_report_gives_and_the_report_is_whole():
    report = bench.read(RESULTS / "bench.json")
    assert not report["quick"] and report["repeats"] >= 5 and report["machine"]["threads"] == 1
    assert list(report["curves"]) == [str(size) for size in bench.SIZES]
    assert {row["table"] for row in report["rows"]} == set(tables.TABLES)
    assert (
        report["million"]["size"] == 1_000_000
        and report["machine"]["faiss-cpu"]
        and report["machine"]["maxsim-cpu"]
    )
    assert between("<!-- bench -->", "<!-- end of bench -->") == tables.table(report)


def test_stored_reports_were_made_on_the_whole_test_split_by_the_recipe_that_their_name_says():
    assert ON_SCENES and ON_PHOTOGRAPHS
    for path in ON_SCENES + ON_PHOTOGRAPHS:
        report = json.loads(path.read_text(encoding="utf-8"))
        size = report["images"] if path in ON_PHOTOGRAPHS else report["scenes"]
        assert (report["split"], size) == ("test", 1000), path.name
        assert report["trained"]["training"]["seed"] == int(path.stem.rpartition("-")[2]), path.name


def test_every_stored_report_is_json_and_can_be_shown_as_evaluate_shows_it():
    def never(word):
        raise AssertionError(f"{word} is not JSON")

    for path in ON_SCENES + ON_PHOTOGRAPHS:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=never)
        shown = reporting.table(report).splitlines()
        for name, row in report["rows"].items():
            assert f"{name:12}" in {
                line[:12] for line in shown if line.endswith(f"{row['rsum']:8.1f}")
            }, path.name


def test_the_oracle_that_the_reports_and_the_readme_name_is_the_one_computed_now():
    oracle = scenes.oracle("test")
    for path in ON_SCENES:
        stored = json.loads(path.read_text(encoding="utf-8"))["oracle"]
        for way, row in oracle.items():
            assert list(stored[way].values()) == pytest.approx(list(row.values())), path.name
    assert (
        f"{oracle['i2t'][1]:.1f} from image to text and {oracle['t2i'][1]:.1f} from text to image"
        in README
    )
    plain = " ".join(README.split())
    assert f"rsum {sum(oracle['i2t'].values()) + sum(oracle['t2i'].values()):.1f}" in plain
    assert f"fewest objects reaches {reader_of_few('test'):.1f}" in plain
    card = " ".join((TOP / "data" / "README.md").read_text(encoding="utf-8").split())
    assert f"fewest objects has R@1 {reader_of_few('test'):.1f} from text to image" in card


def test_the_two_commands_are_one_line_each_and_install_before_they_run():
    for name, last in (("demo", "python -m tgdt_mini demo"), ("test", "python -m pytest")):
        lines = between(f"<!-- {name} command -->\n```sh", "```").splitlines()
        assert (
            len(lines) == 1
            and lines[0].endswith(last)
            and "pip install -r requirements.txt" in lines[0]
        )


def showing(query):
    """The test pictures that a query such as "a red star above a blue circle" is true of, by the
    scenes themselves.
    """
    one, other = re.fullmatch(r"a (\w+ \w+) above a (\w+ \w+)", query).groups()
    found = set()
    for number, scene in enumerate(scenes.scenes_of("test")):
        looks = [f"{thing.colour} {thing.shape}" for thing in scene.things]
        pairs = [
            (a, b)
            for a, x in enumerate(looks)
            for b, y in enumerate(looks)
            if (x, y) == (one, other)
        ]
        if any(related(scene, a, "above", b) for a, b in pairs):
            found.add(f"test-{number:04d}")
    return found


def test_the_example_in_python_runs_in_any_folder_and_its_first_hits_are_right(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    example = README.split("```python\n", 1)[1].split("```", 1)[0]
    names = {}
    exec(example, names)
    hits, (query,) = names["hits"].items[0], re.findall(r'\["(.+)"\]', example)
    assert len(hits) == 5 and str(hits[0]) in capsys.readouterr().out
    assert set(hits[:3]) < showing(query) and len(showing(query)) == 4, (
        "as the README says below the example"
    )


def test_the_first_query_has_an_answer_in_the_gallery_and_the_second_has_none():
    first, second = re.findall(r'tgdt_mini search "(.+)"', README)
    assert showing(first) and not showing(second)


def test_every_file_that_the_readme_points_to_exists():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README) + re.findall(
        r"--image (\S+\.png)", README
    )
    assert targets
    for target in targets:
        assert (TOP / target).exists(), target


def test_what_is_shipped_is_small_and_the_gallery_belongs_to_the_weights():
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(TOP / "data" / "weights") <= 8e6
    assert size(TOP / "data") <= 20e6
    model = load_model(TOP / "data" / "weights")
    gallery = Gallery.load(TOP / "data" / "gallery", expect_model=model.fingerprint)
    assert gallery.items == [f"test-{i:04d}" for i in range(scenes.SPLITS["test"][1])]
    assert model.notes["history"]


def test_the_shipped_model_is_the_seed_of_the_default_recipe_that_validation_data_prefers():
    paths = (TOP / "data" / "results").glob("default-*.json")
    trained = [json.loads(path.read_text(encoding="utf-8"))["trained"] for path in paths]
    best = max(trained, key=lambda each: each["validation_rsum"])
    notes = load_model(TOP / "data" / "weights").notes
    assert {name: notes[name] for name in best} == best
