"""Every committed notebook has its parts, was run in order, and is small and tidy.

That its outputs are true is compared by nbval, which runs the notebooks in the same pytest run.
"""

import base64
import importlib.util
import io
import re
from pathlib import Path
from statistics import quantiles

import nbformat
import pytest
from PIL import Image

from tgdt_mini.bench import THREADS

TOP = Path(__file__).resolve().parent.parent
FOLDER = TOP / "notebooks"
spec = importlib.util.spec_from_file_location("refresh", FOLDER / "refresh.py")
refresh = importlib.util.module_from_spec(spec)
spec.loader.exec_module(refresh)
BOOKS = refresh.notebooks()
CHAPTERS = [
    "00_start_here",
    "01_retrieval_game",
    "02_tokenizers",
    "03_dual_branches",
    "04_similarity",
    "05_cmc_loss",
    "06_training",
    "07_two_stage_inference",
    "08_honest_evaluation",
    "09_opening_the_model",
    "10_ablations",
    "11_from_scenes_to_photographs",
    "12_features_on_disk",
    "13_photographs_measured",
    "14_scaling_out",
]
LAST = ["Check yourself", "Recap", "Exercises", "Next"]
IGNORED, PNG, JPEG = "nbval-ignore-output", "image/png", "image/jpeg"  # JPEG: photographs


def read(path):
    return nbformat.read(path, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book):
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def outputs(book):
    return [output for cell in code(book) for output in cell.outputs]


def ignored(cell):
    """Whether the comparison leaves a code cell out."""
    return IGNORED in cell.metadata.get("tags", [])


of_each = pytest.mark.parametrize("path", BOOKS, ids=[path.stem for path in BOOKS])


def test_the_book_has_all_its_chapters():
    assert [path.stem for path in BOOKS] == CHAPTERS


@of_each
def test_it_is_valid_and_its_cells_keep_their_ids(path):
    book = read(path)
    nbformat.validate(book)
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids) and all(id.startswith(f"nb{path.name[:2]}-") for id in ids)
    assert set(book.metadata) == {"kernelspec", "language_info"}


@of_each
def test_it_was_run_in_order_without_an_error_or_a_word_on_stderr(path):
    book = read(path)
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    for cell in code(book):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id


@of_each
def test_it_begins_with_promise_minutes_needs_and_three_objectives(path):
    book = read(path)
    head = book.cells[0].source
    title, promise = head.split("\n\n")[:2]
    assert re.fullmatch(rf"# {path.name[:2]} · \S.*", title)
    assert re.fullmatch(r"\*\*[^*]+[.!?]\*\*", promise.strip()), (
        "one bold sentence: what the reader will have"
    )
    assert 0 < refresh.minutes(book) <= 2
    assert "**You need**:" in head
    objectives = head.split("**You will be able to:**")[1].strip().splitlines()
    assert sum(line.startswith("- ") for line in objectives) == 3


def test_the_first_eleven_chapters_together_take_twelve_minutes_at_most():
    assert sum(refresh.minutes(read(path)) for path in BOOKS[:11]) <= 12


@of_each
def test_it_ends_with_check_recap_exercises_next(path):
    book = read(path)
    headings = re.findall(r"^## (.+)$", prose(book), re.M)
    assert headings[-4:] == LAST
    links = re.findall(r"\]\(([^)#]+)\)", book.cells[-1].source)
    targets = [f"{stem}.ipynb" for stem in CHAPTERS[1:]] + ["../README.md"]
    assert targets[CHAPTERS.index(path.stem)] in links


@of_each
def test_each_exercise_has_difficulty_minutes_a_check_a_hint_and_a_solution(path):
    cells = read(path).cells
    exercises = [
        i
        for i, cell in enumerate(cells)
        if cell.cell_type == "code" and refresh.CHECK in cell.source
    ]
    assert 2 <= len(exercises) <= 3
    for i in exercises:
        task, exercise, folded = cells[i - 1 : i + 2]
        assert re.search(r"^### Exercise \d · \S", task.source, re.M)
        assert re.search(r"Difficulty: [●○]{3} · about \d+ minutes", task.source)
        assert "assert" in exercise.source.split(refresh.CHECK)[1]
        assert refresh.UNDONE in exercise.source
        assert exercise.outputs and exercise.outputs[0].text.strip() == refresh.UNDONE
        for summary in ("<summary>Hint</summary>", "<summary>Solution</summary>"):
            assert folded.source.count(summary) == 1
        assert refresh.SOLUTION.search(folded.source)


@of_each
def test_code_comes_in_small_cells_with_prose_around_them(path):
    book = read(path)
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in code(book)]
    assert max(lengths) <= 30
    assert quantiles(lengths, n=10)[-1] <= 20
    widths = [len(line) for cell in code(book) for line in cell.source.splitlines()]
    assert max(widths) <= 120, "a page is not wider"
    assert len(lengths) >= (10 if path.name.startswith("00") else 20)
    texts = sum(cell.cell_type == "markdown" for cell in book.cells)
    assert 1 <= texts / len(lengths) <= 2.6


