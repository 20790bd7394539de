"""Run the notebooks again and write what they print now: `python notebooks/refresh.py [NUMBERS]`.

Each notebook runs in a new kernel, in its own folder, and keeps its cells and their ids. What would
differ without meaning anything is left out, so that a second run changes nothing. For each notebook
you see its seconds and which outputs changed, in text or in a picture only. If a notebook fails or
takes longer than its header says, the exit code is 1 and its file stays as it was.

--check writes nothing. --solutions runs each exercise with its folded solution instead of the
reader's part, writes nothing, and fails where a solution does not pass the check of its exercise.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
CHECK = "# --- check ---"  # in an exercise's cell: above it the reader's part, below it the check
UNDONE = "Not written yet"
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.S)
SECONDS = 600  # for one cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks(numbers: list[str] | None = None) -> list[Path]:
    """The notebooks, or those whose name begins with one of `numbers`; SystemExit for others."""
    paths = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    for number in numbers or []:
        if not any(path.name.startswith(number) for path in paths):
            names = ", ".join(path.name for path in paths)
            raise SystemExit(f"no notebook begins with {number!r}; there are {names}")
    return [path for path in paths if path.name.startswith(tuple(numbers or [""]))]


def minutes(book) -> float:
    """How long a notebook takes by its header. ValueError if the header does not say it."""
    line = re.search(r"\*\*Minutes\*\*: (\d+(?:\.\d+)?)", book.cells[0].source)
    if not line:
        raise ValueError("the first cell needs a line such as **Minutes**: 1 on two CPU cores")
    return float(line[1])


def execute(book, folder: Path = FOLDER) -> float:
    """Run all cells in a new kernel, in a folder; the seconds. CellExecutionError if one fails."""
    began = time.perf_counter()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else a warning on stderr
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    return time.perf_counter() - began


def tidy(book) -> None:
    """Leave out timestamps, widgets, and versions of the kernel."""
    book.metadata, book.nbformat_minor = nbformat.from_dict(METADATA), 5
    for cell in book.cells:
        tags = {name: value for name, value in cell.metadata.items() if name == "tags"}
        cell.metadata = nbformat.from_dict(tags)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)


def changes(before, after) -> list[str]:
    """One line for each cell whose outputs differ: in text, or in a picture only."""
    lines, old = [], {cell.id: cell for cell in before.cells}
    for number, cell in enumerate(_code(after), start=1):
        outputs = old[cell.id].outputs if cell.id in old else []
        if _texts(outputs) != _texts(cell.outputs):
            lines.append(f"code cell {number} ({cell.id}): text changed")
        elif _pictures(outputs) != _pictures(cell.outputs):
            lines.append(f"code cell {number} ({cell.id}): picture only")
    return lines


def solve(book) -> int:
    """Put each folded solution in place of the reader's part; returns how many there are."""
    exercises = [i for i, cell in enumerate(book.cells) if _is_exercise(cell)]
    for i in exercises:
        cell, solution = book.cells[i], SOLUTION.search(book.cells[i + 1].source)
        if not solution:
            raise ValueError(f"the cell after exercise {cell.id} holds no folded solution")
        cell.source = solution[1] + CHECK + cell.source.split(CHECK, 1)[1]
    return len(exercises)


def unsolved(book) -> list[str]:
    """The exercises of a notebook that, after it ran, still say that nothing is written."""
    return [
        cell.id
        for cell in book.cells
        if _is_exercise(cell) and any(UNDONE in text for text in _texts(cell.outputs))
    ]


def refresh(path: Path, check: bool = False, solutions: bool = False) -> list[str]:
    """Run one notebook and report on it; returns what is wrong with it, in lines."""
    before, book = (nbformat.read(path, as_version=4) for _ in range(2))
    exercises = solve(book) if solutions else 0
    try:
        seconds = execute(book)
    except CellExecutionError as error:
        return [f"{path.name}: {error}"]
    if solutions:
        failed = unsolved(book)
        passed = f"{exercises - len(failed)} of {exercises} solutions pass"
        print(f"{path.name}: {passed}, {seconds:.0f} s", flush=True)
        return [f"{path.name}: the solution of {cell} leaves it undone" for cell in failed]
    tidy(book)
    head = f"{path.name}: {seconds:.0f} s of {60 * minutes(book):.0f}"
    print(head, *changes(before, book), sep="\n    ", flush=True)
    if seconds > 60 * minutes(book):
        return [f"{path.name}: took {seconds:.0f} s, its header says {minutes(book):g} minutes"]
    if not check:
        staging = path.with_name(f".{path.name}.new")  # a file is written whole or not at all
        nbformat.write(book, staging)
        staging.replace(path)
    return []


def parser_of(text: str, names: str, example: str) -> argparse.ArgumentParser:
    """A parser of any number of names and --check, whose help is a script's own text."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, formatter_class=form)
    parser.add_argument(names, nargs="*", help=f"such as {example} (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    return parser


def main() -> int:
    parser = parser_of(__doc__, "numbers", "04 05")
    parser.add_argument("--solutions", action="store_true", help="run the solutions, write nothing")
    args = parser.parse_args()
    wrong = []
    for path in notebooks(args.numbers):
        wrong += refresh(path, args.check, args.solutions)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def _is_exercise(cell):
    return cell.cell_type == "code" and CHECK in cell.source


def _joined(outputs):
    """Outputs without widgets, and with neighbouring pieces of one stream in one."""
    joined = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        for kind in list(output.get("data", {})):
            if kind.startswith("application/vnd.jupyter.widget"):
                del output.data[kind]
    return joined


def _texts(outputs):
    """All that a reader sees of the outputs, but pictures; the outputs stay as they are."""
    texts = []
    for output in _joined([nbformat.from_dict(output) for output in outputs]):
        data = {
            kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"
        }
        texts.append(output.get("text") or str(sorted(data.items())))
    return texts


def _pictures(outputs):
    return [output.get("data", {}).get("image/png", "").strip() for output in outputs]


if __name__ == "__main__":
    sys.exit(main())
