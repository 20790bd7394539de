"""JSON files, read with one kind of error for whatever may be wrong with them.

What describes other files (a model, a gallery, features) is sealed: it holds the SHA-256 of all
that it says, and the checksums of the files beside it. So no byte of them can change in silence.
"""

import hashlib
import json
import math
import re
import shutil
import warnings
import zlib
from pathlib import Path

import numpy as np

from tgdt_mini.files.check import named
from tgdt_mini.files.whole import standing, write_whole

SEAL = "seal"
SUM = re.compile("[0-9a-f]{64}")  # what a seal looks like
FILES = "files.json"  # the manifest of a folder that has no other one


def seal_of(content: dict) -> str:
    """The SHA-256 of JSON values in their order, "seal" left out."""
    others = {key: value for key, value in content.items() if key != SEAL}
    others = json.loads(json.dumps(others))  # as they are read back: keys become strings
    return hashlib.sha256(json.dumps(others).encode("utf-8")).hexdigest()


def write_sealed(path: Path | str, content: dict) -> None:
    """Write a JSON object with its seal, whole or not at all; read it by `read_json`."""
    sealed = content | {SEAL: seal_of(content)}
    write_whole(path, json.dumps(sealed, indent=1) + "\n")


def write_report(path: Path | str, report: dict) -> None:
    """Write figures as a JSON object with its seal, whole or not at all.

    What is not finite, such as the median rank of misses, becomes null: JSON has no word for it.
    """
    write_sealed(path, _plain(report))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: Path | str, cure: str):
    """Any JSON value in a file. ValueError, by name and with the cure, where there is none."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would keep its reader waiting for ever
            raise ValueError(f"{named(path)} is no file; {cure}")
        text = path.read_text(encoding="utf-8-sig")  # others put a mark of the byte order first
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{named(path)} is missing; {cure}") from None
    except PermissionError:
        raise ValueError(
            f"{named(path)} may not be read; change its permissions, or those of its folders"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{named(path)} is damaged ({error}); {cure}") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{named(path)} is damaged ({error}); {cure}") from None


def read_json(
    path: Path | str, keys: dict, what: str, cure: str, sealed: bool | None = True
) -> dict:
    """The JSON object in a file, which must hold certain keys; others may be there too.

    keys: {key: what its value must be}, a type, a value, or a tuple of such, of which one must fit.
    what: what the file should be. cure: what the reader of an error can do. sealed: whether
    `write_sealed` wrote it; None: perhaps. The seal is left out of what is returned.
    Raises ValueError that names the file, and the cure, for a file that is missing, is not UTF-8,
    not JSON or no object, lacks a key, holds another type of value under it, or breaks its seal.
    Example: read_json(path, {"items": list, "model": (str, None)}, "gallery", "index again")
    """
    content = load_json(path, cure)
    if problem := _problem(content, keys):
        raise ValueError(f"{named(path)} is damaged, or no {what} ({problem}); {cure}")
    known = content.pop(SEAL, None) if sealed in (True, None) else None
    lost = any(isinstance(value, str) and SUM.fullmatch(value) for value in content.values())
    if known is None and sealed is None and lost:
        raise ValueError(f"{named(path)} is damaged: its seal has another name; {cure}")
    if (sealed or known is not None) and known != seal_of(content):
        raise ValueError(
            f"{named(path)} is damaged: its seal, a checksum of all that it says, does not fit (or "
            f"an older version wrote it, or it was changed by hand); {cure}"
        )
    return content


def seal_folder(folder: Path) -> None:
    """Write files.json: the size and the CRC-32 of every other file of a folder."""
    write_sealed(folder / FILES, {"files": _sums(folder)})


def check_folder(folder: Path, cure: str) -> None:
    """ValueError unless all files that `seal_folder` saw are as they were; all of them are read.

    Files that have come since, such as those that `datasets` puts beside a table, do not count.
    """
    known = read_json(folder / FILES, {"files": dict}, "list of files", cure)["files"]
    for name, sums in known.items():
        if size_and_crc(folder / name) != sums:
            raise ValueError(f"{folder / name} is missing or damaged; {cure}")


def is_intact(folder: Path, cure: str) -> bool:
    """Whether a folder of the cache is there and what `seal_folder` saw.

    A damaged one is removed, and a warning says so. cure: what happens now, such as "it is drawn
    again".
    """
    if not folder.exists():
        return False
    try:
        check_folder(folder, cure)
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.unlink()
        return False
    return True


def size_and_crc(path: Path) -> list[int] | None:
    """[bytes, CRC-32] of a file; None if there is none."""
    return [size_of(path), crc32(path)] if path.is_file() else None


def size_of(path: Path) -> int | None:
    """A file's size in bytes; None if there is none."""
    return path.stat().st_size if path.is_file() else None


def crc32(path: Path) -> int:
    """The CRC-32 of a file, which is mapped: it may be larger than the memory."""
    return zlib.crc32(np.memmap(path, np.uint8, "r")) if size_of(path) else 0


def _sums(folder):
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILES)
    return {path.relative_to(folder).as_posix(): size_and_crc(path) for path in paths}


def _problem(content, keys):
    """What is wrong with a value that was read, in words; None if nothing is."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__} instead of an object"
    for key, wanted in keys.items():
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        if key not in content:
            return f"no {key}"
        value = content[key]
        if not any(isinstance(value, o) if isinstance(o, type) else value == o for o in options):
            names = [o.__name__ if isinstance(o, type) else repr(o) for o in options]
            return f"{key} is {value!r:.60} instead of {' or '.join(names)}"
    return None


def read_whole(folder: Path | str, manifest: str, read):
    """What read(path) makes of the files of a folder, all of them old or all of them new.

    A writer may replace them while `read` is at work. Then the manifest, the file that describes
    the others, is another one afterwards, and everything is read again.
    read: a function of the folder's path; its OSError and ValueError pass through, unless the
    manifest has changed.
    """
    while True:
        path = standing(folder)
        before, content, failure = _content(path / manifest), None, None
        try:
            content = read(path)
        except (OSError, ValueError) as error:
            failure = error
        if _content(standing(folder) / manifest) == before:
            if failure is not None:
                raise failure
            return content


def _content(path):
    try:
        return path.read_bytes()
    except OSError:
        return None
