"""The encoders that a model reads, loaded and known again: `load_encoders`.

An encoder is cut in two (see `cutting.py`). The lower part is frozen: it runs once for each picture
or caption, and its output is kept on disk (see `photos/features.py`). The `trained_layers` above
the cut become a part of the TGDT model, begin with the pretrained weights and are trained with
everything else. 0 freezes the whole encoder, and as many as it has trains all of it but the
embeddings. So fine-tuning costs what its layers cost, and training reads one kind of batch.

The lower part for words is in `text.py`, that for grid cells in `vision.py`.
"""

import os
import shutil
from pathlib import Path

from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone


def rebuild(kind, metadata: dict, device="cpu", path=None, beside=None):
    """The backbone, of class `kind`, that `metadata` describes (its `metadata`, as JSON values).

    path: where the encoder lies now. Without it, it is where it was, or below or next to the folder
    `beside`, that of a model or of features.
    ValueError if it is nowhere, or other weights are loaded than those that `metadata` was made of.
    """
    settings = {n: value for n, value in metadata.items() if n not in ("key", "aligned")}
    name = "text" if kind is TextBackbone else "vision"
    source = settings["source"] = place_of(name, metadata["source"], path, beside)
    try:
        backbone = kind(**settings, device=device)
    except ValueError as error:
        if path is not None or source in (LITE, MINILM) or os.path.isdir(source):
            raise
        option = "--text-path" if kind is TextBackbone else "--vision-path"
        raise ValueError(
            f"{error}; if it lies elsewhere now, say where: {option} FOLDER"
        ) from error
    if backbone.metadata["key"] != metadata["key"]:
        raise ValueError(
            f"{backbone.source} is not the encoder it was ({backbone.metadata['key']}, not "
            f"{metadata['key']}); the model was trained on the other one's features"
        )
    return backbone


def place_of(kind: str, source: str, path=None, beside=None) -> str:
    """Where a "vision" or "text" encoder lies that lay at `source`; see `rebuild`."""
    if path is not None:
        return str(path)
    if source in (LITE, MINILM) or os.path.isdir(source) or beside is None:
        return source
    name, beside = Path(source).name, Path(beside)
    saved = beside / "encoders"
    places = (saved / kind, saved / name, beside / name, beside.parent / name)
    return next((str(place) for place in places if place.is_dir()), source)


def load_encoders(model, vision=None, text=None, beside=None) -> None:
    """Load the encoders whose features a model reads: model.tokenizer, model.image_reader.encoder.

    vision, text: where they lie now, if not where they were; beside: the model's folder.
    A model of drawn scenes has none and stays as it is.
    """
    device = next(model.parameters()).device
    settings = model.config.reader_settings or {}
    text_source, image_source = settings.get("text_source"), settings.get("image_source")
    if text_source:
        model.tokenizer = rebuild(TextBackbone, text_source, device, text, beside)
    if image_source and "regions" in image_source:
        model.image_reader.encoder = _no_detector(image_source["source"])
    elif image_source:
        place = vision, beside
        model.image_reader.encoder = rebuild(VisionBackbone, image_source, device, *place)


def copy_encoders(model, folder: Path, only_in: Path | None = None) -> None:
    """Copy a model's encoders that lie in folders to folder/encoders, to travel with the model.

    only_in: those below this folder alone.
    """
    settings = model.config.reader_settings or {}
    loaded = {"text": model.tokenizer, "vision": getattr(model.image_reader, "encoder", None)}
    for kind, backbone in loaded.items():
        source = Path(getattr(backbone, "source", "") or "-")
        known = settings.get("text_source" if kind == "text" else "image_source")
        if known and source.is_dir() and (only_in is None or source.is_relative_to(only_in)):
            shutil.copytree(source, Path(folder) / "encoders" / kind)


def _no_detector(name):
    """What stands for the encoder of a model of regions: it refuses each picture."""

    def refuse(_):
        raise ValueError(
            f"the model reads regions that a detector ({name}) found, and no detector is run "
            "here: extract its files with --detections, and use --features"
        )

    return refuse
