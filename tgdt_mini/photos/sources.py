"""Photographs and captions from the hub, files, folders, COCO's, Karpathy's and SCAN's forms.

`open_source` finds out what it was given, reads it as tables, and has `records.py` bring all of
them into one format.

Presets name sets on the Hugging Face hub that are stored as parquet (recent versions of `datasets`
run no loading scripts). Their names, columns and splits were read from their pages and from public
code that loads them, on the date below; nothing was downloaded, so neither that they still exist
nor what their pictures look like has been verified.

The photographs belong to their authors. Flickr8k and Flickr30K are for research and teaching only:
read their terms.
"""

import glob
import os
import re
from pathlib import Path

from tgdt_mini.files.check import root_cause
from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.photos.coco import coco_numbers, json_kind, read_coco
from tgdt_mini.photos.delimited import read_delimited
from tgdt_mini.photos.division import divided
from tgdt_mini.photos.karpathy import karpathy_numbers, read_karpathy
from tgdt_mini.photos.precomputed import is_precomputed, open_precomputed
from tgdt_mini.photos.records import SPLITS, choose_splits, to_records

PRESETS = {  # read in November 2026
    # 6,000, 1,000 and 1,000 pictures; it names no picture, so each is called by its split and row
    "flickr8k": {
        "name": "jxie/flickr8k",
        "columns": {"captions": [f"caption_{i}" for i in range(5)]},
    },
    # 29,000, 1,014 and 1,000 pictures, the split of Karpathy and Fei-Fei
    "flickr30k": {
        "name": "umaru97/flickr30k_train_val_test",
        "columns": {"captions": "caption", "image_id": "filename"},
    },
    # Karpathy's split, one caption a row: 566,747, 25,010 and 25,010 rows, so each picture is
    # stored five times; Karpathy's JSON with COCO's folders takes a fraction of the disk
    "coco": {
        "name": "jxie/coco_captions",
        "columns": {"captions": "caption", "image_id": "cocoid"},
    },
}
# how `datasets` calls what it reads; delimited.py reads the others
TABLES = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json"}
FIXED = {"karpathy": "Karpathy", "coco": "COCO"}  # kinds of .json files whose keys have fixed names
METADATA = ("metadata.parquet", "metadata.csv", "metadata.tsv", "metadata.jsonl")  # of pictures


def open_source(
    spec,
    images: Path | str | None = None,
    columns: dict | None = None,
    restval: bool = True,
    splits=None,
    most_captions: int | None = None,
    need_pictures: bool = True,
    divide: dict | None = None,
) -> dict:
    """{split: Dataset} of records (see `records.py`) from the source that `spec` names.

    spec: a preset ("flickr8k", "flickr30k", "coco"); one of Karpathy's or COCO's .json files (with
    the folder `images`); a table with file names (.csv, .tsv, .jsonl, .parquet, or .json with an
    array), whose pictures lie in `images` or beside it; a folder of parquet files, of pictures with
    a metadata file, or written by save_to_disk; a `*_precomp` folder, see `precomputed.py`;
    {split: Dataset}; or a hub name.
    A table belongs to the split that its name, or the name of a folder below `spec`, says:
    dev.parquet, test-00000-of-00001.parquet, train/metadata.jsonl. Others, such as extra.parquet,
    are left aside unless `splits` names them.
    columns, splits, restval, images, most_captions, need_pictures: as in `records.to_records`;
    columns change those of a preset. With need_pictures=False a .json file needs no `images`.
    divide: {"shares": [80, 10, 10], "seed": 0} makes three splits of one, see `division.py`.
    ValueError for a source that is not understood.

    Example: open_source("flickr30k")["test"][0]["captions"] is a list of five.
    """
    options = (restval, splits, most_captions, need_pictures, divide)
    if isinstance(spec, dict):
        return _open(spec, images, dict(columns or {}), *options)
    if not isinstance(spec, str | Path):
        raise ValueError(
            f"spec is a {type(spec).__name__}; give a name, a folder, a file or {{split: Dataset}}"
        )
    try:
        return _open(spec, images, dict(columns or {}), *options)
    except (ValueError, OSError) as error:  # whatever it is, the source that it is about is named
        if Path(spec).name in str(error):
            raise
        raise ValueError(f"{spec}: {' '.join(str(error).split())}") from error


def _open(spec, images, columns, restval, splits, most_captions, need_pictures, divide):
    """The records of `open_source`."""
    if isinstance(spec, str) and spec in PRESETS:
        spec, columns = PRESETS[spec]["name"], PRESETS[spec]["columns"] | columns
    datasets = import_datasets()
    with no_bars(datasets):
        if isinstance(spec, dict):
            sets = spec
            if wrong := [name for name in sets if not isinstance(sets[name], datasets.Dataset)]:
                raise ValueError(f"spec[{wrong[0]!r}] is no datasets.Dataset; load it first")
        elif (kind := _json_kind(spec)) in FIXED:
            if columns:
                raise ValueError(
                    f"columns is {columns}, but {spec} is read as {FIXED[kind]}'s JSON, "
                    "whose names are fixed"
                )
            path = Path(spec)
            if kind == "karpathy":
                sets, columns = read_karpathy(path, images, need_pictures), {"split": "split"}
            else:
                name = _split_name(Path(path.name), splits)
                sets = {name: read_coco(path, images, need_pictures)}
        elif is_precomputed(spec):
            sets, need_pictures = open_precomputed(spec), False
        elif os.path.exists(spec):
            sets, columns = _on_disk(datasets, Path(spec), columns, splits, bool(divide))
            if os.path.isfile(spec) and images is None:
                images = Path(spec).parent
        else:
            sets = _on_hub(datasets, str(spec))
        if divide and splits is None and "split" not in columns:
            splits = {_only(sets): "train"}
        options = (images, restval, most_captions, need_pictures)
        records = to_records(sets, columns, splits, *options)
        if divide:
            records = divided(records[_only(records)], divide["shares"], divide["seed"])
        return records


