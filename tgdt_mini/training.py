"""One training loop: any device, curriculum of negatives, best model kept, stopped and resumed at
any step.

The recipe is AdamW with warm-up and cosine decay, clipped gradients, and validation rsum after each
epoch. The inter-modal terms begin with all negatives and move to the hardest one: hardest from the
start can collapse (every score equal, the loss at twice the margin), which the loop watches for.
The same loop runs in one process and in many (`scaling/distributed.py`), on whole batches and chunk by
chunk (`scaling/gradient_cache.py`). It draws no figure.
"""

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from tgdt_mini.batches import Batches
from tgdt_mini.checkpoint import load_state, random_state, save_model, save_state
from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.evaluation import both_ways
from tgdt_mini.losses import cmc_loss, hard_caption_loss
from tgdt_mini.model import TGDT
from tgdt_mini.photos.augmentation import augmented
from tgdt_mini.photos.feature_folder import limit_captions
from tgdt_mini.scaling import distributed
from tgdt_mini.scaling.gradient_cache import embed_in_chunks
from tgdt_mini.similarity import global_similarity, local_similarity
from tgdt_mini.training_config import CHANGEABLE_ON_RESUME, TrainingConfig, precision_of


def validate(model: TGDT, tokens: TokenSet, local_weight: float) -> dict[str, float]:
    """rsum of a set by global, local and mixed score (full scoring, no shortlist)."""
    images, captions = encode(model, tokens)
    owner = tokens.caption_image.to(images.mask.device)
    by_global, by_local = global_similarity(images, captions), local_similarity(images, captions)
    scores = {"global": by_global, "local": by_local, "mixed": by_global + local_weight * by_local}
    return {f"rsum_{name}": both_ways(score, owner).rsum for name, score in scores.items()}


