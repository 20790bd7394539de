"""Where photographs and captions come from: the hub, files, folders, Karpathy's JSON. All become
`photos/records.py`'s.

Presets name sets on the Hugging Face hub that are stored as parquet (recent versions of `datasets`
run no loading scripts). Their names, columns and splits were read from their pages and from public
code that loads them, on the date below; nothing was downloaded, so neither that they still exist
nor what their pictures look like has been verified. Another copy of a set is a hub name and its own
columns away.

The photographs belong to their authors. Flickr8k and Flickr30K are for research and teaching only:
read their terms.
"""

import json
import re
from pathlib import Path

from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.photos.records import SPLITS, split_here, to_records

PRESETS = {  # read in November 2026
    # 6,000, 1,000 and 1,000 pictures; it names no picture, so each is called by its split and row.
    "flickr8k": {
        "name": "jxie/flickr8k",
        "columns": {"captions": [f"caption_{i}" for i in range(5)]},
    },
    # 29,000, 1,014 and 1,000 pictures, the split of Karpathy and Fei-Fei.
    "flickr30k": {
        "name": "umaru97/flickr30k_train_val_test",
        "columns": {"captions": "caption", "image_id": "filename"},
    },
    # Karpathy's split, one caption a row: 566,747, 25,010 and 25,010 rows, so each picture is
    # stored five times over.
    # Its own page was not to be had. Karpathy's JSON with COCO's own folders takes a fraction of
    # the disk.
    "coco": {
        "name": "jxie/coco_captions",
        "columns": {"captions": "caption", "image_id": "cocoid"},
    },
}
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def open_source(
    spec,
    images: Path | str | None = None,
    columns: dict | None = None,
    restval: bool = True,
    splits=None,
    most_captions: int | None = None,
    need_pictures: bool = True,
    progress: bool = False,
) -> dict:
    """{split: Dataset} of records (see `photos/records.py`) from whatever `spec` names.

    spec: a preset ("flickr8k", "flickr30k", "coco"), a folder of parquet files, an image folder
    with a metadata file, a folder written by save_to_disk, one of Karpathy's .json files (with
    `images`), data sets already loaded, or a hub name. columns, splits, restval, images,
    most_captions, need_pictures: as in `records.to_records`; columns change a preset's. With
    need_pictures=False Karpathy's file may stand alone, without `images`.
    progress: show the bars of `datasets`. ValueError says what was not understood.

    Example: open_source("flickr30k")["test"][0]["captions"] is a list of five.
    """
    if isinstance(spec, str) and spec in PRESETS:
        preset = PRESETS[spec]
        spec, columns = preset["name"], preset["columns"] | (columns or {})
    options = {
        "splits": splits,
        "images": images,
        "restval": restval,
        "most_captions": most_captions,
        "need_pictures": need_pictures,
    }
    if isinstance(spec, str | Path) and Path(spec).suffix.lower() == ".json":
        if columns:
            raise ValueError(
                f"columns is {columns}, but {spec} is read as Karpathy's JSON, whose names are fixed"
            )
        return to_records(karpathy(Path(spec), images, need_pictures), **options)
    return from_datasets(spec, columns, progress=progress, **options)


def from_datasets(
    source, columns: dict | None = None, splits=None, progress: bool = False, **options
) -> dict:
    """{split: Dataset} of records from a set that `datasets` can read.

    source: a hub name; a folder (parquet files, or pictures with a metadata file, or written by
    save_to_disk); a parquet file or a list of them; {split: file or files}; {split: Dataset}. A
    parquet file belongs to the split that its name or its folder's name says: train.parquet,
    dev.parquet, test-00000-of-00001.parquet. Other files, such as extra.parquet, are left aside
    unless `splits` asks for them. options: as in `records.to_records`.
    """
    datasets = import_datasets()
    if not isinstance(source, dict | list | tuple | str | Path):
        raise ValueError(
            f"source is a {type(source).__name__}; give {{split: data set}}, a name, a folder or files"
        )
    root = (
        Path(source).absolute()
        if isinstance(source, str | Path) and Path(source).is_dir()
        else None
    )
    if progress:
        sets = _load(datasets, source, columns, splits)
    else:
        with no_bars(datasets):
            sets = _load(datasets, source, columns, splits)
    return to_records(sets, columns, splits, root=root, **options)


def karpathy(path: Path, images: Path | str | None, need_pictures: bool = True) -> dict:
    """{split: Dataset} of one of Karpathy's files (dataset_flickr8k.json, dataset_flickr30k.json,
    dataset_coco.json).

    images: the folder of the pictures, with COCO's train2014/ and val2014/ in it or all in one
    place; only their paths are kept; None, if they are not needed, leaves the column image away. A
    picture is called by its file name. The split `restval` keeps its name here.
    """
    from datasets import Dataset, Features, Image, List, Value

    bare, columns = images is None and not need_pictures, {}
    if not bare and (images is None or not Path(images).is_dir()):
        raise ValueError(
            f"images is {images}; {path.name} needs the folder that holds its pictures"
        )
    images = Path(images or ".").absolute()
    for entry in _entries(path):
        split = columns.setdefault(entry["split"], {"image": [], "image_id": [], "captions": []})
        nested = images / entry.get("filepath", "") / entry["filename"]
        split["image"].append(str(nested if nested.is_file() else images / entry["filename"]))
        split["image_id"].append(entry["filename"])
        split["captions"].append([sentence["raw"] for sentence in entry["sentences"]])
    features = Features(
        {"image": Image(), "image_id": Value("string"), "captions": List(Value("string"))}
    )
    sets = {split: Dataset.from_dict(each, features=features) for split, each in columns.items()}
    return {split: each.remove_columns("image") for split, each in sets.items()} if bare else sets


