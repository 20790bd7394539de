"""JSON files, read with one kind of error for whatever may be wrong with them."""

import json
from pathlib import Path

from tgdt_mini.files.whole import standing


def read_json(path: Path | str, keys: dict, what: str, cure: str) -> dict:
    """The JSON object in a file, which must hold certain keys; others may be there too.

    keys: {key: what its value must be}, a type, a value, or a tuple of such, of which one must fit.
    what: what the file should be. cure: what the reader of an error can do.
    Raises ValueError that names the file, and the cure, for a file that is missing, is not UTF-8,
    not JSON or no object, lacks a key or holds another type of value under it.
    Example: read_json(path, {"items": list, "model": (str, None)}, "gallery", "index again")
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} is missing; {cure}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {cure}") from None
    if problem := _problem(content, keys):
        raise ValueError(f"{path} is damaged, or no {what} ({problem}); {cure}")
    return content


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
        before, found, failure = _content(path / manifest), None, None
        try:
            found = read(path)
        except (OSError, ValueError) as error:
            failure = error
        if _content(standing(folder) / manifest) == before:
            if failure is not None:
                raise failure
            return found


def _content(path):
    try:
        return path.read_bytes()
    except OSError:
        return None
