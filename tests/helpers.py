"""Shared by the tests: random embeddings, small models, small sets of scenes, small pretrained
encoders.
"""

import json
import os
import shlex
from contextlib import contextmanager
from functools import cache

import pytest

from tgdt_mini.photos.reader import photo_config
from tgdt_mini.scenes.tokens import build_token_set

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library asks for it: no test needs the hub

import numpy as np
import torch
from torch.nn.functional import normalize

from tgdt_mini import cli, scenes
from tgdt_mini.config import TGDTConfig
from tgdt_mini.embedding import Embedding
from tgdt_mini.model import TGDT
from tgdt_mini.text_tokens import TextTokenizer

CAPTIONS = [
    "a red star",
    "two moons",
    "there is a tiny golden circle to the left of a big blue heart",
]
CLIP_TEXT = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=99
)
CLIP_SIGHT = dict(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=32,
    patch_size=8,
)
PICTURES = {
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}  # a processor's


def call(capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    capsys.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def done(capsys, line):
    """stdout of a command, given as one line, that must succeed."""
    code, out, err = call(capsys, *shlex.split(line))
    assert code == 0, err
    return out


def refused(capsys, line):
    """The one line on stderr of a command that must fail."""
    code, _, err = call(capsys, *shlex.split(line))
    lines = [line for line in err.strip().splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


@contextmanager
def refusal(words, kind=ValueError):
    """Inside, an error must come whose one line has these words, a pattern."""
    with pytest.raises(kind, match=words) as caught:
        yield
    lines = str(caught.value).splitlines()
    del caught  # it holds frames, and they what they have opened
    assert len(lines) == 1


def suggested(out):
    """The arguments of each command that some output tells the reader to go on with."""
    lines = [
        line.partition("python -m tgdt_mini ")[2].partition("      (")[0]
        for line in out.splitlines()
    ]
    return [shlex.split(line) for line in lines if line]


def random_embedding(seed, items, lengths, width=8, dtype=torch.float64):
    """An Embedding of random unit vectors; lengths is the number of real tokens, one int for all or
    one for each item.

    Masked tokens hold unit vectors too, never zeros: a score that reads them differs.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([lengths] * items if isinstance(lengths, int) else list(lengths))
    longest = int(lengths.max())
    global_token = normalize(
        torch.randn(items, width, generator=generator, dtype=torch.float64), dim=-1
    )
    local_tokens = normalize(
        torch.randn(items, longest, width, generator=generator, dtype=torch.float64), dim=-1
    )
    mask = torch.arange(longest) < lengths[:, None]
    return Embedding(global_token.to(dtype), local_tokens.to(dtype), mask)


@cache
def some_scenes(split="validation", first=40):
    """The first records of a split."""
    return scenes.load(split, first=first)


@cache
def tokenizer():
    """A vocabulary learnt from the first training captions."""
    return TextTokenizer.learn(
        [caption for own in some_scenes("train", 200)["captions"] for caption in own]
    )


@cache
def token_set(split="validation", first=40, kind="regions"):
    """The same scenes as tokens."""
    return build_token_set(some_scenes(split, first), tokenizer(), kind)


def tiny_config(**changes):
    """A configuration of one layer and 32 numbers everywhere, without dropout."""
    sizes = {
        "width": 32,
        "heads": 2,
        "feedforward": 64,
        "local_layers": 1,
        "global_layers": 1,
        "dropout": 0.0,
        "image_local_layers": None,
        "neighbour_dropout": 0.0,
    }
    for modality in ("image", "text"):
        sizes |= {
            f"{modality}_{name}": value
            for name, value in (("width", 32), ("layers", 1), ("heads", 2), ("feedforward", 64))
        }
    sizes |= {
        "image_hidden": 32,
        "vocabulary": tokenizer().vocabulary,
        "most_tokens": tokenizer().most_tokens,
    }
    return TGDTConfig.mini(**(sizes | changes))


def tiny_photo_config(**changes):
    """The same sizes, for features of 16 numbers; changes: as in `photo_config`."""
    config = tiny_config(text_window=0).to_dict()
    for name in ("reader", "reader_settings", "vocabulary"):
        config.pop(name)
    features = {
        "image_features": 16,
        "text_features": 16,
        "text_slot": "start",
        "image_power": 1.0,
        "image_feature_dropout": 0.0,
        "text_feature_dropout": 0.0,
        "own_maps": False,
    }
    return photo_config(**(config | features | changes))


def tiny_model(seed=0, **changes):
    """A TGDT of `tiny_config`, the same for the same seed, in training mode."""
    torch.manual_seed(seed)
    return TGDT(tiny_config(**changes))


def text_encoder(kind="Bert", seed=0, **changes):
    """A text model of transformers, random, with 3 layers of 16 numbers and the ids of `tokenizer`.

    Its weights are large, so that attention tells tokens apart and what is left out of it shows.
    """
    import transformers

    sizes = dict(
        vocab_size=tokenizer().vocabulary,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=0,
    )
    config = getattr(transformers, f"{kind}Config")(**(sizes | changes))
    torch.manual_seed(seed)
    return getattr(transformers, f"{kind}Model")(config).eval()


def vision_encoder(kind="ViT", seed=0, name="Model", **changes):
    """A vision model of transformers, random, with 3 layers of 16 numbers; pictures of 32 x 32 make
    4 x 4 patches.
    """
    import transformers

    sizes = dict(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        initializer_range=0.5,
    )
    config = getattr(transformers, f"{kind}Config")(**(sizes | changes))
    torch.manual_seed(seed)
    return getattr(transformers, f"{kind}{name}")(config).eval()


def save_encoder(model, folder, words=None, pictures=None):
    """The folder, as str, of a saved model; with `words`, a TextTokenizer, or `pictures`, a
    processor's settings.
    """
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    if words is not None:
        names = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
        PreTrainedTokenizerFast(tokenizer_object=words.engine, **names).save_pretrained(folder)
    if pictures is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    return str(folder)


def saved_encoders(root):
    """{"text", "vision"}: folders, in `root`, of a tiny BERT and a tiny ViT."""
    return {
        "text": save_encoder(text_encoder(), root / "text", tokenizer()),
        "vision": save_encoder(vision_encoder(), root / "vision", pictures=PICTURES),
    }


def photographs(count=3, side=50):
    """Pictures that are no squares, all different."""
    from PIL import Image

    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (40 + i, side, 3), dtype=np.uint8))
        for i in range(count)
    ]
