"""A whole round with the real nbgrader: hand in, grade, feedback, grades; nothing else changes."""

import csv
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from coursework import FOLDER, cell_of, grade_id, is_a
from test_coursework import NAMES, answers_of, assignment

pytest.importorskip("nbgrader")
TOP = FOLDER.parents[1]
CRASHES = {  # student -> {question: (its solution's cell, what the graded notebook says)}
    # loops that never end sleep between two rounds, which leaves the processor to other tests
    "crashes": {
        "word_pieces": (
            "import time\ncalls = []\n"
            "def word_pieces(*_, **__):  # the first call never ends, others do\n"
            "    calls.append(1)\n    while len(calls) == 1:\n        time.sleep(0.01)",
            "CellTimeoutError",
        ),
        "pad": ("def pad(*_, **__):\n    return bytearray(20 * 2**30)", "MemoryError"),
        "masked_mean": (
            "import os, shutil\nshutil.rmtree({folder!r}, ignore_errors=True)\nos.remove({file!r})",
            "refused while a submission is graded",
        ),
    },
    "takes Python down": {
        "box_geometry": ("import os\nos._exit(1)", "took Python down"),
        "patches": (
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "while True:\n    time.sleep(0.01)",
            "took Python down",
        ),
    },
}
PEEK = """
import os, sqlite3
from pathlib import Path
import tgdt_mini

notebooks = Path(tgdt_mini.__file__).parents[1] / "notebooks" / "assignments"
found = []
for place in (Path.cwd(), Path.cwd().parent, notebooks, Path({course!r}), Path({handed_in!r})):
    for name in ("a1.ipynb", "source/a1/a1.ipynb", "crashes/a1/a1.ipynb", "gradebook.db"):
        try:
            found.append((place / name).read_bytes())
        except OSError as error:
            print(type(error).__name__)
try:
    sqlite3.connect(Path({course!r}) / "gradebook.db")
except OSError as error:
    print(type(error).__name__)
print("found", len(found), os.listdir("."), "SECRET" in os.environ)
"""


def tree(*folders):
    """{file: what it holds}, without what Python and pytest keep for themselves."""
    paths = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if not {"__pycache__", ".pytest_cache", ".ipynb_checkpoints"} & set(path.parts)
    }


def hand_in(folder, student, name, solutions, change=lambda book: None):
    """Write a submission: the release with the cells of some questions replaced."""
    book = assignment(name).read("release")
    for cell in book.cells:
        if is_a("solution", cell) and grade_id(cell) in solutions:
            cell.source = solutions[grade_id(cell)]
    change(book)
    path = folder / student / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(book, path)


def right(name):
    return {question: cells[0].source for question, cells in assignment(name).questions.items()}


def wrong(name):
    answers = {}
    for question, answer, _ in reversed(answers_of(name).wrongs):
        answers[question] = cell_of(answer, question)
    return answers


def half(name):
    """Every other question is answered right, and the others wrong."""
    return wrong(name) | {question: right(name)[question] for question in right_half(name)}


def right_half(name):
    return list(assignment(name).questions)[::2]


def points(name, questions=None):
    """The points of some questions of an assignment that tests grade, or of all of them."""
    cells = assignment(name).questions
    return sum(cells[question][1].metadata.nbgrader.points for question in questions or cells)


