"""When pytest starts several processes, and that these start none."""

import argparse
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

spec = importlib.util.spec_from_file_location(
    "top_conftest", Path(__file__).resolve().parent.parent / "conftest.py"
)
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
AS_USUAL = dict(numprocesses=None, dist="no", tx=[], usepdb=False, collectonly=False)


def asked(source="TESTPATHS", **options):
    """The options after the hook, of a run with these options."""
    option = argparse.Namespace(**(AS_USUAL | {"loadscopereorder": True} | options))
    sources = pytest.Config.ArgsSource
    config = SimpleNamespace(option=option, args_source=sources[source], ArgsSource=sources)
    conftest.pytest_cmdline_main(config)
    return option


@pytest.fixture(autouse=True)
def two_cores_and_not_started_by_another(monkeypatch):
    monkeypatch.delenv(conftest.WORKER, raising=False)
    monkeypatch.setattr(conftest, "_cores", lambda: 2)


def test_everything_is_shared_out_file_by_file_in_the_order_that_conftest_gives():
    option = asked()
    assert (option.numprocesses, option.dist, option.loadscopereorder) == (2, "loadfile", False)


@pytest.mark.parametrize(
    "options",
    [
        {"source": "ARGS"},
        {"numprocesses": 0},
        {"numprocesses": 3},
        {"dist": "load"},
        {"usepdb": True},
        {"collectonly": True},
    ],
    ids=str,
)
def test_what_was_asked_for_stays(options):
    before = AS_USUAL | {name: each for name, each in options.items() if name != "source"}
    assert vars(asked(**options)) == before | {"loadscopereorder": True}


def test_a_process_of_several_starts_no_more(monkeypatch):
    monkeypatch.setenv(conftest.WORKER, "gw0")
    assert asked().numprocesses is None


def test_without_pytest_xdist_all_is_as_usual():
    config = SimpleNamespace(option=argparse.Namespace(usepdb=False, collectonly=False))
    conftest.pytest_cmdline_main(config)
    assert vars(config.option) == {"usepdb": False, "collectonly": False}


def test_the_files_that_come_first_exist():
    top = Path(conftest.__file__).parent
    paths = [*(top / "tests").glob("*.py"), *(top / "notebooks").rglob("*.ipynb")]
    stems = [path.stem for path in paths]
    assert set(conftest.LONGEST) | set(conftest.OLDER) <= set(stems)
