"""One record format for photographs and captions, and the checks that every source passes.

Records are {split: datasets.Dataset} with the splits train, validation and test and the columns
    image     a `datasets` Image, memory-mapped or a path, decoded when a row is read: see
    `pictures.pictures`
    image_id  str, one of its own for each picture over all splits
    captions  list of str
    boxes     where there are any: list of {region: str, box: x0, y0, x1, y1 as fractions of width
    and height}
    phrases   where there are any: list of {caption: its index, text, region, kind: list of str};
    see `photos/entities.py`

Protocol: all captions of a picture are kept, be they five or not. A picture counts as found by any
of its captions, and each caption is a query of its own, so figures over six captions are not
figures over five. COCO's 5,000 test pictures have 25,010 captions; published figures take the first
five of each (Karpathy's evaluation), which is most_captions=5.

Whatever the source, no record is dropped in silence: a picture without a caption, a name that
stands for two pictures or a picture in two splits is an error. To leave records out, filter the
data sets first and give them to `to_records`.
"""

from pathlib import Path

from tgdt_mini.photos.image_paths import (
    SIZE,
    check_told_apart,
    files_of,
    names_by_file,
    warn_of_copies,
)

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
    root: Path | None = None,
    restval: bool = True,
    most_captions: int | None = None,
    need_pictures: bool = True,
) -> dict:
    """{split: Dataset} in the format above, from data sets that have another one.

    sets: {name: Dataset}. columns: {a column here: its name there}, where names differ; captions
    may be a column of lists, a list of columns, or a column with one caption a row: rows of one
    image_id, or of one file, are then put together. Without image_id, a picture is called by its
    file (below `root`, if given) or, failing that, by its set and row.
    splits: which of the names in `sets`, or in the column `split`, to take: a list, or {name there:
    name here}; by default those of SPLITS, others are left aside. restval: COCO's spare validation
    pictures count as train.
    images: the folder of pictures that are given as file names. most_captions: keep only the first
    so many of each.
    need_pictures: False leaves the column image away where `sets` have none, as a detector's
    features allow.
    Raises ValueError for what is missing or does not fit, and warns of equal files under two names
    in two splits.
    """
    if unknown := set(columns or {}) - set(COLUMNS):
        raise ValueError(f"columns names {sorted(unknown)}; it may name {', '.join(COLUMNS)}")
    if most_captions is not None and most_captions < 1:
        raise ValueError(f"most_captions is {most_captions}; keep at least 1 of each picture")
    columns, parts, seen = columns or {}, {}, set()
    splits = [splits] if isinstance(splits, str) else splits
    if not restval and any(name.lower() == "restval" for name in splits or ()):
        raise ValueError(
            f"splits is {splits} and restval is False (--no-restval): one takes restval, the other does not"
        )
    for own, dataset in sets.items():
        own = str(own)
        names = (
            _split_names(dataset, columns["split"], own)
            if "split" in columns
            else [own] * len(dataset)
        )
        seen |= set(names)
        wanted = [split_here(name, splits, restval) for name in names]
        if not any(wanted):
            continue
        whole, rows = _in_format(
            dataset.with_format(None),
            own,
            wanted,
            columns,
            images,
            root,
            most_captions,
            need_pictures,
        )
        for split in sorted(set(filter(None, wanted))):
            parts.setdefault(split, []).append(
                whole.select([row for row in rows if wanted[row] == split])
            )
    missing = set(splits or ()) - seen - set(parts)
    if missing or not parts:
        raise ValueError(
            f"{f'splits asks for {sorted(missing)}' if missing else 'none is train, validation or test'}; the data has "
            f"the splits {', '.join(sorted(map(str, seen))) or 'none'}: choose with splits=, such as {{'all': 'train'}}"
        )
    from datasets import concatenate_datasets

    order = [*dict.fromkeys(SPLITS.values()), *sorted(parts)]
    records = {
        split: concatenate_datasets(parts[split])
        for split in dict.fromkeys(order)
        if split in parts
    }
    check(records)
    warn_of_copies(records)
    shown = ("image", "image_id", "captions", "boxes", "phrases")
    return {
        split: each.select_columns([name for name in shown if name in each.column_names])
        for split, each in records.items()
    }


def check(records: dict) -> None:
    """ValueError, by image id, for a missing or empty caption, and for an id that stands for two
    records.
    """
    home = {}
    for split, dataset in records.items():
        for name, captions in zip(dataset["image_id"][:], dataset["captions"][:]):
            if name in home and home[name] == split:
                raise ValueError(
                    f"image_id {name!r} stands for two records of {split}; name each once, or another column: "
                    "columns={'image_id': ...}"
                )
            if name in home:
                raise ValueError(
                    f"image {name!r} is both in {home[name]} and in {split}: what is tested on must not be trained on; "
                    "leave it out of one of them"
                )
            home[name] = split
            if not captions:
                raise ValueError(
                    f"image {name!r} of {split} has no captions; write one, or leave the picture out"
                )
            for place, caption in enumerate(captions):
                if not (caption or "").strip():
                    raise ValueError(
                        f"captions[{place}] of image {name!r} of {split} is {caption!r}; write it, or leave it out"
                    )


