"""Files and folders are whole or absent, wherever a writer fails or is killed."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import refusal

from tgdt_mini.files import locks, whole
from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.manifest import write_report
from tgdt_mini.files.whole import standing, whole_folder, write_whole

ROOT = Path(whole.__file__).parents[2]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "new" / "file.txt", "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"caf\xc3\xa9\n"

    def full(path, content):
        path.open("wb").write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        write_whole(tmp_path / "new" / "file.txt", "another")
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"caf\xc3\xa9\n"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_folder_is_not_written_as_a_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"this is a folder; name a file: '{tmp_path}'"):
        write_whole(tmp_path, "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_gets_its_new_content_in_one_step(tmp_path):
    path, twin = tmp_path / "file.txt", tmp_path / "twin.txt"
    write_whole(path, "old")
    try:
        os.link(path, twin)  # a second name of the old file: whoever has it open reads there
    except OSError:
        pytest.skip("this file system has no hard links")
    write_whole(path, "new and longer")
    assert path.read_text(encoding="utf-8") == "new and longer"
    assert twin.read_text(encoding="utf-8") == "old"


def test_a_report_is_json_for_every_reader_whatever_its_figures(tmp_path):
    report = {
        "rows": {"global": {"median": float("inf"), "t2i": {1: 2.5}}},
        "history": [{"loss": float("nan")}, (3,)],
    }
    write_report(tmp_path / "report.json", report)

    def never(word):
        raise AssertionError(f"{word} is not JSON")

    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=never)
    assert len(found.pop("seal")) == 64 and found == {
        "rows": {"global": {"median": None, "t2i": {"1": 2.5}}},
        "history": [{"loss": None}, [3]],
    }
    assert text.endswith("}\n") and report["rows"]["global"]["median"] == float("inf")


def write(folder, text, marker="a"):
    with whole_folder(folder, marker) as staging:
        (staging / "a").write_text(text, encoding="utf-8")


def text_of(folder):
    return (standing(folder) / "a").read_text(encoding="utf-8")


def test_a_folder_that_fails_while_it_is_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    write(folder, "old")
    (folder / "b").write_text("old too", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder, "a") as staging:
        (staging / "a").write_text("new", encoding="utf-8")
        raise KeyboardInterrupt
    assert text_of(folder) == "old" and list(tmp_path.iterdir()) == [folder]
    write(folder, "new")
    assert [path.name for path in folder.iterdir()] == ["a"] and text_of(folder) == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_without_a_marker_a_folder_that_is_there_stays(tmp_path):
    with whole_folder(tmp_path / "cache") as staging:
        (staging / "a").write_text("mine", encoding="utf-8")
        write(tmp_path / "cache", "of a process that was faster", marker=None)
    assert text_of(tmp_path / "cache") == "of a process that was faster"
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


def test_what_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="not ours|is a file"):
            write(folder, "new")
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "three years"


KILLED = """
import os
from pathlib import Path
from tgdt_mini.files import whole

def die(*_, **__):
    os._exit(9)

def rename_then_die(path, target, rename=Path.rename):
    rename(path, target)
    os._exit(9)

with whole.whole_folder(Path("folder"), "a") as staging:
    (staging / "a").write_text("new", encoding="utf-8")
    {point}
"""
POINTS = {  # where a process is killed that writes "new" in place of "old", and what stands then
    "writing": ("die()", "old"),
    "between the renames": ("Path.rename = rename_then_die", "old"),
    "tidying": ("whole.shutil.rmtree = die", "new"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path, point, monkeypatch):
    folder = tmp_path / "folder"
    write(folder, "old")
    line, stands = POINTS[point]
    script, environment = KILLED.format(point=line), os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    assert done.returncode == 9 and len(list(tmp_path.iterdir())) == 2
    assert text_of(folder) == stands
    other = tmp_path / ".folders.abcd1234.tgdt-new"
    other.mkdir()
    with pytest.raises(KeyboardInterrupt), whole_folder(folder, "a"):
        raise KeyboardInterrupt  # a writer that fails has tidied up none the less
    assert text_of(folder) == stands and folder.is_dir()
    write(folder, "newest")
    assert text_of(folder) == "newest" and sorted(tmp_path.iterdir()) == [other, folder]


def test_only_what_an_ended_process_of_this_machine_left_is_swept(tmp_path, monkeypatch):
    """No clock decides: another machine's may be an hour off."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = whole._writer()
    machine = mine.rpartition("-")[0]
    names = [f".a.{mine}.x.tgdt-new", f".a.elsewhere-{ended.pid}.x.tgdt-new", ".a.x.tgdt-new"]
    kept = {tmp_path / name for name in names}
    for number, path in enumerate([*kept, tmp_path / f".a.{machine}-{ended.pid}.x.tgdt-new"]):
        path.mkdir() if number % 2 else path.write_bytes(b"")
        os.utime(path, (0, 0))
    write_whole(tmp_path / "a", "text")
    assert set(tmp_path.iterdir()) == kept | {tmp_path / "a"}