def karpathy_numbers(path: Path | str) -> dict[str, str]:
    """{image_id: its cocoid, or else its imgid} of one of Karpathy's files: what feature files are
    often called.
    """
    return {
        entry["filename"]: str(entry.get("cocoid", entry.get("imgid")))
        for entry in _entries(Path(path))
    }


def _entries(path):
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["images"]
        for place, entry in enumerate(entries):
            missing = [key for key in ("filename", "split", "sentences") if key not in entry]
            if missing or not all("raw" in sentence for sentence in entry["sentences"]):
                raise KeyError(
                    f"images[{place}] has no {missing[0] if missing else 'raw in its sentences'}"
                )
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; give one of Karpathy's dataset_*.json files"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not one of Karpathy's dataset_*.json files: {error}") from None
    return entries


def _load(datasets, source, columns, splits):
    """{name: Dataset} as `datasets` reads it."""
    if isinstance(source, dict) and all(
        isinstance(each, datasets.Dataset) for each in source.values()
    ):
        return source
    if isinstance(source, dict):
        return _parquet(datasets, {name: _listed(files) for name, files in source.items()})
    if isinstance(source, list | tuple):
        return _parquet(datasets, _by_split([Path(file) for file in source], columns, splits))
    path = Path(source)
    if path.is_file():
        return _parquet(datasets, _by_split([path], columns, splits))
    if path.is_dir():
        return _folder(datasets, path, columns, splits)
    if not HUB_NAME.fullmatch(str(source)) or path.suffix in (".parquet", ".jsonl", ".csv"):
        raise ValueError(
            f"{source} does not exist; give a file or a folder, a preset ({_presets()}), or a hub name"
        )
    return _hub(datasets, str(source))


def _hub(datasets, name):
    try:
        return dict(datasets.load_dataset(name))
    except (
        Exception
    ) as error:  # the hub and its formats fail in many ways, and none of them names the cure
        raise ValueError(
            f"{name!r} is no file or folder here and no preset ({_presets()}), and as a hub name it could not be "
            f"loaded: {_line(error)}"
        ) from error


def _folder(datasets, folder, columns, splits):
    if (folder / "dataset_dict.json").is_file():
        return dict(datasets.load_from_disk(str(folder)))
    if (folder / "state.json").is_file():
        alone = datasets.load_from_disk(str(folder))
        return {str(alone.split or "train"): alone}
    files = sorted(path for path in folder.rglob("*.parquet") if path.stem != "metadata")
    if files:
        return _parquet(datasets, _by_split(files, columns, splits))
    if not any(path.suffix.lower() in PICTURES for path in folder.rglob("*")):
        raise ValueError(
            f"{folder} holds neither parquet files nor pictures; give a folder that does"
        )
    try:
        return dict(datasets.load_dataset("imagefolder", data_dir=str(folder)))
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be read as an image folder with a metadata file: {_line(error)}"
        ) from error


def _by_split(files, columns, splits):
    """{split: files}, by their names; with a column that says it, all files are one set."""
    if columns and "split" in columns:
        return {"all": files}
    found = {}
    for file in files:
        words = [
            part.lower()
            for name in (file.stem, file.parent.name)
            for part in re.split(r"[^A-Za-z]+", name)
        ]
        name = next((word for word in words if word in SPLITS), file.stem)
        if splits is not None and file.stem in splits:
            name = file.stem
        found.setdefault(name, []).append(file)
    wanted = {name: own for name, own in found.items() if split_here(name, splits)}
    if not wanted:
        raise ValueError(
            f"no file belongs to {'train, validation or test' if splits is None else splits}; there are "
            f"{', '.join(sorted(file.name for file in files)[:5])}: choose with splits=, such as {{'all': 'train'}}"
        )
    return wanted


def _parquet(datasets, files):
    sets = {}
    for name, own in files.items():
        for file in own:
            if not file.is_file():
                raise ValueError(f"{file} does not exist; give the parquet files of {name}")
        try:
            sets[name] = datasets.load_dataset(
                "parquet", data_files=[str(file) for file in own], split="train"
            )
        except Exception as error:
            raise ValueError(f"{own[0]} cannot be read as parquet: {_line(error)}") from error
    return sets


def _listed(files):
    return [Path(file) for file in (files if isinstance(files, list | tuple) else [files])]


def _presets():
    return ", ".join(PRESETS)


def _line(error):
    """The innermost cause of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
