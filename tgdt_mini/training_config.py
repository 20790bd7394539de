"""The settings of a training run, and what they mean at each epoch and step.

Nothing is trained here: `training.py` follows these settings. Where the released code's recipe is
another one (Adam, 1e-5, the hardest negative from the first step), docs/method.md says so.
"""

import math
from dataclasses import dataclass, fields

import torch

from tgdt_mini.files.check import one_of, real_number, true_or_false, whole_number

# how a step is computed, and not what it computes: a resumed run may change these
CHANGEABLE_ON_RESUME = ("chunk", "compile")
LARGE = 30_000_000  # on an H200 bf16 is slower for 1.5 and 3.4 million, faster for 246 million
# hinge on the hardest negative, hinge on all of them, InfoNCE (which has all of them)
CONTRASTIVE = ("hardest", "mean", "info_nce")
CHOICES = {
    "start": ("random", "correlation"),
    "schedule": ("joint", "staged"),
    "contrastive": ("curriculum", *CONTRASTIVE),
    "optimizer": ("adamw", "muon"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
SAVE_EVERY = 180.0  # seconds of training after which progress is kept, also within an epoch
WARMUP = 0.05  # share of the steps in which the learning rate rises
STAGED_SHARE = 0.6  # of the epochs of a staged schedule: the local stage

ABOVE_0, BELOW_1, ANY = math.ulp(0.0), math.nextafter(1, 0), math.inf
LIMITS = {  # setting: the least it can be, the most, and both in words
    "epochs": (1, 10**6, "from 1 to 1,000,000"),
    "batch": (2, ANY, "at least 2: a pair learns from the other pairs of its batch"),
    "learning_rate": (ABOVE_0, 100, "above 0, and 100 at most"),
    **dict.fromkeys(("clip", "temperature"), (ABOVE_0, ANY, "above 0")),
    **dict.fromkeys(("weight_decay", "margin", "hard_weight"), (0, ANY, "0 or more")),
    **dict.fromkeys(("warm_negatives", "hard_captions"), (0, 1, "a share, from 0 to 1")),
    **dict.fromkeys(("hide_regions", "hide_words"), (0, BELOW_1, "a share, from 0 to below 1")),
    "top_rate": (0, 100, "a share of learning_rate, from 0 to 100"),
    "patience": (0, ANY, "a number of epochs, or 0 to never stop early"),
    "validation_captions": (0, ANY, "a number of captions, or 0 for all"),
    "chunk": (0, ANY, "0 for none, or a number of pairs"),
    "seed": (-(2**40), 2**40, "at most 2^40, or as much below 0"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides a run besides the data and the model's sizes.

    ValueError names a setting that cannot be. Example: `TrainingConfig(epochs=2, batch=40)`.
    """

    epochs: int = 30
    batch: int = 64  # pairs; the captions of an image take turns over the epochs
    optimizer: str = "adamw"  # or "muon", for the matrices of both branches (optimizer.py)
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 2.0  # largest gradient norm
    start: str = "random"  # weights; "correlation": the closed form for linear photo models
    schedule: str = "joint"  # or "staged": local terms first, then the global layers alone
    # which negatives: "curriculum" is InfoNCE for a share of the epochs, then the hardest one
    contrastive: str = "curriculum"
    warm_negatives: float = 0.7  # that share, in which all negatives count
    margin: float = 0.2  # of the hinge
    temperature: float = 0.05  # of InfoNCE
    use_global: bool = True
    use_local: bool = True
    use_intra: bool = True
    use_mixed: bool = False  # a term on global + local score, which local tokens learn from
    hard_captions: float = 0.0  # share of a batch with a negative made of the caption's own words
    hard_weight: float = 1.0  # of the loss on these
    # photographs are few, so their batches are made harder (photos/augmentation.py)
    mirror: bool = False  # half of the pictures left to right
    hide_regions: float = 0.0  # share of a picture's regions that a step does not see
    hide_words: float = 0.0  # share of a caption's words
    top_rate: float = 0.05  # share of learning_rate for a pretrained encoder's last layers
    patience: int = 0  # epochs without a better validation before an early stop; 0: no such stop
    validation_captions: int = 0  # of each image that validation reads; 0: all
    precision: str = "auto"  # see precision_of
    chunk: int = 0  # pairs embedded at a time (scaling/gradient_cache.py); 0: all at once
    compile: bool = False  # by torch.compile: minutes before the first step, for a GPU only
    seed: int = 0

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            one_of(name, getattr(self, name), allowed)
        for name, kind in {field.name: field.type for field in fields(self)}.items():
            value = getattr(self, name)
            if kind is bool:
                true_or_false(name, value)
            if name in LIMITS:
                least, most, allowed = LIMITS[name]
                number = whole_number(name, value) if kind is int else real_number(name, value)
                if not least <= number <= most:
                    raise ValueError(f"{name} is {value}; it must be {allowed}")
        if not (self.use_global or self.use_local or self.use_mixed):
            raise ValueError("use_global, use_local and use_mixed are off; one must be on")
        if self.schedule == "staged" and not self.use_local:
            raise ValueError("schedule is 'staged' without use_local: stage one learns nothing")
        if self.schedule == "staged" and not (self.use_global or self.use_intra):
            raise ValueError(
                "schedule is 'staged' without use_global and use_intra: stage two learns nothing"
            )

    def stage_at(self, epoch: int) -> str:
        """What an epoch (from 0) trains: "joint"; of the staged schedule "local", then "global"."""
        if self.schedule == "joint":
            return "joint"
        return "local" if epoch < round(self.epochs * STAGED_SHARE) else "global"

    def contrastive_at(self, epoch: int) -> str:
        """Which of CONTRASTIVE an epoch learns from; each stage has a curriculum of its own."""
        if self.contrastive != "curriculum":
            return self.contrastive
        second_stage = round(self.epochs * STAGED_SHARE) if self.schedule == "staged" else 0
        first, end = (0, second_stage) if epoch < second_stage else (second_stage, self.epochs)
        warm = round((end - first) * self.warm_negatives)
        return "info_nce" if epoch - first < warm else "hardest"

    def terms_at(self, epoch: int) -> dict:
        """What `cmc_loss` is told in an epoch: which terms count, and against which negatives."""
        stage, negatives = self.stage_at(epoch), self.contrastive_at(epoch)
        if negatives == "info_nce":
            kind = {"contrastive": "info_nce", "temperature": self.temperature}
        else:
            kind = {"contrastive": "hinge", "negatives": negatives, "margin": self.margin}
        return kind | {
            "use_global": self.use_global and stage != "local",
            "use_local": self.use_local and stage != "global",
            "use_intra": self.use_intra and stage != "local",
            # the first stage has no global score yet
            "use_mixed": self.use_mixed and stage == "joint",
        }

    def hard_share_at(self, epoch: int) -> float:
        """The share of an epoch's pairs with a hard caption: 0 where local scores do not learn."""
        terms = self.terms_at(epoch)
        return self.hard_captions if terms["use_local"] or terms["use_mixed"] else 0.0

    @property
    def hard_terms(self) -> dict:
        """The arguments of `hard_caption_loss`: it is on the scores that the recipe trains."""
        return {"temperature": self.temperature, "use_global": not self.use_local}

    def has_waited_enough(self, history: list[dict]) -> bool:
        """Whether `patience` epochs in a row were no better than those before."""
        rsums = [row["rsum_mixed"] for row in history]
        if not 0 < self.patience < len(rsums):
            return False
        return max(rsums[-self.patience :]) <= max(rsums[: -self.patience])

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`: the lower of a warm-up and a cosine."""
        warm = (step + 1) / max(1, WARMUP * steps)
        return self.learning_rate * min(warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)

    def collapse_value(self, contrastive: str) -> float:
        """The loss of a model that scores all pairs alike: ln(batch), or twice the margin."""
        return math.log(self.batch) if contrastive == "info_nce" else 2 * self.margin

    def collapse_warning(self, before: dict | None, row: dict, images: int) -> str:
        """One sentence if a term stood at its collapse value for two epochs, else "".

        before, row: two epochs of the history. One epoch is not enough: a healthy InfoNCE passes
        ln(batch) on its way down. Nor is the loss: a healthy hinge may end at twice the margin. So
        the ranking of that score, among so many validation images, is near chance, too.
        """
        chance = 200 * sum(min(1, k / images) for k in (1, 5, 10))  # rsum of a random order
        kind = ("contrastive", "stage")
        if before is None or any(before[name] != row[name] for name in kind):
            return ""
        flat = self.collapse_value(row["contrastive"])
        for name in ("inter_global", "inter_local"):
            stands = all(e[name] and abs(e[name] - flat) < 0.01 * flat for e in (before, row))
            if stands and row[name.replace("inter", "rsum")] <= 4 * chance:
                return (
                    f"epoch {row['epoch']}: {name} stands at {row[name]:.3f}, the loss of a model "
                    "that scores all pairs alike: it has collapsed; begin with all negatives "
                    "(--contrastive curriculum) or lower --learning-rate"
                )
        return ""


def precision_of(name: str, device: torch.device, parameters=None) -> torch.dtype:
    """The number format of a precision, for a model of these parameters.

    auto: fp32; on a GPU, for a model of LARGE or more, bf16, or fp16 where the card has no bf16. In
    a smaller one's step a GPU waits for orders, which autocast makes slower. None: large.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name != "auto":
        return named[name]
    small = parameters is not None and sum(weights.numel() for weights in parameters) < LARGE
    if device.type != "cuda" or small:
        return torch.float32
    # an older card emulates bfloat16, slower than float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
