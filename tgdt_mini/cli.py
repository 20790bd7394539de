"""The command line: `python -m tgdt_mini COMMAND ...`, and `--help` after any command.

Only what all commands share is here: the parser, errors, last words and exit codes. What a command
does, and its options, are in `commands/`, one file a command. An error is one line on stderr and
exit code 2; Ctrl-C says how to go on and exits with 130.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

from tgdt_mini.commands import ablate, bench, common, demo, evaluate, index, search, train

# see encoders/pretrained.py, which takes torch to read
LITE, MINILM = "efficientnet-lite0", "minilm"


def main(argv: list[str] | None = None) -> int:
    """Exit code of a command: 0, 2 after an error, 130 after Ctrl-C."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {message}", file=sys.stderr
        )
        args = parser().parse_args(argv)
        try:
            common.check_out(args.out)
            if args.run is not train.run and process_count() > 1:
                raise ValueError(
                    "only train runs on several processes; start this command without torchrun"
                )
            args.run(args)
        except KeyboardInterrupt:
            say_last(f"\nstopped{args.stopped.format(out=args.out)}")
            return 130
        except (ValueError, OSError, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            say_last(f"error: {lines[0]}")
            return 2
    return 0


def process_count() -> int:
    """How many processes torchrun has started for this command."""
    return int(os.environ.get("WORLD_SIZE", 1))


def say_last(words: str) -> None:
    """Print on stderr why the command ends. Of several processes only the first to end says it."""
    if process_count() > 1:  # the others end because the first one did
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


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. Parsed arguments have `run`, the function of their command."""
    top = Parser(prog="tgdt-mini", description="Image-text retrieval by tokens, on drawn scenes.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=module.run)
        common.add_common_options(command, Path("runs", name))
        module.add_options(command)
    return top


def extract_options(extract):
    extract.set_defaults(out=Path("runs/features"), stopped=common.AGAIN)
    extract.add_argument(
        "--data",
        required=True,
        metavar="SET",
        help="flickr8k, flickr30k or coco from the hub, a "
        "folder of parquet files, a Karpathy .json, an image folder, or any hub name",
    )
    extract.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the pictures of a Karpathy .json lie"
    )
    extract.add_argument(
        "--columns",
        nargs="+",
        metavar="OURS=THEIRS",
        help="such as image=photo image_id=name "
        "split=part captions=text, or captions=caption_0,caption_1",
    )
    extract.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="only these, or THEIRS=OURS: extra=test"
    )
    extract.add_argument(
        "--no-restval",
        action="store_true",
        help="COCO's spare validation pictures are not for train",
    )
    extract.add_argument(
        "--most-captions",
        type=int,
        metavar="N",
        help="only the first N of each picture, as COCO's 5",
    )
    extract.add_argument(
        "--entities",
        type=Path,
        metavar="FOLDER",
        help="Flickr30k Entities: Annotations/ and Sentences/, for the pointing game",
    )
    extract.add_argument(
        "--detections",
        type=Path,
        metavar="FOLDER",
        help="instead of --vision, which then names the "
        "detector: regions of bottom-up attention, ID.npz or ID.npy",
    )
    extract.add_argument(
        "--boxes", type=Path, metavar="FOLDER", help="of the regions, if not beside them: ID.npy"
    )
    extract.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="of pictures that are not here, for boxes in "
        'pixels: JSON, {"image id": [width, height]}, or annotations of COCO',
    )
    extract.add_argument("--width", type=int, metavar="N", help="numbers a region (default 2048)")
    extract.add_argument(
        "--allow-strays", action="store_true", help="leave regions aside that belong to no picture"
    )
    extract.add_argument(
        "--vision", metavar="ENCODER", help=f"a folder or hub name (default {LITE})"
    )
    extract.add_argument(
        "--side",
        type=int,
        default=0,
        metavar="N",
        help=f"resize pictures to N x N pixels, for {LITE} (default: the encoder's own)",
    )
    extract.add_argument(
        "--mirrored", action="store_true", help="the mean of each picture and its mirror image"
    )
    extract.add_argument(
        "--grid",
        type=int,
        default=0,
        metavar="N",
        help="average its cells to N x N (default 0: no)",
    )
    extract.add_argument(
        "--text", default=MINILM, metavar="ENCODER", help=f"{MINILM}, or a folder or hub name"
    )
    extract.add_argument(
        "--text-depth",
        type=int,
        default=0,
        metavar="N",
        help="only its first N layers, as the paper takes 6 of BERT's 12 (default 0: all)",
    )
    extract.add_argument(
        "--text-states",
        type=int,
        default=1,
        metavar="N",
        help="of each word what its last N layers made of it, side by side (default 1)",
    )
    extract.add_argument(
        "--vision-layers",
        type=int,
        default=0,
        metavar="N",
        help="its last N are trained (default 0)",
    )
    extract.add_argument(
        "--text-layers", type=int, default=0, metavar="N", help="its last N are trained (default 0)"
    )
    extract.add_argument(
        "--precision", default="float16", choices=("float16", "int8"), help="of what is kept"
    )


COMMANDS = {
    "demo": (demo, "Draw the data, train, evaluate, draw figures: the whole method in one go."),
    "train": (train, "Train a model on the drawn scenes, or on photographs."),
    "extract": (
        SimpleNamespace(add_options=extract_options, run=common.run_extract),
        "Run pretrained encoders over photographs and captions, once, for train.",
    ),
    "evaluate": (evaluate, "Judge a model on test data, scenes or photographs."),
    "ablate": (ablate, "Train and judge without each part of the training, over several seeds."),
    "index": (index, "Encode pictures once, into a gallery to search."),
    "search": (search, "Search pictures by a caption, or captions by a picture."),
    "bench": (bench, "Measure what is fast, beside its peers, on this machine; always on the CPU."),
}
