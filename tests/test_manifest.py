"""JSON that may be wrong in any way is one kind of error; a folder is read all old or all new."""

import json
from pathlib import Path

import pytest
from helpers import refusal

from tgdt_mini.files.manifest import (
    check_folder,
    is_intact,
    load_json,
    read_json,
    read_whole,
    seal_folder,
    write_sealed,
)
from tgdt_mini.files.whole import whole_folder

KEYS = {"format": "one", "items": list, "model": (str, None)}
GOOD = {"format": "one", "items": [1], "model": None, "more": True}
WRONG = {
    "missing": (None, "is missing"),
    "no folder": ("no folder", "is missing"),
    "empty": (b"", "is damaged"),
    "not UTF-8": (b'{"format": "\xff"}', "is damaged .*utf-8"),
    "not JSON": (b'{"format": ', "is damaged .*line 1"),
    "no end": (b"[" * 100_000, "is damaged"),
    "a list": ([1, 2], "a list instead of an object"),
    "a number": (3, "a int instead of an object"),
    "no key": ({"format": "one", "items": []}, "no model"),
    "another type": (GOOD | {"items": "ab"}, "items is 'ab' instead of list"),
    "neither type": (GOOD | {"model": 3}, "model is 3 instead of str or None"),
    "another value": (GOOD | {"format": "two"}, "format is 'two' instead of 'one'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_whatever_is_wrong_is_a_value_error_with_the_file_and_the_cure(tmp_path, what):
    content, message = WRONG[what]
    path = tmp_path / "list.json"
    if content == "no folder":
        path.write_text("a file", encoding="utf-8")
        path = path / "list.json"
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError, match=f"list.json.*{message}.*; make another"):
        read_json(path, KEYS, "list", "make another")


def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    monkeypatch.setattr(Path, "read_text", denied)  # root may read everything
    with refusal("list.json may not be read; change its permissions"):
        load_json(tmp_path / "list.json", "index again")


def test_what_is_good_is_returned_with_all_that_it_holds(tmp_path):
    path = tmp_path / "list.json"
    write_sealed(path, GOOD)
    assert read_json(path, KEYS, "list", "make another") == GOOD
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_json(path, KEYS, "list", "make another", sealed=False) == GOOD
    with pytest.raises(ValueError, match="list.json is damaged: its seal.*make another"):
        read_json(path, KEYS, "list", "make another")


def test_a_seal_under_another_name_is_damage_also_where_a_seal_may_lack(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_json(path, KEYS, "list", "make another", sealed=None) == GOOD
    write_sealed(path, GOOD)
    assert read_json(path, KEYS, "list", "make another", sealed=None) == GOOD
    path.write_bytes(path.read_bytes().replace(b'"seal"', b'"sea1"'))
    with pytest.raises(ValueError, match="list.json is damaged: its seal has another name; make"):
        read_json(path, KEYS, "list", "make another", sealed=None)


def test_no_byte_of_a_sealed_file_changes_in_silence(tmp_path):
    """Spaces between values may come and go: they mean nothing."""
    path, content = tmp_path / "list.json", GOOD | {"sizes": {"a": 1.5, "b": [2, 3]}}
    write_sealed(path, content)
    good = path.read_bytes()
    for at in range(len(good)):
        for change in (1, 16, 128):
            changed = bytearray(good)
            changed[at] ^= change
            path.write_bytes(changed)
            try:
                assert read_json(path, KEYS, "list", "make another") == content
            except ValueError as error:
                assert "list.json" in str(error) and "make another" in str(error)
    path.write_bytes(good.replace(b'"a": 1.5', b'"a": 2.5'))
    with pytest.raises(ValueError, match="seal"):
        read_json(path, KEYS, "list", "make another")


def test_the_order_of_what_is_sealed_counts(tmp_path):
    """The shards of a gallery stand in the order of its items."""
    write_sealed(tmp_path / "list.json", GOOD | {"shards": {"one": 1, "two": 2}})
    text = (tmp_path / "list.json").read_text(encoding="utf-8")
    turned = text.replace('"one": 1,\n  "two": 2', '"two": 2,\n  "one": 1')
    assert turned != text
    (tmp_path / "list.json").write_text(turned, encoding="utf-8")
    with pytest.raises(ValueError, match="seal"):
        read_json(tmp_path / "list.json", KEYS, "list", "make another")


@pytest.mark.parametrize("damage", ["changed", "missing", "no list"])
def test_a_sealed_folder_is_what_it_was_or_is_discarded_with_a_warning(tmp_path, damage):
    folder = tmp_path / "cached"
    assert not is_intact(folder, "made again")  # nothing is there: nothing is said
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b", "empty"):
        (folder / name).write_bytes(name.encode() if name != "empty" else b"")
    seal_folder(folder)
    (folder / "cache-1.arrow").write_bytes(b"datasets puts it there")
    check_folder(folder, "made again")
    assert is_intact(folder, "made again") and (folder / "a").exists()
    path = folder / {"no list": "files.json"}.get(damage, "deep/b")
    if damage == "changed":
        path.write_bytes(b"other")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing.*made again"):
        check_folder(folder, "made again")
    with pytest.warns(UserWarning, match="made again"):
        assert not is_intact(folder, "made again")
    assert not folder.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_reader_whose_folder_is_replaced_meanwhile_sees_the_new_files_only(tmp_path, fails):
    folder = tmp_path / "folder"

    def write(text):
        with whole_folder(folder, marker="list.json") as staging:
            for name in ("list.json", "a", "b"):
                (staging / name).write_text(text, encoding="utf-8")

    def read(path):
        first = (path / "a").read_text(encoding="utf-8")
        if first == "old":
            write("new")
            if fails:
                raise ValueError("the checksum of b is not that of list.json")
        return first, (path / "b").read_text(encoding="utf-8")

    write("old")
    assert read_whole(folder, "list.json", read) == ("new", "new")


def test_an_error_passes_when_nothing_was_replaced(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path, "list.json", lambda path: (path / "a").read_text(encoding="utf-8"))
