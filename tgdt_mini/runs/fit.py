"""One whole training run: train, keep the best model, tune its search on validation data.

Here everything meets that `training.py` gets handed in: the processes of the run, batches that are
made harder, and Ctrl-C.
"""

from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch

from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.progress import remark
from tgdt_mini.files.stopping import on_stop
from tgdt_mini.files.whole import set_aside
from tgdt_mini.model import TGDT
from tgdt_mini.photos.augmentation import augmented
from tgdt_mini.photos.correlation import start_from_correlation
from tgdt_mini.photos.reader import settings_of
from tgdt_mini.photos.subsets import limit_captions
from tgdt_mini.reports.choice import tune
from tgdt_mini.scaling import distributed
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

HALF_MOST = 60_000  # float16 holds a little more


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
) -> TGDT | None:
    """The best model by validation rsum, which is also written to out/model with its notes.

    Inside `distributed.joined` all processes call it; the first one judges, writes and returns, the
    others return None. An earlier run in `out` is not lost: unless this one resumes it, its folders
    are moved to out/earlier-1 or the next. Ctrl-C lets the present step end, keeps the progress and
    raises KeyboardInterrupt; a second Ctrl-C stops at once, and the last epoch's end is kept.
    """
    leads = distributed.rank() == 0
    with only_writer(out) if leads else nullcontext():
        return _fit(
            model, train, validation, tokenizer, config, Path(out), device, resume, progress, leads
        )


def _fit(model, train, validation, tokenizer, config, out, device, resume, progress, leads):
    if config.start == "correlation" and not resume and leads:  # the others get its weights
        start_from_correlation(model, train)
    judged = validation
    if config.validation_captions:
        judged = limit_captions(validation, config.validation_captions)
    with interrupt_later() as interrupts:
        parts = {"engine": distributed.Processes(config.chunk), "augment": augmentation(config)}
        parts["stop"] = lambda: bool(interrupts)
        trainer = Trainer(model, train, judged, config, out, device, tokenizer, progress, **parts)
        earlier = None
        if resume:
            trainer.resume()
        elif leads:
            earlier = set_aside(out, ("model", "best", "last"))
        if progress:
            _announce(trainer, earlier, resume)
        history = trainer.run()
    if trainer.stopped:
        raise KeyboardInterrupt
    if not leads:
        return None
    best = load_model(out / "best", device)
    # weights that read features of float16 are kept in float16 too; what is kept is judged
    reader = settings_of(best.config)
    frozen = reader is not None and not (reader.image_top or reader.text_top)
    largest = max(float(weights.detach().abs().max()) for weights in best.parameters())
    kept = torch.float16 if frozen and largest < HALF_MOST else torch.float32
    for weights in best.parameters():
        weights.data = weights.data.to(kept).float()
    settings = tune(*encode(best, validation), validation.caption_image.to(device))
    rsum = settings.rsums[settings.local_weight]
    notes = {
        "training": vars(config),
        "choice": {"local_weight": settings.local_weight, "shortlist": settings.shortlist},
        "validation_rsum": rsum,
        "history": history,
        "device": str(device),
        "seconds": round(trainer.seconds),
    }
    save_model(best, out / "model", best.tokenizer, notes, kept)
    if progress:
        remark(
            f"the model is in {out}/model: the best epoch of {len(history)}; "
            f"two-stage validation rsum {rsum:.1f}"
        )
    return load_model(out / "model", device)


def augmentation(config: TrainingConfig):
    """What a `Trainer` does with each batch, as the settings say; None for nothing."""
    settings = {name: getattr(config, name) for name in ("mirror", "hide_regions", "hide_words")}
    return partial(augmented, **settings) if any(settings.values()) else None


@contextmanager
def interrupt_later():
    """A list that a first Ctrl-C inside is noted in: from half a step, nobody could go on.

    A second one interrupts. SIGTERM and SIGHUP count as Ctrl-C. Outside the main thread, which
    signals belong to, nothing is noted.
    """
    interrupts = []

    def note(number, _):
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    with on_stop(note):
        yield interrupts


def _announce(trainer, earlier, resume):
    if earlier:
        remark(f"{trainer.out} held a run already, which is now in {earlier}")
    millions = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
    train = trainer.train_set
    line = f"{train.image_count} images, {len(train.captions)} captions, {millions:.2f} million "
    line += f"parameters, {trainer.device}"
    if resume:
        line += f", going on after step {trainer.step} of {trainer.total_steps}"
    remark(line)
