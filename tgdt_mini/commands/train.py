"""The command `train`: train a model on the drawn scenes, or on features of photographs."""

import argparse

from tgdt_mini.commands import arguments, common, endings
from tgdt_mini.commands.arguments import real, whole
from tgdt_mini.files.progress import remark

# option: (field of TrainingConfig, what the option takes, help)
# It takes a value of a type, one of some words, or nothing: then it stands for the value here.
SETTINGS = {
    "epochs": (
        "epochs",
        whole,
        "passes over the training pictures (default 30, demo 6, photographs 24, "
        f"--quick {common.QUICK['epochs']})",
    ),
    "batch": (
        "batch",
        whole,
        "pairs of a picture and a caption in a step, of all processes together (default 64, "
        "photographs 512)",
    ),
    "optimizer": (
        "optimizer",
        ("adamw", "muon"),
        "muon moves the weight matrices of both branches, and AdamW the rest; adamw moves all "
        "(default muon, photographs adamw)",
    ),
    "learning-rate": (
        "learning_rate",
        real,
        "the highest one, reached after the warm-up (default 0.001, photographs 0.0003)",
    ),
    "start": (
        "start",
        ("random", "correlation"),
        "first weights: random, or, for photographs only, computed from the training data by "
        "canonical correlation (default random, photographs correlation)",
    ),
    "schedule": (
        "schedule",
        ("joint", "staged"),
        "joint: all terms of the loss in each epoch (default); staged: first the local terms, then "
        "the global layers alone",
    ),
    "contrastive": (
        "contrastive",
        ("curriculum", "hardest", "mean", "info_nce"),
        "which negatives of a pair count; curriculum: at first all, by InfoNCE, then the hardest "
        "one (default curriculum, photographs hardest)",
    ),
    "no-intra": (
        "use_intra",
        False,
        "leave out the consistency term of the loss, which compares pictures with pictures and "
        "captions with captions",
    ),
    "no-global": (
        "use_global",
        False,
        "leave out the contrastive term of the loss that reads global scores",
    ),
    "no-local": (
        "use_local",
        False,
        "leave out the contrastive term of the loss that reads local scores",
    ),
    "hard-captions": (
        "hard_captions",
        real,
        "the share of a batch that gets a hard caption: a false one, made of its caption's own "
        "words (default 1; photographs 0, and more needs extract --foils)",
    ),
    "no-hard-captions": ("hard_captions", 0.0, "the same as --hard-captions 0"),
    "patience": (
        "patience",
        whole,
        "stop early when validation rsum has not risen for so many epochs (default 0: never)",
    ),
    "precision": (
        "precision",
        ("auto", "fp32", "bf16", "fp16"),
        "auto (default): fp32; on a GPU, for 30 million parameters or more, bf16, or fp16 where it "
        "has no bf16",
    ),
    "chunk": (
        "chunk",
        whole,
        "embed a batch in chunks of so many pairs: less memory, one more forward pass (default 0: "
        "all at once)",
    ),
    "compile": ("compile", True, "use torch.compile: the first step is slow; for a GPU only"),
}
OPTIONS = [(name, field) for name, (field, takes, _) in SETTINGS.items() if callable(takes)]
OPTIONS += [("top-rate", "top_rate")]
OLD_NAMES = {"schedule": "recipe", "contrastive": "inter"}


class Setting(argparse.Action):
    """Puts an option's value into args.settings, under the name of its field."""

    def __call__(self, parser, args, value, option_string=None):
        value = self.const if self.nargs == 0 else value
        args.settings = args.settings | {self.dest: value}


def add_setting(parser, name: str, field: str, takes, text: str) -> None:
    """Add an option whose value goes to args.settings[field]."""
    if callable(takes):
        form = {"type": takes}
    elif isinstance(takes, tuple):
        form = {"choices": takes}
    else:
        form = {"nargs": 0, "const": takes}
    option = parser.add_argument(
        f"--{name}", dest=field, action=Setting, default=argparse.SUPPRESS, help=text, **form
    )
    if name in OLD_NAMES:
        parser.add_argument(f"--{OLD_NAMES[name]}", action=arguments.OldName, new=option)


