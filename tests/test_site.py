"""The documentation site has every page and every module of the book; it is built in `.ci/long`."""

import ast
import re
from importlib import import_module
from pathlib import Path

from test_package import BOOK

TOP = Path(__file__).resolve().parents[1]
INDEX = (TOP / "docs" / "index.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_index():
    entries = re.findall(r"^(?!:)([\w./*-]+)$", INDEX.replace("```", ""), re.M)
    listed = {
        path.resolve()
        for entry in entries
        for path in (TOP / "docs").glob(f"{entry}.*")
        if path.suffix in (".md", ".ipynb")
    }
    folders = (
        "",
        "docs",
        "data",
        "data/weights",
        "data/weights/photographs",
        "notebooks/assignments",
    )
    pages = {page for folder in folders for page in (TOP / folder).glob("*.md")}
    pages |= set((TOP / "notebooks").glob("*.ipynb"))
    pages |= set((TOP / "notebooks" / "assignments" / "release").glob("*/*.ipynb"))
    assert pages - listed == {TOP / "docs" / "index.md"}


def test_every_module_of_the_book_is_on_the_page_of_the_package_and_all_there_exist():
    text = (TOP / "docs" / "api.md").read_text(encoding="utf-8")
    modules = re.findall(r"automodule:: tgdt_mini\.([\w.]+)", text)
    assert modules[: len(BOOK)] == list(BOOK) and len(set(modules)) == len(modules)
    for module in modules:
        assert import_module(f"tgdt_mini.{module}").__doc__, module


def test_the_settings_of_the_site_are_python_and_run_no_cell():
    tree = ast.parse((TOP / "docs" / "conf.py").read_text(encoding="utf-8"))
    assert "nb_execution_mode = 'off'" in ast.unparse(tree)
