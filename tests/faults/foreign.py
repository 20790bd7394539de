"""Random changes of files that others have written, and of what stands half done.

Tables of captions, features of detectors, annotations and encoders have no checksum of ours. So a
changed value may be another answer; but nothing may end in a traceback or without a name.
"""

import json
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    PICTURES,
    photographs,
    random_embedding,
    save_encoder,
    text_encoder,
    tiny_model,
    tokenizer,
    vision_encoder,
)

from tests.faults import artefacts
from tests.faults.outcomes import Table
from tgdt_mini import scenes
from tgdt_mini.bench import read as read_bench
from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.files.manifest import write_report
from tgdt_mini.files.progress import silence
from tgdt_mini.photos.boxes import read_sizes
from tgdt_mini.photos.detections import Detections
from tgdt_mini.photos.entities import read_boxes, read_sentences
from tgdt_mini.photos.features import Features, write_features
from tgdt_mini.photos.image_io import pictures
from tgdt_mini.photos.precomputed import Precomputed
from tgdt_mini.photos.sources import open_source
from tgdt_mini.runs import ablations, indexing
from tgdt_mini.runs.indexing import index_pictures
from tgdt_mini.scaling.qdrant import QdrantGallery
from tgdt_mini.search.gallery import Gallery

COLUMNS = {"captions": "captions", "split": "split"}
CAPTIONS = [[f"a red star {i}", f"two moons, {i}"] for i in range(6)]


