"""Pretrained encoders as the source of tokens: how they are cut, known again, and brought to a
model that reads them.

An encoder is cut in two. What lies below the cut is frozen: it runs once for each picture or
caption, and its output is kept on disk (see `photos/features.py`). The `trained_layers` above the cut
become a part of the TGDT model, begin with the pretrained weights and are trained with everything
else; 0 freezes the whole encoder, and as many as it has trains all of it but the embeddings. So
fine-tuning costs what its layers cost, and training reads one kind of batch.

What is below the cut is in `encoders/text.py` for words and in `encoders/vision.py` for grid cells.
No loss here.
"""

from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone


def rebuild(kind, about: dict, device="cpu"):
    """The backbone (of class `kind`) that `about` describes. ValueError if what is loaded now is
    not what it was.
    """
    made = kind(**{name: value for name, value in about.items() if name != "key"}, device=device)
    if made.about["key"] != about["key"]:
        raise ValueError(
            f"{made.source} is not the encoder it was ({made.about['key']}, not {about['key']}); the model was trained "
            "on the other one's features"
        )
    return made


def load_encoders(model) -> None:
    """Load the encoders whose features a model reads, as model.tokenizer and model.image_reader.encoder. Without
    any, do nothing.
    """
    device = next(model.parameters()).device
    settings = model.config.reader_settings or {}
    if settings.get("text_source"):
        model.tokenizer = rebuild(TextBackbone, settings["text_source"], device)
    source = settings.get("image_source")
    if source:
        model.image_reader.encoder = (
            _refusal(source) if "regions" in source else rebuild(VisionBackbone, source, device)
        )


def _refusal(source):
    """What stands for the encoder of a model that reads a detector's features: the detector is not
    here.
    """

    def refuse(_):
        raise ValueError(
            f"the model reads regions that a detector ({source['source']}) found, and no detector is run here: "
            "extract its files with --detections, and use --features"
        )

    return refuse
