"""A folder of features: what pretrained encoders, or a detector, made of photographs and captions
once, for every run.

It holds, for each split, `images` and `captions` (see `photos/features.py`), `records`, the data set
without its pictures, and source.json, where they came from; encoders.json names what made them.
Splits may come one by one, or side by side. Only drawing hits needs the photographs again. No model
of ours is known here.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.files.whole import whole_folder, write_whole
from tgdt_mini.photos.detections import Detections
from tgdt_mini.photos.features import Features, StoredText, read_manifest, write_features
from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.records import SPLITS

PICTURES, FEW_PICTURES = (
    50,
    4,
)  # an encoder sees so many at once; few on a CPU, where they stay in its cache
CAPTIONS = 200
SOURCE = ("images", "columns", "splits", "restval", "most_captions")


def extract(
    data: dict,
    vision: VisionBackbone | Detections,
    text: TextBackbone,
    out: Path,
    precision: str = "float16",
    source: dict | None = None,
    progress: bool = True,
) -> None:
    """Write the features of every split of `data` (see `sources.open_source`); what was done before
    is kept.

    vision: an encoder of pictures, or what a detector found in them. source: JSON values that say
    where the data came from, for whoever looks for the pictures later (see `open_pictures`). Other
    splits that are in `out` stay there.
    Raises ValueError where `out` holds features of other encoders or other data.
    """
    out = Path(out)
    about = {"vision": vision.about, "text": text.about}
    _check_encoders(out, about)
    for split, records in data.items():
        folder = out / split
        captions = [caption for own in records["captions"] for caption in own]
        ids = list(records["image_id"])
        if isinstance(vision, Detections):
            marks, make = (
                vision.marks(ids),
                lambda rows, ids=ids: vision.arrays(ids[rows.start : rows.stop]),
            )
        else:
            marks, make = (
                _pictures(records),
                lambda rows, records=records: _cells(vision, records, rows),
            )
        boxes = {"boxes": "a detector's" if isinstance(vision, Detections) else "grid cells"}
        write_features(
            folder / "images",
            _key(vision.about["key"], marks),
            ids,
            make,
            boxes | vision.about,
            precision,
            progress=progress,
        )
        write_features(
            folder / "captions",
            _key(text.about["key"], captions),
            [str(i) for i in range(len(captions))],
            lambda rows, captions=captions: _words(text, captions, rows),
            text.about,
            precision,
            shard=5000,
            progress=progress,
        )
        if source:
            write_whole(folder / "source.json", json.dumps(source, indent=1) + "\n")
        kept = [name for name in records.column_names if name != "image"]
        with no_bars(import_datasets()), whole_folder(folder / "records") as beside:
            records.select_columns(kept).save_to_disk(
                beside
            )  # phrases may be new though the features are not
    before = _check_encoders(out, about)  # again: another process may have come first
    about = before | about | {"splits": _splits(out, about, data)}
    write_whole(out / "encoders.json", json.dumps(about, indent=1) + "\n")


def open_features(folder: Path, split: str, check_all: bool = False):
    """(records, TokenSet) of a split. ValueError, by name, for what is missing, damaged or does not
    fit together.

    check_all: compare the checksums of all files, which reads them through; otherwise those of the
    features are not.
    """
    from datasets import load_from_disk

    about, folder = encoders_of(folder), Path(folder) / split
    if split not in about["splits"]:
        raise ValueError(
            f"{folder.parent} has no split {split}; it has {', '.join(about['splits'])}: extract that, too"
        )
    images, captions = (
        Features(folder / name, check_all=check_all) for name in ("images", "captions")
    )
    try:
        records = load_from_disk(str(folder / "records"))
        own, ids = list(records["captions"]), list(records["image_id"])
    except Exception as error:  # a damaged table fails in many ways
        raise ValueError(
            f"{folder / 'records'} is missing or damaged ({error}); run extract again"
        ) from error
    owner = torch.tensor([row for row, some in enumerate(own) for _ in some])
    flat = tuple(caption for some in own for caption in some)
    if ids != images.items or captions.key != _key(about["text"]["key"], flat):
        raise ValueError(
            f"{folder} holds records that are not those of its features; extract them again"
        )
    if images.about.get("key") != about["vision"]["key"]:
        raise ValueError(
            f"{folder} holds features of another encoder than encoders.json says; extract them again"
        )
    return records, TokenSet(
        images.rows,
        images.array("boxes"),
        images.starts,
        images.array("whole"),
        StoredText.open(captions),
        owner,
        flat,
        tuple(images.items),
    )


def identity(folder: Path) -> str:
    """Sixteen hex digits, the same for features of the same data by the same encoders. ValueError
    for what is missing.

    They are made of the encoders' keys and the captions of train, validation and test: a copied
    picture has another date, and so another key, and further splits are not what a model is trained
    and judged on.
    """
    about = encoders_of(folder)
    keys = {name: about[name]["key"] for name in ("vision", "text")}
    for split in ("train", "validation", "test"):
        keys[f"captions of {split}"] = Features(Path(folder) / split / "captions").key
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def check_features(folder: Path) -> None:
    """ValueError, by name, unless every file of every split is what was written: all are read
    through.
    """
    for split in encoders_of(folder)["splits"]:
        open_features(folder, split, check_all=True)


def encoders_of(folder: Path) -> dict:
    """What encoders.json of a features folder says, with the splits that are there now. ValueError
    if there is none.
    """
    path = Path(folder) / "encoders.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        about |= {name: about[name] for name in ("vision", "text", "splits")}
        return about | {"splits": _splits(Path(folder), about, about["splits"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no finished features folder ({error}); make one with extract"
        ) from None


def source_of(folder: Path, split: str) -> dict:
    """Where the records of a split came from, {} if extract was not told. ValueError if the folder
    is not finished.
    """
    about, path = encoders_of(folder), Path(folder) / split / "source.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return about.get("source", {})  # once there was one for all splits


def _check_encoders(out, about):
    """What encoders.json says so far, {} if nothing. ValueError if it names other encoders than
    `about`.
    """
    try:
        before = encoders_of(out)
    except ValueError:  # there is none yet, or it is damaged and will be written anew
        return {}
    for name in ("vision", "text"):
        if before[name]["key"] != about[name]["key"]:
            theirs, ours = (
                f"{each[name]['source']} {each[name]['key']}" for each in (before, about)
            )
            raise ValueError(
                f"{out} was begun with another {name} encoder or other options of it ({theirs}, not {ours}), so its "
                "features are stale; use the same options, delete it, or choose another folder"
            )
    return before


def _splits(folder, about, known):
    """`known` and the other splits that lie in a folder, whole and made by the encoders of `about`,
    in their order.
    """
    found = {
        each.name for each in folder.iterdir() if each.name not in known and _is_whole(each, about)
    } | {*known}
    order = [*dict.fromkeys(SPLITS.values()), *sorted(found)]
    return [split for split in dict.fromkeys(order) if split in found]


def _is_whole(split, about):
    """Whether all parts of a split are there, and of these encoders. What they hold is checked when
    it is opened.
    """
    if not (split / "records").is_dir():  # the last to be written
        return False
    try:
        keys = [read_manifest(split / name)["about"].get("key") for name in ("images", "captions")]
    except ValueError:
        return False
    return keys == [about["vision"]["key"], about["text"]["key"]]


def open_pictures(source: dict) -> dict:
    """The data set that `source` describes: data, and any of SOURCE, as `sources.open_source` takes
    them.

    With `detections` in it pictures are not needed: the records may lack them.
    """
    from tgdt_mini.photos.sources import open_source

    options = {name: source[name] for name in SOURCE if source.get(name) is not None}
    return open_source(source["data"], **options, need_pictures=not source.get("detections"))


def finder(features: Path, split: str):
    """A function from an image's id to its picture, found where extract found it. ValueError if it
    is there no more.

    Where extract was told of no pictures, it gives the id back, which can be drawn too.
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


