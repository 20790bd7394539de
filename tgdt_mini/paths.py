"""Where things lie: what the project ships, the cache, and files and folders that appear whole or not at all."""

import json
import math
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


def shipped() -> Path:
    """The folder `data/` of the project: beside the package in a checkout, inside it when installed from a wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here / "data", here.parent / "data"):
        if (folder / "checksums.json").is_file():
            return folder
    raise FileNotFoundError(f"no data folder in or beside {here}: install with `pip install -e .` from a full checkout")


def cache() -> Path:
    """Where drawn scenes and image features are kept: $TGDT_MINI_CACHE, else ~/.cache/tgdt_mini."""
    return Path(os.environ.get("TGDT_MINI_CACHE") or Path.home() / ".cache" / "tgdt_mini")


@contextmanager
def whole_folder(folder: Path, marker: str | None = None):
    """Write into a new folder beside `folder`, which replaces `folder` only when everything has been written.

    with whole_folder(path) as beside: write(beside / "a"); write(beside / "b")
    Whatever goes wrong, `folder` holds the old files or the new ones, never a part. OSError (a full disk, no
    permission) passes through. marker: a file that `folder`, if it holds anything, must hold, else it is somebody
    else's and stays: ValueError.
    """
    folder = Path(folder)
    if marker and folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise ValueError(f"{folder} holds files but no {marker}: it is not ours to replace; choose another folder")
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


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename it there. Text is UTF-8. OSError passes through."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_report(path: Path, report: dict) -> None:
    """Write figures as JSON, whole or not at all. What is not finite, as the median rank of misses, is null: JSON has
    no word for it."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_whole(path, json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
