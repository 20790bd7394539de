"""The recipe of a run: every setting besides the data and the model's sizes, and what it means at
each epoch and step.

No tensor is touched here; `training.py` follows the recipe.
"""

import math
import warnings
from dataclasses import dataclass, fields

import torch

CHANGEABLE_ON_RESUME = (
    "chunk",
    "compile",
)  # settings that say how a step is computed and not what: a resumed run may change them
INTER = (
    "hardest",
    "mean",
    "info_nce",
)  # hinge on the hardest negative, hinge on all of them, InfoNCE (all of them)

ABOVE_0, BELOW_1, ANY = math.ulp(0.0), math.nextafter(1, 0), math.inf
NUMBERS = {  # setting: (the least that it can be, the most, both in words)
    **dict.fromkeys(
        ("epochs", "batch", "learning_rate", "clip", "temperature"), (ABOVE_0, ANY, "above 0")
    ),
    **dict.fromkeys(
        ("weight_decay", "margin", "consistency_margin", "hard_weight", "local_weight"),
        (0, ANY, "0 or more"),
    ),
    **dict.fromkeys(
        ("warmup", "staged_share", "easy_share", "hard_captions"), (0, 1, "a share, from 0 to 1")
    ),
    **dict.fromkeys(("hide_regions", "hide_words"), (0, BELOW_1, "a share, from 0 to below 1")),
    "top_rate": (0, ANY, "a share of learning_rate, 0 or more"),
    "mix_lengths": (0, ANY, "a number of tokens, 0 or more"),
    "patience": (0, ANY, "a number of epochs, or 0 to never stop early"),
    "validation_captions": (0, ANY, "a number of captions, or 0 for all"),
    "chunk": (0, ANY, "0 for none, or a number of pairs"),
    "seed": (-ANY, ANY, "a whole number"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run besides the data and the model's sizes."""

    epochs: int = 30
    batch: int = 64  # pairs; one caption of each image, drawn anew each epoch
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps
    clip: float = 2.0  # largest gradient norm
    # weights; or "correlation": the closed form of photos/correlation.py, for linear photo models
    start: str = "random"
    recipe: str = (
        "joint"  # or "staged": local terms first, then the global layers on stop-gradient tokens
    )
    staged_share: float = 0.6  # of the epochs, for the local stage
    inter: str = (
        "curriculum"  # `easy`, then "hardest"; or one of INTER from the first step to the last
    )
    easy: str = (
        "info_nce"  # what the curriculum begins with: all negatives, as "info_nce" or "mean"
    )
    easy_share: float = 0.7  # of the epochs with all negatives, before the hardest
    margin: float = 0.2
    consistency_margin: float = 0.3
    temperature: float = 0.05
    use_global: bool = True
    use_local: bool = True
    use_intra: bool = True
    hard_captions: float = 0.0  # share of each batch whose captions also meet a hard negative (see scenes/hard_captions.py)
    hard_weight: float = 1.0  # of that term
    mirror: bool = False  # half of the pictures left to right (see photos/augmentation.py)
    hide_regions: float = 0.0  # share of a picture's regions that a training step does not see
    hide_words: float = 0.0  # share of a caption's words, likewise
    top_rate: float = (
        0.05  # learning rate of a pretrained encoder's last layers, as a share of learning_rate
    )
    patience: int = (
        0  # epochs without a better validation rsum before an early stop; 0 never stops early
    )
    validation_captions: int = (
        0  # of each image that validation reads after an epoch; 0 for all, fewer take less time
    )
    local_weight: float = 1.0  # of the mixed score that validation judges by
    mix_lengths: float = (
        4.0  # tokens of noise when captions are sorted into batches of about one length
    )
    precision: str = (
        "auto"  # "fp32", "bf16", "fp16"; auto is fp32 on a CPU and bf16 on a GPU that has it
    )
    # pairs that a process embeds at a time (see scaling/gradient_cache.py); 0: its whole share of the batch
    chunk: int = 0
    # the forward pass by torch.compile: minutes before the first step, worth it on a GPU only
    compile: bool = False
    seed: int = 0

    @classmethod
    def from_dict(cls, values: dict) -> "TrainingConfig":
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"unknown training setting {unknown[0]!r}; see tgdt_mini.TrainingConfig"
            )
        return cls(**values)

    def __post_init__(self):
        choices = {
            "start": ("random", "correlation"),
            "recipe": ("joint", "staged"),
            "inter": ("curriculum", *INTER),
            "easy": ("info_nce", "mean"),
            "precision": ("auto", "fp32", "bf16", "fp16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        types = {field.name: field.type for field in fields(self)}
        for name, (least, most, allowed) in NUMBERS.items():
            value = getattr(self, name)
            kinds, kind = (
                (int, "a whole number") if types[name] is int else ((int, float), "a number")
            )
            if not isinstance(value, kinds) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; it must be {kind}")
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; it must be {allowed}")
        if not (self.use_global or self.use_local):
            raise ValueError(
                "use_global and use_local are both off; a model needs one of them to learn from"
            )
        if self.recipe == "staged":
            stages = (
                ("use_local", "first", self.use_local),
                ("use_global and use_intra", "second", self.use_global or self.use_intra),
            )
            for names, stage, learns in stages:
                if not learns:
                    raise ValueError(
                        f"recipe is 'staged' without {names}: its {stage} stage would learn nothing; use joint"
                    )

    def stage_at(self, epoch: int) -> str:
        """What is trained in an epoch (from 0): "joint"; under the staged recipe "local", then
        "global".
        """
        if self.recipe == "joint":
            return "joint"
        return "local" if epoch < round(self.epochs * self.staged_share) else "global"

    def inter_at(self, epoch: int) -> str:
        """Which of INTER an epoch learns from; under the staged recipe each stage has its own
        curriculum.
        """
        if self.inter != "curriculum":
            return self.inter
        turn = round(self.epochs * self.staged_share) if self.recipe == "staged" else 0
        first, length = (turn, self.epochs - turn) if epoch >= turn else (0, turn)
        return self.easy if epoch - first < round(length * self.easy_share) else "hardest"

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`: a straight warm-up, then a cosine down to a
        hundredth.
        """
        warm = (step + 1) / max(1, self.warmup * steps)
        return self.learning_rate * min(warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)

    def collapse_value(self, inter: str) -> float:
        """The inter-modal loss of a model that gives every pair the same score: ln(batch), or twice
        the margin.
        """
        return math.log(self.batch) if inter == "info_nce" else 2 * self.margin

    def collapse_warning(self, before: dict | None, row: dict) -> str:
        """One sentence if a term stood for two epochs at the value that it has when all scores are
        equal, else "".

        before, row: two epochs of the history. One is not enough: on its way down, a healthy
        InfoNCE passes ln(batch).
        """
        if before is None or (before["inter"], before["stage"]) != (row["inter"], row["stage"]):
            return ""
        flat = self.collapse_value(row["inter"])
        for name in ("inter_global", "inter_local"):
            if all(each[name] and abs(each[name] - flat) < 0.01 * flat for each in (before, row)):
                return (
                    f"epoch {row['epoch']}: {name} stands at {row[name]:.3f}, the loss of a model that gives every "
                    "pair the same score: it has collapsed; begin with all negatives (--inter curriculum) or lower "
                    "--learning-rate"
                )
        return ""


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name: auto is cuda where there is one, else cpu. ValueError for one that is
    not there.

    mps is taken only when it is asked for, with a warning: no result of this project was checked on
    it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {name!r}, which this machine cannot use ({str(error).splitlines()[0]}); try cpu"
        ) from error
    if torch.device(name).type == "mps":
        warnings.warn(
            "device mps: results were not verified there; compare with --device cpu before you trust them"
        )
    return torch.device(name)


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The number format of a precision: auto is float32 on a CPU, bfloat16 on a GPU that has it,
    else float16.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name != "auto":
        return named[name]
    if device.type != "cuda":
        return torch.float32
    has_it = torch.cuda.is_bf16_supported(
        including_emulation=False
    )  # an older card can, but slower than float32
    return torch.bfloat16 if has_it else torch.float16
