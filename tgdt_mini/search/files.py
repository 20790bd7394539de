"""A gallery on disk: a folder of arrays that numpy can map, whole or absent, which grows without
being rewritten.

    gallery/  gallery.json         items, the model's fingerprint, each file's size and checksum,
    the segments
              global_tokens.npy    (g, D) float32 or float16
              local_tokens.npy     (T, D) float16 or int8, item after item without padding
              offsets.npy          (g + 1,) item i owns rows offsets[i] to offsets[i + 1]
              scales.npy           (T,) float32, with int8 only: token = number x scale
              segment-0001/ ...    what was appended: each looks like the folder itself, less
              `segments`

A segment is written beside its place, renamed, and only then named in gallery.json, which is
replaced at once: whoever stops the program leaves the old gallery or the new one (how:
`paths.whole_folder`). One writer at a time. No pickle; no deletion of items.
"""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np

from tgdt_mini.files.whole import put_back, whole_folder, write_whole

CHECKED = (
    2**28
)  # bytes read and compared with their checksum whenever a gallery is opened: a quarter of a second
FORMAT = "tgdt_mini gallery 1"
HELD = ("image", "caption")
ARRAYS = (
    "global_tokens",
    "offsets",
    "scales",
    "local_tokens",
)  # in the order in which they are checked
NAME = "gallery.json"


def write(folder: Path, segments: list[dict], about: dict) -> None:
    """Write a gallery, in place of the one that is there. ValueError if the folder holds something
    else.

    segments: at least one {"items": list, name of an array: array}; about: {"holds": ..., "model":
    ...}.
    """
    with whole_folder(folder, marker=NAME) as beside:
        entries = [
            _write_segment(beside / _segment(i), each, about)
            for i, each in enumerate(segments[1:], start=1)
        ]
        _write_segment(beside, segments[0], about | ({"segments": entries} if entries else {}))


def append(folder: Path, segments: list[dict], about: dict) -> None:
    """Write further segments into a gallery's folder. ValueError if they do not belong to what is
    there.
    """
    put_back(folder)
    known = read_about(folder / NAME)
    stored = np.load(folder / "global_tokens.npy", mmap_mode="r", allow_pickle=False)
    for found, expected, name in (
        (about["model"], known["model"], "model"),
        (about["holds"], known["holds"], "kind of item"),
        (segments[0]["global_tokens"].dtype, stored.dtype, "precision of global tokens"),
        (segments[0]["global_tokens"].shape[1], stored.shape[1], "width"),
    ):
        if found != expected:
            raise ValueError(
                f"{folder} has another {name} ({expected}, not {found}); append what was built alike"
            )
    for left in folder.glob(".segment-*"):  # by a writer that was killed
        shutil.rmtree(left)
    entries = list(known.get("segments", []))
    for each in segments:
        place = folder / _segment(len(entries) + 1)
        with whole_folder(place, marker=NAME) as beside:
            entries.append(_write_segment(beside, each, about) | {"folder": place.name})
    write_whole(folder / NAME, json.dumps(known | {"segments": entries}))


def read(folder: Path, check_all: bool) -> tuple[dict, list[dict]]:
    """(about, segments) as they were written, the arrays mapped. Raises ValueError that names a
    damaged file.

    Sizes are always compared, checksums for the first CHECKED bytes of files, or for all of them
    with check_all.
    """
    put_back(folder)
    about = read_about(folder / NAME)
    parts = [(folder, about)]
    for entry in about.get("segments", []):
        path = folder / entry["folder"] / NAME
        if path.is_file() and zlib.crc32(path.read_bytes()) != entry["crc32"]:
            raise ValueError(
                f"{path} is damaged: its checksum differs from the one in {folder / NAME}; re-index"
            )
        parts.append((path.parent, read_about(path)))
    files = [
        _file(where / f"{name}.npy", each)
        for name in ARRAYS
        for where, each in parts
        if name != "scales" or "scales.npy" in each["files"]
    ]
    left = sum(size for _, size, _ in files) if check_all else CHECKED
    for path, size, crc32 in files:
        if size <= left:
            left -= size
            if zlib.crc32(np.memmap(path, np.uint8, "r")) != crc32:
                raise ValueError(
                    f"{path} is damaged: its checksum differs from the one in {NAME}; re-index"
                )
    segments = []
    for where, each in parts:
        # "c": torch wants writable memory, the file stays as it is
        arrays = {
            path.stem: np.load(path, mmap_mode="c", allow_pickle=False)
            for path, _, _ in files
            if path.parent == where
        }
        if not len(each["items"]) == len(arrays["global_tokens"]) == len(arrays["offsets"]) - 1:
            raise ValueError(
                f"{where} names {len(each['items'])} items in {NAME}, its arrays differ; re-index"
            )
        segments.append({"items": each["items"], **arrays})
    return about, segments


def read_about(path: Path) -> dict:
    """What a gallery.json says. ValueError if it is missing or damaged."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if (
            about["format"] != FORMAT
            or not isinstance(about["items"], list)
            or about["holds"] not in HELD
        ):
            raise KeyError(f"format {about['format']!r}")
        return {"model": about["model"], "files": dict(about["files"])} | about
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; build the gallery first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); re-index") from None


def _segment(number):
    return f"segment-{number:04d}"


def _write_segment(folder, segment, about):
    """Writes arrays and gallery.json; returns {"folder": its name, "crc32": of its
    gallery.json}.
    """
    about = {"format": FORMAT, **about, "items": segment["items"], "files": {}}
    try:
        json.dumps(about)
    except TypeError as error:
        raise ValueError(f"items must be JSON values, such as file names: {error}") from None
    folder.mkdir(exist_ok=True)
    for name in ARRAYS:
        if segment.get(name) is not None:
            path = folder / f"{name}.npy"
            np.save(path, np.ascontiguousarray(segment[name]), allow_pickle=False)
            about["files"][path.name] = {
                "bytes": path.stat().st_size,
                "crc32": zlib.crc32(np.memmap(path, mode="r")),
            }
    content = json.dumps(about).encode("utf-8")
    (folder / NAME).write_bytes(content)
    return {"folder": folder.name, "crc32": zlib.crc32(content)}


def _file(path, about):
    """(path, bytes, crc32) of a file that is there with the size that gallery.json tells; else
    ValueError.
    """
    expected = about["files"].get(path.name, {})
    size = path.stat().st_size if path.is_file() else None
    if size is None or size != expected.get("bytes"):
        raise ValueError(f"{path} has {size} bytes instead of {expected.get('bytes')}; re-index")
    return path, size, expected.get("crc32")
