"""A folder of features: what encoders, or a detector, made of photographs and captions once.

    encoders.json         what made them
    SPLIT/images          features of the pictures, see `photos/features.py`
    SPLIT/captions        features of the captions
    SPLIT/foils           of captions with two words swapped, if they were asked for
    SPLIT/records.arrow   the data set without its pictures; the last to be written of a split
    SPLIT/source.json     where the data came from, see `photos/origin.py`

Splits may be extracted one by one, or by several processes. No model of ours is known here.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.manifest import read_json, size_and_crc, write_sealed
from tgdt_mini.files.quiet import import_datasets, no_bars
from tgdt_mini.photos import extraction
from tgdt_mini.photos.detections import Detections
from tgdt_mini.photos.features import Features, StoredText, read_manifest, write_features
from tgdt_mini.photos.precomputed import Precomputed
from tgdt_mini.photos.records import SPLITS

CAPTION_SHARD = 5000
RECORDS, RECORD_SUMS, SOURCE = "records.arrow", "records.json", "source.json"


def extract(
    data: dict,
    vision: VisionBackbone | Detections | Precomputed,
    text: TextBackbone,
    out: Path,
    precision: str = "float16",
    source: dict | None = None,
    progress: bool = True,
) -> None:
    """Write the features of every split of `data`, which `sources.open_source` opened.

    What an earlier run has done is kept, and so are other splits in `out`.
    vision: an encoder of pictures, or what a detector found in them. source: JSON values that say
    where the data came from, see `open_pictures`.
    Raises ValueError where `out` holds features of other encoders or other data.
    """
    out, encoders = Path(out), {"vision": vision.metadata, "text": text.metadata}
    _check_encoders(out, encoders)
    _check_pictures(out, data)
    options = {"precision": precision, "progress": progress}
    for split, records in data.items():
        with only_writer(out / split):
            _extract_split(records, vision, text, out / split, options, source)
    _check_encoders(out, encoders)  # again: another process may have come first
    write_sealed(out / "encoders.json", encoders)


def _extract_split(records, vision, text, folder, options, source):
    ids = list(records["image_id"])
    if not isinstance(vision, VisionBackbone):
        marks, make = vision.marks(ids), partial(extraction.regions, vision, ids)
    else:
        marks, make = extraction.marks(records), partial(extraction.cells, vision, records)
    key = _key(vision.metadata["key"], marks)
    write_features(folder / "images", key, ids, make, vision.metadata, **options)
    captions = [caption for of_image in records["captions"] for caption in of_image]
    key, names = _key(text.metadata["key"], captions), [str(i) for i in range(len(captions))]
    make, more = partial(extraction.words, text, captions), options | {"shard": CAPTION_SHARD}
    write_features(folder / "captions", key, names, make, text.metadata, **more)
    if foils := _foils(records):
        key, names = _key(text.metadata["key"], foils), [str(i) for i in range(len(foils))]
        if (folder / "foils").is_dir() and not _has_key(folder / "foils", key):
            shutil.rmtree(folder / "foils")  # of other word classes
        make = partial(extraction.words, text, foils)
        write_features(folder / "foils", key, names, make, text.metadata, **more)
    if source:
        write_sealed(folder / SOURCE, source)
    _write_records(records, folder)


def _foils(records):
    """The captions with two words swapped, if the records have any: see `word_classes.py`."""
    if "foils" not in records.column_names:
        return []
    return [foil for of_image in records["foils"] for foil in of_image if foil]


def _has_key(folder, key):
    try:
        return Features(folder).key == key
    except ValueError:
        return False


def _write_records(records, folder):
    """Keep the data set without its pictures; phrases may be new though the features are not."""
    staging, kept = folder / ".records", [n for n in records.column_names if n != "image"]
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    with no_bars(import_datasets()):
        records.select_columns(kept).save_to_disk(staging, num_shards=1)
    table = next(staging.glob("*.arrow"))
    sums = {RECORDS: size_and_crc(table), SOURCE: size_and_crc(folder / SOURCE)}
    sums["split"] = folder.name  # all else that a split holds fits under any name
    table.replace(folder / RECORDS)
    write_sealed(folder / RECORD_SUMS, sums)
    shutil.rmtree(staging)


def open_features(folder: Path, split: str, check_all: bool = False):
    """(records, TokenSet) of a split.

    check_all: compare the checksums of all files, for which all are read.
    Raises ValueError, by name, for what is missing, damaged or does not fit together.
    """
    encoders, folder = encoders_of(folder), Path(folder) / split
    if not (folder / RECORD_SUMS).is_file():
        raise ValueError(
            f"{folder.parent} has no split {split}; it has {', '.join(encoders['splits'])}: "
            "extract that, too"
        )
    images, captions = (Features(folder / name, None, check_all) for name in ("images", "captions"))
    cure = "run extract again"
    sums = read_json(folder / RECORD_SUMS, {RECORDS: list}, "checksum of records", cure)
    if sums[RECORDS] != size_and_crc(folder / RECORDS):
        raise ValueError(f"{folder / RECORDS} is damaged; {cure}")
    if (there := sums.get("split", split)) != split:  # an earlier version did not note it
        raise ValueError(
            f"{folder} holds the split {there!r}, so it was renamed; call it {there} again, or "
            f"{cure} into another folder"
        )
    try:
        records = import_datasets().Dataset.from_file(str(folder / RECORDS))
        captions_of, ids = list(records["captions"]), list(records["image_id"])
    except Exception as error:  # a damaged table fails in many ways
        raise ValueError(f"{folder / RECORDS} is damaged ({error}); run extract again") from error
    caption_image = torch.tensor([row for row, texts in enumerate(captions_of) for _ in texts])
    flat = tuple(caption for texts in captions_of for caption in texts)
    if ids != images.items or captions.key != _key(encoders["text"]["key"], flat):
        raise ValueError(
            f"{folder} holds records that are not those of its features; extract them again"
        )
    if images.metadata.get("key") != encoders["vision"]["key"]:
        raise ValueError(
            f"{folder} holds features of another encoder than encoders.json; extract them again"
        )
    pictures = images.rows, images.array("boxes"), images.starts, images.array("pooled")
    text, items = StoredText.open(captions), tuple(images.items)
    hard = _open_foils(folder, records, encoders["text"]["key"], check_all)
    return records, TokenSet(*pictures, text, caption_image, flat, items, hard)


def _open_foils(folder, records, encoder, check_all):
    """The foils as a TokenSet's hard negatives: a row for each caption. None if there are none."""
    foils = _foils(records)
    if not foils:
        return None
    stored = Features(folder / "foils", _key(encoder, foils), check_all)
    exists = torch.tensor([bool(foil) for of_image in records["foils"] for foil in of_image])
    rows = (exists.cumsum(0) - 1).clamp(min=0)  # (C,) a caption without a foil has the one before
    text = StoredText.open(stored).part(rows)
    return replace(text, word_mask=text.word_mask & exists[:, None])


