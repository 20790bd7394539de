"""Random changes of every kind of file that the package writes."""

import hashlib
import json
import os
import random
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from helpers import random_embedding, saved_encoders, some_scenes, tiny_model, tokenizer

from tests.faults.hostile import hostile_file, sign_again
from tests.faults.outcomes import Table, outcome
from tgdt_mini.checkpoint import load_model, load_state, save_model, save_state
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.files.manifest import write_sealed
from tgdt_mini.photos.feature_folder import check_features, extract, open_features
from tgdt_mini.photos.origin import source_of
from tgdt_mini.scenes.tokens import build_token_set
from tgdt_mini.search.gallery import Gallery

CHANGES = ("flip", "cut", "empty", "zeros", "insert", "swap", "value", "missing")


def make_all(root: Path) -> dict:
    """{name: (folder, what is read from it)} of small artefacts in `root`."""
    model, optimizer, scaler = _run()
    save_model(model, root / "model", tokenizer(), {"seed": 3, "history": [{"rsum": 1.5}]})
    progress = {"step": 3, "history": [{"rsum": 1.5}], "best": 2.0, "seconds": 1.0, "sums": [0.0]}
    save_state(root / "run", model, tokenizer(), optimizer, scaler, progress)
    embedding = random_embedding(0, 40, 5, dtype=torch.float32)
    names = [f"picture {number}" for number in range(40)]
    for precision in ("float16", "int8"):
        options = {"local_precision": precision, "settings": {"shortlist": 7, "local_weight": 2.0}}
        gallery = Gallery.build(embedding[:30], names[:30], **options)
        gallery.save(root / f"gallery {precision}")
        Gallery.build(embedding[30:], names[30:], **options).append(root / f"gallery {precision}")
    records = {split: some_scenes("validation", 12).select(rows) for split, rows in _PARTS.items()}
    encoders = saved_encoders(root)
    text, vision = TextBackbone(encoders["text"]), VisionBackbone(encoders["vision"])
    source = {"data": "somewhere", "splits": ["train"]}
    extract(records, vision, text, root / "features", source=source, progress=False)
    os.environ["TGDT_MINI_CACHE"] = str(root / "cache")
    build_token_set(_few(), tokenizer(), key="few")
    readers = {"model": _model, "run": _state, "features": _features, "cache": _tokens}
    found = {name: (root / name, read) for name, read in readers.items()}
    return found | {f"gallery {p}": (root / f"gallery {p}", _gallery) for p in ("float16", "int8")}


_PARTS = {"train": range(8), "test": range(8, 12)}


def _few() -> Dataset:
    return some_scenes("validation", 6)


def _run():
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return model, optimizer, torch.amp.GradScaler("cuda", enabled=False)


def _digest(*values) -> str:
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _model(folder):
    model = load_model(folder)
    return _digest(model.fingerprint, model.notes, model.config, model.tokenizer(["a star"]).ids)


def _state(folder):
    model, optimizer, scaler = _run()
    progress = load_state(folder, model, optimizer, scaler)
    moments = [m for state in optimizer.state_dict()["state"].values() for m in state.values()]
    return _digest(progress, torch.get_rng_state(), *model.state_dict().values(), *moments)


def _gallery(folder):
    gallery = Gallery.load(folder, check_all=True)
    hits = gallery.search(random_embedding(1, 4, 3, dtype=torch.float32), k=9)
    about = gallery.holds, gallery.model, gallery.settings, gallery.source
    return _digest(hits.indices, hits.scores, hits.items, gallery.items, about)


def _features(folder):
    check_features(folder)
    found = []
    for split in _PARTS:
        records, tokens = open_features(folder, split)
        images = tokens.images(torch.arange(tokens.image_count))
        texts = tokens.text[torch.arange(len(tokens.captions))]
        found += [images.features, images.boxes, images.pooled, texts.ids, texts.features]
        found += [tokens.captions, tokens.image_ids, records[:], source_of(folder, split)]
    return _digest(*found)


