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

from pathlib import Path

from tgdt_mini.photos.tables import Table, repeated

COLUMNS = ("image", "captions", "image_id", "split", "boxes", "phrases")
SPLITS = {  # name there: name here
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
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
    tables = [Table(dataset, str(name), columns or {}) for name, dataset in sets.items()]
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
    {name there: name here}. Spaces around a name and its case do not count.
    restval: COCO's spare validation pictures count as train.
    ValueError if a split that was asked for is not there, or none is left.
    """
    splits = [splits] if isinstance(splits, str) else splits
    chosen, names = {}, sorted(name for name in names if name is not None)
    asked = {_plain(name): name for name in splits or ()}
    for name in names:
        here = SPLITS.get(_plain(name))
        if isinstance(splits, dict):
            here = splits.get(name, splits.get(asked.get(_plain(name))))
        elif splits is not None:
            here = here or asked.get(_plain(name))
            here = here if _plain(name) in asked or here in asked else None
        if here and (restval or _plain(name) != "restval"):
            chosen[name] = here
    found = {_plain(name) for name in (*chosen, *chosen.values())}
    missing = sorted(name for name in splits or () if _plain(name) not in found)
    if missing or not chosen:
        problem = f"splits asks for {', '.join(missing)}"
        if not missing:
            problem = "no split is called train, validation or test"
        refused = "" if restval else " and restval is refused (--no-restval)"
        raise ValueError(
            f"{problem}; the data has the splits {', '.join(names) or 'none'}{refused}: divide one "
            f"by --divide 80/10/10, or say which is which: --splits {(names or ['all'])[0]}=test"
        )
    return chosen


def _plain(name):
    return str(name).strip().lower()


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
        for name in repeated(dataset["image_id"][:]):
            raise ValueError(
                f"image_id {name!r} stands for two records of {split}; name each once, or "
                "another column: --columns image_id=NAME"
            )