def split_here(name: str | None, splits=None, restval: bool = True) -> str | None:
    """What the split `name` of a source is called here; None if it is left aside. "dev" ->
    "validation".
    """
    official = SPLITS.get((name or "").lower())
    if not restval and (name or "").lower() == "restval":
        return None
    if isinstance(splits, dict):
        return splits.get(name)
    if splits is not None:
        return (official or name) if name in splits else official if official in splits else None
    return official


def _there(dataset, name, what, own):
    if name not in dataset.column_names:
        raise ValueError(
            f"{own} has no column {name!r} for {what}; it has {', '.join(dataset.column_names)}: "
            f"name the right one with columns={{{what!r}: ...}}"
        )
    return name


def _split_names(dataset, column, own):
    feature = dataset.features[_there(dataset, column, "split", own)]
    names = dataset[column][:]
    names = feature.int2str(names) if hasattr(feature, "int2str") else names
    return [name if name is None else str(name) for name in names]


def _in_format(dataset, own, wanted, columns, images, root, most, need_pictures):
    """(the data set with the columns of a record, which of its rows are records): nothing of it is
    copied.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    bare = not need_pictures and "image" not in columns and "image" not in dataset.column_names
    stored = [] if bare else [_images(_alone(dataset, columns, "image", own), images)]
    captions, one_a_row = _captions(dataset, columns.get("captions", "captions"), own)
    named = "image_id" in columns or "image_id" in dataset.column_names
    if named:
        names = dataset[_there(dataset, columns.get("image_id", "image_id"), "image_id", own)][:]
        if None in names:
            raise ValueError(
                f"{own} has no image_id in row {names.index(None)}; give every picture a name"
            )
    sizes, files, inside = (
        files_of(*stored) if stored else ([each] * len(dataset) for each in (0, None, False))
    )
    if not named:
        if one_a_row:
            check_told_apart(
                own, [file for file, here, split in zip(files, inside, wanted) if here and split]
            )
        names = names_by_file(own, files, inside, root)
    names, rows = list(map(str, names)), range(len(names))
    if one_a_row:
        first = {}
        for row, key in enumerate(zip(wanted, names)):
            if first.setdefault(key, row) != row:
                captions[first[key]].extend(captions[row])
        rows = list(first.values())
    parts = stored
    for name in ("boxes", "phrases"):
        if name in columns or name in dataset.column_names:
            parts.append(_alone(dataset, columns, name, own))
    text = Value("string")
    features = Features({"image_id": text, "captions": List(text), SIZE: Value("int64")})
    captions = [each[:most] for each in captions]
    parts.append(
        Dataset.from_dict({"image_id": names, "captions": captions, SIZE: sizes}, features=features)
    )
    if most is not None and len(parts) > 1 and parts[-2].column_names == ["phrases"]:
        kept = [
            [phrase for phrase in each if phrase["caption"] < most]
            for each in parts[-2]["phrases"][:]
        ]
        parts[-2] = Dataset.from_dict({"phrases": kept}, features=parts[-2].features)
    return concatenate_datasets(parts, axis=1), rows


def _alone(dataset, columns, name, own):
    """One column of a record under its name here."""
    there = _there(dataset, columns.get(name, name), name, own)
    alone = dataset.select_columns(there)
    return alone if there == name else alone.rename_column(there, name)


def _images(stored, folder):
    """A column of pictures with the feature Image; file names become paths below `folder`."""
    from datasets import Dataset, Features, Image, Value

    feature = stored.features["image"]
    if feature == Value("string"):
        paths = [str(Path(folder or ".", name or "")) for name in stored["image"][:]]
        return Dataset.from_dict({"image": paths}, features=Features({"image": Image()}))
    known = isinstance(feature, Image) or feature == Value("binary")
    if known or (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        return stored.cast_column("image", Image())
    raise ValueError(
        f"the column for image holds {feature}, no pictures; name another: columns={{'image': ...}}"
    )


def _captions(dataset, column, own):
    """(the captions of each row as a list, whether the column has one a row)"""
    if not isinstance(column, str):
        every = [dataset[_there(dataset, name, "captions", own)][:] for name in column]
        return [[caption for caption in row if caption is not None] for row in zip(*every)], False
    values = dataset[_there(dataset, column, "captions", own)][:]
    if any(isinstance(value, str) for value in values):
        return [[value] for value in values], True
    lists = [value or [] for value in values]
    if all(
        isinstance(own, list) and all(isinstance(each, str | None) for each in own) for own in lists
    ):
        return lists, False
    raise ValueError(
        f"column {column!r} holds {dataset.features[column]}; captions must be text, or lists of text: "
        "columns={'captions': ...}"
    )
