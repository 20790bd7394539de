"""One training loop: any device, curriculum of negatives, best model kept, stopped and resumed at any step.

The recipe is AdamW with warm-up and cosine decay, clipped gradients, and validation rsum after each epoch. The
inter-modal terms begin with all negatives and move to the hardest one: hardest from the start can collapse (every score
equal, the loss at twice the margin), which the loop watches for. It draws no figure.
"""

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from tgdt_mini.augmentation import augmented
from tgdt_mini.checkpoint import load_state, save_model, save_state
from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.evaluation import both_ways
from tgdt_mini.losses import cmc_loss, hard_caption_loss
from tgdt_mini.model import TGDT
from tgdt_mini.recipe import TrainingConfig, precision_of
from tgdt_mini.similarity import global_similarity, local_similarity


def validate(model: TGDT, tokens: TokenSet, local_weight: float) -> dict[str, float]:
    """rsum of a set by global, local and mixed score (full scoring, no shortlist)."""
    images, captions = encode(model, tokens)
    owner = tokens.caption_image.to(images.mask.device)
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    scores = {"global": by_global, "local": by_local, "mixed": by_global + local_weight * by_local}
    return {f"rsum_{name}": both_ways(score, owner).rsum for name, score in scores.items()}


class Trainer:
    """A run: model, optimizer and place in the schedule. `run` goes on from that place to the end.

    out: folder for `last/` (everything needed to go on) and `best/` (the model with the best validation rsum).
    """

    def __init__(self, model: TGDT, train: TokenSet, validation: TokenSet, config: TrainingConfig, out: Path,
                 device: torch.device | str = "cpu", tokenizer=None, progress: bool = True):  # fmt: skip
        self.device, self.config, self.out, self.progress = torch.device(device), config, Path(out), progress
        self.model, self.tokenizer = model.to(self.device), tokenizer
        self.train_set, self.validation = train.to(self.device), validation.to(self.device)
        self.captions_of = _captions_of(train)  # (I, most captions), on the CPU
        self.lengths = train.text.mask.sum(dim=1).cpu()  # (C,) tokens
        if config.batch > train.image_count:
            raise ValueError(
                f"batch is {config.batch}, but there are {train.image_count} images; choose a smaller batch"
            )
        self.steps_an_epoch = train.image_count // config.batch
        self.optimizer = torch.optim.AdamW(
            _groups(model, config), lr=config.learning_rate, fused=self.device.type == "cuda"
        )
        self.augmentation = config.mirror, config.hide_regions, config.hide_words
        self.precision = precision_of(config.precision, self.device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.step, self.history, self.best, self.seconds = 0, [], -1.0, 0.0
        self.sums = torch.zeros(6, device=self.device)  # of total, inter_global, inter_local, intra, binding, steps
        if config.hard_captions:
            if train.hard is None:
                raise ValueError(
                    "hard_captions is above 0, but the training set has none; see TokenSet.with_hard_captions"
                )
            self.has_hard = self.train_set.hard.words.any(dim=1)  # (C,)

    @property
    def epoch(self) -> int:
        return self.step // self.steps_an_epoch

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_an_epoch

    def loss(self, images, captions, image_ids, epoch: int):
        """The CMC loss of a batch of pairs, with the terms that this epoch's stage learns from."""
        config, stage, inter = self.config, self.config.stage_at(epoch), self.config.inter_at(epoch)
        kind = dict(inter="info_nce") if inter == "info_nce" else dict(inter="hinge", negatives=inter)
        return cmc_loss(
            images, captions, image_ids, **kind,
            margin=config.margin, consistency_margin=config.consistency_margin, temperature=config.temperature,
            use_global=config.use_global and stage != "local", use_local=config.use_local and stage != "global",
            use_intra=config.use_intra and stage != "local",
        )  # fmt: skip

    def run(self, max_steps: int | None = None) -> list[dict]:
        """Train to the end, or for `max_steps` steps; returns the history, one dict an epoch.

        Ctrl-C lets the step end, saves the place and raises KeyboardInterrupt; `resume` goes on with the same result as
        if the run had never stopped (on the same device). A second Ctrl-C stops at once: the last epoch's end is kept.
        """
        from tqdm import tqdm

        if self.step == 0:
            torch.manual_seed(self.config.seed)
        last = self.total_steps if max_steps is None else min(self.total_steps, self.step + max_steps)
        began, before = time.perf_counter(), self.seconds
        bar = tqdm(total=self.total_steps, initial=self.step, desc="training", unit=" steps", disable=not self.progress)
        with bar, _interrupt_later() as interrupted:
            while self.step < last and not self._waited_enough() and not interrupted:
                self._step()
                bar.update()
                self.seconds = before + time.perf_counter() - began
                if self.step % self.steps_an_epoch == 0:
                    self._end_epoch()
                    shown = self.history[-1]
                    bar.set_postfix(loss=f"{shown['loss']:.3f}", rsum=f"{shown['rsum_mixed']:.0f}")
                    if shown["warning"]:
                        bar.write(shown["warning"])
            self.save()
        if interrupted:
            raise KeyboardInterrupt
        return self.history

    def _waited_enough(self):
        rsums = [row["rsum_mixed"] for row in self.history]
        patience = self.config.patience
        return bool(patience and len(rsums) > patience and max(rsums[-patience:]) <= max(rsums[:-patience]))

    def _step(self):
        epoch, place = divmod(self.step, self.steps_an_epoch)
        if place == 0 or not hasattr(self, "order") or self.order_of != epoch:
            self.order, self.order_of = self._order(epoch), epoch
        rows, captions = self.order[place]
        rate = self.config.rate_at(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.model.train()
        some = self._with_hard_caption(captions)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            stop = self.config.stage_at(epoch) == "global"
            read = self.train_set.images(rows), self.train_set.text[captions]
            images, texts = self.model(*augmented(*read, *self.augmentation), stop_gradient=stop)
            hard = self.model.encode_captions(self.train_set.hard[captions[some]]) if len(some) else None
        loss = self.loss(images, texts, rows, epoch)
        total = loss.total
        binding = torch.zeros_like(total)
        if hard is not None:
            binding = hard_caption_loss(images[some], texts[some], hard, self.config.temperature)
            total = total + self.config.hard_weight * binding
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        parts = (total, loss.inter_global, loss.inter_local, loss.intra, binding)
        self.sums += torch.stack([*(part.detach() for part in parts), torch.ones_like(total)])
        self.step += 1

    def _with_hard_caption(self, captions):
        """Places in the batch, the first share of those whose caption has a hard negative; none in the global stage."""
        share = self.config.hard_captions
        if not share or not self.config.use_local or self.config.stage_at(self.epoch) == "global":
            return captions[:0]
        return self.has_hard[captions].nonzero()[: round(share * len(captions)), 0]

    def _order(self, epoch):
        """The epoch's batches: (rows, captions) tensors, every image at most once with one of its captions."""
        draw = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
        rows = torch.randperm(self.train_set.image_count, generator=draw)
        count = (self.captions_of >= 0).sum(dim=1)
        # captions of an image take turns over the epochs, from a random start, so that all are read equally often
        start = torch.randint(0, 10_000, count.shape, generator=torch.Generator().manual_seed(self.config.seed))
        captions = self.captions_of[torch.arange(len(count)), (start + epoch) % count][rows]
        cut = self.steps_an_epoch * self.config.batch
        rows, captions = rows[:cut], captions[:cut]
        # captions of about one length share a batch, so that little of it is padding; the noise keeps batches varied
        length = self.lengths[captions] + self.config.mix_lengths * torch.rand(cut, generator=draw)
        by_length = length.argsort(stable=True).split(self.config.batch)
        order = torch.randperm(self.steps_an_epoch, generator=draw).tolist()
        return [(rows[by_length[i]].to(self.device), captions[by_length[i]].to(self.device)) for i in order]

    def _end_epoch(self):
        total, inter_global, inter_local, intra, binding, steps = self.sums.tolist()
        self.sums.zero_()
        epoch = self.epoch - 1
        row = {
            "epoch": epoch + 1, "loss": total / steps, "inter_global": inter_global / steps,
            "inter_local": inter_local / steps, "intra": intra / steps, "binding": binding / steps,
            "inter": self.config.inter_at(epoch),
            "stage": self.config.stage_at(epoch), "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 1),
        }  # fmt: skip
        row |= validate(self.model, self.validation, self.config.local_weight)
        row["warning"] = self._collapse(row)
        self.history.append(row)
        if row["rsum_mixed"] > self.best:
            self.best = row["rsum_mixed"]
            save_model(self.model, self.out / "best", self.tokenizer, {"epoch": epoch + 1, "rsum": self.best})
        self.save()

    def _collapse(self, row) -> str:
        """One sentence if a term stood for two epochs at the value that it has when all scores are equal, else ''.

        One epoch is not enough: on its way down, a healthy InfoNCE passes ln(batch).
        """
        if not self.history or (self.history[-1]["inter"], self.history[-1]["stage"]) != (row["inter"], row["stage"]):
            return ""
        flat = self.config.collapse_value(row["inter"])
        for name in ("inter_global", "inter_local"):
            if all(each[name] and abs(each[name] - flat) < 0.01 * flat for each in (self.history[-1], row)):
                return (
                    f"epoch {row['epoch']}: {name} stands at {row[name]:.3f}, the loss of a model that gives every "
                    "pair the same score: it has collapsed; begin with all negatives (--inter curriculum) or lower "
                    "--learning-rate"
                )
        return ""

    def save(self):
        """Write `last/`: model, optimizer, random state and place, whole or not at all."""
        place = {
            "step": self.step, "history": self.history, "best": self.best, "seconds": self.seconds,
            "training": asdict(self.config), "data": self._data(), "sums": self.sums.tolist(),
        }  # fmt: skip
        save_state(self.out / "last", self.model, self.tokenizer, self.optimizer, self.scaler, place)

    def _data(self):
        return {"images": self.train_set.image_count, "captions": len(self.train_set.captions)}

    def resume(self) -> "Trainer":
        """Take up the run in `out/last`. ValueError when it was started with other settings."""
        place = load_state(self.out / "last", self.model, self.optimizer, self.scaler)
        if place["training"] != asdict(self.config):
            changed = [name for name, value in asdict(self.config).items() if place["training"].get(name) != value]
            raise ValueError(f"{self.out}/last was trained with another {changed[0]}; use the same, or another --out")
        if place["data"] != self._data():
            raise ValueError(f"{self.out}/last is of {place['data']}, not of {self._data()}; use another --out")
        self.step, self.history, self.best, self.seconds = (place[n] for n in ("step", "history", "best", "seconds"))
        self.sums = torch.tensor(place["sums"], device=self.device)
        return self


@contextmanager
def _interrupt_later():
    """A list that notes the first Ctrl-C inside: from half a step, nobody could go on. A second Ctrl-C interrupts."""
    noted = []

    def note(*_):
        if noted:
            raise KeyboardInterrupt
        noted.append("Ctrl-C")

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _groups(model, config):
    """The optimizer's groups: weights decay, biases and norms do not; a pretrained encoder's layers learn slowly."""
    groups = {}
    for name, parameter in model.named_parameters():
        key = (name.startswith(("image_top.", "text_top.")), parameter.dim() <= 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": some, "weight_decay": 0.0 if free else config.weight_decay,
         "share": config.top_rate if pretrained else 1.0}
        for (pretrained, free), some in sorted(groups.items())
    ]  # fmt: skip


def _captions_of(tokens: TokenSet) -> torch.Tensor:
    """(I, most) int64: the rows of each image's captions, -1 where there are no more."""
    owner = tokens.caption_image.cpu()
    count = torch.bincount(owner, minlength=tokens.image_count)
    if (count == 0).any():
        raise ValueError(f"image {tokens.image_ids[int((count == 0).nonzero()[0])]!r} has no caption to train on")
    order = torch.argsort(owner, stable=True)
    table = torch.full((tokens.image_count, int(count.max())), -1)
    place = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner[order]]
    table[owner[order], place] = order
    return table
