"""Types of the public names: each is annotated, mypy agrees, and users of the package get them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tgdt_mini

ROOT = Path(tgdt_mini.__file__).parents[1]
MODULES = sorted({*tgdt_mini._HOME.values(), *tgdt_mini._MODULES.values()})


def functions_of(name, value):
    """(name, function) of a function, or of a class's constructor and public methods."""
    if not inspect.isclass(value):
        yield name, value
        return
    for part, method in vars(value).items():
        method = getattr(method, "fget", None) or getattr(method, "__func__", method)
        if inspect.isfunction(method) and (part[0] != "_" or part in ("__init__", "__call__")):
            yield f"{name}.{part}", method


def public():
    """(name, function) of all that the package gives by name, and of its four modules."""
    for name in tgdt_mini.__all__:
        yield from functions_of(name, getattr(tgdt_mini, name))
    for name in tgdt_mini._MODULES:
        module = getattr(tgdt_mini, name)
        for part, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and part[0] != "_":
                yield f"{name}.{part}", value


def gaps(name, function):
    """What has no annotation."""
    signature = inspect.signature(function)
    for parameter in list(signature.parameters.values()):
        if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty:
            yield f"{name}({parameter.name})"
    if signature.return_annotation is signature.empty and not name.endswith(".__init__"):
        yield f"{name} ->"


def test_every_public_name_is_annotated():
    found = dict(public())
    assert len(found) > 80
    assert not [gap for name, function in found.items() for gap in gaps(name, function)]


def test_mypy_finds_nothing_in_the_modules_of_the_public_names(tmp_path):
    pytest.importorskip("mypy")
    paths = [ROOT / "tgdt_mini" / "__init__.py"]
    for name in MODULES:
        path = ROOT.joinpath("tgdt_mini", *name.split("."))
        paths.append(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path, *paths],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"no issues found in {len(paths)} source files" in done.stdout


def test_users_get_the_types():
    assert (ROOT / "tgdt_mini" / "py.typed").is_file()


def test_what_is_found_beside_the_weights_is_declared_by_the_model():
    """No attribute is put on a model that its class does not know."""
    from helpers import tiny_model

    model = tiny_model()
    assert (model.tokenizer, model.notes, model.fingerprint) == (None, {}, None)
    loaded = tgdt_mini.Retriever.from_pretrained("scenes", device="cpu").model
    assert vars(loaded).keys() == vars(model).keys()
