"""One whole training run: train, keep the best model, tune the search on validation data."""

from pathlib import Path

import torch

from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.files.whole import set_aside
from tgdt_mini.model import TGDT
from tgdt_mini.photos.correlation import start_from_correlation
from tgdt_mini.reports.choice import tune
from tgdt_mini.scaling import distributed
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig


def fit(
    model: TGDT,
    train: TokenSet,
    validation: TokenSet,
    tokenizer: TextTokenizer,
    config: TrainingConfig,
    out: Path,
    device: torch.device,
    resume: bool = False,
    progress: bool = True,
) -> TGDT:
    """Train a model; the best one by validation rsum, returned and written to out/model with its
    notes.

    An earlier run in `out` is not lost: unless this one resumes it, its folders are moved to
    out/earlier-1 or the next.
    """
    if (
        config.start == "correlation" and not resume and distributed.rank() == 0
    ):  # the trainer hands it to the others
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
        print(
            f"{train.image_count} images, {len(train.captions)} captions, {size:.2f} million parameters, {device}"
            + (f", going on after step {trainer.step} of {trainer.total_steps}" if resume else "")
        )
    history = trainer.run()
    if distributed.rank() > 0:
        return None
    model = load_model(out / "best", device)
    choice = tune(*encode(model, validation), validation.caption_image.to(device))
    notes = {
        "training": vars(config),
        "choice": {"local_weight": choice.local_weight, "shortlist": choice.shortlist},
        "validation_rsum": choice.rsums[choice.local_weight],
        "history": history,
        "device": str(device),
        "seconds": round(trainer.seconds),
    }
    save_model(model, out / "model", model.tokenizer, notes)
    if progress:
        print(
            f"the model is in {out}/model: the best of {len(history)} epochs, validation rsum "
            f"{notes['validation_rsum']:.1f}"
        )
    return load_model(out / "model", device)
