"""Run the notebooks again and write what they print now: `python notebooks/refresh.py [NUMBERS]`.

Each notebook runs in a new kernel, in its own folder, and keeps its cells and their ids. What would
differ without meaning anything is left out, so that a second run changes nothing. For each notebook
you see its seconds and which outputs changed, in text or in a picture only. If a notebook fails or
takes longer than its header says, the exit code is 1 and its file stays as it was.

--check writes nothing. --solutions runs each exercise with its folded solution instead of the
reader's part, writes nothing, and fails where a solution does not pass the check of its exercise.

--workbook FOLDER writes the reader's copies into a folder and runs nothing. A stored notebook is
solved. A code cell whose metadata hold a "gap" (stars 1 to 3, minutes, a hint) is one that readers
write themselves: in the copy its functions have a docstring and no body. The next code cell checks
them, and a hint and the solution follow it, folded.
"""

import argparse
import ast
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
PICTURES = ("image/png", "image/jpeg")
GAP = "gap"  # in a cell's metadata
SECONDS = 600  # for one cell
HELP = """<details><summary>Hint</summary>

{hint}

</details>
<details><summary>Solution</summary>

```python
{solution}
```

</details>"""
NOTE = """This copy of the chapter has {count} gaps, for about {minutes} minutes. Write each one
below its docstring, run its cell, then run the next one: it checks what you wrote, and tells what
is wrong. Under the check a hint and a solution unfold. Later cells use your functions."""
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


def execute(book, folder: Path = FOLDER, **hooks) -> float:
    """Run all cells in a new kernel, in a folder; the seconds. CellExecutionError if one fails.

    hooks: what nbclient calls on its way, such as on_cell_executed=function.
    """
    began = time.perf_counter()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else a warning on stderr
    resources = {"metadata": {"path": str(folder)}}
    options = dict(timeout=SECONDS, kernel_name="python3", resources=resources, **hooks)
    NotebookClient(book, **options).execute()
    return time.perf_counter() - began


def tidy(book) -> None:
    """Leave out timestamps, widgets, and versions of the kernel."""
    book.metadata, book.nbformat_minor = nbformat.from_dict(METADATA), 5
    for cell in book.cells:
        kept = {name: value for name, value in cell.metadata.items() if name in ("tags", GAP)}
        cell.metadata = nbformat.from_dict(kept)
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


def blank(source: str) -> str:
    """The source of a gap without what readers write: the bodies of its functions."""
    lines = source.splitlines()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    if not functions:
        raise ValueError(f"a gap needs a function: {source[:60]!r}")
    for node in reversed(functions):
        rest = node.body[1:] if ast.get_docstring(node) else node.body
        missing = f'raise NotImplementedError("{node.name} is not written yet")'
        lines[rest[0].lineno - 1 : node.end_lineno] = [f"    {missing}  # your code here"]
    return "\n".join(lines)


def workbook(book):
    """The reader's copy of a notebook: nothing has run, and each gap waits for its functions."""
    copy = nbformat.from_dict(book)
    copy.cells, head, waiting = [], book.cells[0].id.split("-")[0], None
    gaps = [cell.metadata[GAP] for cell in book.cells if GAP in cell.metadata]
    for cell in map(nbformat.from_dict, book.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if GAP in cell.metadata:
            gap, source = cell.metadata[GAP], cell.source
            stars = "●" * gap["stars"] + "○" * (3 - gap["stars"])
            turn = f"**Your turn** · {stars} · about {gap['minutes']} minutes"
            copy.cells.append(_text(f"{cell.id}-turn", turn))
            waiting = _text(f"{cell.id}-help", HELP.format(hint=gap["hint"], solution=source))
            cell.source = blank(source)
        copy.cells.append(cell)
        if waiting and cell.cell_type == "code" and GAP not in cell.metadata:
            copy.cells.append(waiting)  # after the check
            waiting = None
    if gaps:
        minutes = sum(gap["minutes"] for gap in gaps)
        note = NOTE.format(count=len(gaps), minutes=minutes)
        copy.cells.insert(1, _text(f"{head}-workbook-help", note))
    return copy


def filled(copy):
    """A reader's copy with the folded solutions put in, and without what was added to it."""
    book = nbformat.from_dict(copy)
    helps = {cell.id.removesuffix("-help"): cell.source for cell in copy.cells}
    for cell in book.cells:
        if GAP in cell.metadata:
            cell.source = SOLUTION.search(helps[cell.id])[1].removesuffix("\n")
    book.cells = [cell for cell in book.cells if not cell.id.endswith(("-turn", "-help"))]
    return book


def write_workbook(path: Path, folder: Path) -> str:
    """Write the reader's copy of one notebook into a folder; returns what is wrong, or nothing.

    A file that is there already stays: it may hold a reader's work. Links to other files of the
    project are written anew, so that they lead there from the folder.
    """
    copy, target = workbook(nbformat.read(path, as_version=4)), folder / path.name
    if target.exists():
        return f"{target} is there already, perhaps with your work; choose another folder"

    def moved(link):
        return f"]({Path(os.path.relpath(FOLDER / link[1], folder)).as_posix()}"

    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?!https?:|#|\d\d_)([^)#]+)", moved, cell.source)
    _write(copy, target)
    gaps = sum(GAP in cell.metadata for cell in copy.cells)
    print(f"{target}: {gaps} gaps", flush=True)
    return ""


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
        _write(book, path)
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
    parser.add_argument("--workbook", type=Path, metavar="FOLDER", help="write readers' copies")
    args = parser.parse_args()
    wrong = []
    if args.workbook:
        args.workbook.mkdir(parents=True, exist_ok=True)
    for path in notebooks(args.numbers):
        if args.workbook:
            line = write_workbook(path, args.workbook.resolve())
            wrong += [line] if line else []
        else:
            wrong += refresh(path, args.check, args.solutions)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _write(book, path):
    """A file is written whole or not at all."""
    staging = path.with_name(f".{path.name}.new")
    nbformat.write(book, staging)
    staging.replace(path)


def _text(name, source):
    return nbformat.v4.new_markdown_cell(source, id=name)


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
            kind: value for kind, value in output.get("data", {}).items() if kind not in PICTURES
        }
        texts.append(output.get("text") or str(sorted(data.items())))
    return texts


def _pictures(outputs):
    kinds = [(output.get("data", {}), kind) for output in outputs for kind in PICTURES]
    return [data.get(kind, "").strip() for data, kind in kinds]


if __name__ == "__main__":
    sys.exit(main())
