"""The seat belt of grading: what a submission may touch, tried deed by deed in Python alone."""

import subprocess
import sys

import pytest
from coursework import FOLDER

ALLOWED = {
    "write": "open('mine.txt', 'w', encoding='utf-8').write('a')",
    "write below": "os.makedirs('a/b'); (Path('a') / 'b' / 'c').write_bytes(b'')",
    "rename": "Path('x').touch(); os.rename('x', 'y'); os.remove('y')",
    "a tree": "os.makedirs('t/u'); Path('t/u/v').touch(); shutil.rmtree('t')",
    "a temporary file": "import tempfile\nwith tempfile.TemporaryDirectory(dir='.') as d: pass",
    "read elsewhere": "assert (other / 'kept.txt').read_text(encoding='utf-8') == 'kept'",
    "list elsewhere": "assert os.listdir(other)",
    "import": "import json, email.mime.text, sqlite3; sqlite3.connect(':memory:')",
    "write to nothing": "open(os.devnull, 'w').write('a')",
    "read what is opened again": "(closed / 'package' / 'code.py').read_text(encoding='utf-8')",
}
REFUSED = {
    "write elsewhere": "(other / 'kept.txt').write_text('gone', encoding='utf-8')",
    "append": "open(other / 'kept.txt', 'a')",
    "create": "open(other / 'new.txt', 'x')",
    "os.open": "os.open(other / 'kept.txt', os.O_RDWR)",
    "climb": "open('../other/kept.txt', 'w')",
    "by a link": "os.symlink(other, 'link'); open('link/kept.txt', 'w')",
    "hard link": "os.link(other / 'kept.txt', other / 'two.txt')",
    "remove": "os.remove(other / 'kept.txt')",
    "unlink": "(other / 'kept.txt').unlink()",
    "rmtree": "shutil.rmtree(other)",
    "rmtree, quietly": "shutil.rmtree(other, ignore_errors=True)",
    "rmdir": "os.rmdir(other / 'empty')",
    "mkdir": "os.mkdir(other / 'new')",
    "rename away": "os.rename(other / 'kept.txt', 'mine.txt')",
    "replace": "Path('n').touch(); os.replace('n', other / 'kept.txt')",
    "move": "shutil.move(other / 'kept.txt', 'mine.txt')",
    "chmod": "os.chmod(other / 'kept.txt', 0)",
    "truncate": "os.truncate(other / 'kept.txt', 0)",
    "utime": "os.utime(other / 'kept.txt')",
    "an open folder": "os.remove('kept.txt', dir_fd=os.open(other, os.O_RDONLY))",
    "an open folder and a path": "os.remove('../other/kept.txt', dir_fd=os.open('.', os.O_RDONLY))",
    "change the folder": "os.chdir(other); open('kept.txt', 'w')",
    "a data base": "import sqlite3; sqlite3.connect(other / 'kept.db')",
    "read what is closed": "(closed / 'solution.txt').read_text(encoding='utf-8')",
    "list what is closed": "os.listdir(closed)",
    "glob what is closed": "next(os.scandir(closed))",
    "go where it is closed": "os.chdir(closed)",
    "read by another name": "os.symlink(closed / 'solution.txt', 'mine'); open('mine')",
    "a data base that is closed": "import sqlite3; sqlite3.connect(closed / 'solution.txt')",
    "a program": "import subprocess; subprocess.run([sys.executable, '-c', ''])",
    "a shell": "os.system('true')",
    "another process": "os.fork()",
    "the network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "its parent": "os.kill(os.getppid(), 0)",
    "much memory": "x = bytearray(3 * 2**30)",
}


TRY = """
import os, shutil, sys, traceback
from pathlib import Path

other, closed = Path({other!r}), Path({closed!r})
exec(open({belt!r}, encoding="utf-8").read())
fasten(".", [closed], [closed / "package"], 2**30)
for name, deed in {deeds!r}.items():
    home = os.getcwd()
    try:
        exec(deed)
        print(name, "done", sep=": ")
    except BaseException as error:
        print(name, f"{{type(error).__name__}} {{error}}", sep=": ")
    os.chdir(home)
"""


@pytest.fixture
def folders(tmp_path):
    for name in ("home", "other/empty", "closed/package"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "kept.txt").write_text("kept", encoding="utf-8")
    (tmp_path / "closed" / "solution.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "closed" / "package" / "code.py").write_text("", encoding="utf-8")
    return tmp_path


def outcomes(deeds, top):
    """{deed: "done" or its error}, tried with the belt on in a Python of its own."""
    places = {name: str(top / name) for name in ("other", "closed")}
    run = [
        sys.executable,
        "-B",
        "-c",
        TRY.format(belt=str(FOLDER / "belt.py"), deeds=deeds, **places),
    ]
    done = subprocess.run(run, cwd=top / "home", capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def test_what_a_submission_may_do(folders):
    assert outcomes(ALLOWED, folders) == dict.fromkeys(ALLOWED, "done")


def test_what_a_submission_may_not_do(folders):
    kept = sorted(folders.rglob("*"))
    told = outcomes(REFUSED, folders)
    assert list(told) == list(REFUSED)
    if sys.platform == "linux":  # others do not keep to a limit of memory
        assert told.pop("much memory").startswith("MemoryError")
    else:
        told.pop("much memory")
    for name, outcome in told.items():
        assert outcome.startswith("PermissionError refused while a submission is graded"), name
    mine = folders / "home"
    assert [path for path in sorted(folders.rglob("*")) if mine not in path.parents] == kept
    assert (folders / "other" / "kept.txt").read_text(encoding="utf-8") == "kept"
