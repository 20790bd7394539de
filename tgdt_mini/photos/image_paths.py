"""The files in which pictures lie: whether they are there, what a picture is called by its file,
and equal ones.

`photos/records.py` asks; no picture is decoded here. A picture's bytes may be in its row, as parquet files
and the hub have them, with a name that another picture may have too, or in a file on the disk,
whose path is its own.
"""

import hashlib
import os
import warnings
from pathlib import Path

SIZE = "file size"  # a column of records that lives until the checks are done


def files_of(stored):
    """([size in bytes], [file name or None], [whether the bytes are in the row]) of pictures, none
    of which is read.

    ValueError if files are missing.
    """
    import pyarrow.compute as pc

    sizes, files, inside, missing = [], [], [], []
    for part in stored.with_format("arrow").iter(1000):
        lengths = pc.binary_length(pc.struct_field(part["image"], "bytes")).to_pylist()
        for length, path in zip(lengths, pc.struct_field(part["image"], "path").to_pylist()):
            inside.append(length is not None)
            if length is None:
                try:
                    length = os.stat(path or "").st_size
                except OSError:
                    missing.append(path or f"that of row {len(sizes)}")
            sizes.append(length)
            files.append(path)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(sizes)} pictures are missing, such as {missing[0]}; "
            "unpack them all, and give their folder as images"
        )
    return sizes, files, inside


def _below(file, root):
    path = Path(file)
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name


def names_by_file(own, files, inside, root):
    """A name for each row by its file. Two rows have the same one where they share a file on the
    disk.

    inside: whether the picture's bytes are in the row; its file is a name then, and may be another
    picture's too.
    """
    keys = [
        file if file and not here else row for row, (file, here) in enumerate(zip(files, inside))
    ]
    rows = {
        key: row for row, key in reversed(list(enumerate(keys)))
    }  # the first row of each picture
    names = {key: files[row] and _below(files[row], root) for key, row in rows.items()}
    if None in names.values() or len(set(names.values())) < len(names):
        names = {key: f"{own}-{row:05d}" for key, row in rows.items()}
    return [names[key] for key in keys]


def check_told_apart(own, files):
    """ValueError if a name of `files`, whose bytes are in rows with one caption each, stands in two
    of them.
    """
    seen = set()
    for file in files:
        if file is not None and file in seen:
            raise ValueError(
                f"{own} has one caption a row and several rows whose picture is called {file!r}, but no image_id: name "
                "the column that tells pictures apart, columns={'image_id': ...}, and rows of one are put together"
            )
        seen.add(file)


def warn_of_copies(records):
    """Warn of files that are equal, byte by byte, in two splits. Only those of equal sizes are
    read.
    """
    from datasets import Image

    by_size, copies = {}, []
    records = {
        split: dataset for split, dataset in records.items() if "image" in dataset.column_names
    }
    for split, dataset in records.items():
        for row, size in enumerate(dataset[SIZE][:]):
            by_size.setdefault(size, []).append((split, row))
    raw = {
        split: dataset.cast_column("image", Image(decode=False))
        for split, dataset in records.items()
    }
    for places in by_size.values():
        if len({split for split, _ in places}) < 2:
            continue
        home = {}
        for split, row in places:
            record = raw[split][row]
            content = record["image"]["bytes"]
            content = Path(record["image"]["path"]).read_bytes() if content is None else content
            other = home.setdefault(hashlib.sha256(content).digest(), (split, record["image_id"]))
            if other[0] != split:
                copies.append(f"{other[1]} in {other[0]} and {record['image_id']} in {split}")
    if copies:
        warnings.warn(
            f"{len(copies)} pictures are in two splits under two names, such as {copies[0]}: test figures will flatter",
            stacklevel=3,
        )