@of_each
def test_nothing_in_it_is_hidden_or_belongs_to_one_machine(path):
    book = read(path)
    folders = r"(?<![\w.:/])/(home|root|tmp|work|Users|usr)/|[A-Z]:\\\\"
    for cell in book.cells:
        assert not re.search(folders, cell.source), cell.id
        if cell.cell_type == "code":
            assert not re.search(r";\s*$", cell.source, re.M), cell.id
            assert not re.search(r"^\s*[!%]", cell.source, re.M), cell.id
    places = r"/(home|root|tmp|work|Users)/|0x[0-9a-f]{6,}|site-packages"
    for output in outputs(book):
        content = output.get("data", {}).items()
        data = {kind: value for kind, value in content if kind not in (PNG, JPEG)}
        text = str(output.get("text", "")) + str(data)
        assert not re.search(places, text), text[:200]


@of_each
def test_at_most_one_cell_in_twenty_is_left_out_of_the_comparison(path):
    cells = code(read(path))
    assert sum(map(ignored, cells)) <= max(1, 0.05 * len(cells))
    for cell in cells:
        assert set(cell.metadata.get("tags", [])) <= {IGNORED}
        assert not re.search(r"# *(NBVAL|PYTEST)", cell.source), "tags, not comment markers"


def test_at_most_one_cell_in_twenty_of_the_whole_book_is_left_out():
    cells = [cell for path in BOOKS for cell in code(read(path))]
    assert sum(map(ignored, cells)) <= 0.05 * len(cells)


@of_each
def test_pictures_are_described_in_words_on_a_white_ground_and_no_wider_than_the_page(path):
    pictures = 0
    for output in outputs(read(path)):
        data = output.get("data", {})
        assert "image/svg+xml" not in data
        for kind in {PNG, JPEG} & set(data):
            pictures += 1
            alt = output.metadata[kind]["alt"]
            assert len(alt) > 20 and "without a description" not in alt
            picture = Image.open(io.BytesIO(base64.b64decode(data[kind]))).convert("RGBA")
            white = 250 if kind == PNG else 230  # JPEG blurs edges
            assert picture.width <= 1010 and min(picture.getpixel((0, 0))) >= white
    assert pictures >= 2


def test_markdown_pictures_have_a_description():
    for path in BOOKS:
        assert not re.search(r"!\[\]\(|<img(?![^>]*alt=)", prose(read(path))), path.name


def test_the_notebooks_are_small():
    sizes = {path.name: path.stat().st_size for path in BOOKS}
    assert max(sizes.values()) <= 300_000, sizes
    assert sum(sizes.values()) <= 3_000_000


@of_each
def test_what_is_built_by_hand_is_compared_with_the_package(path):
    source = "\n".join(cell.source for cell in code(read(path)))
    assert "tgdt_mini" in source and len(re.findall(r"\bassert\b|assert_close", source)) >= 5


def test_links_between_chapters_lead_somewhere():
    for path in BOOKS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", prose(read(path))):
            assert (FOLDER / target).exists(), f"{path.name}: {target}"


def test_the_readme_lists_the_chapters_with_their_titles_and_minutes():
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    for path in BOOKS:
        book = read(path)
        title = re.match(r"# (\d\d) · (.+)", book.cells[0].source)
        link = rf"\[{title[1]} · {re.escape(title[2])}\]\(notebooks/{path.name}\)"
        row = rf"\| {link} \| [^|]+ \| {refresh.minutes(book):g} \|"
        assert re.search(row, readme), f"README.md needs the row {row}"


def test_refreshing_tells_text_from_pictures_and_solutions_replace_the_readers_part():
    def book(text, picture):
        cell = nbformat.v4.new_code_cell("print(1)", id="nb00-001")
        cell.outputs = [nbformat.v4.new_output("stream", text=part) for part in (text[0], text[1:])]
        data = {PNG: picture, "text/plain": "a"}
        cell.outputs.append(nbformat.v4.new_output("display_data", data))
        return nbformat.v4.new_notebook(cells=[cell])

    assert not refresh.changes(book("12", "x"), book("12", "x"))
    assert "text changed" in refresh.changes(book("12", "x"), book("13", "x"))[0]
    assert "picture only" in refresh.changes(book("12", "x"), book("12", "y"))[0]
    exercise = nbformat.v4.new_code_cell(f"def f(): ...\n{refresh.CHECK}\nprint(f())")
    folded = nbformat.v4.new_markdown_cell(
        "<summary>Solution</summary>\n\n```python\ndef f():\n    return 4\n```\n"
    )
    solved = nbformat.v4.new_notebook(cells=[exercise, folded])
    assert refresh.solve(solved) == 1
    assert solved.cells[0].source == f"def f():\n    return 4\n{refresh.CHECK}\nprint(f())"


@pytest.mark.parametrize("number", ["04", "05", "07"])  # as OLDER in conftest.py
def test_outputs_hold_without_vector_instructions_and_on_two_threads(number, monkeypatch):
    """Chapters that score, train and search, as the simplest processor would run them.

    Their stored outputs come from all instructions and cores of the machine that made them. nbval
    compares them with a run on one thread with AVX2 at most, and all other chapters with a run on
    one thread (see conftest.py); this test with a run on two threads. An output that depends on the
    number of threads or on the instructions differs in one of the two.
    """
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    for name in THREADS:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its core alone
    (path,) = refresh.notebooks([number])
    before, after = read(path), read(path)
    arithmetic = nbformat.v4.new_code_cell(
        "import torch\nprint(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())"
    )
    after.cells.append(arithmetic)
    refresh.execute(after)
    printed = after.cells.pop().outputs  # a kernel may send one line in two parts
    assert "".join(part.text for part in printed) == "2 DEFAULT\n"
    for cell in code(before) + code(after):
        if ignored(cell):
            cell.outputs = []
    assert not [line for line in refresh.changes(before, after) if "text" in line]
