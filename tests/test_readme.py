"""What the README and the pages say agrees with what the project ships."""

import ast
import importlib.util
import json
import re
from pathlib import Path
from statistics import mean

import pytest
from helpers import tiny_model, tokenizer
from PIL import Image
from test_package import BOOK, WINGS
from test_scenes import reader_of_few

import tgdt_mini
from tgdt_mini import bench, scenes
from tgdt_mini.bench import tables
from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.commands.common import load_model as load_named
from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.reports import table as reporting
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.scenes.grammar import related
from tgdt_mini.search.gallery import Gallery

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
RESULTS = TOP / "data" / "results"
ON_SCENES = sorted([*RESULTS.glob("*-[0-9].json"), *(RESULTS / "ablations").glob("*.json")])
ON_PHOTOGRAPHS = sorted((RESULTS / "photographs").rglob("*.json"))
WAYS = "global", "local", "two-stage"
PARTS = [*"default,global only,local only,no intra,local term,shared maps,all words".split(",")]
STARTS = [*"default,InfoNCE,curriculum,mean hinge,random start,curriculum from random".split(",")]

spec = importlib.util.spec_from_file_location("refresh_docs", TOP / "docs" / "refresh.py")
refresh = importlib.util.module_from_spec(spec)
spec.loader.exec_module(refresh)
TABLES = refresh.tables()


def page(name):
    """The text of a page, its lines joined."""
    return " ".join((TOP / name).read_text(encoding="utf-8").split())


