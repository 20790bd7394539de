"""Karpathy's files: dataset_flickr8k.json, dataset_flickr30k.json and dataset_coco.json.

    {"images": [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "..."}, ...]}, ...]}

One file holds all splits. COCO's entries name a folder (filepath) and a number (cocoid) too.
"""

import re
from pathlib import Path

from tgdt_mini.files.check import root_cause
from tgdt_mini.files.manifest import load_json
from tgdt_mini.photos.coco import check_images


def read_karpathy(path: Path, images: Path | str | None, need_pictures: bool = True) -> dict:
    """{file name: Dataset} of one of Karpathy's files; columns image_id, captions, split, image.

    The files are dataset_flickr8k.json, dataset_flickr30k.json and dataset_coco.json. images: the
    folder of the pictures, with COCO's train2014/ and val2014/ in it or without; column image has
    their paths. Without a folder that is needed: ValueError; else column image is left away.
    """
    from datasets import Dataset

    check_images(images, need_pictures, path)
    rows = []
    for entry in _entries(path):
        name = entry["filename"]
        row = {"image_id": name, "split": entry["split"]}
        row["captions"] = [sentence["raw"] for sentence in entry["sentences"]]
        if images is not None:
            nested = Path(images, entry.get("filepath", ""), name)
            row["image"] = str((nested if nested.is_file() else Path(images, name)).absolute())
        rows.append(row)
    return {path.name: Dataset.from_list(rows)}


def karpathy_numbers(path: Path | str) -> dict[str, str]:
    """{image_id: cocoid, or else imgid} of one of Karpathy's files: names of feature files."""
    return {
        entry["filename"]: str(entry.get("cocoid", entry.get("imgid")))
        for entry in _entries(Path(path))
    }


def _entries(path):
    """The pictures in one of Karpathy's files; their values are checked."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give one of Karpathy's dataset_*.json files")
    try:
        entries = load_json(path, "unpack it again")["images"]
        for number, entry in enumerate(entries):
            picture = f"images[{number}] ({entry.get('filename')})"
            if not isinstance(entry.get("sentences"), list):
                raise ValueError(f"{picture} has no list of sentences")
            values = {name: entry.get(name) for name in ("filename", "split")}
            values["filepath"] = entry.get("filepath", "")
            for row, sentence in enumerate(entry["sentences"]):
                values[f"raw in sentence {row}"] = sentence.get("raw")
            for name, value in values.items():
                # json reads NaN too, and halves of a sign, which no file can hold
                if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
                    raise ValueError(f"{name} of {picture} is {value!r:.80}, which is no text")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not one of Karpathy's dataset_*.json files: {root_cause(error)}"
        ) from None
    return entries
