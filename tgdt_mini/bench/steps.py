"""What a training step costs: its local similarities against one einsum, steps a second, and the
import before it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from tgdt_mini.bench.baselines import einsum_similarity
from tgdt_mini.bench.measure import cpu_milliseconds, in_fresh_process, megabytes_of
from tgdt_mini.bench.rows import Row
from tgdt_mini.embedding import Embedding
from tgdt_mini.scenes.tokens import with_hard_captions
from tgdt_mini.similarity import local_similarity

TABLE = "Training"
FLOORS = {
    64: (0.8, 150),
    256: (0.75, 1000),
}  # batch: CPU time as a share of einsum's, extra megabytes
SCENES = 320  # to train on


def similarity_rows(batches=(64, 256), repeats: int = 5) -> list[Row]:
    """Local similarity of B images with B captions and its backward pass: time, and memory in a
    fresh process.
    """
    rows = []
    for batch in batches:
        pair = _pair(batch)
        times = cpu_milliseconds(
            {
                "ours": lambda pair=pair: _step(local_similarity, *pair),
                "einsum": lambda pair=pair: _step(einsum_similarity, *pair),
            },
            repeats,
        )
        what = f"local similarity {batch} x {batch} with backward, 36 regions, 8 to 20 words, D 256"
        at_most, megabytes = FLOORS[batch]
        rows.append(Row.share(TABLE, what, times["ours"], "einsum", times["einsum"], at_most))
        extra = in_fresh_process(_megabytes, batch)
        rows.append(Row(TABLE, "the same, memory beside its input", extra, "MB", at_most=megabytes))
    return rows


def step_rows(repeats: int = 5) -> list[Row]:
    """Training steps per second of CPU time on drawn scenes, B 64, D 128: 2 + 2 layers in each
    branch, and `mini`.
    """
    from tgdt_mini.config import TGDTConfig
    from tgdt_mini.model import TGDT
    from tgdt_mini.scenes import load
    from tgdt_mini.scenes.tokens import scene_tokens
    from tgdt_mini.scenes.words import lexicon
    from tgdt_mini.text_tokens import TextTokenizer
    from tgdt_mini.training import Trainer
    from tgdt_mini.training_config import TrainingConfig

    tokenizer = TextTokenizer.learn(
        [caption for own in load("train", first=SCENES)["captions"] for caption in own]
    )
    _, scenes = scene_tokens("train", tokenizer, first=SCENES)
    scenes = with_hard_captions(scenes, tokenizer, lexicon())
    rows = []
    for what, sizes, hard, at_least in (
        (
            "D 128, 2 + 2 layers, the CMC loss",
            dict(local_layers=2, image_local_layers=2, neighbour_dropout=0.0),
            0.0,
            2.5,
        ),
        ("the default recipe, hard captions too", {}, 1.0, None),
    ):
        torch.manual_seed(0)
        model = TGDT(TGDTConfig.mini(vocabulary=tokenizer.vocabulary, **sizes))
        with tempfile.TemporaryDirectory() as out:
            config = TrainingConfig(batch=64, hard_captions=hard, contrastive="hardest")
            trainer = Trainer(model, scenes, scenes, config, Path(out), progress=False)
            times = cpu_milliseconds({"step": trainer._step}, repeats, least=0)
        rows.append(
            Row(
                TABLE,
                f"training steps, batch 64: {what}",
                1000 / times["step"],
                "per CPU second",
                at_least=at_least,
            )
        )
    return rows


def import_row(repeats: int = 5) -> Row:
    """CPU time of `import tgdt_mini` with its model and training, against `import torch`, in fresh
    processes.
    """
    code = "import time, {}; print(time.process_time())"
    names = {
        "torch": "torch",
        "ours": "tgdt_mini, tgdt_mini.model, tgdt_mini.retrieval, tgdt_mini.training",
    }
    times = {name: [] for name in names}
    for _ in range(repeats + 1):  # the first round fills the system's file cache
        for name, modules in names.items():
            command = [sys.executable, "-c", code.format(modules)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times[name].append(1000 * float(done.stdout))
    ours, torch_alone = median(times["ours"][1:]), median(times["torch"][1:])
    what = "import of tgdt_mini with model, retrieval and training"
    return Row.share(TABLE, what, ours, "import torch", torch_alone, 1.3)


def _pair(batch):
    draw = torch.Generator().manual_seed(0)

    def side(length, least):
        tokens = torch.nn.functional.normalize(
            torch.randn(batch, length, 256, generator=draw), dim=2
        )
        mask = torch.arange(length) < torch.randint(least, length + 1, (batch, 1), generator=draw)
        return Embedding(tokens[:, 0], tokens.requires_grad_(), mask)

    return side(36, 36), side(20, 8)


def _step(similarity, images, captions):
    images.local_tokens.grad = captions.local_tokens.grad = None
    similarity(images, captions).square().sum().backward()


def _megabytes(batch):
    pair = _pair(batch)
    _step(local_similarity, *_pair(2))  # code is loaded before anything is measured
    return megabytes_of(lambda: _step(local_similarity, *pair))
