"""The command line: demo, train, evaluate, ablate, index, search, bench. `tgdt-mini COMMAND --help`
explains each.

Only arguments and last words are handled here; what a command does is in `commands/common.py`. An error is
one line on stderr and exit code 2; Ctrl-C says how to go on and exits with 130.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

from tgdt_mini.bench import PARTS
from tgdt_mini.commands import common as commands
from tgdt_mini.commands import extract as extract_command


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(
                f"warning: {message}", file=sys.stderr
            )
            _check_out(args.out)
            if args.run is not commands.run_train and int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError(
                    "only train runs on several processes; start this command without torchrun"
                )
            if getattr(args, "check_all", False):
                _check_features(args.features)
            args.run(args)
    except KeyboardInterrupt:
        _say(f"\nstopped{args.resumable.format(out=args.out)}")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        _say(f"error: {lines[0]}")
        return 2
    return 0


def _say(last_words):
    """On stderr, by one process of the run only: the first to fail, the others fail because of
    it.
    """
    from tgdt_mini.scaling import distributed

    if distributed.speaks():
        under = (
            "\n" if distributed.size() > 1 else ""
        )  # the progress bar of a process that died holds the line
        print(under + last_words, file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """argparse says an error in many lines; here it is one."""

    def error(self, message):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(prog="tgdt-mini", description="Image-text retrieval by tokens, on drawn scenes.")
    kinds = top.add_subparsers(metavar="COMMAND", required=True)

    resume = "; what was done is in {out}/last, go on with the same command and --resume"
    again = commands.AGAIN

    def command(name, about, out=None, resumable=""):
        one = kinds.add_parser(name, help=about, description=about)
        one.set_defaults(run=getattr(commands, f"run_{name}", None), resumable=resumable)
        one.add_argument(
            "--device",
            default="auto",
            choices=("auto", "cpu", "cuda", "mps"),
            help="auto: cuda, else cpu; no result was verified on mps",
        )
        one.add_argument("--seed", type=int, default=0, help="of weights and batches (default 0)")
        one.add_argument(
            "--out",
            type=Path,
            default=out,
            metavar="FOLDER",
            help=f"where to write (default {out})",
        )
        return one

    def add_model(one):
        one.add_argument(
            "--model",
            type=Path,
            metavar="FOLDER",
            help="a trained model (default: the shipped one)",
        )

    def add_features(one, use="photographs", split=True):
        one.add_argument(
            "--features", type=Path, metavar="FOLDER", help=f"{use}, as extract wrote them"
        )
        one.add_argument(
            "--check-all", action="store_true", help="compare all checksums of --features first"
        )
        if split:
            one.add_argument(
                "--split", default="test", choices=("test", "validation"), help="default test"
            )

    def add_qdrant(one, use):
        one.add_argument(
            "--qdrant", metavar="WHERE", help=f"a Qdrant server's address, or a folder: {use}"
        )
        one.add_argument(
            "--collection", default="pictures", metavar="NAME", help="there (default pictures)"
        )

    def add_training(one, epochs):
        one.add_argument(
            "--quick",
            action="store_true",
            help="a quarter of the data, few epochs: does it run at all?",
        )
        one.add_argument(
            "--epochs",
            type=int,
            help=f"default {epochs or 'what the recipe says'}, with --quick "
            f"{commands.QUICK['epochs']}",
        )
        one.add_argument(
            "--batch",
            type=int,
            help="pairs in a step, of all processes together (default 64, photographs 512)",
        )
        one.add_argument(
            "--learning-rate",
            type=float,
            help="after the warm-up; it falls from there (default 0.001, photographs 0.0003)",
        )
        one.add_argument(
            "--start",
            choices=("random", "correlation"),
            help="weights to begin with: a closed form is for photographs",
        )
        one.add_argument(
            "--recipe",
            choices=("joint", "staged"),
            help="staged: local terms first, then global layers",
        )
        one.add_argument(
            "--inter",
            choices=("curriculum", "hardest", "mean", "info_nce"),
            help="negatives; curriculum:"
            " all of them first, then the hardest (default curriculum, photographs hardest)",
        )
        one.add_argument(
            "--no-intra", action="store_true", help="without the intra-modal consistency term"
        )
        one.add_argument(
            "--no-global", action="store_true", help="without the inter-modal term on global scores"
        )
        one.add_argument(
            "--no-local", action="store_true", help="without the inter-modal term on local scores"
        )
        one.add_argument(
            "--no-hard-captions",
            action="store_true",
            help="without the negatives made of a caption's own words",
        )
        one.add_argument(
            "--image-tokens",
            default="regions",
            choices=("regions", "patches"),
            help="things found in the pixels (default), or a grid",
        )
        one.add_argument(
            "--patience",
            type=int,
            help="stop after so many epochs without a better validation rsum",
        )
        one.add_argument(
            "--precision",
            choices=("auto", "fp32", "bf16", "fp16"),
            help="auto (default): fp32 on a CPU, bf16 on a GPU that has it, fp16 on another",
        )
        one.add_argument(
            "--chunk", type=int, help="pairs embedded at a time: less memory, one more forward pass"
        )
        one.add_argument(
            "--compile", action="store_true", help="by torch.compile: a slow first step, for a GPU"
        )
        one.add_argument(
            "--resume", action="store_true", help="go on with --out, in any number of processes"
        )

    demo = command(
        "demo",
        "Draw the data, train, evaluate, draw figures: the whole method in one go.",
        Path("runs/demo"),
        resume,
    )
    add_training(demo, commands.DEMO_EPOCHS)
    train = command(
        "train", "Train a model on the drawn scenes, or on photographs.", Path("runs/train"), resume
    )
    add_training(train, None)
    add_features(train, "train on photographs", split=False)
    for name in ("vision", "text"):
        train.add_argument(
            f"--{name}-layers",
            type=int,
            metavar="N",
            help=f"of the {name} encoder's layers that "
            "extract left to be trained, only the last N (default: all of them)",
        )
    train.add_argument(
        "--top-rate",
        type=float,
        help="learning rate of these layers, as a share of --learning-rate (default 0.05)",
    )
    extract = command(
        "extract",
        "Run pretrained encoders over photographs and captions, once, for train.",
        Path("runs/features"),
        again,
    )
    extract_command.add_options(extract)
    extract.set_defaults(run=extract_command.run)
    evaluate = command(
        "evaluate", "Judge a model on test data, scenes or photographs.", Path("runs/evaluate")
    )
    add_model(evaluate)
    add_features(evaluate)
    evaluate.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="N",
        help="also the mean of N parts, each searched alone: 5 for COCO 1K, beside 5K",
    )
    ablate = command(
        "ablate",
        "Train and judge the recipe without each of its parts, over several seeds.",
        Path("runs/ablations"),
        again,
    )
    ablate.add_argument(
        "--recipes", nargs="+", metavar="NAME", help='such as default "no intra" (default: all)'
    )
    ablate.add_argument(
        "--seeds", nargs="+", type=int, metavar="SEED", help="default 0 1 2; replaces --seed"
    )
    ablate.add_argument("--epochs", type=int, help="default 8, with --quick 2")
    add_features(ablate, "on photographs", split=False)
    ablate.add_argument(
        "--quick",
        action="store_true",
        help="a quarter of the data, one seed, few epochs: does it run?",
    )
    index = command(
        "index", "Encode pictures once, into a gallery to search.", Path("runs/gallery")
    )
    add_model(index)
    index.add_argument(
        "--images", type=Path, metavar="FOLDER", help="your pictures (default: the test scenes)"
    )
    add_features(index)
    add_qdrant(index, "put the gallery into Qdrant too")
    search = command(
        "search", "Search pictures by a caption, or captions by a picture.", Path("runs/search")
    )
    add_model(search)
    search.add_argument("caption", nargs="?", help='such as "a yellow star above a pink square"')
    search.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="search the test captions by this picture instead",
    )
    search.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="made by index (default: the test scenes)"
    )
    add_features(search)
    add_qdrant(search, "search there instead")
    search.add_argument("-k", type=int, default=5, help="how many hits (default 5)")
    search.add_argument(
        "--shortlist",
        type=int,
        help="candidates that stage two re-orders (default: the model's choice)",
    )
    bench = command(
        "bench",
        "Measure what is fast, beside its peers, on this machine; always on the CPU.",
        Path("runs/bench"),
    )
    bench.add_argument(
        "--sizes", nargs="+", type=int, metavar="N", help="of galleries (default 1000 10000 100000)"
    )
    bench.add_argument(
        "--quick", action="store_true", help="the smallest size, few repeats: does it run?"
    )
    bench.add_argument(
        "--only",
        nargs="+",
        metavar="PART",
        default=[],
        help=f"measure these again ({', '.join(PARTS)}); the rest stays as in --out",
    )
    bench.add_argument(
        "--million", action="store_true", help="a gallery of a million too: 20 GB of disk, minutes"
    )
    return top


def _check_features(folder):
    """Read a features folder through; ValueError for a file that is not what was written."""
    if folder is None:
        raise ValueError("--check-all is given, but no features are: add --features FOLDER")
    from tgdt_mini.photos import feature_folder

    feature_folder.check_features(folder)


def _check_out(out):
    """ValueError, before any work is done, when nothing can be written to --out."""
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"--out {out} cannot be a folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: no permission in {nearest}")