def test_what_is_written_to_a_link_reaches_its_file(tmp_path):
    (tmp_path / "file").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"


def test_threads_may_write_one_file(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_whole(tmp_path / "a", str(n) * 10_000), range(200)))
    text = (tmp_path / "a").read_text(encoding="utf-8")
    assert text in {str(n) * 10_000 for n in range(200)} and len(list(tmp_path.iterdir())) == 1


def test_a_second_writer_waits_or_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    other = hold(tmp_path / "folder")
    with refusal("folder is being written to by another process; wait"):
        with only_writer(tmp_path / "elsewhere" / ".." / "folder"):
            pass
    end(other)
    with only_writer(tmp_path / "folder"), only_writer(tmp_path / "folder"):
        pass  # and again by who has it
    assert not list(tmp_path.iterdir())


HOLD = """
import os, sys, time
from tgdt_mini.files.locks import only_writer
with only_writer(sys.argv[1]):
    print("here", flush=True)
    time.sleep(60)
"""


def hold(folder, code=HOLD, **environment):
    """A process that writes to a folder, once it does so."""
    python = [sys.executable, "-c", code, folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    other = subprocess.Popen(python, stdout=subprocess.PIPE, env=environment)
    assert other.stdout.readline() == b"here\n"
    return other


def end(other):
    other.kill()
    other.wait()
    other.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="there every user has temporary files of his own")
def test_a_lock_holds_whatever_the_environment_says_of_user_and_temporary_files(tmp_path):
    (tmp_path / "own").mkdir()
    there = {"TMPDIR": str(tmp_path / "own"), "LOGNAME": "../../../etc/x", "USER": "y"}
    other = hold(tmp_path / "folder", **there)
    try:
        with refusal("folder is being written to by another process"):
            with only_writer(tmp_path / "folder"):
                pass
    finally:
        end(other)
    assert [path.name for path in tmp_path.rglob("*")] == ["own"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can be another user")
def test_who_calls_sudo_shares_the_locks_with_it(tmp_path, monkeypatch):
    user = 54321
    monkeypatch.setenv("SUDO_UID", str(user))
    # what it needs is imported before it becomes another user, who may not read it
    code = HOLD.replace("with only", f"import filelock; os.seteuid({user})\nwith only", 1)
    try:
        with only_writer(tmp_path):
            pass
        for how in ({"code": code}, {"SUDO_UID": ""}):  # who called; root without sudo
            other = hold(tmp_path, **how)
            try:
                with refusal("is being written to by another process"):
                    with only_writer(tmp_path):
                        pass
            finally:
                end(other)
    finally:
        shutil.rmtree(locks._home(user))
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert locks._users() == [7]  # who is not root cannot have another one's


@pytest.mark.skipif(os.name == "nt", reason="there every user has temporary files of his own")
def test_locks_do_not_go_where_something_else_has_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PLACE", str(tmp_path))
    monkeypatch.delenv("SUDO_UID", raising=False)
    home = tmp_path / f"tgdt-mini-locks-{os.geteuid()}"
    home.write_bytes(b"")
    words = f"{home} is no folder, as the one of the locks must be; delete it"
    with refusal(words), only_writer(tmp_path / "folder"):
        pass
    home.unlink()
    (tmp_path / "elsewhere").mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    with refusal(words), only_writer(tmp_path / "folder"):
        pass
    home.unlink()
    with only_writer(tmp_path / "folder"):
        assert home.stat().st_mode & 0o777 == 0o700
    other = os.geteuid() + 1
    home.rename(tmp_path / f"tgdt-mini-locks-{other}")
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with refusal("belongs to another user, .*; delete it"), only_writer(tmp_path / "folder"):
        pass


def test_old_files_do_not_come_back_when_somebody_deletes_the_folder(tmp_path, monkeypatch):
    write(tmp_path / "folder", "old")
    with monkeypatch.context() as patch:
        patch.setattr(whole.shutil, "rmtree", lambda *_, **__: None)  # killed before it tidied up
        write(tmp_path / "folder", "new")
    whole.shutil.rmtree(tmp_path / "folder")
    assert not standing(tmp_path / "folder").exists()


def test_a_folder_may_be_named_from_within_or_by_a_link(tmp_path, monkeypatch):
    write(tmp_path / "folder", "old")
    monkeypatch.chdir(tmp_path / "folder")
    assert text_of(".") == "old"
    try:
        (tmp_path / "link").symlink_to(tmp_path / "folder")
    except OSError:
        pytest.skip("no links here")
    write(tmp_path / "link", "new")
    assert text_of(tmp_path / "folder") == "new" and (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
