"""Drawn pictures and random encoders that stand for photographs and pretrained ones in the book.

Both go through the same code as real ones, and need no network and no extra but `encoders`.
"""

import json
import random
from pathlib import Path
from typing import Any

from tgdt_mini.scenes.world import Scene, Thing, between, draw, pick
from tgdt_mini.text_tokens import TextTokenizer

SHAPES = ("circle", "square", "triangle", "star", "heart")
COLOURS = ("red", "yellow", "green", "blue", "purple")
SPLITS = {"train": 300, "validation": 60, "test": 60}
LAYERS = dict(num_hidden_layers=4, num_attention_heads=4, intermediate_size=96)
PREPARED = {"size": 56, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def drawn_photographs() -> dict:
    """{split: Dataset} of pictures of two objects, in the form of `photos/records.py`.

    Five captions each, a box for each object, and the phrases that speak of it.
    """
    from datasets import Dataset

    return {
        split: Dataset.from_list([_record(number, split) for number in range(count)])
        for split, count in SPLITS.items()
    }


def tiny_encoders(folder: Path, captions: list[str]) -> tuple[Path, Path]:
    """Folders of a random BERT with a vocabulary learnt from captions, and of a random ViT.

    The BERT gives 48 numbers a word piece; the ViT 64 numbers for each of 4 x 4 cells.
    """
    import torch
    import transformers

    text, vision = folder / "tiny-bert", folder / "tiny-vit"
    learnt = TextTokenizer.learn(captions, vocabulary=200)
    named: dict[str, Any] = dict(
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=learnt.engine, **named).save_pretrained(
        text
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        sizes = dict(vocab_size=learnt.vocabulary, hidden_size=48, initializer_range=0.1)
        words = transformers.BertConfig(**sizes, **LAYERS)
        transformers.BertModel(words).save_pretrained(text)
        torch.manual_seed(1)
        sight = transformers.ViTConfig(image_size=56, patch_size=14, hidden_size=64, **LAYERS)
        transformers.ViTModel(sight).save_pretrained(vision)
    (vision / "preprocessor_config.json").write_text(json.dumps(PREPARED), encoding="utf-8")
    return text, vision


def _record(number, split):
    """One picture, its captions, boxes and phrases."""
    dice = random.Random(1000 * len(split) + number)
    things = [_thing(dice, x) for x in (30, 82)]
    one, two = (f"a {thing.colour} {thing.shape}" for thing in things)
    captions = [
        f"{one} and {two}",
        f"{two} beside {one}",
        f"{one} to the left of {two}",
        f"{two} to the right of {one}",
        f"there is {one} on the left",
    ]
    phrases = [
        {"caption": place, "text": text, "region": region, "kind": ["object"]}
        for place, caption in enumerate(captions)
        for region, text in (("left", one), ("right", two))
        if text in caption
    ]
    boxes = [{"region": r, "box": list(t.box)} for r, t in zip(("left", "right"), things)]
    scene = Scene(pick(dice, ("paper", "sky", "sand", "grass")), tuple(things), number)
    return {
        "image": draw(scene),
        "image_id": f"{split}-{number:03d}.png",
        "captions": captions,
        "boxes": boxes,
        "phrases": phrases,
    }


def _thing(dice, x):
    """A big object around x, of 112 pixels."""
    shape, colour = pick(dice, SHAPES), pick(dice, COLOURS)
    return Thing(shape, colour, "big", x, between(dice, 36, 76), between(dice, 15, 20), 0)
