"""Whole runs on photographs: train and judge from a folder of features.

As `runs/scenes.py` does on the drawn scenes, each function puts together what other modules hold.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from tgdt_mini.config import pick_device
from tgdt_mini.encoders.load import rebuild
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.model import TGDT
from tgdt_mini.photos.encoding import features_for
from tgdt_mini.photos.feature_folder import encoders_of, open_features
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.photos.stop_words import stop_ids
from tgdt_mini.photos.subsets import first_images
from tgdt_mini.photos.zero_shot import zero_shot
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.reports.report import assess
from tgdt_mini.runs.fit import fit
from tgdt_mini.scaling.communication import rank, size
from tgdt_mini.training_config import TrainingConfig

PHOTO_DEFAULTS = dict(  # of training on features; chosen on Flickr8k's dev split
    epochs=24,
    batch=512,
    learning_rate=3e-4,
    contrastive="hardest",
    warm_negatives=0.8,
    start="correlation",
    use_local=False,
    use_mixed=True,
    hard_weight=0.05,  # the temperature: a smooth hinge with the scale of the others
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
    paths: dict | None = None,
    **sizes,
) -> TGDT | None:
    """The best model by validation rsum, trained on a folder of features; see `fit`.

    trained: {"vision": N, "text": N}, how many of the layers that extract left above each encoder
    learn; None: all of them. share: only the first part of the pictures of each split, such as 0.25
    for a quarter. paths: {"vision", "text"}, where the encoders lie now, if not where they were.
    sizes: changes to `photo_config`.
    """
    encoders, progress = encoders_of(features), progress and rank() == 0
    train, validation = (
        first_part(share, *open_features(features, split))[1] for split in ("train", "validation")
    )
    paths = {"vision": None, "text": None} | (paths or {})
    text = rebuild(TextBackbone, encoders["text"], "cpu", paths["text"], features)
    vision_top = None
    if encoders["vision"]["trained_layers"]:
        at = (paths["vision"], features)
        vision_top = rebuild(VisionBackbone, encoders["vision"], "cpu", *at).top
    torch.manual_seed(config.seed)
    config = capped(config, train.image_count)
    model = TGDT(
        photo_config(
            image_features=train.features.shape[1],
            text_features=train.text.features.shape[1],
            image_source=encoders["vision"],
            text_source=encoders["text"],
            most_tokens=encoders["text"]["most_tokens"],
            **({"stop_ids": stop_ids(text.tokenizer)} | sizes),
            image_top=_top_to_train(vision_top, trained, "vision"),
            text_top=_top_to_train(text.top, trained, "text"),
        )
    )
    for reader, top in ((model.image_reader, vision_top), (model.text_reader, text.top)):
        if top is not None:
            reader.top.load_state_dict(top.state_dict())
    device = pick_device(device)
    return fit(model, train, validation, text.tokenizer, config, out, device, resume, progress)


def capped(config: TrainingConfig, pictures: int) -> TrainingConfig:
    """The same settings, with a batch of all pictures where there are fewer; a warning says so."""
    batch = pictures - pictures % size()  # each process gets as many
    if not 0 < batch < config.batch:
        return config
    if rank() == 0:
        warnings.warn(f"a batch is {batch} pairs, not {config.batch}: there are no more pictures")
    return replace(config, batch=batch)


def _top_to_train(top, trained, name):
    """The description of an encoder's last layers, with how many learn. ValueError for too many."""
    wanted = (trained or {}).get(name)
    count = len(top.layers) if top else 0
    if wanted is not None and not 0 <= wanted <= count:
        raise ValueError(
            f"--{name}-layers is {wanted}, but the features leave {count} layers of the {name} "
            f"encoder to train: use 0 to {count}, or extract again with --{name}-layers {wanted}"
        )
    return top and (top.metadata if wanted is None else top.metadata | {"trained": wanted})


def first_part(share: float, records, tokens):
    """(records, TokenSet): the first part of the pictures of a split, one at least."""
    count = max(1, round(share * tokens.image_count))
    if count == tokens.image_count:
        return records, tokens
    return records.select(range(count)), first_images(tokens, count)


def assess_on_photos(
    model: TGDT, features: Path, split: str = "test", folds: int = 0, share: float = 1.0
) -> dict:
    """A report as on the scenes, without foils and oracle; with pointing where phrases have boxes.

    folds: also the mean of so many parts, as in `assess`. share: as in `train_on_photos`.
    captions_each: {captions of an image: images with so many}. zero_shot: recalls of the encoders
    alone, where they are the two towers of one model.
    """
    records, whole = features_for(model, features, split)
    records, tokens = first_part(share, records, whole)
    report = assess(model, tokens, stored_settings(model), records=records, folds=folds)
    row = zero_shot(features, split, whole.caption_image, tokens.image_count)
    if row is not None:
        report["zero_shot"] = vars(row)
    counts = tokens.caption_image.bincount().bincount().tolist()
    return report | {
        "split": split,
        "images": tokens.image_count,
        "captions_each": {count: images for count, images in enumerate(counts) if images},
        "trained": {name: value for name, value in model.notes.items() if name != "history"},
    }
