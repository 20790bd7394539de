"""The options of the commands: those that several have, how numbers are read, old names."""

import argparse
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

from tgdt_mini.files.check import real_number, whole_number


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
