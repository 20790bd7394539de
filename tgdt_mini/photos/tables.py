"""A table of photographs whose columns have other names and forms, read as columns of records.

`records.py` says what records are. No picture is copied or decoded here.
"""

import ast
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tgdt_mini.files.check import shown

# what columns are called elsewhere, where neither the data nor the user says it
ALSO = {
    "captions": ("caption", "text", "texts", "sentence", "sentences", "comment", "description"),
    "image": (
        "file_name filename filepath file path image_path image_file image_name img picture photo"
    ).split(),
}


class Table:
    """A data set and what its columns are called there: `columns` is {name here: name there}."""

    def __init__(self, dataset, name, columns):
        self.dataset, self.name, self.columns = dataset.with_format(None), name, dict(columns)
        if odd := [column for column in self.dataset.column_names if "\0" in column]:
            raise ValueError(
                f"{name} has a column {odd[0]!r}, with a NUL in its name; mend its head"
            )
        self.guessed = set()
        for column, others in ALSO.items():
            names = [other for other in others if other in dataset.column_names]
            if not self.has(column) and len(names) == 1:
                self.columns[column] = names[0]
                self.guessed.add(column)

    def has(self, column):
        return column in self.columns or column in self.dataset.column_names

    def column(self, column, there=None):
        """A data set of one column, under its name here."""
        there = there or self.columns.get(column, column)
        if there not in self.dataset.column_names:
            raise ValueError(
                f"{self.name} has no column {there!r} for {column}; it has "
                f"{', '.join(self.dataset.column_names)}: say which one it is, "
                f"--columns {column}=NAME"
            )
        dataset = self.dataset.select_columns(there)
        return dataset if there == column else dataset.rename_column(there, column)

    def split_names(self):
        """The split of each row, as it is called there."""
        if "split" not in self.columns:
            return [self.name] * len(self.dataset)
        column = self.column("split")
        names, feature = column["split"][:], column.features["split"]
        names = feature.int2str(names) if hasattr(feature, "int2str") else names
        return [name if name is None else str(name) for name in names]

    def records(self, wanted, folder, most_captions, need_pictures):
        """(the columns of records, the rows that are records); no picture is copied or decoded.

        wanted: of each row its split here, None for a row that is left aside.
        """
        from datasets import Dataset, Features, List, Value, concatenate_datasets

        captions, one_a_row = self.captions()
        parts, files, rows = [], [None] * len(captions), range(len(captions))
        has_pictures = self.has("image") and (folder or "image" not in self.guessed)
        if need_pictures or has_pictures:
            parts = [self.images(folder, wanted)]
            files = _file_names(parts[0])
        names = self.names(files, one_a_row)
        if one_a_row:  # the first row of a picture gets the captions of all
            first = {}
            for row, key in enumerate(zip(wanted, names)):
                if first.setdefault(key, row) != row:
                    captions[first[key]].extend(captions[row])
            rows = first.values()
        text = {"image_id": names, "captions": [texts[:most_captions] for texts in captions]}
        features = Features({"image_id": Value("string"), "captions": List(Value("string"))})
        parts.append(Dataset.from_dict(text, features=features))
        parts += [self.column(name) for name in ("boxes", "phrases") if self.has(name)]
        if most_captions is not None and self.has("phrases"):  # those of the captions that are kept
            kept = [
                [phrase for phrase in phrases if phrase["caption"] < most_captions]
                for phrases in parts[-1]["phrases"][:]
            ]
            parts[-1] = Dataset.from_dict({"phrases": kept}, features=parts[-1].features)
        return concatenate_datasets(parts, axis=1), rows

    def captions(self):
        """(the captions of each row as a list, whether the column has one a row)"""
        names = self.columns.get("captions", "captions")
        names = [names] if isinstance(names, str) else names
        columns = [self.column("captions", name) for name in names]
        for name, column in zip(names, columns):
            feature = column.features["captions"]
            if len(names) == 1 and _is_text(getattr(feature, "feature", None)):
                return [texts or [] for texts in column["captions"][:]], False
            if not _is_text(feature):
                raise ValueError(
                    f"column {name!r} holds {feature}; captions must be text, or lists of text: "
                    "--columns captions=NAME"
                )
            cells = [cell for cell in column["captions"][:] if cell and cell.strip()]
            if cells and all(map(_is_list, cells)):
                raise ValueError(
                    f"column {name!r} holds lists written as text, such as {shown(cells[0])}; give "
                    "each caption a row of its own, or a column: --columns captions=NAME,NAME"
                )
        rows = zip(*(column["captions"][:] for column in columns))
        if len(names) == 1:
            return [list(row) for row in rows], True
        return [[caption for caption in row if caption is not None] for row in rows], False

    def images(self, folder, wanted):
        """The pictures as type Image; file names become paths below `folder`."""
        from datasets import Dataset, Image

        column = self.column("image")
        if _is_text(column.features["image"]):
            names = column["image"][:]
            paths = [str(Path(folder or ".", name or "").absolute()) for name in names]
            lost = [
                path for path, split in zip(paths, wanted) if split and not os.path.isfile(path)
            ]
            if lost:
                raise ValueError(
                    f"{len(lost)} of {len(paths)} pictures are missing, such as {lost[0]}; "
                    "unpack them all, and give their folder: --images FOLDER"
                )
            column = Dataset.from_dict({"image": paths})
        kind = column.features["image"]
        try:
            if type(kind).__name__ == "Json":  # of several kinds: their text would be file names
                raise TypeError(f"{self.name} holds values of several kinds")
            return column.cast_column("image", Image())
        except Exception as error:  # each type fails in a way of its own
            raise ValueError(
                f"the column for image holds {kind}, no pictures; name another: "
                "--columns image=NAME"
            ) from error

    def names(self, files, one_a_row):
        """The name of the picture in each row; files: its file name or None."""
        if self.has("image_id"):
            names = self.column("image_id")["image_id"][:]
            if None in names:
                row = names.index(None)
                raise ValueError(f"{self.name} has no image_id in row {row}; name every picture")
            return [str(name) for name in names]
        if self.has("image") and (one_a_row or None in files):  # a path tells pictures apart
            column = self.column("image")
            if _is_text(column.features["image"]) and None not in (paths := column["image"][:]):
                return paths
        shared = repeated(name for name in files if name is not None)
        if one_a_row and shared:
            raise ValueError(
                f"{self.name} has one caption a row and several rows whose picture is called "
                f"{shared[0]!r}, but no image_id: name the column that tells pictures apart, "
                "--columns image_id=NAME"
            )
        if None in files or shared:
            return [f"{self.name}-{row:05d}" for row in range(len(files))]
        return files


def repeated(names):
    """Those of some names that stand there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _is_text(feature):
    return getattr(feature, "dtype", None) in ("string", "large_string", "null")


def _is_list(cell):
    """Whether a text is a list of texts, as Python or JSON writes it: ["a star", "two moons"]."""
    if not cell.strip().startswith("["):
        return False
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = read(cell.strip())
            return bool(found) and all(isinstance(text, str) for text in found)
    return False


def _file_names(images):
    """The file name of each picture, None where it has none; no picture is read."""
    import pyarrow.compute as pc

    names = []
    for part in images.with_format("arrow").iter(1000):
        paths = pc.struct_field(part["image"], "path").to_pylist()
        names += [path and Path(path).name for path in paths]
    return names