def _tokens(folder):
    tokens = build_token_set(_few(), tokenizer(), key="few")
    return _digest(tokens.features, tokens.boxes, tokens.starts, tokens.pooled)


def change(path: Path, draw: random.Random) -> str:
    """Change a file in one random way; returns which."""
    content, kind = bytearray(path.read_bytes()), draw.choice(CHANGES)
    at = draw.randrange(len(content) or 1)
    if path.suffix == ".json" and kind in ("value", "swap", "insert"):
        return _change_json(path, draw)
    if kind == "missing":
        path.unlink()
        return kind
    if kind == "flip" and content:
        content[at] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "empty":
        content.clear()
    elif kind == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif kind == "insert":
        content[at:at] = draw.randbytes(draw.randint(1, 9))
    else:
        other = draw.randrange(len(content) or 1)
        if content:
            content[at], content[other] = content[other], content[at]
    path.write_bytes(content)
    return f"{kind} at {at}"


HOSTILE = (None, -1, 2.5, 10**30, float("nan"), "", "../outside", [], {}, [[]], True, "x" * 5000)


def _change_json(path, draw):
    """Another value, a key less, a key more, or another name, somewhere in a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    places = list(_places(content))
    if not places:
        path.write_text("[]", encoding="utf-8")
        return "a list"
    holder, key = draw.choice(places)
    kind = draw.choice(("value", "less", "name"))
    if kind == "value":
        holder[key] = draw.choice(HOSTILE)
    elif kind == "less" or isinstance(holder, list):
        del holder[key]
    else:
        holder[f"{key}2"] = holder.pop(key)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return f"{kind} of {key}"


def _places(content):
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def seal_again(path: Path, draw: random.Random) -> str:
    """Change a value of a sealed file, and its seal, as somebody who knows it would."""
    what = _change_json(path, draw)
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        write_sealed(path, content)
    return what


def run(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """Change every kind of file `tries` times, and read its folder each time."""
    change_all(table, make_all(root / "whole"), tries, seed)


def change_all(table: Table, artefacts: dict, tries: int, seed: int = 0, checked=True) -> None:
    """Change every kind of file of {name: (folder, read)}, some way each time, and read its folder.

    checked: whether checksums guard the files; then no change may give another answer. Where they
    are made to fit afterwards, and where there are none, another answer may be what was asked for.
    """
    draw = random.Random(seed)
    for name, (folder, read) in artefacts.items():
        wanted, kinds = read(folder), {}
        files = (path for path in folder.rglob("*") if path.is_file())
        # what lies in a folder "shard" is of Qdrant's engine, which has no checksums of its own
        for path in sorted(path for path in files if "shard" not in path.parts):
            kinds.setdefault(_kind(path.name), []).append(path.relative_to(folder))
        for kind, paths in kinds.items():
            ways = [("a changed file", change, wanted if checked else None)]
            ways.append(("a hostile file", hostile_file, wanted if checked else None))
            sealed = '"seal"' in (folder / paths[0]).read_text(encoding="utf-8", errors="ignore")
            if sealed:
                ways.append(("a changed value, sealed anew", seal_again, None))
            elif checked:
                ways.append(("a hostile file, its checksum anew", hostile_file, None))
            for group, way, answer in ways:
                for _ in range(tries):
                    path, copy = draw.choice(paths), folder.with_name(f"{name} copy")
                    shutil.copytree(folder, copy)
                    before = folder.rename(folder.with_name("aside"))
                    copy.rename(folder)
                    what = way(folder / path, draw)
                    if checked and answer is None:
                        sign_again(folder, folder / path)
                    ended = outcome(partial(read, folder), answer, (str(folder), "with item "))
                    table.add(group, f"{name}: {kind}", ended, f"{path} {what}")
                    shutil.rmtree(folder, ignore_errors=True)
                    before.rename(folder)


def _kind(name):
    """A file's name, without what differs from file to file of one kind."""
    return re.sub(r"\d+", "N", name) if re.match(r"\d|shard|data", name) else name
