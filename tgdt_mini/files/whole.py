"""Files and folders that appear whole or not at all, whoever stops the program.

What has appeared is on the disk, and not only in the system's memory: it survives a power cut.
"""

import errno
import glob
import os
import platform
import re
import shutil
import tempfile
import threading
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tgdt_mini.files.locks import only_writer

NEW = ".tgdt-new"  # how the names of unfinished files and folders end
PATIENCE = 60.0  # seconds that a writer waits for another one of the same folder


@contextmanager
def whole_folder(folder: Path | str, marker: str | None = None, ours: set[str] | None = None):
    """A new, empty folder to write into, which becomes `folder` when everything is written.

        with whole_folder(path, marker="config.json") as staging:
            write(staging / "config.json")

    marker: a file that every folder of this kind holds. With it, an old folder is replaced. Without
    it, a folder that is there by then, made by another process perhaps, stays as it is.
    ours: the only names that an old folder may hold; None: any.
    Raises ValueError for a folder of files without the marker: it is not ours to replace. OSError
    (a full disk, no permission) passes through; then `folder` is as it was.

    This is for folders whose files have fixed names, since users copy them (a model) or another
    library opens them (a table of `datasets`). Two folders cannot change places in one step on
    every system. So the old one is renamed, then the new one. A process that is killed between the
    two leaves the old files in `.NAME.tgdt-old`: readers find them there by `standing`, and the
    next writer puts them back. A store with a manifest needs none of this, see `store.py`.
    One writer at a time: another one of this machine waits.
    """
    folder = _target(folder)
    with only_writer(folder, PATIENCE) if marker else nullcontext():
        with _staged(folder, marker, ours) as staging:
            yield staging


@contextmanager
def _staged(folder, marker, ours):
    if folder.is_file():
        raise ValueError(f"{folder} is a file; choose a folder")
    _settle(folder)
    _sweep(folder)
    if marker and folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise ValueError(
            f"{folder} holds files but no {marker}: it is not ours to replace; choose another"
        )
    if ours and folder.is_dir() and (others := {path.name for path in folder.iterdir()} - ours):
        raise ValueError(f"{folder} holds {min(others)}, which is not ours; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    name = {"prefix": f".{folder.name}.{_writer()}.", "suffix": NEW}
    staging = Path(tempfile.mkdtemp(**name, dir=folder.parent))
    staging.chmod(0o755)  # mkdtemp lets nobody else read its folders
    try:
        yield staging
        sync(staging)
        if marker and folder.exists():
            folder.rename(_old(folder))
        try:
            staging.rename(folder)
        except OSError:
            if marker or not folder.is_dir():
                raise
        _sync_one(folder.parent)
        with suppress(OSError):
            _old(folder).rename(staging)  # so that a killed tidying leaves nothing to put back
    finally:
        _settle(folder)
        shutil.rmtree(staging, ignore_errors=True)


def standing(folder: Path | str) -> Path:
    """The path where the files of a folder are: `folder`, or where a killed writer moved them."""
    try:
        folder = _target(folder)
        return _old(folder) if not folder.exists() and _old(folder).is_dir() else folder
    except OSError:  # no name that a file can have: whoever opens it says so
        return Path(folder)


def _target(folder):
    folder = Path(folder)
    return folder.resolve() if folder.is_symlink() else folder


def _old(folder):
    return folder.parent / f".{folder.name}.tgdt-old"


def _settle(folder):
    """Put moved files back if no new ones have taken their place, else remove them."""
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    else:
        shutil.rmtree(old, ignore_errors=True)


def _writer():
    """This machine and process, as part of a file's name."""
    machine = re.sub("[^A-Za-z0-9-]", "-", platform.node())[:40]
    return f"{machine}-{os.getpid()}"


def _sweep(path):
    """Remove the unfinished files and folders of a path whose process has ended, on this machine.

    No clock is asked: another machine's may be an hour off.
    """
    machine = _writer().rpartition("-")[0]
    for left in path.parent.glob(f".{glob.escape(path.name)}.{machine}-*{NEW}"):
        process = left.name.removeprefix(f".{path.name}.{machine}-").partition(".")[0]
        if process.isdecimal() and not _is_running(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_running(process):
    if os.name == "nt":  # where to ask would be to end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def sync(folder: Path) -> None:
    """Have the system write all files of a folder to the disk, and the folder's names."""
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path):
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_aside(folder: Path | str, names: tuple[str, ...]) -> Path | None:
    """A new folder `earlier-1`, or the next, with what a folder held under `names`; else None.

    set_aside("runs/full", ("model", "last")) -> runs/full/earlier-1, with model and last in it
    """
    paths = [path for name in names if (path := Path(folder) / name).exists()]
    if not paths:
        return None
    number = 1
    while (aside := Path(folder) / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for path in paths:
        path.rename(aside / path.name)
    return aside


def write_whole(path: Path | str, content: str | bytes) -> None:
    """Write a file under another name, then give it its own. Text is UTF-8. OSError passes.

    A link stays one: the file that it points to is written.
    """
    path = _target(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    name = f".{path.name}.{_writer()}.{threading.get_ident()}{NEW}"
    staging = path.with_name(name)
    try:
        staging.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        _sync_one(staging)
        staging.replace(path)
        _sync_one(path.parent)
    finally:
        staging.unlink(missing_ok=True)
