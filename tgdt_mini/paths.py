"""Where things lie: what the project ships, the cache, and folders that appear whole or not at all."""

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


def set_aside(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Move what is called so in a folder into a new folder there, `earlier-1` or the next; None if nothing was there.

    set_aside(Path("runs/full"), ("model", "last")) -> runs/full/earlier-1, with model and last in it
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
    """Write a file beside its place, then rename it there. Text is UTF-8. OSError passes through."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
