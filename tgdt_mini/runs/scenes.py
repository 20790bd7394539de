"""Whole runs on the drawn scenes: train, judge, and draw what a model finds.

Each function puts together what other modules hold, and adds no formula of its own.
"""

from pathlib import Path

import torch

from tgdt_mini import scenes
from tgdt_mini.config import TGDTConfig, pick_device
from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.files.cores import meanwhile
from tgdt_mini.image_tokens import PATCH_WIDTH, REGION_WIDTH
from tgdt_mini.model import TGDT
from tgdt_mini.photos.subsets import limit_captions
from tgdt_mini.reports import plots
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.reports.report import assess
from tgdt_mini.retrieval import two_stage
from tgdt_mini.runs.fit import fit
from tgdt_mini.scaling.communication import first_then_others, rank
from tgdt_mini.scenes.tokens import scene_tokens, with_negatives
from tgdt_mini.scenes.words import true_of
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training_config import TrainingConfig

SCENE_DEFAULTS = dict(  # of training on drawn scenes; chosen on their validation split
    optimizer="muon",
    temperature=0.03,
    use_mixed=True,
    hard_captions=1.0,
)


def train_on_scenes(
    config: TrainingConfig,
    out: Path,
    device: str = "auto",
    kind: str = "regions",
    first: int | None = None,
    other: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TGDT | None:
    """The best mini model by validation rsum, trained on the drawn scenes; see `fit`.

    kind: "regions", "things" or "patches". first, other: only so many training and validation
    scenes.
    """
    device, progress = pick_device(device), progress and rank() == 0
    items = len(scenes.seeds_of("train", first)) if config.hard_captions else 0
    made = meanwhile(scenes.hard_negatives, "train", first, config.seed, items=items)
    with made as hard_negatives:
        with first_then_others():
            records = scenes.load("train", progress, first)
            captions = [caption for group in records["captions"] for caption in group]
            tokenizer = TextTokenizer.learn(captions)
            _, train = scene_tokens("train", tokenizer, kind, first, progress)
            _, validation = scene_tokens("validation", tokenizer, kind, other, progress)
        if config.hard_captions:
            train = with_negatives(train, tokenizer, hard_negatives())
    torch.manual_seed(config.seed)
    width = PATCH_WIDTH if kind == "patches" else REGION_WIDTH
    sizes = dict(vocabulary=tokenizer.vocabulary, image_features=width, image_tokens=kind)
    model = TGDT(TGDTConfig.mini(**sizes))
    return fit(model, train, validation, tokenizer, config, out, device, resume, progress)


def assess_on_scenes(
    model: TGDT, split: str = "test", first: int | None = None, progress: bool = True
):
    """(report, dataset, TokenSet): a model judged on a split, by what validation data chose for it.

    The report also tells how the model was trained, and on what.
    """
    kind = model.config.image_tokens
    dataset, tokens = scene_tokens(split, model.tokenizer, kind, first, progress)
    drawn, readings = scenes.scenes_of(split, first), scenes.readings(split, first)
    judges = {
        "true_of": lambda row, thing, word: true_of(word, drawn[row].things[thing]),
        "meant": lambda row, caption, things: readings[row][caption][tuple(things)],
    }
    report = assess(
        model,
        tokens,
        stored_settings(model),
        dataset,
        scenes.oracle(split, first),
        judges,
    )
    report["trained"] = {key: value for key, value in model.notes.items() if key != "history"}
    return report | {"split": split, "scenes": tokens.image_count}, dataset, tokens


def draw_searches(model: TGDT, dataset, tokens: TokenSet, out: Path, rows: int = 6) -> None:
    """Draw hits.png, misses.png and words.png: what a model finds and misses, where words look."""
    settings, tokens = stored_settings(model), limit_captions(tokens, 1)
    images, captions = encode(model, tokens)
    shortlist, weight = settings.shortlist["caption"], settings.local_weight
    scores = two_stage(captions, images, shortlist, weight, query_is="caption")
    best = scores.topk(5).indices.tolist()
    true = scenes.truth(dataset["image_id"][0].rpartition("-")[0], len(images))  # (I, C)
    true = true[:, :: scenes.CAPTIONS]  # of the first caption of each image
    for name, wanted in (("hits", True), ("misses", False)):
        shown = [row for row, found in enumerate(best) if (found[0] == row) == wanted][:rows]
        if shown:
            plots.hits(
                [tokens.captions[row] for row in shown],
                [[dataset[image]["image"] for image in best[row]] for row in shown],
                [plots.marks(best[row], row, true[:, row]) for row in shown],
                path=out / f"{name}.png",
            )
    regions = int(tokens.starts[1])  # of the first image
    words = captions.local_tokens[0][captions.mask[0]]  # (W, D)
    scores = (words @ images.local_tokens[0, :regions].T).cpu()  # (W, R)
    pieces = [piece for piece, _, _ in model.tokenizer.pieces(tokens.captions[0])]
    boxes = tokens.boxes[:regions].cpu()
    plots.word_regions(dataset[0]["image"], pieces, scores, boxes, out / "words.png")
