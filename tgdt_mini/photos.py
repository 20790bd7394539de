"""Whole runs on photographs: features extracted once by pretrained encoders, then trained and judged like drawn scenes.

A folder of features holds, for each split, `images` and `captions` (see `features.py`) and `records`, the data set
without its pictures; encoders.json names what made them. Nothing here needs the photographs again but drawing hits.
"""

import hashlib
import json
from pathlib import Path

import torch

from tgdt_mini import distributed
from tgdt_mini.assessment import assess, choice_of
from tgdt_mini.backbones import rebuild
from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import TokenSet
from tgdt_mini.detections import Detections
from tgdt_mini.encoding import encode
from tgdt_mini.experiments import fit
from tgdt_mini.features import Features, StoredText, write_features
from tgdt_mini.model import TGDT
from tgdt_mini.paths import whole_folder, write_whole
from tgdt_mini.pictures import pictures
from tgdt_mini.recipe import TrainingConfig, pick_device
from tgdt_mini.scenes import import_datasets, no_bars
from tgdt_mini.text_backbone import TextBackbone
from tgdt_mini.vision_backbone import VisionBackbone

BATCH = 50  # pictures that an encoder sees at once; captions come in four times as many
SOURCE = ("images", "columns", "splits", "restval", "most_captions")
RECIPE = dict(  # of training on features; chosen on Flickr8k's dev split
    epochs=20, batch=512, learning_rate=3e-4, easy_share=0.8, start="correlation", mirror=True, hide_regions=0.5,
    hide_words=0.2, validation_captions=1,
)  # fmt: skip


def extract(data: dict, vision: VisionBackbone | Detections, text: TextBackbone, out: Path, precision: str = "float16",
            source: dict | None = None, progress: bool = True) -> None:  # fmt: skip
    """Write the features of every split of `data` (see `sources.open_source`); what was done before is kept.

    vision: an encoder of pictures, or what a detector found in them. source: JSON values that say where the data came
    from, for whoever looks for the pictures later (see `open_pictures`).
    Raises ValueError where `out` holds features of other encoders or other data.
    """
    out = Path(out)
    about = {"vision": vision.about, "text": text.about, "source": source or {}, "splits": list(data)}
    for split, records in data.items():
        folder = out / split
        captions = [caption for own in records["captions"] for caption in own]
        ids = list(records["image_id"])
        if isinstance(vision, Detections):
            marks, make = vision.marks(ids), lambda rows, ids=ids: vision.arrays(ids[rows.start : rows.stop])
        else:
            marks, make = _pictures(records), lambda rows, records=records: _cells(vision, records, rows)
        boxes = {"boxes": "a detector's" if isinstance(vision, Detections) else "grid cells"}
        write_features(folder / "images", _key(vision.about["key"], marks), ids, make, boxes | vision.about, precision,
                       progress=progress)  # fmt: skip
        write_features(folder / "captions", _key(text.about["key"], captions), [str(i) for i in range(len(captions))],
                       lambda rows, captions=captions: _words(text, captions, rows), text.about, precision,
                       shard=5000, progress=progress)  # fmt: skip
        kept = [name for name in records.column_names if name != "image"]
        with no_bars(import_datasets()), whole_folder(folder / "records") as beside:
            records.select_columns(kept).save_to_disk(beside)  # phrases may be new though the features are not
    write_whole(out / "encoders.json", json.dumps(about, indent=1) + "\n")


def open_features(folder: Path, split: str, check_all: bool = False):
    """(records, TokenSet) of a split. ValueError, by name, for what is missing, damaged or does not fit together.

    check_all: compare the checksums of all files, which reads them through; otherwise those of the features are not.
    """
    from datasets import load_from_disk

    about, folder = encoders_of(folder), Path(folder) / split
    if split not in about["splits"]:
        raise ValueError(
            f"{folder.parent} has no split {split}; it has {', '.join(about['splits'])}: extract that, too"
        )
    images, captions = (Features(folder / name, check_all=check_all) for name in ("images", "captions"))
    try:
        records = load_from_disk(str(folder / "records"))
        own, ids = list(records["captions"]), list(records["image_id"])
    except Exception as error:  # a damaged table fails in many ways
        raise ValueError(f"{folder / 'records'} is missing or damaged ({error}); run extract again") from error
    owner = torch.tensor([row for row, some in enumerate(own) for _ in some])
    flat = tuple(caption for some in own for caption in some)
    if ids != images.items or captions.key != _key(about["text"]["key"], flat):
        raise ValueError(f"{folder} holds records that are not those of its features; extract them again")
    if images.about.get("key") != about["vision"]["key"]:
        raise ValueError(f"{folder} holds features of another encoder than encoders.json says; extract them again")
    return records, TokenSet(
        images.rows, images.array("boxes"), images.starts, images.array("whole"), StoredText.open(captions), owner,
        flat, tuple(images.items),
    )  # fmt: skip


def _features_for(model, folder, split):
    """`open_features`, for a model: ValueError if other encoders made them than those that it was trained with."""
    about = encoders_of(folder)
    for name, trained in (("vision", model.config.image_source), ("text", model.config.text_source)):
        if not trained or trained["key"] != about[name]["key"]:
            other = f"{trained['source']} {trained['key']}" if trained else "none"
            raise ValueError(
                f"{folder} holds features of the {name} encoder {about[name]['source']} {about[name]['key']}, but the "
                f"model was trained on those of {other}; extract them with that one"
            )
    return open_features(folder, split)


def check_features(folder: Path) -> None:
    """ValueError, by name, unless every file of every split is what was written: all are read through."""
    for split in encoders_of(folder)["splits"]:
        open_features(folder, split, check_all=True)