def identity(folder: Path) -> str:
    """Sixteen hex digits, the same for features of the same data by the same encoders.

    They are made of the encoders' keys and the captions of train, validation and test: a copied
    picture has another date, and so another key, and further splits are not what a model is trained
    and judged on. Raises ValueError for what is missing.
    """
    encoders = encoders_of(folder)
    keys = {name: encoders[name]["key"] for name in ("vision", "text")}
    for split in ("train", "validation", "test"):
        keys[f"captions of {split}"] = read_manifest(Path(folder) / split / "captions")["key"]
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def check_features(folder: Path) -> None:
    """ValueError, by name, unless every file of every split is what was written: all are read."""
    encoders_of(folder)
    cure = "run extract again"
    for split in sorted(path.parent for path in Path(folder).glob("*/images") if path.is_dir()):
        open_features(folder, split.name, check_all=True)
        known = read_json(split / RECORD_SUMS, {}, "checksums of records", cure)
        # an earlier version did not note it
        if SOURCE in known and known[SOURCE] != size_and_crc(split / SOURCE):
            raise ValueError(f"{split / SOURCE} is missing or damaged; {cure}")


def encoders_of(folder: Path) -> dict:
    """{"vision", "text": what describes each encoder, "splits": those that are finished}.

    Raises ValueError for a folder whose first extraction did not come to its end.
    """
    cure = f"{folder} is no finished features folder: make one with extract"
    keys = {"vision": dict, "text": dict}
    encoders = read_json(Path(folder) / "encoders.json", keys, "list of encoders", cure)
    for name in keys:
        if not isinstance(encoders[name].get("key"), str):
            raise ValueError(f"{folder}/encoders.json is damaged (no key of {name}); {cure}")
    finished = {path.name for path in Path(folder).iterdir() if _is_finished(path, encoders)}
    order = dict.fromkeys([*SPLITS.values(), *sorted(finished)])
    return encoders | {"splits": [split for split in order if split in finished]}


def _is_finished(split, encoders):
    """Whether a folder is a split by these encoders. Its files are checked when it is opened."""
    if not (split / RECORD_SUMS).is_file():  # the last to be written
        return False
    try:
        keys = [read_manifest(split / name)["metadata"]["key"] for name in ("images", "captions")]
    except (ValueError, KeyError):
        return False
    return keys == [encoders["vision"]["key"], encoders["text"]["key"]]


def _check_encoders(out, encoders):
    """ValueError if encoders.json is there and names others."""
    try:
        before = encoders_of(out)
    except ValueError:  # there is none yet, or it is damaged and will be written anew
        return
    for name, encoder in encoders.items():
        if before[name]["key"] != encoder["key"]:
            raise ValueError(
                f"{out} was begun with another {name} encoder or other options of it "
                f"({difference(before[name], encoder)}), so its features are stale; use the same "
                "options, delete it, or choose another folder"
            )


def _check_pictures(out, data):
    """ValueError if a picture of `data` is in another split that `out` holds already."""
    for path in sorted(out.glob(f"*/{RECORDS}")):
        if (there := path.parent.name) in data:
            continue
        try:
            known = {*import_datasets().Dataset.from_file(str(path))["image_id"]}
        except Exception:  # a damaged table fails in many ways, and is told when it is opened
            continue
        for split, records in data.items():
            if both := sorted(known & {*records["image_id"]}):
                raise ValueError(
                    f"{len(both)} pictures of {split} are in {out / there} already, such as "
                    f"{both[0]!r}: what is tested on must not be trained on; leave them out of "
                    "one, or choose another --out"
                )


def difference(there: dict, wanted: dict) -> str:
    """In words, what differs in two descriptions of an encoder: "grid 0, not 4".

    Where all settings are alike it is the weights, whose fingerprints are named.
    """
    names = [name for name in {**there, **wanted} if name != "key"]
    pairs = {name: (there.get(name, 0), wanted.get(name, 0)) for name in names}
    other = [f"{name} {here}, not {ours}" for name, (here, ours) in pairs.items() if here != ours]
    return ", ".join(other) or f"weights {there['key']}, not {wanted['key']}"


def _key(encoder, data):
    """Sixteen hex digits of an encoder's key and of each line of data."""
    digest = hashlib.sha256(encoder.encode("utf-8"))
    for line in data:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]
