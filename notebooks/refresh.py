"""Run the notebooks again and write what they now print: `python notebooks/refresh.py [NUMBERS] [--check]`.

Each notebook runs in a clean kernel, in its own folder, and keeps its cells and their ids; timestamps, widget state and
kernel versions are left out, so that a second run changes nothing. Told for each notebook: its seconds, and which
outputs changed, in their words or in a picture only. Exit code 1 if a notebook fails or takes longer than its header
says, and then that notebook's file stays as it was.

--check writes nothing. --solutions runs the notebooks with each exercise solved by its folded solution, writes nothing,
and fails where a solution does not pass its own exercise's check.
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

HERE = Path(__file__).resolve().parent
CHECK = "# --- check ---"  # in an exercise's cell: above it the reader's part, below it the test
UNDONE = "Not written yet"
SECONDS = 600  # for one cell


def notebooks(numbers: list[str] | None = None) -> list[Path]:
    """The notebooks, or those whose name begins with one of `numbers`."""
    found = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    unknown = [
        number
        for number in numbers or []
        if not any(path.name.startswith(number) for path in found)
    ]
    if unknown:
        raise SystemExit(
            f"no notebook begins with {unknown[0]!r}; there are {', '.join(p.name for p in found)}"
        )
    return [path for path in found if not numbers or path.name.startswith(tuple(numbers))]


def minutes(book) -> float:
    """How long a notebook's header says it takes. ValueError if it says nothing."""
    said = re.search(r"\*\*Minutes\*\*: (\d+(?:\.\d+)?)", book.cells[0].source)
    if not said:
        raise ValueError(
            'the first cell must hold a line such as "**Minutes**: 1 on two CPU cores"'
        )
    return float(said[1])


def execute(book) -> float:
    """Run all cells in place in a new kernel; returns the seconds. CellExecutionError if one fails."""
    began = time.perf_counter()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    NotebookClient(
        book, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    return time.perf_counter() - began


def tidy(book) -> None:
    """Leave out whatever would differ the next time without meaning anything."""
    book.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    book.nbformat_minor = 5


def changes(before, after) -> list[str]:
    """One line a cell whose outputs differ: in their words, or in a picture only."""
    told, old = [], {cell.id: cell for cell in before.cells}
    for place, cell in enumerate(cell for cell in after.cells if cell.cell_type == "code"):
        was = old[cell.id].outputs if cell.id in old else []
        if _words(was) != _words(cell.outputs):
            told.append(f"code cell {place + 1} ({cell.id}): text changed")
        elif _pictures(was) != _pictures(cell.outputs):
            told.append(f"code cell {place + 1} ({cell.id}): picture only")
    return told


def solve(book) -> int:
    """Put each folded solution in the place of the reader's part of its exercise; returns how many there are."""
    solved = 0
    for place, cell in enumerate(book.cells):
        if cell.cell_type == "code" and CHECK in cell.source:
            solution = re.search(
                r"<summary>Solution</summary>\s*```python\n(.*?)```",
                book.cells[place + 1].source,
                re.S,
            )
            if not solution:
                raise ValueError(f"the cell after exercise {cell.id} holds no folded solution")
            cell.source = solution[1] + CHECK + cell.source.split(CHECK, 1)[1]
            solved += 1
    return solved


def unsolved(book) -> list[str]:
    """The exercises of an executed notebook that say that nothing is written yet."""
    return [
        cell.id
        for cell in book.cells
        if cell.cell_type == "code"
        and CHECK in cell.source
        and any(UNDONE in text for text in _words(cell.outputs))
    ]


def refresh(path: Path, check: bool = False, solutions: bool = False) -> list[str]:
    """What is wrong with a notebook that has been run again (nothing, if all is well); tells how it went."""
    book = nbformat.read(path, as_version=4)
    before = nbformat.read(path, as_version=4)
    if solutions:
        count = solve(book)
    try:
        seconds = execute(book)
    except CellExecutionError as error:
        return [f"{path.name}: {error}"]
    if solutions:
        left = unsolved(book)
        print(
            f"{path.name}: {count - len(left)} of {count} solutions pass, {seconds:.0f} s",
            flush=True,
        )
        return [f"{path.name}: the solution of {cell} leaves it undone" for cell in left]
    tidy(book)
    told = changes(before, book)
    print(
        f"{path.name}: {seconds:.0f} s of {60 * minutes(book):.0f}", *told, sep="\n    ", flush=True
    )
    if seconds > 60 * minutes(book):
        return [f"{path.name}: took {seconds:.0f} s, its header says {minutes(book):g} minutes"]
    if not check:
        beside = path.with_name(f".{path.name}.new")
        nbformat.write(book, beside)
        beside.replace(path)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", help="such as 04 05 (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument(
        "--solutions", action="store_true", help="solve the exercises, write nothing"
    )
    args = parser.parse_args()
    wrong = [
        line
        for path in notebooks(args.numbers)
        for line in refresh(path, args.check, args.solutions)
    ]
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


def _joined(outputs):
    """Outputs with neighbouring pieces of one stream in one, and no counter of executions or widget."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        for kind in [
            kind
            for kind in output.get("data", {})
            if kind.startswith("application/vnd.jupyter.widget")
        ]:
            del output.data[kind]
    return kept


def _words(outputs):
    texts = []
    for output in _joined([nbformat.from_dict(output) for output in outputs]):
        texts.append(
            output.get("text")
            or str(sorted((k, v) for k, v in output.get("data", {}).items() if k != "image/png"))
        )
    return texts


def _pictures(outputs):
    return [output.get("data", {}).get("image/png", "").strip() for output in outputs]


if __name__ == "__main__":
    sys.exit(main())
