"""The encoders that a model reads, loaded and known again: `load_encoders`.

An encoder is cut in two (see `cutting.py`). The lower part is frozen: it runs once for each picture
or caption, and its output is kept on disk (see `photos/features.py`). The `trained_layers` above
the cut become a part of the TGDT model, begin with the pretrained weights and are trained with
everything else. 0 freezes the whole encoder, and as many as it has trains all of it but the
embeddings. So fine-tuning costs what its layers cost, and training reads one kind of batch.

The lower part for words is in `text.py`, that for grid cells in `vision.py`.
"""

from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone


def rebuild(kind, metadata: dict, device="cpu"):
    """The backbone, of class `kind`, that `metadata` describes (its `metadata`, as JSON values).

    ValueError if other weights are loaded now than those that `metadata` was made of.
    """
    settings = {n: value for n, value in metadata.items() if n not in ("key", "aligned")}
    backbone = kind(**settings, device=device)
    if backbone.metadata["key"] != metadata["key"]:
        raise ValueError(
            f"{backbone.source} is not the encoder it was ({backbone.metadata['key']}, not "
            f"{metadata['key']}); the model was trained on the other one's features"
        )
    return backbone


def load_encoders(model) -> None:
    """Load the encoders whose features a model reads: model.tokenizer, model.image_reader.encoder.

    A model of drawn scenes has none and stays as it is.
    """
    device = next(model.parameters()).device
    settings = model.config.reader_settings or {}
    text, vision = settings.get("text_source"), settings.get("image_source")
    if text:
        model.tokenizer = rebuild(TextBackbone, text, device)
    if vision and "regions" in vision:
        model.image_reader.encoder = _no_detector(vision["source"])
    elif vision:
        model.image_reader.encoder = rebuild(VisionBackbone, vision, device)


def _no_detector(name):
    """What stands for the encoder of a model of regions: it refuses each picture."""

    def refuse(_):
        raise ValueError(
            f"the model reads regions that a detector ({name}) found, and no detector is run "
            "here: extract its files with --detections, and use --features"
        )

    return refuse