def encoders_of(folder: Path) -> dict:
    """What encoders.json of a features folder says. ValueError if there is none."""
    path = Path(folder) / "encoders.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about | {name: about[name] for name in ("vision", "text", "source", "splits")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no finished features folder ({error}); make one with extract") from None


def train_on_photos(features: Path, config: TrainingConfig, out: Path, device: str = "auto", resume: bool = False,
                    progress: bool = True, trained: dict | None = None, **sizes) -> TGDT:  # fmt: skip
    """Train on a folder of features; the best model by validation rsum, returned and written to out/model.

    sizes: changes to `TGDTConfig.photos()`. The encoders' last layers, where extract left any, are trained too, or only
    the last so many of them that `trained` says: {"vision": number, "text": number}.
    """
    about, progress = encoders_of(features), progress and distributed.rank() == 0
    (_, train), (_, validation) = open_features(features, "train"), open_features(features, "validation")
    text = rebuild(TextBackbone, about["text"])
    image_top = None
    if about["vision"]["trained_layers"]:
        image_top = rebuild(VisionBackbone, about["vision"]).top
    torch.manual_seed(config.seed)
    model = TGDT(TGDTConfig.photos(
        image_features=train.features.shape[1], text_features=train.text.features.shape[1],
        image_source=about["vision"], text_source=about["text"], most_tokens=about["text"]["most_tokens"],
        image_top=_to_train(image_top, trained, "vision"), text_top=_to_train(text.top, trained, "text"), **sizes,
    ))  # fmt: skip
    for mine, pretrained in ((model.image_top, image_top), (model.text_top, text.top)):
        if mine is not None:
            mine.load_state_dict(pretrained.state_dict())
    return fit(model, train, validation, text.tokenizer, config, out, pick_device(device), resume, progress)


def _to_train(top, trained, name):
    """What describes an encoder's last layers to a model, with how many of them learn. ValueError if it has fewer."""
    wanted = (trained or {}).get(name)
    there = len(top.layers) if top else 0
    if wanted is not None and not 0 <= wanted <= there:
        raise ValueError(
            f"--{name}-layers is {wanted}, but the features leave {there} layers of the {name} encoder to train: use 0 "
            f"to {there}, or extract again with --{name}-layers {wanted}"
        )
    return top and (top.about if wanted is None else top.about | {"trained": wanted})


def assess_on_photos(model: TGDT, features: Path, split: str = "test", folds: int = 0) -> dict:
    """A report as on the scenes, without foils and oracle, with the pointing game where phrases have boxes.

    folds: also the mean of so many parts, as in `assess`. captions_each: {captions of an image: images with so many}.
    """
    records, tokens = _features_for(model, features, split)
    report = assess(model, tokens, choice_of(model), records=records, folds=folds)
    trained = {name: value for name, value in model.notes.items() if name != "history"}
    counts = tokens.caption_image.bincount().bincount()
    each = {count: images for count, images in enumerate(counts.tolist()) if images}
    return report | {"split": split, "images": tokens.image_count, "captions_each": each, "trained": trained}


def encode_split(model: TGDT, features: Path, split: str):
    """(Embedding of the images, their ids, Embedding of the captions, the captions) of a split."""
    _, tokens = _features_for(model, features, split)
    images, captions = encode(model, tokens)
    return images, list(tokens.image_ids), captions, list(tokens.captions)


def open_pictures(source: dict) -> dict:
    """The data set that `source` describes: data, and any of SOURCE, as `sources.open_source` takes them.

    With `detections` in it pictures are not needed: the records may lack them.
    """
    from tgdt_mini.sources import open_source

    options = {name: source[name] for name in SOURCE if source.get(name) is not None}
    return open_source(source["data"], **options, need_pictures=not source.get("detections"))


def finder(features: Path, split: str):
    """A function from an image's id to its picture, found where extract found it. ValueError if it is there no more.

    Where extract was told of no pictures, it gives the id back, which can be drawn too.
    """
    source = encoders_of(features)["source"]
    records = open_pictures(source).get(split) if "data" in source else None
    if "data" not in source or (records and "image" not in records.column_names):
        return str
    rows = {name: row for row, name in enumerate(records["image_id"] if records else ())}

    def find(name):
        if name not in rows:
            raise ValueError(f"image {name} is no longer in the data set that {features} was extracted from")
        return next(pictures(records, [rows[name]]))

    return find


def _cells(vision, records, rows):
    found = []
    for start in range(rows.start, rows.stop, BATCH):
        some = range(start, min(start + BATCH, rows.stop))
        found.append(vision(list(pictures(records, some))))
    return {
        "features": torch.cat([each.features.flatten(0, 1) for each in found]).float().cpu().numpy(),
        "boxes": torch.cat([each.boxes.flatten(0, 1) for each in found]).float().cpu().numpy(),
        "whole": torch.cat([each.whole for each in found]).to(torch.float16).cpu().numpy(),
        "counts": torch.cat([each.mask.sum(dim=1) for each in found]).cpu().numpy(),
    }


def _words(text, captions, rows):
    by_length = sorted(rows, key=lambda row: len(captions[row]))
    parts = {}
    for start in range(0, len(by_length), 4 * BATCH):
        some = by_length[start : start + 4 * BATCH]
        tokens = text([captions[row] for row in some]).to("cpu")
        for place, row in enumerate(some):
            size = int(tokens.mask[place].sum())
            parts[row] = tokens.features[place, :size], tokens.ids[place, :size], tokens.words[place, :size]
    ordered = [parts[row] for row in rows]
    features, ids, words = (torch.cat(column).numpy() for column in zip(*ordered))
    return {"features": features, "ids": ids, "words": words, "counts": torch.tensor([len(i) for _, i, _ in ordered])}


def _pictures(records):
    """What identifies the pictures: ids, and each file's bytes, or its size and time of change where only a path is."""
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
