"""One record format for photographs and captions, and the checks that every source passes.

Records are {split: datasets.Dataset} with the splits train, validation and test and the columns
    image     a `datasets` Image, bytes in a memory-mapped table or a path; it is decoded when a
              row is read: see `image_io.pictures`
    image_id  str, the name of the picture, used once over all splits
    captions  list of str
    boxes     optional: list of {region: str, box: x0, y0, x1, y1 as fractions of width and height}
    phrases   optional: list of {caption: its index, text, region, kind: list of str}; see
              `entities.py`

All captions of a picture are kept, five or not. A picture is found by any of its captions, and
each caption is a query, so figures over six captions are not figures over five. COCO's 5,000 test
pictures have 25,010 captions; published figures take the first five of each (Karpathy's
evaluation), which is most_captions=5.

No record is dropped in silence: a picture without a caption, a name that stands for two pictures,
or a picture in two splits is an error. To leave records out, filter the data sets first.
"""

from collections import Counter
from pathlib import Path

COLUMNS = ("image", "captions", "image_id", "split", "boxes", "phrases")
SPLITS = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def to_records(
    sets: dict,
    columns: dict | None = None,
    splits=None,
    images: Path | str | None = None,
    restval: bool = True,
    most_captions: int | None = None,
    need_pictures: bool = True,
) -> dict:
    """{split: Dataset} of records, from `sets`, {name: Dataset} with other columns and splits.

    columns: {a column here: its name there}, where names differ. captions may be a column of
    lists, a list of columns, or a column with one caption a row: rows of one image_id are then
    put together. Without image_id, a picture is called by its file or, where files have no name
    or share one, by its set and row.
    splits, restval: see `choose_splits`; the names there are those of `sets`, or of column split.
    images: the folder of pictures that are given as file names.
    most_captions: keep only the first so many of each picture.
    need_pictures: False leaves column image away where `sets` have none.
    ValueError for data that are missing or do not fit.
    """
    from datasets import concatenate_datasets

    if unknown := set(columns or {}) - set(COLUMNS):
        raise ValueError(f"columns names {sorted(unknown)}; it may name {', '.join(COLUMNS)}")
    if most_captions is not None and most_captions < 1:
        raise ValueError(f"most_captions is {most_captions}; keep at least 1 of each picture")
    tables = [_Table(dataset, str(name), columns or {}) for name, dataset in sets.items()]
    names = [table.split_names() for table in tables]
    chosen = choose_splits({name for of_table in names for name in of_table}, splits, restval)
    parts = {}
    for table, of_table in zip(tables, names):
        wanted = [chosen.get(name) for name in of_table]  # of each row: its split here, or None
        if any(wanted):
            records, rows = table.records(wanted, images, most_captions, need_pictures)
            for split in set(wanted) - {None}:
                part = records.select([row for row in rows if wanted[row] == split])
                parts.setdefault(split, []).append(part)
    order = dict.fromkeys([*SPLITS.values(), *sorted(parts)])  # train, validation, test, others
    records = {split: concatenate_datasets(parts[split]) for split in order if split in parts}
    check(records)
    return records


def choose_splits(names, splits=None, restval: bool = True) -> dict[str, str]:
    """{split there: split here} of those `names` that are taken; {"dev": "validation"} of "dev".

    splits: None for the names in SPLITS, others are left aside; a list of names, there or here; or
    {name there: name here}. restval: COCO's spare validation pictures count as train.
    ValueError if a split that was asked for is not there, or none is left.
    """
    splits = [splits] if isinstance(splits, str) else splits
    chosen, names = {}, sorted(name for name in names if name is not None)
    for name in names:
        here = SPLITS.get(name.lower())
        if isinstance(splits, dict):
            here = splits.get(name)
        elif splits is not None:
            here = here or name
            here = here if name in splits or here in splits else None
        if here and (restval or name.lower() != "restval"):
            chosen[name] = here
    missing = sorted(set(splits or ()) - set(chosen) - set(chosen.values()))
    if missing or not chosen:
        problem = f"splits asks for {missing}" if missing else "none is train, validation or test"
        refused = "" if restval else " and restval is refused (--no-restval)"
        raise ValueError(
            f"{problem}; the data has the splits {', '.join(names) or 'none'}{refused}: "
            "choose with splits= (--splits), such as {'all': 'train'}"
        )
    return chosen


