"""What a GPU does: training steps in each precision, encoding, and a search with all tokens on it.

A time is the clock's: the GPU has finished before the clock is read. Beside it stands how long the
GPU was busy, by torch's profiler: where it is busy for a small part of a step, the processor cannot
start its many small operations fast enough, and a larger batch costs nearly nothing.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import machine
from tgdt_mini.bench.steps import scenes_to_train_on
from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.model import TGDT
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.retrieval import two_stage
from tgdt_mini.runs.photos import PHOTO_DEFAULTS
from tgdt_mini.runs.scenes import SCENE_DEFAULTS
from tgdt_mini.similarity import mixed_similarity
from tgdt_mini.text_tokens import TextTokens
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
FORMATS = tuple(NAMES.values())
REGIONS, WORDS = 36, 20  # of a picture, and the most of a caption
PAIRS, SCENES = 512, 512  # to train on
PHOTO_FEATURES = dict(image_features=3584, text_features=2688)  # of the shipped model's encoders
GALLERY, QUERIES = 100_000, 1000
SHORTLIST, WEIGHT = 100, 2.0


def run(
    device: torch.device, quick: bool = False, progress: bool = True, compiled: bool = False
) -> dict:
    """All measurements of a device as JSON values. quick: small sizes: does it run?

    compiled: also steps by torch.compile, in the default format, which takes minutes for each size.
    """
    models = _models(quick)
    report = {"machine": machine() | card(device), "quick": quick, "steps": [], "encoding": []}
    for model, (config, tokens, batches, settings) in models.items():
        for batch in batches:
            also = [("auto", True)] if compiled else []
            for precision, is_compiled in [(name, False) for name in FORMATS] + also:
                if progress:
                    by = ", compiled" * is_compiled
                    print(f"measuring {model}, batch {batch}, {precision}{by} ...", flush=True)
                how = settings | dict(batch=batch, precision=precision, compile=is_compiled)
                row = _steps(config, tokens, how, device, 3 if quick else 10)
                report["steps"].append({"model": model} | row)
        report["encoding"].append({"model": model} | _encoding(config, tokens, device, quick))
    if progress:
        print("measuring search ...", flush=True)
    return report | {"search": _search(device, *((1000, 32) if quick else (GALLERY, QUERIES)))}


def card(device: torch.device) -> dict:
    """The device's name, and its memory in GB where it tells them."""
    if device.type != "cuda":
        return {"device": device.type}
    properties = torch.cuda.get_device_properties(device)
    memory = round(properties.total_memory / 1e9, 1)
    return {"device": properties.name, "memory": memory, "cuda": torch.version.cuda}


def _models(quick):
    """{name: (configuration, tokens to train on, sizes of a batch, training settings)}."""
    tokenizer, scenes = scenes_to_train_on(64 if quick else SCENES)
    mini = TGDTConfig.mini(vocabulary=tokenizer.vocabulary)
    paper, photos = TGDTConfig.paper(), photo_config(**PHOTO_FEATURES)
    if quick:
        small = dict(image_width=32, image_layers=1, text_width=24, text_layers=1, width=16)
        paper = TGDTConfig.paper(**small)
    count = 64 if quick else PAIRS
    # several steps an epoch: at its beginning numbers are brought to the device
    seen = generated_pairs(4 * count, vocabulary=photos.vocabulary, **PHOTO_FEATURES)
    pairs = generated_pairs(count, paper.image_features, paper.vocabulary)
    return {
        "mini": (mini, scenes, (16,) if quick else (64, 256), SCENE_DEFAULTS),
        "photographs": (photos, seen, (16,) if quick else (512,), PHOTO_DEFAULTS),
        "paper": (paper, pairs, (16,) if quick else (128,), {}),
    }