def reports(folder, name):
    """The stored reports of a recipe, seeds 0, 1 and 2."""
    stem = name.replace(" ", "_")
    paths = [RESULTS / folder / f"{stem}-{seed}.json" for seed in range(3)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def rsums(some, way):
    return [report["rows"][way]["rsum"] for report in some]


@pytest.mark.parametrize("name, mark", TABLES, ids=" ".join)
def test_each_table_of_the_pages_is_the_one_that_the_stored_reports_give(name, mark):
    text = (TOP / name).read_text(encoding="utf-8")
    assert refresh.inside(text, mark) == TABLES[name, mark], "run python docs/refresh.py"


def test_every_table_with_marks_is_one_that_refresh_knows():
    for path in (TOP / "README.md", *(TOP / "docs").glob("*.md"), *(TOP / "data").rglob("*.md")):
        name = path.relative_to(TOP).as_posix()
        ends = re.findall(r"<!-- end of (.+) -->", path.read_text(encoding="utf-8"))
        assert set(ends) == {mark for known, mark in TABLES if known == name}, name


def test_a_table_is_written_between_its_marks_and_nowhere_else():
    text = "a\n<!-- one -->\n<!-- end of one -->\nb\n<!-- two -->\nold\n<!-- end of two -->\nc\n"
    once = refresh.with_table(text, "one", "| 1 |")
    assert refresh.inside(once, "one") == "| 1 |" and refresh.inside(once, "two") == "old"
    assert refresh.with_table(refresh.with_table(once, "one", "| 2 |"), "one", "| 1 |") == once
    assert once.replace("| 1 |\n", "") == text
    with pytest.raises(ValueError, match="'three' are there 0 times"):
        refresh.inside(text, "three")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_map_shows_the_book_and_then_the_wings_and_each_room_is_there():
    rows = README.split("## Map of the code", 1)[1].split("\n## ", 1)[0]
    rooms = re.findall(r"^\| (`[^|]+`) \|", rows, re.M)
    names = [name for room in rooms for name in re.findall(r"`([^`]+)`", room)]
    assert names == [f"{name}.py" for name in BOOK] + [f"{name}/" for name in WINGS]
    home = Path(tgdt_mini.__file__).parent
    assert all((home / name).exists() for name in names)


def test_the_map_leads_to_what_readers_look_for():
    """(room, what its row says, a name that the module defines)"""
    home = Path(tgdt_mini.__file__).parent
    for row, words, module, name in (
        ("layers.py", "padding is masked", "layers.py", "Layers"),
        ("similarity.py", "padding is masked", "similarity.py", "local_similarity"),
        ("retrieval.py", "makes a shortlist", "retrieval.py", "best_by_global"),
        ("encoders/", "photograph becomes features", "encoders/vision.py", "VisionBackbone"),
        ("photos/", "features", "photos/feature_folder.py", "extract"),
        ("scaling/", "second process joins", "scaling/distributed.py", "joined"),
    ):
        line = next(line for line in README.splitlines() if re.match(rf"\| [^|]*`{row}`", line))
        assert words in line.replace("*", "") and module in line, row
        tree = ast.parse((home / module).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", "") for node in tree.body}, module


def test_the_short_table_of_speed_has_three_rows_of_the_benchmark():
    rows = TABLES["README.md", "speed"].splitlines()[2:]
    found = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    report = bench.read(RESULTS / "bench.json")
    assert [int(row[0].replace(",", "")) for row in found] == list(bench.SIZES)
    for size, *cells in found:
        measured = [float(cell.removesuffix(" ms").replace(",", "")) for cell in cells]
        disk, compact = (
            next(
                row
                for row in report["rows"]
                if row["what"].startswith(f"{size} images, from disk, locals {precision}")
                and row["peer"] == "faiss flat + numpy, float16 mapped"
            )
            for precision in ("float16", "int8")
        )
        full = f"{size} images, two stages from disk, K 100"
        full = next(row["theirs"] for row in report["rows"] if row["what"] == full)
        wanted = [disk["ours"], compact["ours"], disk["theirs"], full]
        assert measured == pytest.approx(wanted, rel=0.01)


def test_the_stored_benchmark_is_a_whole_one():
    report = bench.read(RESULTS / "bench.json")
    assert not report["quick"] and report["repeats"] >= 5 and report["machine"]["threads"] == 1
    assert list(report["curves"]) == [str(size) for size in bench.SIZES]
    assert {row["table"] for row in report["rows"]} == set(tables.TABLES)
    assert report["million"]["size"] == 1_000_000
    assert report["machine"]["faiss-cpu"] and report["machine"]["maxsim-cpu"]


def test_the_text_above_the_benchmark_says_what_it_measured():
    report = bench.read(RESULTS / "bench.json")
    released, plain, *_ = [row["ratio"] for row in report["rows"] if row["table"] == "Evaluation"]
    assert released > 10 and plain > 5
    engines = {(row["engine"], row["size"]): row for row in report["engines"]}
    screen = engines["screen, exact", 100_000]
    assert screen["recall"] == 100
    for (name, size), row in engines.items():
        if size == 100_000 and name != "screen, exact" and row["recall"] >= 80:
            assert row["ms"] > screen["ms"], name
    for size in (10_000, 100_000):
        assert 40 < engines["faiss ivf, 16", size]["recall"] < 60
        for kind, less, more in (("ivf", 16, 64), ("hnsw", 128, 512)):
            few, many = (engines[f"faiss {kind}, {effort}", size] for effort in (less, more))
            assert few["recall"] < many["recall"] and few["ms"] < many["ms"], kind
    ten = [row for row in report["rows"] if row["table"] == "Ten lines"]
    same = [re.search(r"([\d.]+)% of the first ten", row["what"]) for row in ten]
    same = [float(match[1]) for match in same if match]
    assert len(same) == 6 and min(same) >= 99
    half = {row["what"]: row["ours"] for row in ten if row["peer"].endswith("mapped")}
    for size in ("1,000", "10,000", "100,000"):
        large, compact = (ms for what, ms in half.items() if what.startswith(f"{size} images"))
        assert compact < large


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
            ends = f"{row['rsum']:8.1f}"
            assert f"{name:12}" in {line[:12] for line in shown if line.endswith(ends)}, path.name


def test_the_oracle_that_the_reports_and_the_pages_name_is_the_one_computed_now():
    oracle = scenes.oracle("test")
    for path in ON_SCENES:
        stored = json.loads(path.read_text(encoding="utf-8"))["oracle"]
        for way, row in oracle.items():
            assert list(stored[way].values()) == pytest.approx(list(row.values())), path.name
    i2t, t2i = (list(oracle[way].values()) for way in ("i2t", "t2i"))
    few = f"{reader_of_few('test'):.1f}"
    text, card = page("docs/results.md"), page("data/README.md")
    said = re.search(
        r"R@1 ([\d.]+) from image to text and ([\d.]+) from text.*? rsum ([\d.]+)", text
    )
    assert said.groups() == (f"{i2t[0]:.1f}", f"{t2i[0]:.1f}", f"{sum(i2t) + sum(t2i):.1f}.")
    assert re.search(r"fewest objects reaches ([\d.]+) from", text)[1] == few
    assert re.search(r"fewest objects has R@1 ([\d.]+) from", card)[1] == few
    for way, recalls in (("image to text", i2t), ("text to image", t2i)):
        assert f"{way} {' / '.join(f'{value:.1f}' for value in recalls)}" in card


def test_the_text_on_scenes_says_what_the_reports_hold():
    text, default = page("docs/results.md"), reports("", "default")
    two, full = rsums(default, "two-stage"), rsums(default, "full mixed")
    alone = [rsums(default, way) for way in ("global", "local")]
    assert all(both > max(ways) for both, *ways in zip(two, *alone))
    gain = mean(both - one for both, one in zip(two, alone[0]))
    assert f"gain {gain:.0f} points on the global score" in text
    assert max(whole - both for whole, both in zip(full, two)) <= 0.25
    pairs = {way: mean(report["hard_pairs"][way] for report in default) for way in WAYS}
    assert f"{pairs['local']:.1f}% against {pairs['two-stage']:.1f}%" in text
    assert f"local score has {pairs['local']:.0f}%, the global score {pairs['global']:.0f}%" in text
    right = [report["grounding"]["right"] for report in default]
    assert {f"{value:.0f}% of the words about" for value in right} == {"91% of the words about"}
    assert "91% of the words about an object pick a region of it" in text
    assert f"| {default[0]['grounding']['chance']:.1f} |" in text
    words = json.loads(refresh.SHIPPED.read_text(encoding="utf-8"))["grounding"]
    assert f"is right for {words['oracle']:.1f}% of the words" in text
    assert f"one object alone ({words['settled']:.1f}% of the words)" in text
    assert f"is right for {words['settled right']:.1f}%." in text


def test_the_text_on_ablations_says_what_the_reports_hold():
    text = page("docs/results.md")
    by_name = {path.stem[:-2]: path for path in (RESULTS / "ablations").glob("*-0.json")}
    runs = {name: reports("ablations", name) for name in by_name}
    rsum = {name: {way: rsums(some, way) for way in WAYS} for name, some in runs.items()}
    pairs = {
        name: {way: [report["hard_pairs"][way] for report in some] for way in WAYS}
        for name, some in runs.items()
    }
    middle = {name: {way: mean(rsum[name][way]) for way in WAYS} for name in runs}
    default, two = rsum["default"], "two-stage"

    def lost(name, way):
        """What a recipe lacks of the default's mean rsum."""
        return middle["default"][way] - middle[name][way]

    def three(values, form="{:.0f}"):
        return "{}, {} and {}".format(*(form.format(value) for value in values))

    def falls(name):
        return [whole - part for whole, part in zip(default[two], rsum[name][two])]

    assert all(len(some) == 3 for some in runs.values())
    reached = middle["default"]["global"], middle["global_only"]["global"]
    assert "reaches rsum {:.0f} in the default, and {:.0f} where".format(*reached) in text
    assert f"Two stages reach {middle['default'][two]:.0f}." in text
    assert f"**A token for the ground** is worth {three(falls('no_ground'))} points" in text
    assert f"**The term on both scores** is worth {three(falls('local_term'))} points" in text
    assert min(falls("no_ground") + falls("local_term")) > 0, "with every seed"
    without, whole = (mean(pairs[name]["local"]) for name in ("no_hard_captions", "default"))
    assert f"loses {whole - without:.0f} points of hard pairs ({without:.1f}% instead of" in text
    assert f"two stages lose {lost('no_hard_captions', two):.0f} points of rsum" in text
    both = three(rsum["AdamW"][two]), three(default[two])
    assert "AdamW**, which reaches {}, against {}.".format(*both) in text
    assert min(falls("AdamW")) > 10
    local = three(rsum["local_only"]["local"]), three(default["local"])
    assert "has rsum {} by its local score, against {}.".format(*local) in text
    assert max(rsum["hardest"][two]) < 12 and abs(lost("InfoNCE", two)) < 2
    reached = middle["mean_hinge"][two], middle["default"][two]
    assert "reach rsum {:.0f} instead of {:.0f}".format(*reached) in text
    assert f"lower by {three(falls('no_intra'), '{:.1f}')} points" in text
    assert min(falls("no_intra")) < 0 < max(falls("no_intra"))
    assert f"is {lost('staged', two):.0f} points of rsum behind" in text
    assert f"**patches** are {lost('patches', two):.0f} points behind" in text


def test_the_text_on_photographs_says_what_the_reports_hold():
    text, default = page("docs/results.md"), reports("photographs/default", "default")
    two, one = rsums(default, "two-stage"), rsums(default, "global")
    gains = [both - alone for both, alone in zip(two, one)]
    assert "{:.1f}, {:.1f} and {:.1f} with the three seeds".format(*gains) in text
    agree = {f"{report['score_correlation']:.2f}" for report in default}
    assert len(agree) == 1 and f"correlate by {agree.pop()}" in text
    games = [report["pointing"] for report in default]
    for unit in ("content words", "phrases"):
        right = mean(game[unit]["right"] for game in games)
        assert f"{right:.1f}% of the {unit}" in text
        assert f"the centre {games[0][unit]['centre']:.1f}%" in text
        assert all(game[unit]["right"] > game[unit]["centre"] + 3 for game in games)
        assert all(game[unit]["centre"] == games[0][unit]["centre"] for game in games)
    assert f"a cell at random {games[0]['phrases']['random']:.1f}%" in text
    lost = [two - whole for two, whole in zip(two, rsums(default, "full mixed"))]
    assert f"{min(lost):+.1f} to {max(lost):+.1f} points of rsum from scoring everything" in text
    seconds = sorted(report["trained"]["seconds"] for report in default)
    assert f"{seconds[0]} to {seconds[-1]} seconds" in text
    chosen = [report["trained"]["validation_rsum"] for report in default]
    assert "{:.1f}, {:.1f} and {:.1f}".format(*chosen) in text


def test_the_text_on_the_parts_for_photographs_says_what_the_reports_hold():
    text = page("docs/results.md")
    runs = {name: reports("photographs/ablations", name) for name in PARTS}
    default = rsums(runs["default"], "two-stage")
    for name in set(PARTS) - {"default", "local term"}:
        lost = [a - b for a, b in zip(default, rsums(runs[name], "two-stage"))]
        assert "{:.1f}, {:.1f} and {:.1f}".format(*lost) in text, name
    won = [b - a for a, b in zip(default, rsums(runs["local term"], "two-stage"))]
    assert "{:.1f} points lower, {:.1f} and {:.1f} higher".format(-won[0], *won[1:]) in text
    agree = {f"{report['score_correlation']:.2f}" for report in runs["shared maps"]}
    assert len(agree) == 1 and f"correlation {agree.pop()}" in text
    for report in runs["shared maps"]:
        assert abs(report["rows"]["two-stage"]["rsum"] - report["rows"]["global"]["rsum"]) < 0.5
        words = report["pointing"]["content words"]
        assert words["right"] < words["centre"]


def test_the_text_on_starts_and_negatives_for_photographs_says_what_the_reports_hold():
    text = page("docs/results.md").partition("### Start and negatives on photographs")[2]
    found = {name: rsums(reports("photographs/ablations", name), "two-stage") for name in STARTS}
    for name in ("curriculum", "InfoNCE", "mean hinge"):
        lost = [a - b for a, b in zip(found["default"], found[name])]
        assert "{:.1f}, {:.1f} and {:.1f}".format(*lost) in text, name
    more = mean(found["curriculum from random"]) / mean(found["random start"])
    assert f"{more:.1f} times" in " ".join(text.split())


def between(start, end):
    return README.split(start, 1)[1].split(end, 1)[0].strip()


def test_the_two_commands_are_one_line_each_and_install_before_they_run():
    for name, last in (("demo", "python -m tgdt_mini demo"), ("test", "python -m pytest")):
        lines = between(f"<!-- {name} command -->\n```sh", "```").splitlines()
        assert len(lines) == 1 and lines[0].endswith(last)
        assert "pip install -r requirements.txt" in lines[0]


def showing(query):
    """The test pictures that a query such as "a red star above a blue circle" is true of, by the
    scenes themselves.
    """
    upper, lower = re.fullmatch(r"a (\w+ \w+) above a (\w+ \w+)", query).groups()
    names = set()
    for number, scene in enumerate(scenes.scenes_of("test")):
        looks = [f"{thing.colour} {thing.shape}" for thing in scene.things]
        pairs = [
            (a, b)
            for a, look in enumerate(looks)
            for b, other in enumerate(looks)
            if (look, other) == (upper, lower)
        ]
        if any(related(scene, a, "above", b) for a, b in pairs):
            names.add(f"test-{number:04d}")
    return names


def test_the_example_in_python_runs_in_any_folder_and_its_first_hits_are_right(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    example = README.split("```python\n", 1)[1].split("```", 1)[0]
    names = {}
    exec(example, names)
    hits, (query,) = names["hits"].items[0], re.findall(r'search\("(.+)", k', example)
    assert len(hits) == 5 and str(hits[0]) in capsys.readouterr().out
    assert showing(query) < set(hits) and len(showing(query)) == 4, (
        "as the README says below the example"
    )


def test_the_first_query_has_an_answer_in_the_gallery_and_the_second_has_none():
    first, second, _ = re.findall(
        r'tgdt_mini search "(.+)"', README
    )  # the third is for photographs
    assert showing(first) and not showing(second)


def test_what_is_shipped_is_small_and_the_gallery_belongs_to_the_weights():
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(TOP / "data" / "weights" / "photographs") <= 8e6
    assert size(TOP / "data" / "weights") <= 14e6
    assert size(TOP / "data") <= 20e6
    model = load_model(TOP / "data" / "weights")
    gallery = Gallery.load(TOP / "data" / "gallery", expect_model=model.fingerprint)
    assert gallery.items == [f"test-{i:04d}" for i in range(scenes.SPLITS["test"][1])]
    assert model.notes["history"]


def test_the_shipped_model_is_the_seed_of_the_default_recipe_that_validation_data_prefers():
    trained = [report["trained"] for report in reports("", "default")]
    best = max(trained, key=lambda run: run["validation_rsum"])
    notes = load_model(TOP / "data" / "weights").notes
    assert {name: notes[name] for name in best} == best
    shown = json.loads(refresh.SHIPPED.read_text(encoding="utf-8"))
    assert shown["trained"] == best, "the report that the model card's table is made of"


def test_the_model_card_says_what_the_weights_and_their_report_hold():
    card, model = page("data/weights/README.md"), load_model(TOP / "data" / "weights")
    report = json.loads(refresh.SHIPPED.read_text(encoding="utf-8"))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"about {millions:.1f} million parameters" in card
    seed = model.notes["training"]["seed"]
    assert f"train --seed {seed} " in card
    assert f"{model.notes['seconds']} seconds" in card
    assert f"({model.notes['validation_rsum']:.1f})" in card
    chosen = stored_settings(model)
    assert f"local weight {chosen.local_weight}" in card
    lengths = chosen.shortlist["caption"], chosen.shortlist["image"]
    assert "shortlist of {} for a caption and one of {} for an image".format(*lengths) in card
    assert f"{report['grounding']['right']:.1f}% of the words" in card
    assert f"several objects reaches {report['grounding']['oracle']:.1f}%." in card
    missed = 100 - report["rows"]["two-stage"]["t2i"]["1"]
    assert missed == pytest.approx(20, abs=1), "one caption in five, as card and README say"


def test_the_shipped_model_for_photographs_is_what_its_card_and_its_report_say():
    folder = TOP / "data" / "weights" / "photographs"
    card, model = page("data/weights/photographs/README.md"), load_model(folder)
    report = json.loads(refresh.SHIPPED_FOR_PHOTOGRAPHS.read_text(encoding="utf-8"))
    trained = [each["trained"] for each in reports("photographs/default", "default")]
    best = max(trained, key=lambda run: run["validation_rsum"])
    assert report["trained"] == best, "the seed that validation data prefers"
    assert {name: model.notes[name] for name in best} == best
    assert model.notes["history"] and model.tokenizer is not None
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"about {millions:.1f} million parameters" in card
    seed = best["training"]["seed"]
    assert f"train --features runs/flickr8k/features --seed {seed} " in card
    assert f"{best['seconds']} seconds" in card and f"rsum ({best['validation_rsum']:.1f})" in card
    chosen = stored_settings(model)
    lengths = chosen.shortlist["caption"], chosen.shortlist["image"]
    assert f"local weight {chosen.local_weight}, a shortlist of {lengths[0]} for a caption" in card
    assert f"one of {lengths[1]} for an image" in card
    for unit in ("content words", "phrases"):
        game = report["pointing"][unit]
        assert f"{game['right']:.1f}%" in card and f"{game['centre']:.1f}%" in card
    # no path of the machine that trained it
    for source in ("image_source", "text_source"):
        assert model.config.reader_settings[source]["source"] in (LITE, MINILM)


def test_the_name_photographs_stands_for_the_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped_one = load_model(TOP / "data" / "weights" / "photographs")
    assert load_named(Path("photographs"), "cpu").fingerprint == shipped_one.fingerprint
    save_model(tiny_model(), tmp_path / "photographs", tokenizer())
    mine = load_named(Path("photographs"), "cpu")  # a folder of one's own goes first
    assert mine.fingerprint == load_model(tmp_path / "photographs").fingerprint


def test_the_version_is_the_same_everywhere():
    for name, pattern in (
        ("pyproject.toml", r'^version = "(.+)"'),
        ("CITATION.cff", r"^version: (.+)"),
    ):
        text = (TOP / name).read_text(encoding="utf-8")
        assert re.search(pattern, text, re.M)[1] == tgdt_mini.__version__, name


def test_the_citation_names_project_and_paper():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["authors"] == [{"name": "TGDT mini contributors"}] and cited["cff-version"]
    (paper,) = cited["references"]
    assert (paper["doi"], paper["year"]) == ("10.1109/TIP.2023.3286710", 2023)
    assert paper["authors"][0]["family-names"] == "Liu" and len(paper["authors"]) == 8


def test_the_searches_of_scenes_all_succeed_and_are_as_wide_as_stored(tmp_path):
    assert refresh.scene_searches(tmp_path / "searches.png") == [True] * 4
    with (
        Image.open(tmp_path / "searches.png") as drawn,
        Image.open(TOP / "data" / "searches.png") as stored,
    ):
        assert abs(drawn.width - stored.width) < 20 and abs(drawn.height - stored.height) < 20


def test_the_searches_of_photographs_show_three_that_succeed_and_one_that_fails(tmp_path):
    first = refresh.photograph_searches(tmp_path / "searches.png")
    assert first == [True, True, True, False]
    with (
        Image.open(tmp_path / "searches.png") as drawn,
        Image.open(TOP / "data" / "photographs" / "searches.png") as stored,
    ):
        assert abs(drawn.width - stored.width) < 20 and abs(drawn.height - stored.height) < 20