def _cells(vision, records, rows):
    found = []
    size = FEW_PICTURES if vision.device.type == "cpu" else PICTURES
    for start in range(rows.start, rows.stop, size):
        some = range(start, min(start + size, rows.stop))
        found.append(vision(list(pictures(records, some))))
    return {
        "features": torch.cat([each.features.flatten(0, 1) for each in found])
        .float()
        .cpu()
        .numpy(),
        "boxes": torch.cat([each.boxes.flatten(0, 1) for each in found]).float().cpu().numpy(),
        "whole": torch.cat([each.whole for each in found]).to(torch.float16).cpu().numpy(),
        "counts": torch.cat([each.mask.sum(dim=1) for each in found]).cpu().numpy(),
    }


def _words(text, captions, rows):
    by_length = sorted(rows, key=lambda row: len(captions[row]))
    parts = {}
    for start in range(0, len(by_length), CAPTIONS):
        some = by_length[start : start + CAPTIONS]
        tokens = text([captions[row] for row in some]).to("cpu")
        for place, row in enumerate(some):
            size = int(tokens.mask[place].sum())
            parts[row] = (
                tokens.features[place, :size],
                tokens.ids[place, :size],
                tokens.words[place, :size],
            )
    ordered = [parts[row] for row in rows]
    features, ids, words = (torch.cat(column).numpy() for column in zip(*ordered))
    return {
        "features": features,
        "ids": ids,
        "words": words,
        "counts": torch.tensor([len(i) for _, i, _ in ordered]),
    }