def generated_pairs(
    count: int, image_features: int, vocabulary: int, text_features: int = 0
) -> TokenSet:
    """`count` pictures of 36 random regions with one random caption of 8 to 20 tokens each.

    text_features: so many random numbers for a token, in float16; 0: ids alone.
    """
    draw = torch.Generator().manual_seed(0)
    regions = torch.randn(count * REGIONS, image_features, generator=draw)
    corners = torch.rand(count * REGIONS, 4, generator=draw) / 2
    ids = torch.randint(4, vocabulary, (count, WORDS), generator=draw)
    mask = torch.arange(WORDS) < torch.randint(8, WORDS + 1, (count, 1), generator=draw)
    words = mask.clone()
    words[:, 0] = False  # the start token
    read = None
    if text_features:
        read = torch.randn(count, WORDS, text_features, generator=draw).half()
    return TokenSet(
        features=regions,
        boxes=corners + torch.tensor([0, 0, 0.5, 0.5]),
        starts=torch.arange(0, count * REGIONS + 1, REGIONS),
        pooled=regions.view(count, REGIONS, image_features).mean(1),
        text=TextTokens(ids, mask, words, read),
        caption_image=torch.arange(count),
        captions=tuple(f"caption {i}" for i in range(count)),
        image_ids=tuple(f"{i}" for i in range(count)),
    )


def _steps(config, tokens, settings, device, count):
    """A row of the table of steps: the median of five times `count` steps, after a warm-up."""
    torch.manual_seed(0)
    model = TGDT(config)
    with tempfile.TemporaryDirectory() as out:
        recipe = TrainingConfig(**(settings | {"epochs": 1000}))
        trainer = Trainer(model, tokens, tokens, recipe, Path(out), device, progress=False)
        began = time.perf_counter()
        _wait(device)
        trainer._step()
        _wait(device)
        first = time.perf_counter() - began
        _many(trainer._step, trainer.steps_an_epoch + 3)
        _wait(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = _seconds(partial(_many, trainer._step, count), device) / count
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        operations, busy = _operations(partial(_many, trainer._step, count), device)
    return {
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "batch": recipe.batch,
        "precision": NAMES[trainer.precision],
        "compiled": recipe.compile,
        "first": first,
        "seconds": seconds,
        "peak": peak,
        "operations": operations and operations / count,
        "busy": busy and busy / count,
    }


def _encoding(config, tokens, device, quick):
    """Pictures and captions a second, as evaluation encodes them, in float32 and in bfloat16."""
    torch.manual_seed(0)
    model, size = TGDT(config).to(device).eval(), 16 if quick else 256
    images = tokens.images(torch.arange(size)).to(device)
    captions = tokens.text.take(torch.arange(size)).to(device)
    row = {"batch": size}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        half = dtype != torch.float32
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=half):
            for what, encode in (
                ("pictures", partial(model.encode_images, images)),
                ("captions", partial(model.encode_captions, captions)),
            ):
                row[f"{what} {name}"] = 10 * size / _seconds(partial(_many, encode, 10), device)
    return row


def _search(device, size, queries):
    """Seconds a query of two stages, all tokens on the device, and of scoring everything."""
    pictures = Pictures(size, REGIONS)
    images = pictures.images().to(torch.float16).to(device)
    captions = pictures.captions(torch.arange(queries))
    report = {"size": size, "shortlist": SHORTLIST, "bytes": _bytes(images), "rows": []}
    for count in (1, 16, queries):
        asked = captions[:count].to(device)
        search = partial(_two_stages, asked, images)
        everything = partial(_everything, asked[:16], images)
        full = _seconds(everything, device) / min(16, count)
        report["rows"].append(
            {"queries": count, "two_stage": _seconds(search, device) / count, "everything": full}
        )
    return report


def _two_stages(captions: Embedding, images: Embedding):
    return two_stage(captions, images, SHORTLIST, WEIGHT, "caption").topk(10)


def _everything(captions: Embedding, images: Embedding):
    return mixed_similarity(images, captions, WEIGHT).topk(10, dim=0)


def _bytes(embedding):
    return sum(part.numel() * part.element_size() for part in vars(embedding).values())


def _many(function, count):
    for _ in range(count):
        function()


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(function, device, repeats=5):
    """The median time of a call by the clock, after one call to warm up."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def _operations(function, device):
    """(operations that a call starts on the GPU, seconds that it is busy with them), or Nones."""
    if device.type != "cuda":
        return None, None
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        function()
        _wait(device)
    kernels = [event for event in seen.key_averages() if event.self_device_time_total]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    return sum(event.count for event in kernels), busy
