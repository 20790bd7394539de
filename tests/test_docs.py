"""The pages: commands that the parser knows, files that can be read, names and links that lead
somewhere.
"""

import ast
import importlib
import json
import re
import shlex
from inspect import signature
from pathlib import Path

import pytest

import tgdt_mini
from tgdt_mini import cli
from tgdt_mini.config import TGDTConfig
from tgdt_mini.losses import consistency_loss
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.training_config import WARMUP, TrainingConfig

TOP = Path(__file__).resolve().parent.parent
HOME = Path(tgdt_mini.__file__).parent
PAGES = sorted(
    [*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), *(TOP / "data").rglob("*.md")],
    key=lambda path: path.relative_to(TOP).as_posix(),
)
NOW = [path for path in PAGES if path.name != "CHANGELOG.md"]  # a changelog names what was
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))
each_page_of_now = pytest.mark.parametrize("path", NOW, ids=lambda path: str(path.relative_to(TOP)))


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(language):
    """[(page, text of a code block in that language)]"""
    block = re.compile(rf"^```{language}\n(.*?)^```", re.M | re.S)
    return [(path.name, text) for path in PAGES for text in block.findall(read(path))]


def commands():
    """(page, arguments) of each command line of the package, joined where a backslash breaks it."""
    for name, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["tgdt-mini"]:
                yield name, words[1:]
            elif "tgdt_mini" in words and words[words.index("tgdt_mini") - 1] == "-m":
                yield name, words[words.index("tgdt_mini") + 1 :]


def test_commands_are_understood():
    known = list(commands())
    assert {"README.md", "photographs.md", "scaling.md"} <= {name for name, _ in known}
    for name, words in known:
        words = ["7" if word == "N" else word for word in words]
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
    files = [yaml.safe_load(text) for _, text in blocks("yaml")]
    assert [sorted(file["services"]) for file in files] == [
        ["qdrant"],
        ["node-1", "node-2", "node-3"],
    ]
    for file in files:
        for service in file["services"].values():
            assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+", service["image"])
            assert {volume.split(":")[0] for volume in service["volumes"]} <= set(file["volumes"])


def test_python_of_the_pages_names_what_is_there():
    for name, text in blocks("python"):
        imports = [line for line in text.splitlines() if line.startswith(("from ", "import "))]
        assert imports, name
        exec("\n".join(imports), {})


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(path):
    text = read(path)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for name in re.findall(r"--image (data/\S+\.png)", text):
        assert (TOP / name).exists(), name


@each_page_of_now
def test_files_that_a_page_names_are_there(path):
    text = read(path)
    for name in re.findall(r"`((?:\w+/)*\w+\.py)(?:::\w+)?`", text):
        places = [top / name for top in (TOP, HOME, TOP / "tests", path.parent)]
        assert name == "test_x.py" or any(place.is_file() for place in places), name
    for name in re.findall(r"`((?:data|docs|tests|notebooks)/[\w/.-]+\.(?:json|md|png))`", text):
        assert (TOP / name).is_file() or "N" in name, name