def _pictures(records):
    """What identifies the pictures: ids, and each file's bytes, or its size and time of change
    where only a path is.
    """
    from datasets import Image

    raw = records.select_columns(["image_id", "image"]).cast_column("image", Image(decode=False))
    for record in raw:
        image = record["image"]
        if image["bytes"] is not None:
            content = hashlib.sha256(image["bytes"]).hexdigest()
        else:
            try:
                stat = Path(image["path"]).stat()
            except OSError as error:
                raise ValueError(f"image {record['image_id']} cannot be read: {error}") from None
            content = f"{stat.st_size} {stat.st_mtime_ns}"
        yield f"{record['image_id']} {content}"


def _key(encoder, data):
    digest = hashlib.sha256(encoder.encode("utf-8"))
    for each in data:
        digest.update(f"{each}\n".encode())
    return digest.hexdigest()[:16]


def first_images(tokens: TokenSet, images: int) -> TokenSet:
    """The same set cut to its first images, with all of their captions; features on the disk stay
    there.

    ValueError for more images than there are, or none.
    """
    if not 0 < images <= tokens.image_count:
        raise ValueError(
            f"images is {images}; this set has {tokens.image_count}, so use 1 to {tokens.image_count}"
        )
    keep, end = (tokens.caption_image < images).nonzero()[:, 0], int(tokens.starts[images])
    return replace(
        tokens,
        features=tokens.features[:end],
        boxes=tokens.boxes[:end],
        starts=tokens.starts[: images + 1],
        whole=tokens.whole[:images],
        text=tokens.text.part(keep),
        caption_image=tokens.caption_image[keep],
        captions=tuple(tokens.captions[row] for row in keep.tolist()),
        image_ids=tokens.image_ids[:images],
        hard=tokens.hard and tokens.hard.part(keep),
    )


def limit_captions(tokens: TokenSet, captions: int) -> TokenSet:
    """The same images with at most so many captions each, their first ones."""
    order = torch.argsort(tokens.caption_image, stable=True)
    owner = tokens.caption_image[order]
    place = torch.arange(len(owner)) - torch.searchsorted(
        owner, owner
    )  # of each caption among its image's
    keep = order[place < captions].sort().values
    return replace(
        tokens,
        text=tokens.text.part(keep),
        caption_image=tokens.caption_image[keep],
        hard=None,
        captions=tuple(tokens.captions[row] for row in keep.tolist()),
    )
