"""How a command ends: what an error says in one line, and how to go on after a stop."""

import errno
from contextlib import suppress
from pathlib import Path

from tgdt_mini.files.check import named
from tgdt_mini.files.paths import cache, to_install

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
