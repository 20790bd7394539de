"""The package as a whole: what it imports, what it promises by name, and how its files are read and
written.
"""

import ast
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import tgdt_mini
from tgdt_mini import scenes
from tgdt_mini.files import paths

HOME = Path(tgdt_mini.__file__).parent
ROOT = HOME.parent
NAMES = (
    "Embedding TGDTConfig TGDT global_similarity local_similarity mixed_similarity hinge_loss "
    "consistency_loss cmc_loss info_nce_loss ranks recall_at_k two_stage Gallery load_model "
    "save_model"
).split()
WINGS = (
    "files scenes search encoders photos reports scaling runs app bench commands coursework".split()
)
BOOK_FLOOR = 0.5  # above files, below the scenes
BOOK = (  # in the order of its chapters
    "embedding text_tokens image_tokens data config layers model similarity losses training_config "
    "optimizer batches training checkpoint encoding evaluation retrieval"
).split()
HEAVY = {"transformers", "datasets", "matplotlib", "seaborn", "tokenizers", "pandas"}


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy():
    loaded = "json.dumps(sorted({name.split('.')[0] for name in sys.modules}))"
    assert not HEAVY & set(python(f"import json, sys, tgdt_mini; print({loaded})"))
    modules = ", ".join(
        ".".join(("tgdt_mini", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for path in sorted(HOME.rglob("*.py"))
        if path.name != "__main__.py"
    )
    assert not HEAVY & set(python(f"import json, sys, {modules}; print({loaded})"))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_contract_is_there(name):
    assert callable(getattr(tgdt_mini, name)) and name in tgdt_mini.__all__


def test_the_rest_of_the_contract_is_there():
    assert callable(tgdt_mini.scenes.load) and set(scenes.SPLITS) == {"train", "validation", "test"}
    assert all(callable(getattr(tgdt_mini.TGDTConfig, name)) for name in ("mini", "paper"))
    assert all(
        callable(getattr(tgdt_mini.TGDT, name)) for name in ("encode_images", "encode_captions")
    )
    assert all(
        callable(getattr(tgdt_mini.Gallery, name)) for name in ("build", "save", "load", "search")
    )
    assert all(hasattr(tgdt_mini, name) for name in tgdt_mini.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tgdt_mini.nothing  # noqa: B018


def known_rooms(path):
    """Dotted names of all that a module imports from the package, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tgdt_mini":
            home = node.module.split(".")[1:]
            rooms |= {".".join([*home, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {
                alias.name[10:] for alias in node.names if alias.name.startswith("tgdt_mini.")
            }
    return rooms


def test_imports_run_one_way():
    """The book knows files/ and itself; a wing knows the book and the wings before it in WINGS."""
    floor = {wing: level for level, wing in enumerate(WINGS)}
    for path in sorted(HOME.rglob("*.py")):
        home = path.relative_to(HOME).parts
        if home[0] in ("__init__.py", "__main__.py", "cli.py"):
            continue  # the doors: they open every room
        level = floor[home[0]] if len(home) > 1 else BOOK_FLOOR
        for name in known_rooms(path):
            other = name.split(".")[0]
            assert floor.get(other, BOOK_FLOOR) <= level, f"{'/'.join(home)} imports {name}"


def test_the_book_lies_flat_and_small():
    flat = {path.stem for path in HOME.glob("*.py")}
    assert flat == {*BOOK, "__init__", "__main__", "cli"}
    texts = {name: (HOME / f"{name}.py").read_text(encoding="utf-8") for name in BOOK}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    assert max(lines.values()) <= 210 and sum(lines.values()) <= 3000, lines


def test_each_wing_is_a_folder_of_its_own():
    wings = {path.parent.name for path in HOME.glob("*/__init__.py")}
    assert wings == set(WINGS)


def test_the_first_line_of_a_docstring_is_a_whole_sentence():
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                lines = (ast.get_docstring(node) or "").splitlines()
                assert len(lines) < 2 or not lines[1], f"{path.name}: {lines[0]}"


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_the_code_is_clean(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, str(HOME), str(ROOT / "tests")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_asked_for_is_the_same_everywhere_and_one_that_every_tested_version_takes():
    lowest = re.search(
        r'requires-python = ">=(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )[1]
    start = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    for text in ((ROOT / "README.md").read_text(encoding="utf-8"), start):
        assert set(re.findall(r"Python (\d\.\d+) or newer", text)) == {lowest}
    assert f"sys.version_info >= ({lowest.replace('.', ', ')})" in start
    tested = re.findall(
        r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M
    )
    wanted = {
        name: metadata.metadata(name)["Requires-Python"] for name in tested if _is_installed(name)
    }
    assert len(wanted) > 10
    for name, versions in wanted.items():
        assert SpecifierSet(versions or "").contains(f"{lowest}.0"), (
            f"{name} needs Python {versions}"
        )


def _is_installed(name):
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def test_text_is_read_and_written_as_utf_8():
    for path in [*HOME.rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            named = {keyword.arg for keyword in node.keywords}
            opens = name == "open" and isinstance(node.func, ast.Name)
            if name in ("read_text", "write_text") or opens:
                assert "encoding" in named, (
                    f"{path.name}, line {node.lineno}: {name} without encoding"
                )


def test_every_module_says_what_it_is_for():
    for path in HOME.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_the_files_speak_of_no_machine():
    for path in [*HOME.rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        assert not re.search(r"/(root|home|work|tmp|Users)/\w", path.read_text(encoding="utf-8")), (
            path
        )


def test_the_data_folder_has_a_checksum_for_each_split():
    known = json.loads((paths.shipped() / "checksums.json").read_text(encoding="utf-8"))
    for split in scenes.SPLITS:
        assert all(re.fullmatch("[0-9a-f]{64}", known[split][name]) for name in ("pixels", "text"))
        assert scenes.published(split) == known[split]
    with pytest.raises(ValueError, match="split is 'dev'"):
        scenes.published("dev")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path / "here"))
    assert paths.cache() == tmp_path / "here"
    monkeypatch.setenv("TGDT_MINI_CACHE", "")
    assert paths.cache() == Path.home() / ".cache" / "tgdt_mini"
