"""What several commands share: checks before the work, the model, features, and command lines.

No command imports torch, or anything else that takes long, before it runs: help and most errors
come at once.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from tgdt_mini.files.check import named
from tgdt_mini.files.locks import only_writer

QUICK = dict(epochs=6, train=1500, other=250)  # epochs; scenes to train on; scenes of another split
QUARTER = 0.25  # of the photographs of each split, for --quick


def warn(text: str) -> None:
    """Print a warning on stderr; unlike `warnings.warn` every time, and never as an error."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def need(*names: str) -> None:
    """ModuleNotFoundError, before any work is done, for a package that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def check_place() -> None:
    """ValueError where the working folder was deleted: libraries would end the process for it."""
    try:
        os.getcwd()
    except OSError as error:
        place = named(os.environ.get("PWD", "of this shell"))
        raise ValueError(
            f"the working folder {place} is not there any more ({error.strerror}); go to another "
            "one by cd, and start the command again"
        ) from None


def check_out(out: Path) -> None:
    """ValueError, before any work is done, when nothing can be written to --out."""
    try:
        nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}; name another") from None
    if not nearest.is_dir():
        raise ValueError(f"--out {out} cannot be a folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: no permission in {nearest}")


def check_resume(args) -> None:
    """ValueError, before any work is done, where there is no run to go on with."""
    from tgdt_mini.files.whole import standing

    if args.resume and not (standing(args.out / "last") / "config.json").is_file():
        raise ValueError(
            f"{args.out / 'last' / 'config.json'} is missing: there is no run to go on with by "
            "--resume; name its --out, or begin anew"
        )


def reserved(command: str, out: Path):
    """A block in which --out is this command's alone, where it is written in several steps.

    extract does so split by split: several processes may extract into one folder. Of a training's
    processes the first one has it.
    """
    first = os.environ.get("RANK", "0") == "0"
    if command in ("train", "demo", "ablate", "index") and first:
        return only_writer(out)
    return nullcontext()


def checked_features(folder: Path | None, check_all: bool) -> Path | None:
    """The folder of --features, read through if --check-all is given. ValueError for bad files."""
    if check_all:
        if folder is None:
            raise ValueError("--check-all is given, but no features are: add --features FOLDER")
        from tgdt_mini.photos.feature_folder import check_features

        check_features(folder)
    return folder


def load_model(folder: Path | None, device: str):
    """The model of a folder, the shipped one by default. ValueError if it cannot read captions."""
    from tgdt_mini.checkpoint import load_model
    from tgdt_mini.config import pick_device
    from tgdt_mini.runs.model_names import folder_of

    folder = folder_of(folder or "scenes")
    model = load_model(folder, pick_device(device))
    if model.tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer.json; save the model with its tokenizer")
    return model


def load_encoders(model, folder: Path | str | None, args) -> None:
    """Load the encoders of the model of a folder from where they are, or --vision-path says."""
    from tgdt_mini.encoders.load import load_encoders
    from tgdt_mini.runs.model_names import folder_of

    load_encoders(model, args.vision_path, args.text_path, beside=folder_of(folder or "scenes"))


def refuse_scenes(model, cure: str) -> None:
    """ValueError where a model of photographs would be given the drawn scenes."""
    from tgdt_mini.runs.model_names import knows_photographs

    if knows_photographs(model):
        raise ValueError(f"the model knows photographs, and none are given: {cure}")


def scene_counts(quick: bool) -> tuple[int | None, int | None]:
    """How many scenes to train on, and how many of each other split. None: all of them."""
    return (QUICK["train"], QUICK["other"]) if quick else (None, None)


def feature_args(features: Path | None, split: str = "test") -> tuple:
    """The arguments of a command line that name the same features and split."""
    if features is None:
        return ()
    other_split = () if split == "test" else ("--split", split)
    return ("--features", features, *other_split)


def shell_line(*words) -> str:
    """A command line of this program, to be copied; quoted as this system wants it."""
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"python -m tgdt_mini {join([str(word) for word in words])}"