def make_tables(root: Path, encoders: bool = True) -> dict:
    """{name: (folder, what is read from it)} of files that others write; encoders load slowly."""
    pixels, names = root / "pictures", [f"{i}.png" for i in range(6)]
    pixels.mkdir(parents=True)
    for name, picture in zip(names, photographs(6)):
        picture.save(pixels / name)
    rows = [
        {"image": name, "image_id": name, "captions": own[0], "split": "train"}
        for name, own in zip(names, CAPTIONS)
    ]
    found = {}

    def new(name, read):
        (root / name).mkdir()
        found[name] = (root / name, read)
        return root / name

    table = partial(_table, images=pixels)
    folder = new("Karpathy's JSON", partial(table, name="data.json"))
    entries = [
        {"filename": name, "split": "train", "imgid": i, "sentences": [{"raw": t} for t in own]}
        for i, (name, own) in enumerate(zip(names, CAPTIONS))
    ]
    (folder / "data.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    folder = new("COCO's JSON", partial(table, name="captions_train2017.json"))
    whole = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}
    whole["annotations"] = [
        {"image_id": i, "caption": text} for i, own in enumerate(CAPTIONS) for text in own
    ]
    (folder / "captions_train2017.json").write_text(json.dumps(whole), encoding="utf-8")
    folder = new("a table, json", partial(table, name="data.json", columns=COLUMNS))
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        folder = new(f"a table, {kind}", partial(table, name=f"data.{kind}", columns=COLUMNS))
        _write_table(folder / f"data.{kind}", rows)
    folder = new("a precomp folder", _precomputed)
    draw = np.random.default_rng(0)
    np.save(folder / "train_ims.npy", draw.random((4, 3, 8), np.float32))
    lines = [f"a red star {i}" for i in range(20)]
    (folder / "train_caps.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "train_ids.txt").write_text("\n".join("abcd"), encoding="utf-8")
    folder = new("regions", _regions)
    for i in range(4):
        boxes = np.float32([[0, 0, 30, 30], [5, 5, 20, 40]])
        np.save(folder / f"{i}.npy", draw.random((2, 8), np.float32))
        np.save(folder / f"{i}_box.npy", boxes)
        np.savez(folder / f"1{i}.npz", feat=draw.random((2, 8), np.float32), bbox=boxes)
    sizes = {str(i): [50, 50] for i in [*range(4), *range(10, 14)]}
    (folder / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    folder = new("annotations", _annotations)
    (folder / "1.txt").write_text("[/EN#5/people A man] runs\n" * 5, encoding="utf-8")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    thing = f"<object><name>5</name>{box}</object>"
    size = "<size><width>50</width><height>40</height></size>"
    (folder / "1.xml").write_text(f"<annotation>{size}{thing}</annotation>", encoding="utf-8")
    if encoders:
        save_encoder(text_encoder(), new("a text encoder", _words), tokenizer())
        save_encoder(vision_encoder(), new("a vision encoder", _sight), pictures=PICTURES)
    return found


def _write_table(path, rows):
    import pandas

    frame = pandas.DataFrame(rows)
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)


def _table(folder, name, images, columns=None):
    data = open_source(folder / name, images=images, columns=columns)
    return {
        split: (records["captions"][:], [p.size for p in pictures(records, range(len(records)))])
        for split, records in data.items()
    }


def _precomputed(folder):
    data, regions = open_source(folder), Precomputed(folder)
    ids = data["train"]["image_id"][:]
    marks = list(regions.marks(ids))
    return data["train"]["captions"][:], len(marks), regions.arrays(ids)["features"].shape


def _regions(folder):
    sizes = read_sizes(folder / "sizes.json")
    regions = Detections(folder, sizes=sizes, width=8)
    ids = ["0", "1", "2", "3", "10", "11", "12", "13"]
    regions.check(ids)
    return {name: array.shape for name, array in regions.arrays(ids).items()}


def _annotations(folder):
    return read_sentences(folder / "1.txt"), read_boxes(folder / "1.xml")


def _words(folder):
    return TextBackbone(str(folder))(["a red star"]).features.shape


def _sight(folder):
    return VisionBackbone(str(folder))(photographs(1)).features.shape


def make_rest(root: Path) -> dict:
    """The same of drawn scenes, reports, vectors, and of what a stopped command has left."""
    root.mkdir(parents=True)
    os.environ["TGDT_MINI_CACHE"] = str(root / "drawn scenes")
    scenes.SPLITS["validation"] = (scenes.SPLITS["validation"][0], 6)
    known = scenes.checksums(scenes.draw("validation"))
    scenes.published = scenes.dataset.published = lambda split: known
    scenes.load("validation")
    save_model(tiny_model(), root / "model", tokenizer())
    model = load_model(root / "model")
    (root / "pictures").mkdir()
    for number in range(8):
        scenes.picture(f"test-000{number}").save(root / "pictures" / f"{number}.png")
    paths = [str(path) for path in sorted((root / "pictures").iterdir())]
    indexing.GROUP = 2
    index_pictures(model, paths, root / "whole")
    stopped = root / "a stopped index"
    _stopped_index(model, paths, stopped)
    whole = Gallery.load(root / "whole")
    QdrantGallery.upload(whole, str(root / "vectors"), "pictures", progress=False).close()
    (root / "half a features folder").mkdir()
    _half_the_features(root / "half a features folder")
    (root / "reports").mkdir()
    row = {"i2t": {"1": 50.0}, "t2i": {"1": 40.0}, "rsum": 300.0}
    ways = {"rows": dict.fromkeys(("global", "local", "two-stage"), row)}
    for seed in range(1):
        write_report(ablations.path_of(root / "reports", "default", seed), ways)
    (root / "a benchmark").mkdir()
    write_report(root / "a benchmark" / "bench.json", {"machine": {"cores": 2}, "rows": [row]})
    readers = {
        "drawn scenes": _drawn,
        "a stopped index": _kept(partial(_indexed, model, paths)),
        "half a features folder": _kept(_extracted),
        "reports": lambda folder: ablations.table(ablations.read(folder)),
        "a benchmark": _benchmark,
        "vectors": _kept(_vectors),
    }
    return {name: (root / name, read) for name, read in readers.items()}


def _kept(read):
    """The same reader, after which the folder is as it was."""

    def reader(folder):
        shutil.copytree(folder, before := folder.with_name("before reading"))
        try:
            return read(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            before.rename(folder)

    return reader


def _benchmark(folder):
    report = read_bench(folder / "bench.json")
    if report is None:
        raise ValueError(f"{folder} has none")  # `bench --only` says so, and what to do
    return repr(report)


def _drawn(folder):
    dataset = scenes.load("validation")
    return scenes.checksums({name: dataset[name] for name in dataset.column_names})


def _stopped_index(model, paths, folder):
    bar = indexing.progress_bar

    class Stopped(Exception):
        pass

    class Bar:
        def __init__(self, **_):
            self.left = 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, _):
            self.left -= 1
            if not self.left:
                raise Stopped

    indexing.progress_bar = Bar
    try:
        index_pictures(model, paths, folder)
    except Stopped:
        pass
    finally:
        indexing.progress_bar = bar


def _indexed(model, paths, folder):
    with silence():
        index_pictures(model, paths, folder)
    gallery = Gallery.load(folder, check_all=True)
    left = (folder / ".partial").exists()
    return left, gallery.items, gallery.local_tokens.tolist(), gallery.global_tokens.tolist()


def _features(rows):
    draw = np.random.default_rng(rows.start)
    return {"features": draw.random((len(rows), 4), np.float32), "counts": np.ones(len(rows), int)}


def _half_the_features(folder, most=2):
    def make(rows):
        if rows.start >= 3 * most:
            raise KeyboardInterrupt
        return _features(rows)

    with suppress(KeyboardInterrupt):
        write_features(folder, "key", list("abcdefghi"), make, shard=3, progress=False)


def _extracted(folder):
    write_features(folder, "key", list("abcdefghi"), _features, shard=3, progress=False)
    features = Features(folder, check_all=True)
    return features.rows.index_select(0, torch.arange(9)).tolist(), features.items


def _vectors(folder):
    remote = QdrantGallery.open(str(folder), "pictures")
    try:
        return remote.search(random_embedding(1, 2, 3, 32, torch.float32), k=5).items
    finally:
        remote.close()


def run(table: Table, root: Path, tries: int, seed: int = 0, encoders: bool = True) -> None:
    """Change every kind of file `tries` times, and read its folder each time."""
    tables = make_tables(root / "tables", encoders)
    artefacts.change_all(table, tables, tries, seed, checked=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TGDT_MINI_CACHE", "")
        patch.setitem(scenes.SPLITS, "validation", scenes.SPLITS["validation"])
        for room in (scenes, scenes.dataset):
            patch.setattr(room, "published", scenes.published)
        patch.setattr(indexing, "GROUP", indexing.GROUP)
        artefacts.change_all(table, make_rest(root / "rest"), tries, seed)