def add_training_options(parser) -> None:
    """Add what `train` and `demo` share. args.settings is {field of TrainingConfig: value}."""
    parser.set_defaults(settings={}, stopped=endings.RESUME)
    quick = "a quarter of the data and few epochs: only to see whether it runs"
    arguments.add_switch(parser, "--quick", quick)
    for name, (field, takes, text) in SETTINGS.items():
        add_setting(parser, name, field, takes, text)
    parser.add_argument(
        "--image-tokens",
        default="regions",
        choices=("regions", "things", "patches"),
        help="what a drawn picture is cut into; regions: the things found in its pixels, and the "
        "ground (default); things: without the ground; patches: a grid",
    )
    arguments.add_switch(
        parser, "--resume", "continue the training in --out, also with another number of processes"
    )


def add_options(parser) -> None:
    add_training_options(parser)
    arguments.add_features(parser, "train on photographs", split=False)
    for name in ("vision", "text"):
        only = f"train only the last N of the {name} encoder's layers that extract has left for it"
        arguments.add_number(parser, f"--{name}-layers", f"{only} (default: all of them)")
    arguments.add_encoder_paths(parser)
    top_rate = "learning rate of an encoder's layers, as a share of --learning-rate (default 0.05)"
    add_setting(parser, "top-rate", "top_rate", real, top_rate)


def training_config(defaults: dict, quick: bool, settings: dict, seed: int):
    """A TrainingConfig: what was asked for, else what --quick means, else the data's defaults.

    Without one of the two scores there is no term on their sum.
    """
    from tgdt_mini.training_config import TrainingConfig

    few = {"epochs": common.QUICK["epochs"]} if quick else {}
    without = {name for name in ("use_global", "use_local") if settings.get(name) is False}
    if without:
        defaults = defaults | {"use_mixed": False}
        if without == {"use_global"}:
            defaults |= {"use_local": True}
    with arguments.told_as(seed="--seed", **{field: f"--{name}" for name, field in OPTIONS}):
        return TrainingConfig(**(defaults | few | settings | {"seed": seed}))


def run(args) -> None:
    """Train. Afterwards the best model by validation rsum is in --out/model."""
    common.check_resume(args)
    features = common.checked_features(args.features, args.check_all)
    layers = {"vision": args.vision_layers, "text": args.text_layers}
    if features and args.image_tokens != "regions":
        raise ValueError(
            f"--image-tokens {args.image_tokens} is of scenes, but --features are given; "
            "leave it out"
        )
    if not features and ("top_rate" in args.settings or set(layers.values()) != {None}):
        raise ValueError(
            "--vision-layers, --text-layers and --top-rate are of pretrained encoders: "
            "add --features FOLDER"
        )

    from tgdt_mini.photos.feature_folder import encoders_of
    from tgdt_mini.runs import photos, scenes
    from tgdt_mini.scaling import distributed

    defaults = photos.PHOTO_DEFAULTS if features else scenes.SCENE_DEFAULTS
    config = training_config(defaults, args.quick, args.settings, args.seed)
    counts, share = common.scene_counts(args.quick), common.QUARTER if args.quick else 1.0
    with distributed.joined(args.device) as device:
        if features:
            model = photos.train_on_photos(
                features,
                config,
                args.out,
                device,
                args.resume,
                trained=layers,
                share=share,
                paths={"vision": args.vision_path, "text": args.text_path},
            )
        else:
            model = scenes.train_on_scenes(
                config, args.out, device, args.image_tokens, *counts, resume=args.resume
            )
    if model is None:  # this is not the first process
        return
    data = ()
    if features:
        split = "test" if "test" in encoders_of(features)["splits"] else "validation"
        data = common.feature_args(features, split)
    remark(f"next: {common.shell_line('evaluate', '--model', args.out / 'model', *data)}")
