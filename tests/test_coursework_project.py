"""The project's page: its commands, its Python and its formats are those of the package."""

import importlib.util
import json
import re
import shlex

import pytest
from coursework import FOLDER
from PIL import Image

from tgdt_mini import cli
from tgdt_mini.photos.sources import open_source

PROJECT = FOLDER / "project"
README = (PROJECT / "README.md").read_text(encoding="utf-8")
spec = importlib.util.spec_from_file_location("baseline", PROJECT / "baseline.py")
baseline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(baseline)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands():
    """The words of each command line of the page, joined where a backslash breaks it."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.fixture
def photographs(tmp_path):
    """A folder as the page describes it, with its two examples and one more."""
    lines = [json.loads(line) for line in blocks("json")[0].splitlines()]
    lines.append(lines[0] | {"file_name": "dog.jpg", "part": "validation"})
    for number, line in enumerate(lines):
        Image.new("RGB", (16, 16), (100 * number, 0, 0)).save(tmp_path / line["file_name"])
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(text + "\n", encoding="utf-8")
    return tmp_path


def test_the_commands_are_understood():
    words = commands()
    package = [line[line.index("tgdt_mini") + 1 :] for line in words if "tgdt_mini" in line]
    assert len(package) >= 5
    for line in package:
        if "--help" not in line:
            assert callable(cli.parser().parse_args(line).run), line
    for line in words:
        if str(line[1]).endswith("baseline.py"):
            options = dict(word[2:].split("=") for word in line if "=" in word)
            data = ["extract", "--data", "x", *shlex.split(options.get("extract", ""))]
            assert callable(cli.parser().parse_args(data).run)
            train = ["train", *shlex.split(options.get("train", ""))]
            assert callable(cli.parser().parse_args(train).run)


def test_the_python_of_the_page_names_what_is_there():
    for text in blocks("python"):
        names = {}
        exec(text, names)
        assert {"found", "told_apart"} & set(names)


def test_links_lead_somewhere_and_the_rubric_adds_up():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target
    points = [int(number) for number in re.findall(r"^\| \w+ \| (\d+) \|", README, re.M)]
    assert len(points) == 6 and sum(points) == 100


def test_the_folder_is_read_as_the_page_writes_it(photographs):
    records = open_source(str(photographs), columns={"split": "part"})
    assert {part: len(rows) for part, rows in records.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    assert records["train"]["captions"][0][1] == "two boats at a stone pier"
    assert records["test"]["image_id"][0] == "lunch.jpg"
    assert baseline.train_pictures(photographs) == 1


def test_karpathys_form_is_read_too(photographs):
    form = re.search(r'`(\{"images": .*?\]\}\]\})`', README, re.S)[1].replace("\n", " ")
    entry = json.loads(form.replace('"..."', '"a boat"'))["images"][0]
    images = [entry, entry | {"filename": "dog.jpg", "split": "val"}]
    path = photographs / "photographs.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    records = open_source(str(path), images=photographs)
    assert list(records) == ["train", "validation"]


def test_the_baseline_runs_three_seeds_and_tells_the_mean(photographs, monkeypatch, capsys):
    seen = []

    def run(*words):
        seen.append([str(word) for word in words])
        out = words[words.index("--out") + 1]
        if words[0] == "train":
            (out / "model").mkdir(parents=True)
        if words[0] == "evaluate":
            seed = int(out.parent.name)
            row = {"i2t": {"1": 10.0 + seed}, "t2i": {"1": 20.0}, "rsum": 200.0 + 10 * seed}
            out.mkdir()
            rows = {name: row for name in ("global", "local", "two-stage")}
            report = json.dumps({"rows": rows, "images": 7})
            (out / "results.json").write_text(report, encoding="utf-8")

    monkeypatch.setattr(baseline, "run", run)
    monkeypatch.setattr(baseline, "train_pictures", lambda folder: 150)
    arguments = ["baseline.py", str(photographs), "--out", str(photographs / "runs")]
    monkeypatch.setattr("sys.argv", [*arguments, "--extract=--side 288", "--train=--epochs 3"])
    baseline.main()
    assert [words[0] for words in seen] == ["extract"] + ["train", "evaluate"] * 3
    assert seen[0][-4:-2] == ["--side", "288"] and "75" in seen[1] and "--epochs" in seen[1]
    for words in seen:
        assert callable(cli.parser().parse_args(words).run)
    said = capsys.readouterr().out
    assert "validation: 7 pictures" in said and "11.0 ± 1.0" in said and "210.0 ± 10.0" in said
    seen.clear()
    monkeypatch.setattr("sys.argv", [*arguments, "--split", "test"])
    baseline.main()
    assert [words[0] for words in seen] == ["extract"] + [
        "evaluate"
    ] * 3  # nothing is trained again


def test_what_the_baseline_cannot_work_with_is_named(photographs, monkeypatch, capsys):
    for folder, says in ((photographs, "1 pictures"), (photographs / "none", "no metadata.jsonl")):
        monkeypatch.setattr("sys.argv", ["baseline.py", str(folder)])
        with pytest.raises(SystemExit):
            baseline.main()
        assert says in capsys.readouterr().err