def _json_kind(spec):
    """Which kind of .json file the source is, None for another source."""
    return json_kind(Path(spec)) if Path(spec).suffix.lower() == ".json" else None


def _only(sets):
    """The name of the one set or split that there is. ValueError if there are more."""
    if len(sets) > 1:
        raise ValueError(
            f"--divide makes splits of one, but the data has {', '.join(sets)}; name the one to "
            "divide, such as --splits train, or leave --divide out"
        )
    return next(iter(sets))


def picture_numbers(spec: Path | str) -> dict[str, str]:
    """{image_id: its number} in a .json file of Karpathy (cocoid, or else imgid) or COCO, or {}.

    Feature files may be called by them.
    """
    kind = _json_kind(spec)
    if kind == "coco":
        return coco_numbers(Path(spec))
    return karpathy_numbers(spec) if kind == "karpathy" else {}


def _on_hub(datasets, name):
    try:
        return dict(datasets.load_dataset(name))
    except Exception as error:  # a hub fails in many ways, and none of the errors says the cure
        raise ValueError(
            f"{name!r} is no file or folder here and no preset ({', '.join(PRESETS)}), and as a "
            f"hub name it could not be loaded: {root_cause(error)}"
        ) from error


def _on_disk(datasets, path, columns, splits, all_of_them=False):
    """({name: Dataset}, columns) of a folder, or of one table, whose column split is found."""
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        saved = datasets.load_from_disk(str(path))
        sets = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        return sets, columns
    if path.is_file() and path.suffix.lower() not in TABLES:
        raise ValueError(f"{path} is no table; give a file that ends with {', '.join(TABLES)}")
    folder, files = (path.parent, [path]) if path.is_file() else (path, _tables_in(path))
    by_split = {}
    for file in files:
        name = "all" if "split" in columns else _split_name(file.relative_to(folder), splits)
        by_split.setdefault(name, []).append(file)
    alone = path.is_file() and "split" not in columns and next(iter(by_split)) not in SPLITS
    if alone and "split" in _table(datasets, path, folder).column_names:
        columns = columns | {"split": "split"}
    elif "split" not in columns and not all_of_them:  # a table that is left aside is not read
        by_split = {name: by_split[name] for name in choose_splits(by_split, splits)}
    sets = {
        name: datasets.concatenate_datasets([_table(datasets, file, folder) for file in files])
        for name, files in by_split.items()
    }
    return sets, columns


def _tables_in(folder):
    """The parquet files below a folder or, where there are none, its metadata files."""
    files = [path for path in folder.rglob("*.parquet") if path.name not in METADATA]
    files = files or [path for path in folder.rglob("metadata.*") if path.name in METADATA]
    if not files:
        raise ValueError(
            f"{folder} holds no table; give a folder with parquet files, or with pictures and "
            f"one of {', '.join(METADATA)}"
        )
    return sorted(files)


def _split_name(file, splits):
    """The split that the name of a table, or of a folder above it, says; else the table's name."""
    if file.stem in (splits or ()):
        return file.stem
    names = [name for name in (file.stem, *reversed(file.parent.parts)) if name != "metadata"]
    for word in re.split("[^a-z]+", " ".join(names).lower()):
        if word in SPLITS:
            return word
    return names[0] if names else "train"  # a metadata file beside its pictures


def _table(datasets, file, folder):
    """One table as a Dataset."""
    kind = TABLES[file.suffix.lower()]
    if kind in ("csv", "tsv"):
        return _with_paths(read_delimited(file), file, folder)
    try:  # `datasets` takes brackets in a path for a pattern
        path = glob.escape(str(file.absolute()))
        dataset = datasets.load_dataset(kind, data_files=path, split="train")
    except Exception as error:
        why = root_cause(error)
        if why.startswith("StopIteration") or "corresponds to no data" in why:
            raise ValueError(f"{file} is empty; it must hold a row for each picture") from None
        raise ValueError(f"{file} cannot be read as {kind}: {why}") from error
    return _with_paths(dataset, file, folder)


def _with_paths(dataset, file, folder):
    """The same table; of a metadata file with the columns image and image_id."""
    if file.name in METADATA and "file_name" in dataset.column_names:
        names = [str(name) for name in dataset["file_name"]]
        paths = [str(file.parent.absolute() / name) for name in names]
        dataset = dataset.remove_columns("file_name").add_column("image", paths)
        if "image_id" not in dataset.column_names:
            below = file.parent.relative_to(folder)
            dataset = dataset.add_column("image_id", [(below / name).as_posix() for name in names])
    return dataset
