"""The command line: `python -m tgdt_mini COMMAND ...`, and `--help` after any command.

Only what all commands share is here: parser, errors, final messages and exit codes. What a command
does, and its options, are in `commands/`, one file a command. An error is one line on stderr and
exit code 2; Ctrl-C, SIGTERM and SIGHUP say how to go on and exit with 130. 3 is for work that is
done with something to look at: pictures that cannot be read, what the doctor found. 1 is for an
error that nobody foresaw.
"""

import argparse
import os
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from tgdt_mini import __version__
from tgdt_mini.commands import (
    ablate,
    app,
    arguments,
    bench,
    common,
    demo,
    doctor,
    endings,
    evaluate,
    extract,
    index,
    process,
    search,
    train,
)
from tgdt_mini.files.check import shown
from tgdt_mini.files.progress import silence
from tgdt_mini.files.stopping import on_stop


def main(argv: list[str] | None = None) -> int:
    """Exit code of a command: 0, 2 after an error, 130 after Ctrl-C, 3 for work done in part."""
    process.open_streams()
    with process.stoppable() as came, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {message}", file=sys.stderr
        )
        args = before = None
        try:
            args = parser().parse_args(argv)
            common.check_place()
            common.check_out(args.out)
            before = endings.progress_in(args.out)
            if process_count() > 1 and args.run is not train.run:
                raise ValueError(
                    "only train runs on several processes; start this command without torchrun"
                )
            quiet = args.quiet or getattr(args, "json", False)
            out = common.reserved(args.command, args.out)
            with process.no_error_of(came), silence(quiet), out:
                return args.run(args) or 0
        except KeyboardInterrupt:
            say_last(f"\nstopped{endings.how_to_go_on(args, before)}")
            return process.STOPPED
        except BrokenPipeError:  # who read the output, such as `head`, has seen enough
            process.drop_output()
            return 0
        except ModuleNotFoundError as error:
            say_last(f"error: {endings.missing(error)}")
            return 2
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            say_last(f"error: {endings.error_line(error, getattr(args, 'out', None))}")
            return 2
        except Exception as error:
            say_last(f"error: {process.explained(getattr(args, 'command', 'tgdt-mini'), error)}")
            return 1


def process_count() -> int:
    """How many processes torchrun has started for this command. ValueError if no number says it."""
    count = os.environ.get("WORLD_SIZE", "1")
    try:
        return int(count)
    except ValueError:
        raise ValueError(
            f"WORLD_SIZE is {shown(count)}; it must be a number, as torchrun sets it: unset it"
        ) from None


def say_last(words: str) -> None:
    """Print on stderr why the command ends. Of several processes only the first to end says it.

    It ends anyway: a signal that asks it to, as torchrun sends to the others, cuts no last words.
    """
    with on_stop(lambda *_: None):
        count = 1
        with suppress(ValueError):  # then these words may be the ones that say so
            count = process_count()
        if count > 1:  # the others end because the first one did
            from tgdt_mini.scaling import distributed

            if not distributed.first_to_report():
                return
            if distributed.size() > 1:
                words = f"\n{words}"  # a progress bar that was cut off has left its line open
        print(words, file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; those of argparse are many."""

    def error(self, message):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


class CommandParser(Parser):
    """The parser of one command, which refuses options that it does not know by its own name."""

    def parse_known_args(self, args=None, namespace=None):
        args = _joined(sys.argv[1:] if args is None else list(args))
        for word, following in zip(args, [*args[1:], "."]):
            name, equals, value = word.partition("=")
            # an empty path would be the current folder
            if name.startswith("--") and not (value if equals else following).strip():
                self.error(f"{name} is empty; give it a value or leave it out")
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _joined(args):
    """Arguments in which --seed -inf is --seed=-inf: argparse takes -inf for an option."""
    joined = []
    for word in args:
        if joined and re.fullmatch(r"--?[a-z-]+", joined[-1]) and BELOW_0.fullmatch(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. Parsed arguments have `run`, the function of their command."""
    top = Parser(
        prog="tgdt-mini",
        description="Image-text retrieval by tokens: on drawn scenes, and on photographs.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    options = {"metavar": "COMMAND", "required": True, "parser_class": CommandParser}
    commands = top.add_subparsers(**options)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=module.run, command=name)
        arguments.add_common_options(command, Path("runs", name))
        module.add_options(command)
    return top


# what argparse takes for an option, and not for a number below 0
BELOW_0 = re.compile(r"-(?!\d+$|\d*\.\d+$)(inf|infinity|nan|[0-9.][0-9._e+-]*)", re.IGNORECASE)
COMMANDS = {
    "demo": (demo, "Draw the data, train, evaluate, draw figures: the whole method in one go."),
    "train": (train, "Train a model on the drawn scenes, or on photographs."),
    "extract": (
        extract,
        "Run pretrained encoders over photographs and captions, once, for train.",
    ),
    "evaluate": (evaluate, "Judge a model on test data, scenes or photographs."),
    "ablate": (ablate, "Train and judge without each part of the training, over several seeds."),
    "index": (index, "Encode pictures once, into a gallery to search."),
    "search": (search, "Search pictures by a caption, or captions by a picture."),
    "app": (app, "Explore a gallery in the browser: ask, move the settings, see where words look."),
    "doctor": (doctor, "Look at this machine and installation: what is well, what to repair, how."),
    "bench": (bench, "Measure what is fast, beside its peers, on this machine; always on the CPU."),
}