def check(records: dict) -> None:
    """ValueError, by image id, for a missing or empty caption, or an id of two records."""
    split_of = {}
    for split, dataset in records.items():
        for name, captions in zip(dataset["image_id"][:], dataset["captions"][:]):
            other = split_of.setdefault(name, split)
            if other != split:
                raise ValueError(
                    f"image {name!r} is both in {other} and in {split}: what is tested on must "
                    "not be trained on; leave it out of one of them"
                )
            if not captions:
                raise ValueError(
                    f"image {name!r} of {split} has no captions; write one, or leave it out"
                )
            for number, caption in enumerate(captions):
                if not any(sign.isprintable() and sign != " " for sign in caption or ""):
                    raise ValueError(
                        f"captions[{number}] of image {name!r} of {split} is {caption!r}; "
                        "write it, or leave it out"
                    )
        for name in _repeated(dataset["image_id"][:]):
            raise ValueError(
                f"image_id {name!r} stands for two records of {split}; name each once, or "
                "another column: columns={'image_id': ...}"
            )


class _Table:
    """A data set and what its columns are called there: `columns` is {name here: name there}."""

    def __init__(self, dataset, name, columns):
        self.dataset, self.name, self.columns = dataset.with_format(None), name, columns

    def has(self, column):
        return column in self.columns or column in self.dataset.column_names

    def column(self, column, there=None):
        """A data set of one column, under its name here."""
        there = there or self.columns.get(column, column)
        if there not in self.dataset.column_names:
            raise ValueError(
                f"{self.name} has no column {there!r} for {column}; it has "
                f"{', '.join(self.dataset.column_names)}: name the right one with "
                f"columns={{{column!r}: ...}}"
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
        if need_pictures or self.has("image"):
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
                    "columns={'captions': ...}"
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
                path for path, split in zip(paths, wanted) if split and not Path(path).is_file()
            ]
            if lost:
                raise ValueError(
                    f"{len(lost)} of {len(paths)} pictures are missing, such as {lost[0]}; "
                    "unpack them all, and give their folder as images"
                )
            column = Dataset.from_dict({"image": paths})
        try:
            return column.cast_column("image", Image())
        except Exception as error:  # each type fails in a way of its own
            raise ValueError(
                f"the column for image holds {column.features['image']}, no pictures; name "
                "another: columns={'image': ...}"
            ) from error

    def names(self, files, one_a_row):
        """The name of the picture in each row; files: its file name or None."""
        if self.has("image_id"):
            names = self.column("image_id")["image_id"][:]
            if None in names:
                row = names.index(None)
                raise ValueError(f"{self.name} has no image_id in row {row}; name every picture")
            return [str(name) for name in names]
        repeated = _repeated(name for name in files if name is not None)
        if one_a_row and repeated:
            raise ValueError(
                f"{self.name} has one caption a row and several rows whose picture is called "
                f"{repeated[0]!r}, but no image_id: name the column that tells pictures apart, "
                "columns={'image_id': ...}"
            )
        if None in files or repeated:
            return [f"{self.name}-{row:05d}" for row in range(len(files))]
        return files


def _repeated(names):
    """Those of some names that stand there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _is_text(feature):
    return getattr(feature, "dtype", None) in ("string", "large_string", "null")


def _file_names(images):
    """The file name of each picture, None where it has none; no picture is read."""
    import pyarrow.compute as pc

    names = []
    for part in images.with_format("arrow").iter(1000):
        paths = pc.struct_field(part["image"], "path").to_pylist()
        names += [path and Path(path).name for path in paths]
    return names