class Trainer:
    """A run: model, optimizer and place in the schedule. `run` goes on from that place to the end.

    out: folder for `last/` (everything needed to go on) and `best/` (the model with the best
    validation rsum). Inside `distributed.joined` all processes build the same trainer and run it;
    batch counts the pairs of all together.
    """

    def __init__(
        self,
        model: TGDT,
        train: TokenSet,
        validation: TokenSet,
        config: TrainingConfig,
        out: Path,
        device: torch.device | str = "cpu",
        tokenizer=None,
        progress: bool = True,
    ):
        self.device, self.config, self.out, self.progress = (
            torch.device(device),
            config,
            Path(out),
            progress,
        )
        self.model, self.tokenizer = model.to(self.device), tokenizer
        if config.validation_captions:
            validation = limit_captions(validation, config.validation_captions)
        self.train_set, self.validation = train.to(self.device), validation.to(self.device)
        self.batches = Batches(train, config.batch, config.seed, config.mix_lengths)
        self.steps_an_epoch = len(self.batches)
        if config.batch < distributed.size():
            raise ValueError(
                f"batch is {config.batch}; {distributed.size()} processes need one pair each at least"
            )
        if config.recipe == "staged" and not model.config.global_layers:
            raise ValueError(
                "recipe is 'staged', but the model has global_layers=0: its second stage would learn nothing; use joint"
            )
        distributed.same_start(self.model)
        if config.compile:
            self.model.compile(dynamic=True)  # dynamic: each batch is padded to a length of its own
        self.optimizer = torch.optim.AdamW(
            _groups(model, config), lr=config.learning_rate, fused=self.device.type == "cuda"
        )
        self.augmentation = config.mirror, config.hide_regions, config.hide_words
        self.precision = precision_of(config.precision, self.device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.step, self.history, self.best, self.seconds = 0, [], -1.0, 0.0
        self.sums = torch.zeros(
            6, device=self.device
        )  # of total, inter_global, inter_local, intra, binding, steps
        if config.hard_captions and train.hard is None:
            raise ValueError(
                "hard_captions is above 0, but the training set has none; see TokenSet.with_hard_captions"
            )

    @property
    def epoch(self) -> int:
        return self.step // self.steps_an_epoch

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_an_epoch

    def loss(self, images, captions, image_ids, epoch: int):
        """The CMC loss of a batch of pairs, with the terms that this epoch's stage learns from."""
        config, stage, inter = self.config, self.config.stage_at(epoch), self.config.inter_at(epoch)
        kind = (
            dict(inter="info_nce") if inter == "info_nce" else dict(inter="hinge", negatives=inter)
        )
        return cmc_loss(
            images,
            captions,
            image_ids,
            **kind,
            margin=config.margin,
            consistency_margin=config.consistency_margin,
            temperature=config.temperature,
            use_global=config.use_global and stage != "local",
            use_local=config.use_local and stage != "global",
            use_intra=config.use_intra and stage != "local",
        )

    def run(self, max_steps: int | None = None) -> list[dict]:
        """Train to the end, or for `max_steps` steps; returns the history, one dict an epoch.

        Ctrl-C lets the step end, saves the place and raises KeyboardInterrupt; `resume` goes on
        with the same result as if the run had never stopped (on the same device). A second Ctrl-C
        stops at once: the last epoch's end is kept.
        """
        from tqdm import tqdm

        if self.step == 0:
            self._seed()
        last = (
            self.total_steps if max_steps is None else min(self.total_steps, self.step + max_steps)
        )
        began, before = time.perf_counter(), self.seconds
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            desc="training",
            unit=" steps",
            disable=not self.progress,
        )
        with bar, _interrupt_later() as interrupted:
            while (
                self.step < last
                and not self._waited_enough()
                and not distributed.any_of(bool(interrupted))
            ):
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
        if distributed.any_of(
            bool(interrupted)
        ):  # all processes stop after the same step, whichever was told to
            raise KeyboardInterrupt
        return self.history

    def _seed(self):
        """Of a process that has no random state yet; another in each, or all would draw the same
        dropout.
        """
        torch.manual_seed(self.config.seed + 1_000_003 * distributed.rank())

    def _waited_enough(self):
        rsums = [row["rsum_mixed"] for row in self.history]
        patience = self.config.patience
        return bool(
            patience and len(rsums) > patience and max(rsums[-patience:]) <= max(rsums[:-patience])
        )

    def _step(self):
        epoch, place = divmod(self.step, self.steps_an_epoch)
        if place == 0 or not hasattr(self, "plan") or self.plan_of != epoch:
            self.plan, self.plan_of = self._plan(epoch), epoch
        rows, captions, some, self.longest = self.plan[place]
        rate = self.config.rate_at(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.model.train()
        embeddings, carry_on = embed_in_chunks(
            self._embed, self._parts(rows, captions, captions[some]), self.device
        )
        images, texts, hard = distributed.gather(*embeddings)
        loss = self.loss(images, texts, rows, epoch)
        total = loss.total
        binding = torch.zeros_like(total)
        if len(some):
            binding = hard_caption_loss(images[some], texts[some], hard, self.config.temperature)
            total = total + self.config.hard_weight * binding
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        carry_on()
        distributed.average_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        parts = (total, loss.inter_global, loss.inter_local, loss.intra, binding)
        self.sums += torch.stack([*(part.detach() for part in parts), torch.ones_like(total)])
        self.step += 1

    def _parts(self, rows, captions, hard):
        """This process's share of a batch, in chunks: [(rows, captions, captions whose hard
        negative is wanted)].
        """
        rows, captions, hard = (
            each[distributed.share(len(each))] for each in (rows, captions, hard)
        )
        chunk = self.config.chunk or len(rows)
        chunks = rows.split(chunk)
        return list(zip(chunks, captions.split(chunk), hard.tensor_split(len(chunks))))

    def _embed(self, part):
        """Embeddings of a part's images and captions, and of its hard negatives, of which there may
        be none.
        """
        rows, captions, hard = part
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            stop = self.config.stage_at(self.epoch) == "global"
            regions, tokens, hard_tokens = self.longest
            read = self.train_set.images(rows, regions), self.train_set.text.take(captions, tokens)
            images, texts = self.model(*augmented(*read, *self.augmentation), stop_gradient=stop)
            wrong = (
                self.model.encode_captions(self.train_set.hard.take(hard, hard_tokens))
                if len(hard)
                else texts[:0]
            )
        return images, texts, wrong

    def _plan(self, epoch):
        """An epoch's batches on the device. Whatever a step would ask of it is known before: a GPU
        runs ahead of us.
        """
        off = not self.config.use_local or self.config.stage_at(epoch) == "global"
        plan = self.batches.plan(epoch, 0.0 if off else self.config.hard_captions)
        return [
            (*(tensor.to(self.device) for tensor in tensors), longest) for *tensors, longest in plan
        ]

    def _end_epoch(self):
        total, inter_global, inter_local, intra, binding, steps = self.sums.tolist()
        self.sums.zero_()
        epoch = self.epoch - 1
        row = {
            "epoch": epoch + 1,
            "loss": total / steps,
            "inter_global": inter_global / steps,
            "inter_local": inter_local / steps,
            "intra": intra / steps,
            "binding": binding / steps,
            "inter": self.config.inter_at(epoch),
            "stage": self.config.stage_at(epoch),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 1),
        }
        row |= distributed.from_first(
            lambda: validate(self.model, self.validation, self.config.local_weight)
        )
        row["warning"] = self.config.collapse_warning(
            self.history[-1] if self.history else None, row
        )
        self.history.append(row)
        if row["rsum_mixed"] > self.best:
            self.best = row["rsum_mixed"]
            if distributed.rank() == 0:
                save_model(
                    self.model,
                    self.out / "best",
                    self.tokenizer,
                    {"epoch": epoch + 1, "rsum": self.best},
                )
        self.save()

    def save(self):
        """Write `last/`: model, optimizer, random states and place, whole or not at all. All
        processes call it.
        """
        place = {
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "training": asdict(self.config),
            "data": self._data(),
            "sums": self.sums.tolist(),
        }
        randoms = distributed.from_all(random_state(self.device))
        if distributed.rank() == 0:
            save_state(
                self.out / "last",
                self.model,
                self.tokenizer,
                self.optimizer,
                self.scaler,
                place,
                randoms,
            )
        distributed.any_of(False)  # nobody leaves, and ends the run, while it is being written

    def _data(self):
        return {"images": self.train_set.image_count, "captions": len(self.train_set.captions)}

    def resume(self) -> "Trainer":
        """Take up the run in `out/last`, in any number of processes. ValueError when other settings
        started it.

        Only CHANGEABLE_ON_RESUME settings may differ: they change how a step is computed, and not
        what it computes.
        """
        self._seed()
        place = load_state(
            self.out / "last", self.model, self.optimizer, self.scaler, distributed.rank()
        )
        before = asdict(TrainingConfig.from_dict(place["training"]))
        changed = [
            name
            for name, value in asdict(self.config).items()
            if name not in CHANGEABLE_ON_RESUME and before[name] != value
        ]
        if changed:
            raise ValueError(
                f"{self.out}/last was trained with another {changed[0]}; use the same, or another --out"
            )
        if place["data"] != self._data():
            raise ValueError(
                f"{self.out}/last is of {place['data']}, not of {self._data()}; use another --out"
            )
        self.step, self.history, self.best, self.seconds = (
            place[n] for n in ("step", "history", "best", "seconds")
        )
        self.sums = torch.tensor(place["sums"], device=self.device)
        return self


@contextmanager
def _interrupt_later():
    """A list that notes the first Ctrl-C inside: from half a step, nobody could go on. A second
    Ctrl-C interrupts.
    """
    noted = []

    def note(*_):
        if noted:
            raise KeyboardInterrupt
        noted.append("Ctrl-C")

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # signals belong to the main thread
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _groups(model, config):
    """The optimizer's groups: weights decay, biases and norms do not; a pretrained encoder's layers
    learn slowly.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        key = (name.startswith(("image_top.", "text_top.")), parameter.dim() <= 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": some,
            "weight_decay": 0.0 if free else config.weight_decay,
            "share": config.top_rate if pretrained else 1.0,
        }
        for (pretrained, free), some in sorted(groups.items())
    ]
