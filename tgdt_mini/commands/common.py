"""What several commands share: options, the model, features, and command lines to be copied.

No command imports torch, or anything else that takes long, before it runs: help and most errors
come at once.
"""

import argparse
import errno
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import warnings
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tgdt_mini.files.check import named, real_number, whole_number
from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.paths import cache, to_install

QUICK = dict(epochs=6, train=1500, other=250)  # epochs; scenes to train on; scenes of another split
QUARTER = 0.25  # of the photographs of each split, for --quick


EXTRAS = {  # what a base installation lacks: the extra that brings it
    "matplotlib": "plots",
    "seaborn": "notebooks",
    "datasets": "data",
    "transformers": "encoders",
    "qdrant_client": "qdrant",
    "faiss": "faiss",
    "anywidget": "app",
    "voila": "app",
}

# after "stopped", where a command can go on: `parser.set_defaults(stopped=RESUME)`
RESUME = "; what was done is in {out}/last, go on with the same command and --resume"
NOTHING = "; nothing was kept yet, start the same command again"
AGAIN = "; what is whole in {out} is kept, go on with the same command"


def add_common_options(parser, out: Path) -> None:
    """Add the options that every command has. A command may set other defaults afterwards."""
    parser.set_defaults(stopped="")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="where to compute; auto: cuda if there is one, else cpu; nothing was verified on mps",
    )
    parser.add_argument(
        "--seed",
        type=whole,
        default=0,
        help="of all random choices, such as first weights and batches (default 0)",
    )
    add_path(
        parser,
        "--out",
        "folder for what the command writes, if anything (default %(default)s)",
        default=out,
    )
    add_switch(
        parser,
        "--quiet",
        "print results, warnings and errors only: no progress bars and no remarks",
    )


def add_path(parser, name: str, text: str, metavar: str = "FOLDER", default=None) -> None:
    parser.add_argument(name, type=Path, metavar=metavar, default=default, help=text)


def add_number(parser, name: str, text: str, default: int | None = None) -> None:
    parser.add_argument(name, type=whole, metavar="N", default=default, help=text)


def whole(text: str) -> int:
    """The `type` of an option that takes a whole number: digits of ASCII, with a sign or none.

    int() would also take spaces, underscores, and the digits of all scripts.
    """
    return _number(text, r"[+-]?[0-9]{1,19}", int, whole_number, "a whole number, such as 5")


def real(text: str) -> float:
    """The `type` of an option that takes a number: as JSON writes it, also with a sign +."""
    form = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return _number(text, form, float, real_number, "a number, such as 0.5")


def _number(text, form, kind, check, example):
    """kind(text), if it has a form and is finite; what argparse says of an error is one line."""
    if len(text) < 1000 and re.fullmatch(form, text):
        try:
            return check("it", kind(text))
        except ValueError:
            pass
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is not {example}")


def add_switch(parser, name: str, text: str) -> None:
    parser.add_argument(name, action="store_true", help=text)


def add_json(parser, text: str) -> None:
    """Add --json. A command that has it prints JSON, and nothing else, on stdout."""
    add_switch(parser, "--json", text)


def warn(text: str) -> None:
    """Print a warning on stderr; unlike `warnings.warn` every time, and never as an error."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


@contextmanager
def told_as(**options: str):
    """Inside, an error of an argument names its option: told_as(layers="--text-depth")."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        if name not in options:
            raise
        raise ValueError(f"{options[name]} {rest}") from None


def progress_in(out: Path) -> tuple[int, int] | None:
    """What tells the progress in out/last from an earlier one; None where there is none."""
    from tgdt_mini.files.whole import standing

    try:
        state = (standing(out / "last") / "config.json").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def how_to_go_on(args, before: tuple[int, int] | None) -> str:
    """What follows "stopped". args: None while they are read; before: progress_in at the start."""
    if args is None:
        return ""
    if args.stopped == RESUME:
        now = progress_in(args.out)
        if now is None or (now == before and not args.resume):
            return NOTHING
    return args.stopped.format(out=args.out)


def error_line(error: Exception, out: Path | None = None) -> str:
    """What an error says, in one line; a full disk by name, whoever found it. out: --out."""
    text = " ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__
    number, full = getattr(error, "errno", None), f"[Errno {errno.ENOSPC}]"
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in text or full in text:
        known = getattr(error, "filename", None) or getattr(error, "filename2", None)
        where = "" if known else _places(out)
        return f"the disk is full ({text}){where}; make room, and start the same command again"
    if number == errno.EFBIG:
        return f"a file would be larger than it may be here ({text}); see ulimit -f"
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({text}); give less at a time"
    return text


def _places(out):
    """Where a command writes, for an error that names no file."""
    places = [] if out is None else [f"--out {named(out)}"]
    with suppress(RuntimeError):  # a user without a home
        places.append(f"the cache {named(cache())}")
    return f", that of {' or of '.join(places)}" if places else ""


def missing(error: ModuleNotFoundError) -> str:
    """What to install, where a package is not there that only some commands need."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return f"{error}; pip install -r requirements.txt brings all that the project needs"
    return f"{name} is not installed; it comes with {to_install(EXTRAS[name])}"


def need(*names: str) -> None:
    """ModuleNotFoundError, before any work is done, for a package that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def add_model(parser) -> None:
    text = "a trained model, or photographs for the shipped one of photographs (default: of scenes)"
    add_path(parser, "--model", text, "FOLDER")


def add_bfloat16(parser) -> None:
    where = "twice as fast where the processor or GPU has it, slower elsewhere"
    add_switch(parser, "--bfloat16", f"the vision encoder multiplies in bfloat16: {where}")


def add_encoder_paths(parser) -> None:
    """Add the options that say where a model's encoders have gone."""
    for kind in ("vision", "text"):
        where = f"where the {kind} encoder of the model is now, if it was moved"
        add_path(parser, f"--{kind}-path", where)


def add_features(parser, use: str = "photographs", split: bool = True) -> None:
    """Add --features and --check-all, and with `split` the choice of a split."""
    add_path(parser, "--features", f"{use}: the folder that extract wrote")
    add_switch(parser, "--check-all", "first compare all files of --features with their checksums")
    if split:
        parser.add_argument(
            "--split",
            default="test",
            choices=("test", "validation"),
            help="of the scenes or of --features (default test)",
        )


def add_collection(parser) -> None:
    parser.add_argument(
        "--collection",
        default="pictures",
        metavar="NAME",
        help="name of the collection in Qdrant (default pictures)",
    )


class OldName(argparse.Action):
    """An option's name of an earlier version: it does what the new one does, after a warning.

    Example: parser.add_argument("--old", action=OldName, new=parser.add_argument("--new"))
    """

    def __init__(self, option_strings, dest, new: argparse.Action, default=None):
        super().__init__(
            option_strings,
            new.dest,
            new.nargs,
            default=argparse.SUPPRESS,
            type=new.type,
            choices=new.choices,
            help=argparse.SUPPRESS,
        )
        self.new = new

    def __call__(self, parser, args, values, option_string=None):
        old, new = self.option_strings[0], self.new.option_strings[0]
        warnings.warn(f"{old} is now called {new}; the next version will not know {old}")
        self.new(parser, args, values, option_string)


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
