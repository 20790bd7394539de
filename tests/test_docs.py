"""The pages under docs/: commands that the parser knows, files that can be read, links that lead
somewhere.
"""

import re
import shlex
from pathlib import Path

import pytest

from tgdt_mini import cli

FOLDER = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(FOLDER.glob("*.md"))


def blocks(language):
    """[(page, text of a code block in that language)]"""
    block = re.compile(rf"^```{language}\n(.*?)^```", re.M | re.S)
    return [
        (path.name, text)
        for path in PAGES
        for text in block.findall(path.read_text(encoding="utf-8"))
    ]


def commands():
    """The arguments of each command line, joined where a backslash breaks it."""
    for name, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "tgdt_mini" in words:
                yield name, words[words.index("tgdt_mini") + 1 :]


def test_commands_are_understood():
    found = list(commands())
    assert len(found) >= 4
    for name, words in found:
        assert callable(cli.parser().parse_args(words).run), f"{name}: {words}"


def test_phrases_are_added_to_the_features_that_the_page_makes():
    """Other options would be refused: the two commands differ in the phrases alone."""
    made = [
        vars(cli.parser().parse_args(words))
        for name, words in commands()
        if name == "photographs.md" and words[0] == "extract" and "runs/flickr8k/features" in words
    ]
    assert len(made) == 2 and made[1]["entities"] is not None
    assert made[0] == made[1] | {"entities": None}


def test_compose_files_can_be_read():
    yaml = pytest.importorskip("yaml")
    found = [yaml.safe_load(text) for _, text in blocks("yaml")]
    assert [sorted(each["services"]) for each in found] == [
        ["qdrant"],
        ["node-1", "node-2", "node-3"],
    ]
    for each in found:
        for service in each["services"].values():
            assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+", service["image"])
            assert {volume.split(":")[0] for volume in service["volumes"]} <= set(each["volumes"])


def test_python_of_the_pages_names_what_is_there():
    for name, text in blocks("python"):
        imports = [line for line in text.splitlines() if line.startswith(("from ", "import "))]
        assert imports, name
        exec("\n".join(imports), {})


def test_links_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
