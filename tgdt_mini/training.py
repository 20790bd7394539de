"""One training loop for any device: it keeps the best model, and can be stopped and resumed.

Warm-up and cosine decay, clipped gradients, validation rsum after each epoch. The inter-modal terms
begin with all negatives and move to the hardest: that from the start can collapse (all scores
equal, the loss at twice the margin), which the loop watches for. Its surroundings are handed in.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tgdt_mini.batches import COMPILING, Batches, Engine, in_precision
from tgdt_mini.checkpoint import load_state, save_model, save_state
from tgdt_mini.config import pick_device
from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import validate
from tgdt_mini.files.check import typed, whole_number
from tgdt_mini.files.progress import progress_bar
from tgdt_mini.losses import CMCLoss, cmc_loss, hard_caption_loss
from tgdt_mini.model import TGDT
from tgdt_mini.optimizer import optimizer_of
from tgdt_mini.training_config import CHANGEABLE_ON_RESUME, SAVE_EVERY, TrainingConfig, precision_of

# sums over an epoch, and how many steps that was
PARTS = "loss inter_global inter_local intra inter_mixed hard_caption_loss steps".split()
PROGRESS = ("step", "history", "best", "seconds")


class Trainer:
    """A run: model, optimizer and progress. `run` goes on from where it is to the end.

    out: folder for `last/` (to go on from) and `best/` (the model with the best validation rsum).
    augment(images, captions) -> the same batch, made harder. stop() -> True ends the run after the
    present step, and `stopped` says so. engine: as `batches.Engine`.
    """

    @typed
    def __init__(
        self,
        model: TGDT,
        train: TokenSet,
        validation: TokenSet,
        config: TrainingConfig,
        out: Path,
        device: torch.device | str = "cpu",
        tokenizer: Any = None,
        progress: bool = True,
        engine: Engine | None = None,
        augment: Any = None,
        stop: Any = None,
    ):
        if config.schedule == "staged" and not model.config.global_layers:
            raise ValueError("schedule is 'staged', but global_layers is 0: nothing for stage two")
        if config.hard_captions and train.hard is None:
            raise ValueError("hard_captions is above 0, but train has none: extract with --foils")
        self.device, self.config, self.out = pick_device(device), config, Path(out)
        self.model, self.tokenizer, self.progress = model.to(self.device), tokenizer, progress
        self.engine, self.augment, self.stop = engine or Engine(), augment, stop
        self.train_set, self.validation = train.to(self.device), validation.to(self.device)
        self.batches = Batches(train, config.batch, config.seed)
        self.steps_an_epoch, self.checks = len(self.batches), [train.checksum, validation.checksum]
        self.engine.start(self)
        if config.compile:
            self.model.compile(**COMPILING)
        self.optimizer = optimizer_of(model, config)
        self.precision = precision_of(config.precision, self.device, model.parameters())
        # float16 underflows without a scale; in the other formats the scaler does nothing
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.step, self.best, self.seconds, self.due, self.stopped = 0, -1.0, 0.0, SAVE_EVERY, False
        self.history: list[dict] = []
        self.sums, self.planned_epoch = torch.zeros(len(PARTS), device=self.device), None

    @property
    def epoch(self) -> int:
        return self.step // self.steps_an_epoch

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_an_epoch

    def loss(self, images: Embedding, texts: Embedding, ids: torch.Tensor, epoch: int) -> CMCLoss:
        """The CMC loss of B pairs, with the terms that the epoch learns from."""
        return cmc_loss(images, texts, ids, **self.config.terms_at(epoch))

    def run(self, max_steps: int | None = None) -> list[dict]:
        """Train to the end, or for `max_steps` steps; returns the history, one dict an epoch.

        A run that was stopped goes on by `resume`, to the same result (on the same device).
        """
        if self.step == 0:
            self.engine.seed(self.config.seed)
        steps = self.total_steps if max_steps is None else whole_number("max_steps", max_steps, 0)
        end, began = min(self.step + steps, self.total_steps), time.perf_counter() - self.seconds
        with progress_bar(None, self.progress, "training", self.total_steps, self.step) as bar:
            while self.step < end and not self._asked_to_stop():
                if self.config.has_waited_enough(self.history):
                    break
                self._step()
                bar.update()
                self.seconds = time.perf_counter() - began
                if self.step % self.steps_an_epoch == 0:
                    self._end_epoch(bar)
                elif self.step % 4 == 0 and self.engine.any(self.seconds > self.due):
                    self.save()
            self.save()
        self._asked_to_stop()  # perhaps in the last step
        return self.history

    def _asked_to_stop(self):
        self.stopped = self.engine.any(bool(self.stop and self.stop()))
        return self.stopped

    def _step(self):
        """One batch: embed it, compare everything with everything, and move the weights."""
        epoch, number = divmod(self.step, self.steps_an_epoch)
        if epoch != self.planned_epoch:
            share = self.config.hard_share_at(epoch)
            self.epoch_batches = self.batches.epoch_batches(epoch, share, self.device)
            self.planned_epoch = epoch
        rows, captions, hard_rows, self.longest = self.epoch_batches[number]
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.config.rate_at(self.step, self.total_steps)
        # embed images and captions, and wrong captions made of the right ones' words
        self.model.train()
        batch = rows, captions, captions[hard_rows]
        (images, texts, hard), after_backward = self.engine.embed(self._embed, *batch)
        loss = self.loss(images, texts, rows, epoch)  # rows tell images apart
        total, by_hard = loss.total, torch.zeros_like(loss.total)
        if len(hard_rows):
            pairs = images[hard_rows], texts[hard_rows], hard
            by_hard = hard_caption_loss(*pairs, **self.config.hard_terms)
            total = total + self.config.hard_weight * by_hard
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        after_backward()
        self.engine.average(self.model.parameters())
        self.scaler.unscale_(self.optimizer)  # so that the clip sees true gradients
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        parts = (total, *(getattr(loss, name) for name in PARTS[1:5]), by_hard)
        self.sums += torch.stack([*(part.detach() for part in parts), torch.ones_like(total)])
        self.step += 1  # except in float16 no number was read from a GPU: no wait

    def _embed(self, rows, captions, hard):
        """Embeddings of images, of captions, and of hard negatives, of which there may be none."""
        regions, tokens, hard_tokens = self.longest
        stage = self.config.stage_at(self.epoch)
        with in_precision(self.precision, self.device):
            batch = self.train_set.images(rows, regions), self.train_set.text.take(captions, tokens)
            batch = self.augment(*batch) if self.augment else batch
            images, texts = self.model(*batch, stop_gradient=stage == "global")
            if not len(hard):
                return images, texts, texts[:0]
            hard = self.train_set.hard.take(hard, hard_tokens)
            return images, texts, self.model.encode_captions(hard)

    def _end_epoch(self, bar):
        """Judge the model on validation data, keep it if it is the best, and write the progress."""
        *sums, steps = self.sums.tolist()
        self.sums.zero_()
        epoch, before = self.epoch - 1, self.history[-1] if self.history else None  # from 0
        row = {"epoch": epoch + 1} | {name: part / steps for name, part in zip(PARTS, sums)}
        stage, negatives = self.config.stage_at(epoch), self.config.contrastive_at(epoch)
        rate = self.config.rate_at(self.step - 1, self.total_steps)
        row |= {"stage": stage, "contrastive": negatives, "learning_rate": rate}
        row["seconds"] = round(self.seconds, 1)
        row |= self.engine.first(lambda: validate(self.model, self.validation))
        row["warning"] = self.config.collapse_warning(before, row, self.validation.image_count)
        self.history.append(row)
        if row["rsum_mixed"] > self.best:
            self.best = row["rsum_mixed"]
            if self.engine.rank == 0:
                notes = {"epoch": row["epoch"], "rsum": self.best}
                save_model(self.model, self.out / "best", self.tokenizer, notes)
        self.save()
        bar.set_postfix(loss=f"{row['loss']:.3f}", rsum=f"{row['rsum_mixed']:.0f}")
        if row["warning"]:
            bar.write(row["warning"])

    def save(self) -> None:
        """Write `last/`: model, optimizer, random states and progress, completely or not at all."""
        self.due, progress = self.seconds + SAVE_EVERY, {n: getattr(self, n) for n in PROGRESS}
        progress |= {"sums": self.sums.tolist(), "identity": self._identity()}
        states, parts = self.engine.random_states(self.device), (self.optimizer, self.scaler)
        if self.engine.rank == 0:
            save_state(self.out / "last", self.model, self.tokenizer, *parts, progress, states)
        self.engine.wait()

    def resume(self) -> "Trainer":
        """Take up the run in `out/last`. ValueError if other settings or data sizes began it."""
        self.engine.seed(self.config.seed)
        last, parts = self.out / "last", (self.model, self.optimizer, self.scaler)
        progress = load_state(last, *parts, self.engine.rank)
        for name, value in self._identity().items():
            known = progress["identity"].get(name)
            if known != value and name not in CHANGEABLE_ON_RESUME:
                raise ValueError(f"{last}: {name} was {known!r}, now {value!r}; use another --out")
        for name in PROGRESS:
            setattr(self, name, progress[name])
        self.sums = torch.tensor(progress["sums"], device=self.device)
        return self

    def _identity(self):
        data = {"images": self.train_set.image_count, "checksums": self.checks}
        return asdict(self.config) | data
