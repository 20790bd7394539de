"""Which chapter notices which break of the package: `python notebooks/mutants.py [CHAPTERS]`.

Each break of tests/mutants.py is put into a copy of the package, and the chapter that teaches the
part runs on that copy. It notices if a cell fails or prints something else than what is stored.
The table goes into CONTRIBUTING.md, if all chapters ran and --check was not given; the exit code is
1 if a break passed unnoticed. One kernel at a time: some forty minutes. With --new only breaks run
that the table does not name yet.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
from mutants_list import MUTANTS  # noqa: E402
from refresh import FOLDER, changes, execute, notebooks, parser_of  # noqa: E402

TOP = FOLDER.parent
PAGE, BEGIN, END = TOP / "CONTRIBUTING.md", "<!-- mutants -->\n", "<!-- end of mutants -->"
IGNORED = "nbval-ignore-output"


def noticed(mutant) -> str:
    """How the chapter notices a break of the package, or an empty string."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        shutil.copytree(
            TOP / "tgdt_mini", top / "tgdt_mini", ignore=shutil.ignore_patterns("__py*")
        )
        (top / "data").symlink_to(TOP / "data")
        file = top / "tgdt_mini" / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.text) != 1:
            raise ValueError(f"{mutant.file} must hold {mutant.text!r} exactly once")
        file.write_text(text.replace(mutant.text, mutant.broken), encoding="utf-8")
        return _difference(notebooks([mutant.chapter])[0], top)


def _difference(path, top):
    """What a chapter says with the package in `top`: an error, another output, or nothing."""
    before, book = (nbformat.read(path, as_version=4) for _ in range(2))
    known, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH"), str(top)
    try:
        execute(book)
    except CellExecutionError as error:
        failed = next(c for c in book.cells if any(_is_error(o) for o in c.get("outputs", [])))
        return f"`{failed.id}` fails: {error.ename}"
    finally:
        os.environ.pop("PYTHONPATH")
        if known is not None:
            os.environ["PYTHONPATH"] = known
    for cell in [*before.cells, *book.cells]:
        if IGNORED in cell.metadata.get("tags", []):
            cell.outputs = []
    other = [line for line in changes(before, book) if line.endswith("text changed")]
    return f"`{other[0].split('(')[1].split(')')[0]}` prints other numbers" if other else ""


def _is_error(output):
    return output.output_type == "error"


def table(rows: list[tuple]) -> str:
    """Markdown of (mutant, how it is noticed)."""
    count = sum(bool(how) for _, how in rows)
    lines = [f"{count} of {len(rows)} breaks are noticed.", ""]
    lines += ["| break | file | chapter | noticed by |", "|---|---|---|---|"]
    lines += [f"| {m.name} | `{m.file}` | {m.chapter} | {how or 'nothing'} |" for m, how in rows]
    return "\n".join(lines) + "\n"


def known(page: str) -> dict[tuple, str]:
    """{(break, chapter): how it is noticed, or ""} of the table on a page."""
    lines = page.split(BEGIN)[1].split(END)[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    return {(name, chapter): "" if how == "nothing" else how for name, _, chapter, how in cells}


def main() -> int:
    parser = parser_of(__doc__, "chapters", "04 05")
    parser.add_argument("--new", action="store_true", help="only breaks that are not in the table")
    args, rows = parser.parse_args(), []
    told = known(PAGE.read_text(encoding="utf-8")) if args.new else {}
    for mutant in MUTANTS:
        if (key := (mutant.name, mutant.chapter)) in told:
            rows.append((mutant, told[key]))
        elif not args.chapters or mutant.chapter in args.chapters:
            rows.append((mutant, noticed(mutant)))
            print(f"{mutant.chapter} {mutant.name}: {rows[-1][1] or 'NOT NOTICED'}", flush=True)
    if not args.check and len(rows) == len(MUTANTS):
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        page = before + BEGIN + table(rows) + END + rest.split(END)[1]
        staging = PAGE.with_name(f".{PAGE.name}.new")
        staging.write_text(page, encoding="utf-8")
        staging.replace(PAGE)
    return 0 if all(how for _, how in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