def weaken(book):
    """Tests that say nothing, or are gone: what a student may do to the notebook."""
    graded = [cell for cell in book.cells if is_a("grade", cell)]
    for cell in graded:
        cell.source = "pass"
    book.cells.remove(graded[0])
    book.cells.remove(next(cell for cell in book.cells if is_a("solution", cell)))
    graded[-1].cell_type = "raw"
    del graded[-1]["outputs"], graded[-1]["execution_count"]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Two course folders after grading, and what the commands said: of "calm" and "crashing" ones.

    Those that crash are graded meanwhile, since their cells wait for the limit of time.
    """
    top = tmp_path_factory.mktemp("instructor")
    handed_in = {kind: top / kind for kind in ("calm", "crashing")}
    out = {kind: top / "courses" / kind for kind in handed_in}
    victim = top / "marks of last year"
    (victim / "a").mkdir(parents=True)
    (victim / "a" / "file.txt").write_text("still here", encoding="utf-8")
    for name in NAMES:
        hand_in(handed_in["calm"], "half", name, half(name))
        hand_in(handed_in["calm"], "empty", name, {})
    hand_in(handed_in["calm"], "right", "a1", right("a1"))
    hand_in(handed_in["calm"], "wrong", "a1", wrong("a1"))
    cells = right("a1")
    peek = PEEK.format(course=str(out["crashing"]), handed_in=str(handed_in["crashing"]))
    cells["pad"] = peek + cells["pad"]  # in the one of them whose `pad` does not crash
    for student, crashes in CRASHES.items():
        places = {"folder": str(victim), "file": str(victim / "a" / "file.txt")}
        hand_in(
            handed_in["crashing"],
            student,
            "a1",
            cells | {question: cell.format(**places) for question, (cell, _) in crashes.items()},
        )
    hand_in(handed_in["calm"], "weakens the tests", "a1", {}, weaken)
    broken = handed_in["calm"] / "broken" / "a1" / "a1.ipynb"
    broken.parent.mkdir(parents=True)
    broken.write_text("no notebook", encoding="utf-8")
    before = tree(FOLDER, TOP / "tgdt_mini", TOP / "data", top)
    running = {kind: grading(handed_in[kind], out[kind]) for kind in handed_in}
    said = {kind: process.communicate() for kind, process in running.items()}
    after = tree(FOLDER, TOP / "tgdt_mini", TOP / "data", top)
    assert {path: after.get(path) for path in before} == before, "a submission changed a file"
    assert all(top / "courses" in path.parents for path in set(after) - set(before))
    return {
        kind: (out[kind], subprocess.CompletedProcess([], running[kind].returncode, *said[kind]))
        for kind in said
    }


@pytest.fixture
def course(rounds):
    """(the course folder after grading, what the command said)."""
    return rounds["calm"]


@pytest.fixture
def crashed(rounds):
    """The course folder of those that crash."""
    return rounds["crashing"][0]


def grading(handed_in, out):
    """The running command, as an instructor calls it."""
    command = [sys.executable, str(FOLDER / "grade.py"), str(handed_in), "--out", str(out)]
    options = {"text": True, "encoding": "utf-8", "env": os.environ | {"SECRET": "a password"}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--seconds", "15"], **options, **pipes)


def grades(out):
    with open(out / "grades.csv", encoding="utf-8") as file:
        return {
            (row["assignment"], row["student_id"]): float(row["score"])
            for row in csv.DictReader(file)
        }


def graded(out, student, name="a1"):
    return nbformat.read(out / "autograded" / student / name / f"{name}.ipynb", as_version=4)


def said(book, kind=None):
    """What the outputs of a notebook say, or those of the cell of this id."""
    texts = [
        output.get("text", "") + output.get("ename", "") + output.get("evalue", "")
        for cell in book.cells
        if kind in (None, grade_id(cell))
        for output in cell.get("outputs", [])
    ]
    return "\n".join(texts)


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_get_their_points_wrong_and_missing_ones_none(course, name):
    out, done = course
    given = grades(out)
    assert given[name, "half"] == points(name, right_half(name)), done.stdout + done.stderr
    assert 0 < given[name, "half"] < points(name)
    assert given[name, "empty"] == 0
    if name == "a1":
        assert given[name, "right"] == points(name) == 100 and given[name, "wrong"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_release_fails_in_the_graded_cells_alone_and_says_what_to_do(course, name):
    out, _ = course
    questions = assignment(name).questions
    errors = {
        grade_id(cell): output
        for cell in graded(out, "empty", name).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }
    assert set(errors) == {f"test_{question}" for question in questions}
    for question in questions:
        error = errors[f"test_{question}"]
        assert error.ename == "NotImplementedError" and error.evalue.startswith(
            f"{question} is to be"
        )


@pytest.mark.parametrize("student", CRASHES)
def test_a_crash_costs_its_own_question_only(crashed, student):
    assert grades(crashed)["a1", student] == points("a1") - points("a1", CRASHES[student])
    for question, (_, message) in CRASHES[student].items():
        book = graded(crashed, student)
        told = said(book, question) + said(book, f"test_{question}")
        assert message in told, question


def test_a_submission_finds_neither_solutions_nor_hidden_tests(crashed):
    told = said(graded(crashed, "takes Python down"), "pad")
    assert "found 0 ['.caches'] False" in told and told.count("PermissionError") == 13, told
    assert "pad passes" in said(graded(crashed, "takes Python down"), "test_pad")


def test_tests_that_were_changed_or_deleted_are_put_back(course):
    out, _ = course
    assert grades(out)["a1", "weakens the tests"] == 0
    tests = {
        grade_id(cell): cell
        for cell in graded(out, "weakens the tests").cells
        if is_a("grade", cell)
    }
    for question in assignment("a1").questions:
        assert "### BEGIN HIDDEN TESTS" in tests[f"test_{question}"].source


def test_a_file_that_is_no_notebook_is_named_and_the_others_are_graded(course):
    out, done = course
    assert done.returncode == 1
    assert done.stderr.startswith("a1 broken: not graded. ") and "JSON" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "a1 right: 100 of 100\n" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_feedback_names_the_mistakes_and_shows_no_hidden_test(course, name):
    out, _ = course
    student, graded_right = ("wrong", ()) if name == "a1" else ("half", right_half(name))
    page = (out / "feedback" / student / name / f"{name}.html").read_text(encoding="utf-8")
    text = (
        re.sub(r"<[^>]+>", "", page)
        .replace("&#39;", "'")
        .replace("&quot;", '"')
        .replace("&lt;", "<")
    )
    firsts = {question: says for question, _, says in reversed(answers_of(name).wrongs)}
    for question in set(firsts) - set(graded_right):
        assert firsts[question] in text
    assert "HIDDEN TESTS" not in page
    for _, test in assignment(name).questions.values():
        hidden = test.source.split("### BEGIN HIDDEN TESTS")[1].split("### END HIDDEN TESTS")[0]
        for hint in re.findall(r'hint="([^"]{20,})"', hidden):
            assert hint not in text or hint in firsts.values()


@pytest.mark.parametrize("name", NAMES)
def test_the_release_that_nbgrader_makes_in_the_course_folder_is_the_committed_one(course, name):
    out, _ = course
    assert (out / "release" / name / f"{name}.ipynb").read_bytes() == (
        assignment(name).path("release").read_bytes()
    )


@pytest.mark.parametrize(
    "folder, cure",
    [(FOLDER / "course", "beside the solutions"), (Path("out"), "holds no submission")],
)
def test_a_folder_that_cannot_be_graded_is_named(folder, cure, tmp_path):
    if folder.is_absolute():
        hand_in(tmp_path, "right", "a1", {})
    process = grading(tmp_path, tmp_path / folder)
    _, told = process.communicate()
    assert process.returncode == 2 and cure in told
    assert not (tmp_path / folder).exists()
