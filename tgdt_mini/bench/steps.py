"""What a training step costs: local similarity against one einsum, steps a second, the import."""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import normalize

from tgdt_mini.bench.baselines import einsum_similarity
from tgdt_mini.bench.measure import cpu_milliseconds, in_fresh_process, megabytes_of
from tgdt_mini.bench.rows import Row
from tgdt_mini.config import TGDTConfig
from tgdt_mini.embedding import Embedding
from tgdt_mini.model import TGDT
from tgdt_mini.scenes import load
from tgdt_mini.scenes.tokens import scene_tokens, with_hard_captions
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.similarity import local_similarity
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

TABLE = "Training"
FLOORS = {64: (0.8, 150), 256: (0.75, 1000)}  # batch: share of einsum's CPU time, extra megabytes
SCENES = 320  # to train on


def similarity_rows(batches=(64, 256), repeats: int = 5) -> list[Row]:
    """Time and memory of the local similarity of B images with B captions and its backward pass."""
    rows = []
    for batch in batches:
        pair = _pair(batch)
        functions = {f: partial(_step, f, *pair) for f in (local_similarity, einsum_similarity)}
        ours, einsum = cpu_milliseconds(functions, repeats).values()
        what = f"local similarity {batch} x {batch} with backward, 36 regions, 8 to 20 words, D 256"
        at_most, megabytes = FLOORS[batch]
        extra = in_fresh_process(_megabytes, batch)
        rows += [
            Row.share(TABLE, what, ours, "einsum", einsum, at_most),
            Row(TABLE, "the same, memory beside its input", extra, "MB", at_most=megabytes),
        ]
    return rows


def step_rows(repeats: int = 5) -> list[Row]:
    """Training steps per second of CPU time on drawn scenes, batch 64, width 128."""
    tokenizer, scenes = scenes_to_train_on(SCENES)
    small = dict(local_layers=2, image_local_layers=2, neighbour_dropout=0.0)
    rows = []
    for name, sizes, hard, at_least in (
        ("D 128, 2 + 2 layers, the CMC loss", small, 0.0, 2.5),
        ("the default recipe, hard captions too", {}, 1.0, None),
    ):
        torch.manual_seed(0)
        model = TGDT(TGDTConfig.mini(vocabulary=tokenizer.vocabulary, **sizes))
        with tempfile.TemporaryDirectory() as out:
            config = TrainingConfig(batch=64, hard_captions=hard, contrastive="hardest")
            trainer = Trainer(model, scenes, scenes, config, Path(out), progress=False)
            milliseconds = cpu_milliseconds({"": trainer._step}, repeats, least=0)[""]
        what, steps = f"training steps, batch 64: {name}", 1000 / milliseconds
        rows.append(Row(TABLE, what, steps, "per CPU second", at_least=at_least))
    return rows


def scenes_to_train_on(count: int):
    """(a tokenizer learnt from the captions, the first training scenes with hard captions)."""
    captions = [text for texts in load("train", first=count)["captions"] for text in texts]
    tokenizer = TextTokenizer.learn(captions)
    _, scenes = scene_tokens("train", tokenizer, first=count)
    return tokenizer, with_hard_captions(scenes, tokenizer, lexicon())


def import_row(repeats: int = 5) -> Row:
    """CPU time of `import tgdt_mini` with its model and training, against `import torch`."""
    ours = "tgdt_mini, tgdt_mini.model, tgdt_mini.retrieval, tgdt_mini.training"
    times = {ours: [], "torch": []}
    for _ in range(repeats + 1):  # the first round fills the system's file cache
        for modules, milliseconds in times.items():
            code = f"import time, {modules}; print(time.process_time())"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            milliseconds.append(1000 * float(done.stdout))
    ours, torch_only = (median(milliseconds[1:]) for milliseconds in times.values())
    what = "import of tgdt_mini with model, retrieval and training"
    return Row.share(TABLE, what, ours, "import torch", torch_only, 1.3)


def _pair(batch):
    """Random images of 36 regions and captions of 8 to 20 words, 256 wide, that take gradients."""
    generator = torch.Generator().manual_seed(0)

    def side(length, least):
        tokens = normalize(torch.randn(batch, length, 256, generator=generator), dim=2)
        counts = torch.randint(least, length + 1, (batch, 1), generator=generator)
        return Embedding(tokens[:, 0], tokens.requires_grad_(), torch.arange(length) < counts)

    return side(36, 36), side(20, 8)


def _step(similarity, images, captions):
    images.local_tokens.grad = captions.local_tokens.grad = None
    similarity(images, captions).square().sum().backward()


def _megabytes(batch):
    pair = _pair(batch)
    _step(local_similarity, *_pair(2))  # code is loaded before anything is measured
    return megabytes_of(lambda: _step(local_similarity, *pair))
