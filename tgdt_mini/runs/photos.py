"""Whole runs on photographs: train, judge and encode from a folder of features. What the command
line calls.

As `runs/scenes.py` does on the drawn scenes, each function puts together what the other modules
hold. `photos/feature_folder.py` writes and opens the folder; a model is refused the features of other encoders
than those that it was trained with.
"""

from pathlib import Path

import torch

from tgdt_mini.config import TGDTConfig
from tgdt_mini.encoders.load import rebuild
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.encoding import encode
from tgdt_mini.model import TGDT
from tgdt_mini.photos.feature_folder import encoders_of, first_images, open_features
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.reports.report import assess
from tgdt_mini.runs.fit import fit
from tgdt_mini.scaling import distributed
from tgdt_mini.training_config import TrainingConfig, pick_device

RECIPE = dict(  # of training on features; chosen on Flickr8k's dev split
    epochs=20,
    batch=512,
    learning_rate=3e-4,
    inter="hardest",
    easy_share=0.8,
    start="correlation",
    mirror=True,
    hide_regions=0.5,
    hide_words=0.2,
    validation_captions=1,
)


def train_on_photos(
    features: Path,
    config: TrainingConfig,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
    trained: dict | None = None,
    share: float = 1.0,
    **sizes,
) -> TGDT:
    """Train on a folder of features; the best model by validation rsum, returned and written to
    out/model.

    sizes: changes to `TGDTConfig.photos()`. The encoders' last layers, where extract left any, are
    trained too, or only the last so many of them that `trained` says: {"vision": number, "text":
    number}. share: only the first part of the pictures of each split, such as 0.25 for a quarter.
    """
    about, progress = encoders_of(features), progress and distributed.rank() == 0
    (_, train), (_, validation) = (
        _first(share, *open_features(features, name)) for name in ("train", "validation")
    )
    text = rebuild(TextBackbone, about["text"])
    image_top = None
    if about["vision"]["trained_layers"]:
        image_top = rebuild(VisionBackbone, about["vision"]).top
    torch.manual_seed(config.seed)
    model = TGDT(
        TGDTConfig.photos(
            image_features=train.features.shape[1],
            text_features=train.text.features.shape[1],
            image_source=about["vision"],
            text_source=about["text"],
            most_tokens=about["text"]["most_tokens"],
            image_top=_to_train(image_top, trained, "vision"),
            text_top=_to_train(text.top, trained, "text"),
            **sizes,
        )
    )
    for mine, pretrained in ((model.image_top, image_top), (model.text_top, text.top)):
        if mine is not None:
            mine.load_state_dict(pretrained.state_dict())
    return fit(
        model, train, validation, text.tokenizer, config, out, pick_device(device), resume, progress
    )


def _to_train(top, trained, name):
    """What describes an encoder's last layers to a model, with how many of them learn. ValueError
    if it has fewer.
    """
    wanted = (trained or {}).get(name)
    there = len(top.layers) if top else 0
    if wanted is not None and not 0 <= wanted <= there:
        raise ValueError(
            f"--{name}-layers is {wanted}, but the features leave {there} layers of the {name} encoder to train: use 0 "
            f"to {there}, or extract again with --{name}-layers {wanted}"
        )
    return top and (top.about if wanted is None else top.about | {"trained": wanted})


def _first(share, records, tokens):
    """The first part of the pictures of a split, one at least."""
    count = max(1, round(share * tokens.image_count))
    return (
        (records, tokens)
        if count == tokens.image_count
        else (records.select(range(count)), first_images(tokens, count))
    )


def assess_on_photos(
    model: TGDT, features: Path, split: str = "test", folds: int = 0, share: float = 1.0
) -> dict:
    """A report as on the scenes, without foils and oracle, with the pointing game where phrases
    have boxes.

    folds: also the mean of so many parts, as in `assess`. share: as in `train_on_photos`.
    captions_each: {captions of an image: images with so many}.
    """
    records, tokens = _first(share, *_features_for(model, features, split))
    report = assess(model, tokens, stored_settings(model), records=records, folds=folds)
    trained = {name: value for name, value in model.notes.items() if name != "history"}
    counts = tokens.caption_image.bincount().bincount()
    each = {count: images for count, images in enumerate(counts.tolist()) if images}
    return report | {
        "split": split,
        "images": tokens.image_count,
        "captions_each": each,
        "trained": trained,
    }


def encode_split(model: TGDT, features: Path, split: str):
    """(Embedding of the images, their ids, Embedding of the captions, the captions) of a split."""
    _, tokens = _features_for(model, features, split)
    images, captions = encode(model, tokens)
    return images, list(tokens.image_ids), captions, list(tokens.captions)


def _features_for(model, folder, split):
    """`open_features`, for a model: ValueError if other encoders made them than those that it was
    trained with.
    """
    about = encoders_of(folder)
    for name, trained in (
        ("vision", model.config.image_source),
        ("text", model.config.text_source),
    ):
        if not trained or trained["key"] != about[name]["key"]:
            other = f"{trained['source']} {trained['key']}" if trained else "none"
            raise ValueError(
                f"{folder} holds features of the {name} encoder {about[name]['source']} {about[name]['key']}, but the "
                f"model was trained on those of {other}; extract them with that one"
            )
    return open_features(folder, split)
