"""Whole runs on the embedded scenes: train, judge, and draw what a model finds. What the command line calls.

Each function puts together what the other modules hold, and adds no formula of its own.
"""

from pathlib import Path

import torch

from tgdt_mini import distributed, plots, scenes
from tgdt_mini.assessment import assess, choice_of, choose
from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.config import TGDTConfig
from tgdt_mini.correlation import start_from_correlation
from tgdt_mini.data import ImageTokens, TokenSet, scene_tokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode
from tgdt_mini.image_tokens import PATCH_WIDTH, REGION_WIDTH
from tgdt_mini.model import TGDT
from tgdt_mini.paths import set_aside
from tgdt_mini.recipe import TrainingConfig, pick_device
from tgdt_mini.retrieval import two_stage
from tgdt_mini.scenes.words import lexicon, true_of
from tgdt_mini.scenes.world import SIDE
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training import Trainer


def train_on_scenes(config: TrainingConfig, out: Path, device: str = "auto", kind: str = "regions",
                    first: int | None = None, other: int | None = None, resume: bool = False,
                    progress: bool = True) -> TGDT | None:  # fmt: skip
    """Train a mini model; the best one by validation rsum, returned and written to out/model.

    Inside `distributed.joined` all processes call it; the first one judges, writes and returns, the others return None.

    kind: "regions" or "patches". first, other: only so many training and validation scenes. The model's notes hold
    the settings, the history and what validation data chose (see `assessment.choose`).
    """
    device, progress = pick_device(device), progress and distributed.rank() == 0
    with distributed.first_then_others():
        records = scenes.load("train", progress, first)
        tokenizer = TextTokenizer.learn([caption for own in records["captions"] for caption in own])
        _, train = scene_tokens("train", tokenizer, kind, first, progress)
        _, validation = scene_tokens("validation", tokenizer, kind, other, progress)
    if config.hard_captions:
        train = train.with_hard_captions(tokenizer, lexicon(), config.seed)
    torch.manual_seed(config.seed)
    width = REGION_WIDTH if kind == "regions" else PATCH_WIDTH
    model = TGDT(TGDTConfig.mini(vocabulary=tokenizer.vocabulary, image_features=width, image_tokens=kind))
    return fit(model, train, validation, tokenizer, config, out, device, resume, progress)


def fit(model: TGDT, train: TokenSet, validation: TokenSet, tokenizer: TextTokenizer, config: TrainingConfig, out: Path,
        device: torch.device, resume: bool = False, progress: bool = True) -> TGDT:  # fmt: skip
    """Train a model; the best one by validation rsum, returned and written to out/model with its notes.

    An earlier run in `out` is not lost: unless this one resumes it, its folders are moved to out/earlier-1 or the next.
    """
    if config.start == "correlation" and not resume and distributed.rank() == 0:  # the trainer hands it to the others
        start_from_correlation(model, train)
    trainer = Trainer(model, train, validation, config, out, device, tokenizer, progress)
    aside = None
    if resume:
        trainer.resume()
    elif distributed.rank() == 0:
        aside = set_aside(out, ("model", "best", "last"))
    if progress:
        if aside:
            print(f"{out} held a run already, which is now in {aside}")
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        print(f"{train.image_count} images, {len(train.captions)} captions, {size:.2f} million parameters, {device}"
              + (f", going on after step {trainer.step} of {trainer.total_steps}" if resume else ""))  # fmt: skip
    history = trainer.run()
    if distributed.rank() > 0:
        return None
    model = load_model(out / "best", device)
    choice = choose(*encode(model, validation), validation.caption_image.to(device))
    notes = {
        "training": vars(config), "choice": {"local_weight": choice.local_weight, "shortlist": choice.shortlist},
        "validation_rsum": choice.rsums[choice.local_weight], "history": history, "device": str(device),
        "seconds": round(trainer.seconds),
    }  # fmt: skip
    save_model(model, out / "model", model.tokenizer, notes)
    if progress:
        print(f"the model is in {out}/model: the best of {len(history)} epochs, validation rsum "
              f"{notes['validation_rsum']:.1f}")  # fmt: skip
    return load_model(out / "model", device)


@torch.no_grad()
def encode_pictures(model: TGDT, pictures: list) -> Embedding:
    """Embedding of PIL pictures, cut as the model was trained; its encoder, if it has one, must be attached."""
    if model.config.image_source:
        tokens = model.vision(pictures)
    else:  # a mini model knows pictures of one size only
        size = (SIDE, SIDE)
        pictures = [picture if picture.size == size else picture.resize(size) for picture in pictures]
        tokens = ImageTokens.of(pictures, model.config.image_tokens)
    return model.encode_images(tokens.to(next(model.parameters()).device))


def assess_on_scenes(model: TGDT, split: str = "test", first: int | None = None, progress: bool = True):
    """(report, dataset, TokenSet): a model judged on a split of the scenes, by what validation data chose for it.

    The report also tells how the model was trained, and on what.
    """
    dataset, tokens = scene_tokens(split, model.tokenizer, model.config.image_tokens, first, progress)
    things = [scene.things for scene in scenes.scenes_of(split, first)]
    report = assess(model, tokens, choice_of(model), dataset, scenes.oracle(split, first),
                    lambda row, thing, word: true_of(word, things[row][thing]))  # fmt: skip
    trained = {name: value for name, value in model.notes.items() if name != "history"}
    return report | {"split": split, "scenes": tokens.image_count, "trained": trained}, dataset, tokens


def draw_searches(model: TGDT, dataset, tokens: TokenSet, out: Path, rows: int = 6) -> None:
    """hits.png, misses.png and words.png: what a model finds, what it misses, and where its words look."""
    choice, owner = choice_of(model), tokens.caption_image.tolist()
    images, captions = encode(model, tokens)
    asked = list(range(0, len(captions), 5))  # the first caption of each image
    scores = two_stage(captions[asked], images, choice.shortlist["caption"], choice.local_weight, query_is="caption")
    best = dict(zip(asked, scores.topk(5).indices.tolist()))
    for name, wanted in (("hits", True), ("misses", False)):
        some = [row for row, found in best.items() if (found[0] == owner[row]) == wanted][:rows]
        if some:
            pictures = [[dataset[image]["image"] for image in best[row]] for row in some]
            right = [[image == owner[row] for image in best[row]] for row in some]
            plots.hits([tokens.captions[row] for row in some], pictures, right, path=out / f"{name}.png")
    count = int(tokens.starts[1])
    words = captions.local_tokens[0][captions.mask[0]] @ images.local_tokens[0, :count].T  # (W, R)
    pieces = [piece for piece, _, _ in model.tokenizer.pieces(tokens.captions[0])]
    plots.word_regions(dataset[0]["image"], pieces, words.cpu(), tokens.boxes[:count].cpu(), out / "words.png")
