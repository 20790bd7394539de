"""Where things lie: what the project ships, the cache, and files and folders that appear whole or
not at all.
"""

import json
import math
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

MOMENT = 1.0  # seconds; between two renames a living process does not take so long
ABANDONED = 600.0  # seconds without a change, after which nobody is writing there any more


@contextmanager
def whole_folder(folder: Path, marker: str | None = None):
    """Write into a new folder beside `folder`, which replaces `folder` only when everything has
    been written.

    with whole_folder(path) as beside: write(beside / "a"); write(beside / "b") Whatever goes wrong,
    `folder` holds the old files or the new ones, never a part; only where the process is killed
    between two renames, it is not there until `put_back`, which whoever reads it calls. OSError (a
    full disk, no permission) passes through. marker: a file that `folder`, if it holds anything,
    must hold, else it is somebody else's and stays: ValueError. What killed processes left of this
    folder is removed.
    """
    folder = Path(folder)
    put_back(folder)
    _sweep(folder)
    if marker and folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise ValueError(
            f"{folder} holds files but no {marker}: it is not ours to replace; choose another folder"
        )
    if folder.is_file():
        raise ValueError(f"{folder} is a file; choose a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    beside.chmod(0o755)  # mkdtemp keeps its folders to their owner
    try:
        yield beside
        if folder.exists():
            old = beside.with_name(beside.name + "-old")
            folder.rename(old)
            try:
                beside.rename(folder)
            except BaseException:  # Ctrl-C too
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def set_aside(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Move what is called so in a folder into a new folder there, `earlier-1` or the next; None if
    nothing was there.

    set_aside(Path("runs/full"), ("model", "last")) -> runs/full/earlier-1, with model and last in
    it
    """
    there = [path for name in names if (path := Path(folder) / name).exists()]
    if not there:
        return None
    number = 1
    while (aside := Path(folder) / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for path in there:
        path.rename(aside / path.name)
    return aside


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename it there. Text is UTF-8. OSError passes
    through.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_report(path: Path, report: dict) -> None:
    """Write figures as JSON, whole or not at all. What is not finite, as the median rank of misses,
    is null: JSON has no word for it.
    """

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_whole(path, json.dumps(plain(report), indent=1, allow_nan=False) + "\n")


def put_back(folder: Path) -> None:
    """Give a folder its old files back, if a process was killed after it had moved them aside; else
    do nothing.
    """
    folder = Path(folder)
    if folder.exists() or not any(_moved_aside(folder)):
        return
    time.sleep(MOMENT)  # another process may be about to put the new ones there
    for old in _moved_aside(folder):
        with suppress(OSError):  # another process was first
            if not folder.exists():
                old.rename(folder)
                shutil.rmtree(old.with_name(old.name.removesuffix("-old")), ignore_errors=True)


def _moved_aside(folder):
    """Old files whose new ones, whole, still lie beside them: without these, the new ones have
    taken their place.
    """
    return [
        path
        for path in _siblings(folder)
        if path.name.endswith("-old") and path.with_name(path.name.removesuffix("-old")).is_dir()
    ]


def _sweep(folder):
    """Remove what processes that were killed left beside a folder, as soon as nothing in it has
    changed for long.
    """
    for left in _siblings(folder):
        with suppress(OSError):  # somebody is at work there
            stats = [path.stat() for path in (left, *left.rglob("*"))]
            newest = max(
                max(stat.st_mtime, stat.st_ctime) for stat in stats
            )  # ctime: when it was moved aside
            if time.time() - newest > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _siblings(folder):
    """The folders that `whole_folder` makes for this one, and for no other, whoever made them."""
    name = re.compile(
        rf"\.{re.escape(folder.name)}-[a-z0-9_]{{8}}(-old)?"
    )  # eight letters of mkdtemp
    with suppress(OSError):  # there is no parent yet
        return [
            path for path in folder.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()
        ]
    return []