def defined(module):
    """Names that a file defines at its top: functions, classes and values."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    values = [target for node in tree.body for target in getattr(node, "targets", [])]
    return names | {target.id for target in values if isinstance(target, ast.Name)}


@each_page_of_now
def test_names_that_a_page_places_in_a_module_are_defined_there(path):
    for name, module in re.findall(r"`(\w+)` in `((?:\w+/)*\w+\.py)`", read(path)):
        known = defined(TOP / module if (TOP / module).is_file() else HOME / module)
        assert name in known, f"{name} in {module}"


@each_page_of_now
def test_dotted_names_of_the_package_lead_somewhere(path):
    for dotted in set(re.findall(r"\btgdt_mini(?:\.\w+)+", read(path))):
        found, *parts = dotted.split(".")
        found = importlib.import_module(found)
        for part in parts:
            module = f"{getattr(found, '__name__', '')}.{part}"
            if not hasattr(found, part):
                found = importlib.import_module(module)
            else:
                found = getattr(found, part)
        assert found is not None, dotted


METHOD = read(TOP / "docs" / "method.md")


def rows_of(head):
    """The cells of each row of the table of docs/method.md whose head begins so."""
    lines = METHOD.split(f"| {head}", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_method_has_the_sizes_that_the_presets_have():
    presets = TGDTConfig.mini(), photo_config(text_features=1), TGDTConfig.paper()
    rows = rows_of("size, and its setting")
    assert len(rows) >= 9
    for what, *cells in rows:
        (name,) = re.findall(r"`(\w+)`", what)
        assert cells == [str(getattr(preset, name)) for preset in presets], name


def test_the_method_has_the_settings_that_training_has():
    margin = signature(consistency_loss).parameters["margin"].default
    ours, config = {row[0]: row[2] for row in rows_of("setting |")}, TrainingConfig()
    assert float(ours["learning rate"].split(",")[0]) == config.learning_rate
    assert ours["warm-up"].startswith(f"{WARMUP:.0%} ")
    assert (ours["batch"], ours["epochs"]) == (str(config.batch), str(config.epochs))
    assert float(ours["gradient norm clipped at"]) == config.clip
    assert f"$a = {config.margin}$" in METHOD and f"$b = {margin}$" in METHOD
    assert f"after {config.warm_negatives:.0%} of the epochs" in METHOD


def test_each_difference_from_the_released_code_is_shown_by_a_test_that_is_there():
    numbers = [str(number) for number in range(1, 17)]
    assert [row[0] for row in rows_of("# |")] == numbers
    shown = re.findall(r"^(\d+)\. (`test_.+`)$", METHOD, re.M)
    assert [number for number, _ in shown] == numbers
    for number, tests in shown:
        for test in re.findall(r"`([^`]+)`", tests):
            file, name = test.split("::")
            assert name in defined(TOP / "tests" / file), f"{number}: {test}"


def test_the_additions_are_switched_off_by_settings_that_are_there():
    rows = rows_of("addition |")
    assert len(rows) == 8
    for _, _, off in rows:
        for flag in re.findall(r"`(--[^`]+)`", off):
            assert cli.parser().parse_args(["train", *flag.split()])
        for setting in re.findall(r"`(\w+=\w+)`", off):
            name, value = setting.split("=")
            TGDTConfig.mini(**{name: ast.literal_eval(value)})


def chapter(number):
    (path,) = (TOP / "notebooks").glob(f"{number}_*.ipynb")
    cells = json.loads(read(path))["cells"]
    return "".join("".join(cell["source"]) + "\n" for cell in cells)


GLOSSARY = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| \[(\d\d)\]\(../notebooks/(\d\d)_\w+\.ipynb\) \|$",
    read(TOP / "docs" / "glossary.md"),
    re.M,
)


def test_the_glossary_is_in_order_and_each_chapter_has_terms():
    terms = [term.lower() for term, *_ in GLOSSARY]
    assert terms == sorted(set(terms)) and len(terms) == read(TOP / "docs/glossary.md").count(
        "](../"
    )
    chapters = {path.name[:2] for path in (TOP / "notebooks").glob("[01]*.ipynb")}
    assert {number for *_, number in GLOSSARY} == chapters


@pytest.mark.parametrize("term, meaning, number, linked", GLOSSARY)
def test_a_term_is_used_in_the_chapter_that_the_glossary_names(term, meaning, number, linked):
    assert number == linked and len(meaning) > 10 and "." not in meaning
    assert term.lower()[:6] in chapter(number).lower(), f"chapter {number} does not say {term}"


def test_there_are_ten_references_and_the_chapters_that_they_name_link_to_them():
    entries = re.split(r"^\d+\. ", read(TOP / "docs" / "references.md"), flags=re.M)[1:]
    assert len(entries) == 10
    for entry in entries:
        assert re.search(r"\b(19|20)\d\d\b", entry) and "arxiv.org/abs/" in entry
        (number,) = re.findall(r"\[\[(\d\d)\]", entry)
        assert "../docs/references.md" in chapter(number), f"chapter {number} has no link"


@each_page
def test_a_page_speaks_of_no_machine(path):
    assert not re.search(r"/(root|home|work|tmp|Users)/\w", read(path))
