"""Which chapter notices which break of the package: `python notebooks/mutants.py [CHAPTERS]`.

Each break of tests/mutants_list.py is put into a copy of the package, and the chapter that teaches
the part runs on that copy, up to the first cell that fails or prints something else than what is
stored. The table goes into CONTRIBUTING.md, if --check was not given and no row is missing; the
exit code is 1 if a break passed unnoticed. One kernel at a time. With chapters, or with --new for
breaks that the table does not name yet, all other rows stay as they are.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

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


class _Noticed(Exception):
    """A cell has failed, or printed something else than what is stored."""


def _difference(path, top):
    """The first cell that differs with the package in `top`, and how; "" if none does."""
    before, book = (nbformat.read(path, as_version=4) for _ in range(2))

    def compare(cell, cell_index, **_):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            raise _Noticed(f"`{cell.id}` fails: {errors[0].ename}")
        one = [nbformat.v4.new_notebook(cells=[each]) for each in (before.cells[cell_index], cell)]
        is_compared = IGNORED not in cell.metadata.get("tags", [])
        if is_compared and any(line.endswith("text changed") for line in changes(*one)):
            raise _Noticed(f"`{cell.id}` prints other numbers")

    known, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH"), str(top)
    try:
        execute(book, on_cell_executed=compare)
    except _Noticed as noticed:
        return str(noticed)
    finally:
        os.environ.pop("PYTHONPATH")
        if known is not None:
            os.environ["PYTHONPATH"] = known
    return ""


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
    told = known(PAGE.read_text(encoding="utf-8"))
    for mutant in MUTANTS:
        key = (mutant.name, mutant.chapter)
        asked = not args.chapters or mutant.chapter in args.chapters
        if asked and not (args.new and key in told):
            rows.append((mutant, noticed(mutant)))
            print(f"{mutant.chapter} {mutant.name}: {rows[-1][1] or 'NOT NOTICED'}", flush=True)
        elif key in told:
            rows.append((mutant, told[key]))
    if not args.check and len(rows) == len(MUTANTS):
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        page = before + BEGIN + table(rows) + END + rest.split(END)[1]
        staging = PAGE.with_name(f".{PAGE.name}.new")
        staging.write_text(page, encoding="utf-8")
        staging.replace(PAGE)
    return 0 if all(how for _, how in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
