"""The breaks of the package that the chapters must notice: each still applies, and is a break.

`python notebooks/mutants.py` runs the chapters on them and writes the table of CONTRIBUTING.md.
"""

import ast
import importlib.util
from pathlib import Path

import pytest
from mutants_list import MUTANTS

TOP = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_break_still_applies_once_and_is_python(mutant):
    text = (TOP / "tgdt_mini" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.text) == 1 and "\n" not in mutant.text + mutant.broken
    broken = text.replace(mutant.text, mutant.broken)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(text))


def test_the_table_names_each_break_and_nearly_all_are_noticed():
    page = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("<!-- mutants -->")[1].split("<!-- end of mutants -->")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    named = {(row[0].removeprefix("| "), row[2]) for row in rows}
    assert named == {(mutant.name, mutant.chapter) for mutant in MUTANTS}
    assert len(MUTANTS) >= 25
    unnoticed = [row[0] for row in rows if row[3].startswith("nothing")]
    assert len(unnoticed) <= len(rows) // 25, unnoticed


def test_what_the_table_tells_is_read_back_so_that_only_new_breaks_run():
    spec = importlib.util.spec_from_file_location("mutants", TOP / "notebooks" / "mutants.py")
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    rows = [(MUTANTS[0], "`nb01-024b` fails: AssertionError"), (MUTANTS[1], "")]
    page = f"words\n{mutants.BEGIN}{mutants.table(rows)}{mutants.END}more words"
    assert mutants.known(page) == {(m.name, m.chapter): how for m, how in rows}
