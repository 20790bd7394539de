"""COCO's caption files: captions_train2017.json, captions_val2014.json and files of that form.

    {"images": [{"id": 9, "file_name": "000000000009.jpg"}, ...],
     "annotations": [{"image_id": 9, "caption": "..."}, ...]}

Each file is one split, which its name says. All other keys are left aside.
"""

import os
import re
from pathlib import Path

from tgdt_mini.files.manifest import load_json

ENCODING = "utf-8-sig"  # with a mark of the byte order, or without


def json_kind(path: Path) -> str:
    """What a .json file is: "rows", an array; "coco", captions by COCO's keys; else "karpathy".

    A file that is missing or no text is "karpathy", whose reader says what is wrong.
    """
    try:
        text = path.read_text(encoding=ENCODING).lstrip()
    except (OSError, ValueError):
        return "karpathy"
    if text.startswith("["):
        return "rows"
    return "coco" if '"annotations"' in text and '"sentences"' not in text else "karpathy"


def read_coco(path: Path, images: Path | str | None, need_pictures: bool = True):
    """The Dataset of a file: columns image_id (the file's name), captions, and image, a path.

    images: the folder of the pictures, or the one that holds train2017/, val2017/ and so on.
    Pictures come in the order of `images` in the file, captions in that of `annotations`.
    ValueError names the file, and the entry in it, for whatever is missing or wrong.
    """
    from datasets import Dataset

    check_images(images, need_pictures, path)
    rows = []
    below = re.search(r"(train|val|test)\d{4}", path.stem)
    for name, captions in _pictures(path).values():
        row = {"image_id": name, "captions": captions}
        if images is not None:
            file = Path(images, name)
            if folder := below or re.search(r"(train|val|test)\d{4}", name):
                nested = Path(images, folder[0], name)
                file = nested if nested.is_file() else file
            row["image"] = str(file.absolute())
        rows.append(row)
    return Dataset.from_list(rows)


def check_images(images: Path | str | None, need_pictures: bool, path: Path) -> None:
    """ValueError unless `images` is a folder, or None where no pictures are needed."""
    if (images is None and need_pictures) or (images is not None and not os.path.isdir(images)):
        raise ValueError(
            f"images is {images}; {path.name} needs the folder that holds its pictures: "
            "--images FOLDER"
        )


def coco_numbers(path: Path) -> dict[str, str]:
    """{image_id: COCO's number}: names of feature files."""
    return {name: str(number) for number, (name, _) in _pictures(path).items()}


def _pictures(path):
    """{number: (file name, captions)}; ValueError for what does not fit."""
    try:
        content = load_json(path, "get it again")
        pictures: dict[int, tuple[str, list[str]]] = {}
        for row, entry in enumerate(content["images"]):
            number, name = entry.get("id"), _text(entry, "file_name", f"images[{row}]")
            if isinstance(number, bool) or not isinstance(number, int | str):
                raise ValueError(f"id of images[{row}] ({name}) is {number!r:.80}")
            if number in pictures:
                raise ValueError(f"images[{row}] ({name}) has the id {number} of another one")
            pictures[number] = (name, [])
        for row, entry in enumerate(content["annotations"]):
            caption = _text(entry, "caption", f"annotations[{row}]")
            if entry.get("image_id") not in pictures:
                number = entry.get("image_id")
                raise ValueError(f"image_id of annotations[{row}] is {number!r:.80}: no image")
            pictures[entry["image_id"]][1].append(caption)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} cannot be read as COCO's captions: {' '.join(why.split())[:200]}"
        ) from None
    return pictures


def _text(entry, key, where):
    value = entry.get(key)
    # json reads halves of a sign, which no file can hold
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{key} of {where} is {value!r:.80}, which is no text")
    return value
