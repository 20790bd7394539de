"""Where features came from, to find the photographs again: only drawing hits needs them.

`extract` keeps in SPLIT/source.json what it was told of the data.
"""

from pathlib import Path

from tgdt_mini.files.manifest import read_json
from tgdt_mini.photos.feature_folder import encoders_of
from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.sources import open_source

OPTIONS = ("images", "columns", "splits", "restval", "most_captions", "divide")  # of `open_source`


def source_of(folder: Path, split: str) -> dict:
    """Where the records of a split came from, {} if extract was not told.

    Raises ValueError for a folder that is not finished.
    """
    encoders_of(folder)
    path = Path(folder) / split / "source.json"
    return read_json(path, {}, "source", "run extract again") if path.is_file() else {}


def open_pictures(source: dict) -> dict:
    """The data set that `source` describes: data, and any of OPTIONS, as for `open_source`.

    With `detections` in it pictures are not needed: the records may lack them.
    """
    options = {name: source[name] for name in OPTIONS if source.get(name) is not None}
    return open_source(source["data"], **options, need_pictures=not source.get("detections"))


def finder(features: Path, split: str):
    """A function from an image's id to its picture, read where extract found it.

    Where extract was told of no pictures, it gives the id back, which can be drawn too.
    The function raises ValueError for a picture that is there no more.
    """
    source = source_of(features, split)
    records = open_pictures(source).get(split) if "data" in source else None
    if "data" not in source or (records and "image" not in records.column_names):
        return str
    rows = {name: row for row, name in enumerate(records["image_id"] if records else ())}

    def find(name):
        if name not in rows:
            raise ValueError(
                f"image {name} is no longer in the data set that {features} was extracted from"
            )
        return next(pictures(records, [rows[name]]))

    return find
