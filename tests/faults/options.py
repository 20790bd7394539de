"""Hostile numbers for every option of every command that takes one.

Each ends in a line that names the option and what was given, or in an answer; within a minute, and
without more memory than the command needs. The options are asked of the parser, so that a new one
is tried, too.
"""

import contextlib
import io
import random
import resource
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.faults import commands
from tests.faults.outcomes import REFUSED, RIGHT, Table
from tgdt_mini import bench, cli
from tgdt_mini.bench import tables
from tgdt_mini.commands import arguments
from tgdt_mini.reports import plots

NO_NUMBERS = (
    "",
    " ",
    " 5",
    "5 ",
    "5_0",
    "\uff10",
    "\u0665",
    "five",
    "0x10",
    "1e",
    "--",
    "5,0",
    "5\n",
)
NO_NUMBERS += ("nan", "NaN", "inf", "-inf", "+inf", "Infinity", "1e999", "-1e999", "9" * 9999)
NO_WHOLE = ("2.5", "1e300", "-1e300", "5.0", "1e3", "9" * 5000, "1" + "0" * 30, str(2**63))
NUMBERS = ("-1", "0", "1", "+1", "007", str(10**12), str(-(10**12)), str(2**63 - 1), str(2**40 + 1))
NO_REAL = ("1" + "0" * 400, "-" + "9" * 999)
REALS = ("2.5", "1e300", "-1e300", "1e-320", "-0.0", "1e12")
# where an option speaks of nothing, and is refused for that, whatever its value; elsewhere it does
ELSEWHERE = {
    "extract": ("--width",),
    "train": ("--vision-layers", "--text-layers", "--top-rate"),
    "train, photographs": ("--hard-captions",),
}
MEMORY = 3 * 2**30  # bytes more than a process has at the start
SECONDS = 60  # of the processor


def options() -> list[tuple[str, str, bool]]:
    """[(command, option, whether it takes whole numbers)] of all that take numbers."""
    subparsers = cli.parser()._subparsers._group_actions[0].choices
    found = []
    for command, parser in subparsers.items():
        for action in parser._actions:
            if action.type in (arguments.whole, arguments.real):
                found.append((command, action.option_strings[0], action.type is arguments.whole))
            else:
                assert action.type in (None, Path), f"{command} {action.option_strings}: try it too"
    return found


def values(whole: bool) -> list[tuple[str, bool]]:
    """[(what is given, whether it is a number of the kind)]."""
    wrong = (*NO_NUMBERS, *(NO_WHOLE if whole else NO_REAL))
    return [(text, False) for text in wrong] + [
        (text, True) for text in (*NUMBERS, *(() if whole else REALS))
    ]


def parsed(table: Table, tries: int, seed: int = 0) -> None:
    """`tries` values for every option, only parsed: what is no number is refused there."""
    parser, draw = cli.parser(), random.Random(seed)
    for command, option, whole in options():
        for text, right in draw.sample(values(whole), min(tries, len(values(whole)))):
            said, code = io.StringIO(), 0
            with contextlib.redirect_stderr(said):
                try:
                    parser.parse_args([command, *_NEEDED.get(command, ()), option, text])
                except SystemExit as stop:
                    code = stop.code
            ended = _judged(code, said.getvalue(), option, text, right)
            if ended == RIGHT and not right:
                ended = "taken for a number"
            table.add(
                "a number on the command line", f"{command} {option}, parsed", ended, text[:40]
            )


_NEEDED = {"search": ("a red star",), "extract": ("--data", "nowhere")}


def lines(root: Path) -> dict[str, tuple]:
    """{command: words} that come to their end in a second or two, with whatever is needed."""
    commands.world(root)
    gallery, features, photos = (root / name for name in ("gallery", "features", "photos"))
    line = ("index", "--model", photos / "model", "--images", root / "some", "--out", gallery)
    assert commands.run(line) == 0
    detections = root / "detections"
    detections.mkdir()
    for number, path in enumerate(sorted((root / "pictures").iterdir())):
        draw = np.random.default_rng(number)
        corners = np.sort(draw.random((2, 2, 2)), axis=1).reshape(2, 4)
        regions = {"feat": draw.random((2, 8), np.float32), "boxes": corners}
        np.savez(detections / f"{path.stem}.npz", **regions)
    data = ("extract", "--data", root / "data.json", "--images", root / "pictures")
    data += ("--text", root / "text", "--splits", "test")
    trained = ("--features", features, "--batch", "8", "--epochs", "1")
    return {
        "demo": ("demo", "--quick", "--batch", "8", "--epochs", "1"),
        "train": ("train", "--quick", "--batch", "8", "--epochs", "1"),
        "train, photographs": ("train", *trained, "--top-rate", "0.1"),
        "extract": (*data, "--vision", root / "vision"),
        "extract, regions": (*data, "--detections", detections, "--width", "8"),
        "evaluate": ("evaluate", "--features", features, "--model", photos / "model"),
        "ablate": ("ablate", "--features", features, "--quick", "--batch", "6", "--epochs", "1"),
        "index": ("index", "--model", root / "model", "--images", root / "some"),
        "search": ("search", "a red star", "--model", photos / "model", "--gallery", gallery),
        **({"app": ("app", "--no-browser")} if find_spec("voila") else {}),
        "doctor": ("doctor",),
        "bench": ("bench", "--quick", "--sizes", "1000"),
    }


def run(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """`tries` values for each option, the command run to its end."""
    draw, known = random.Random(seed), lines(root / "world")
    for command, option, whole in options():
        for text, right in draw.sample(values(whole), min(tries, len(values(whole)))):
            for name in known:
                if name.partition(",")[0] == command and option not in ELSEWHERE.get(name, ()):
                    ended = _ended(known[name], root / "out", option, text, right)
                    kind = f"{name} {option}"
                    table.add("a number on the command line", kind, ended, text[:40])


def _ended(line, out, option, text, right):
    shutil.rmtree(out, ignore_errors=True)
    more = ("--variants", "default") if line[0] == "ablate" else ()
    words = [*map(str, (*line, *more)), option, text]
    code = commands.run(words, out, prepare=_bounded)
    return _judged(code, Path(f"{out}.said").read_text("utf-8"), option, text, right)


def _judged(code, said, option, text, right) -> str:
    """RIGHT, REFUSED, or what is wrong with how a command has ended."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code in (0, 3, 130):
        return RIGHT if right and not errors else f"taken for a number, or errors: {errors}"
    if code != 2 or len(errors) != 1 or "Traceback" in said:
        return f"it ended with {code}: {said[-300:]!r}"
    names = (option.strip("-"), option.strip("-").replace("-", "_"))
    if not any(name in errors[0] for name in names):
        return f"the option is not named: {errors[0]}"
    shown = (text.strip()[:12], repr(text)[1:12], f"{option} is empty")
    if not any(value in errors[0] for value in shown) and not _same_number(text, errors[0]):
        return f"the value is not named: {errors[0]}"
    return REFUSED if len(errors[0]) < 500 else f"a line of {len(errors[0])} signs"


def _same_number(text, error):
    try:
        return str(float(text)) in error or str(int(text)) in error
    except (ValueError, OverflowError):
        return False


def _bounded():
    """What a command of this process may need; and nothing is served, nothing measured."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    from tgdt_mini.app import server

    server.serve = lambda options, host, port, browser: server.free_port(host, port)
    bench._measure = lambda *_: {"rows": []}
    tables.table, plots.search_times = str, lambda *_: None
