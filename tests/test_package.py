"""The package as a whole: what it imports, what it promises by name, and how its files are read and
written.
"""

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import tgdt_mini
from tgdt_mini import scenes
from tgdt_mini.files import paths, whole

HOME = Path(tgdt_mini.__file__).parent
ROOT = HOME.parent
NAMES = (
    "Embedding TGDTConfig TGDT global_similarity local_similarity mixed_similarity hinge_loss consistency_loss "
    "cmc_loss info_nce_loss ranks recall_at_k two_stage Gallery load_model save_model"
).split()
WINGS = "files scenes search encoders photos reports scaling runs bench commands coursework".split()
BOOK_FLOOR = 0.5  # above files, below the scenes
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
    """Dotted names of all that a module imports from the package, inside functions too: {"similarity", "files.whole"}."""
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
        if home[0] in ("model.py", "training.py"):
            continue  # their seams come next
        level = floor[home[0]] if len(home) > 1 else BOOK_FLOOR
        for name in known_rooms(path):
            other = name.split(".")[0]
            assert floor.get(other, BOOK_FLOOR) <= level, f"{'/'.join(home)} imports {name}"


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


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    whole.write_whole(tmp_path / "new" / "file.txt", "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"caf\xc3\xa9\n"

    def full(path, content):
        path.open("wb").write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        whole.write_whole(tmp_path / "new" / "file.txt", "another")
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"caf\xc3\xa9\n"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_report_is_json_for_every_reader_whatever_its_figures(tmp_path):
    report = {
        "rows": {"global": {"median": float("inf"), "t2i": {1: 2.5}}},
        "history": [{"loss": float("nan")}, (3,)],
    }
    whole.write_report(tmp_path / "report.json", report)

    def never(word):
        raise AssertionError(f"{word} is not JSON")

    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=never) == {
        "rows": {"global": {"median": None, "t2i": {"1": 2.5}}},
        "history": [{"loss": None}, [3]],
    }
    assert text.endswith("}\n") and report["rows"]["global"]["median"] == float("inf")


def test_a_folder_that_fails_while_it_is_written_leaves_the_old_one(tmp_path):
    with whole.whole_folder(tmp_path / "folder") as beside:
        (beside / "a").write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), whole.whole_folder(tmp_path / "folder") as beside:
        (beside / "a").write_text("new", encoding="utf-8")
        raise KeyboardInterrupt
    assert (tmp_path / "folder" / "a").read_text(encoding="utf-8") == "old" and len(
        list(tmp_path.iterdir())
    ) == 1
    with whole.whole_folder(tmp_path / "folder") as beside:
        (beside / "b").write_text("new", encoding="utf-8")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["b"] and len(
        list(tmp_path.iterdir())
    ) == 1


def killed(tmp_path, at):
    """tmp_path/folder after a process that was writing "new" in place of "old" was killed, `at` a
    step.
    """
    code = f"""
import os
from pathlib import Path
from tgdt_mini.files import whole
with whole.whole_folder(Path("folder")) as beside:
    (beside / "a").write_text("old", encoding="utf-8")
rename = Path.rename
def then_die(path, target):
    rename(path, target)
    os._exit(9)
def die(*_, **__):
    os._exit(9)
with whole.whole_folder(Path("folder")) as beside:
    (beside / "a").write_text("new", encoding="utf-8")
    {at}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 9
    return tmp_path / "folder"


BETWEEN, WRITING, TIDYING = "Path.rename = then_die", "die()", "whole.shutil.rmtree = die"


def test_old_files_moved_aside_by_a_process_that_was_killed_are_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MOMENT", 0.01)
    folder = killed(tmp_path, BETWEEN)
    assert not folder.exists()
    whole.put_back(folder)
    assert (folder / "a").read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [
        folder
    ]
    whole.put_back(folder)  # nothing to do
    assert list(tmp_path.iterdir()) == [folder]


def test_a_writer_puts_them_back_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MOMENT", 0.01)
    folder = killed(tmp_path, BETWEEN)
    with pytest.raises(KeyboardInterrupt), whole.whole_folder(folder, marker="a"):
        raise KeyboardInterrupt
    assert (folder / "a").read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [
        folder
    ]


def test_a_reader_waits_for_a_living_process_that_is_between_its_renames(tmp_path, monkeypatch):
    folder = killed(tmp_path, BETWEEN)
    new = next(path for path in tmp_path.iterdir() if not path.name.endswith("-old"))
    monkeypatch.setattr(whole.time, "sleep", lambda seconds: new.rename(folder))
    whole.put_back(folder)
    assert (folder / "a").read_text(encoding="utf-8") == "new"


def test_old_files_that_were_replaced_do_not_come_back_when_somebody_deletes_the_folder(tmp_path):
    folder = killed(tmp_path, TIDYING)
    assert (folder / "a").read_text(encoding="utf-8") == "new" and len(
        list(tmp_path.iterdir())
    ) == 2
    whole.shutil.rmtree(folder)
    whole.put_back(folder)
    assert not folder.exists()


@pytest.mark.parametrize("at", [WRITING, TIDYING])
def test_what_killed_processes_left_is_removed_once_nobody_can_be_at_work_there(
    tmp_path, monkeypatch, at
):
    folder = killed(tmp_path, at)
    others = [
        tmp_path / name
        for name in (".folder-1-abcd1234", ".folder-abcd123", ".folder", ".another-abcd1234")
    ]
    for other in others:
        other.mkdir()
    left = [path for path in tmp_path.iterdir() if path not in (folder, *others)]
    assert len(left) == 1

    def write():
        with whole.whole_folder(folder) as beside:
            (beside / "a").write_text("newest", encoding="utf-8")

    write()
    assert left[0].exists()  # a living process may have written there a moment ago
    monkeypatch.setattr(whole, "ABANDONED", -1)
    write()
    assert sorted(tmp_path.iterdir()) == sorted([folder, *others])
