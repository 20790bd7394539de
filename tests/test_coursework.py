"""The assignments: what students get, and what their tests say to right and to wrong answers."""

import base64
import importlib
import io
import json
import re
import subprocess
import sys
from functools import cache

import nbformat
import pytest
from coursework import FOLDER, Assignment, grade_id, is_a
from PIL import Image

NAMES = sorted(path.parent.name for path in FOLDER.glob("source/*/*.ipynb"))
STATED = re.compile(r"^##.*\((\d+) points\)$", re.M)


@cache
def assignment(name):
    return Assignment(name)


def answers_of(name):
    return getattr(importlib.import_module(f"coursework.{name}"), name)


def named(rows):
    return [(f"{row[0]}-{row[1]}" + (f"-{row[2].__name__}" if row[2:] else "")) for row in rows]


QUESTIONS = [(name, question) for name in NAMES for question in assignment(name).questions]
WRONG = [(name, *wrong) for name in NAMES for wrong in answers_of(name).wrongs]
RIGHT = [(name, *right) for name in NAMES for right in answers_of(name).rights]
each = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("name,question", QUESTIONS, ids=named(QUESTIONS))
def test_a_question_has_six_wrong_answers_and_two_right_ones(name, question):
    assert sum(wrong[:2] == (name, question) for wrong in WRONG) >= 6
    assert sum(right[:2] == (name, question) for right in RIGHT) >= 2


@pytest.mark.parametrize("name,question,answer,says", WRONG, ids=named(WRONG))
def test_a_wrong_answer_is_rejected_by_the_name_of_its_mistake(name, question, answer, says):
    with pytest.raises(AssertionError, match=re.escape(says)):
        assignment(name).judge(question, answer)


@pytest.mark.parametrize("name,question,answer", RIGHT, ids=named(RIGHT))
def test_a_right_answer_in_another_style_passes(name, question, answer):
    assert f"{question} passes" in assignment(name).judge(question, answer)


@each
def test_the_points_are_stated_at_each_question_and_add_up(name):
    cells, stated, given = assignment(name).source.cells, [], []
    for cell in cells:
        stated += [int(points) for points in STATED.findall(cell.source)]
        if is_a("grade", cell):
            given.append(cell.metadata.nbgrader.points)
            assert len(stated) == len(given), (
                f"{grade_id(cell)}: a heading such as ## 1 · ... (20 points)"
            )
    assert stated == given and sum(given) == 100
    for question, (_, test) in assignment(name).questions.items():
        assert f"| `{question}` | {test.metadata.nbgrader.points} |" in cells[0].source


def test_make_compares_a_release_with_what_nbgrader_makes_of_the_source(name=NAMES[0]):
    """One of them: test_coursework_round.py compares all with what nbgrader makes there."""
    pytest.importorskip("nbgrader")
    make = [sys.executable, str(FOLDER / "make.py"), name, "--check"]
    done = subprocess.run(make, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{name}/{name}.ipynb: the same"]


@each
def test_nothing_leaks_into_the_release(name):
    release = assignment(name).read("release")
    text = assignment(name).path("release").read_text(encoding="utf-8")
    secret, open_to_all = set(), set()
    for cell in assignment(name).source.cells:
        hidden = False
        for line in map(str.strip, cell.source.splitlines()):
            hidden = not line.startswith("### END") and (hidden or line.startswith("### BEGIN"))
            (secret if hidden else open_to_all).add(line)
    seen = {line.strip() for cell in release.cells for line in cell.source.splitlines()}
    assert len(secret) > 50 and not {line for line in secret - open_to_all if line in seen}
    assert "SOLUTION" not in text and "HIDDEN" not in text and "BEGIN" not in text
    for cell in release.cells:
        assert set(cell.metadata) <= {"nbgrader", "deletable", "editable"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@each
def test_a_solution_cell_holds_its_function_and_a_test_cell_imports_its_helpers(name):
    for question, (solution, test) in assignment(name).questions.items():
        assert f"def {question}(" in solution.source and '"""' in solution.source
        assert "raise NotImplementedError(" in solution.source.split("### END SOLUTION")[1]
        assert test.source.startswith("from tgdt_mini.coursework import check, only_own_code\n")
        assert "### BEGIN HIDDEN TESTS" in test.source
        assert test.source.rstrip().endswith(f'print("{question} passes.")')


@each
def test_a_source_is_tidy_and_was_run_in_order(name):
    source = assignment(name).source
    nbformat.validate(source)
    ids = [cell.id for cell in source.cells]
    assert len(set(ids)) == len(ids) and all(number.startswith(f"{name}-") for number in ids)
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert is_a("locked", code[0]), "the imports are put back before grading"
    for cell in code:
        assert max(map(len, cell.source.splitlines())) <= 110, cell.id
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|usr)/", cell.source), cell.id
        assert not re.search(r"^\s*[!%]|;\s*$", cell.source, re.M), cell.id


@each
def test_its_pictures_are_described_and_no_wider_than_the_page(name):
    count = 0
    for cell in assignment(name).source.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id
            if "image/png" in output.get("data", {}):
                count += 1
                assert len(output.metadata["image/png"]["alt"]) > 20
                picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                assert picture.width <= 1010
    assert count >= 5
    assert assignment(name).path("source").stat().st_size <= 300_000


def test_pytest_runs_the_sources_and_leaves_the_releases_alone():
    collect = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        str(FOLDER),
    ]
    done = subprocess.run(
        collect, capture_output=True, text=True, encoding="utf-8", cwd=FOLDER.parents[1]
    )
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected == {f"notebooks/assignments/source/{name}/{name}.ipynb" for name in NAMES}


def test_the_table_for_students_has_the_assignments_and_their_points():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        title = re.match(r"# (.+)", assignment(name).source.cells[0].source)[1]
        assert f"[{title}](release/{name}/{name}.ipynb)" in readme


def test_notebooks_are_stored_as_jupyter_stores_them():
    for path in FOLDER.glob("*/*/*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert (
            text
            == json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        )
