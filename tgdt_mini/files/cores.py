"""The same function for many items, on several cores, in the order of the items.

The helpers are programs of their own (`python -m tgdt_mini.files.cores`), which read their items
from a pipe and write their results to one, as plain values by `marshal`: nothing in them is run.
So a script that calls this needs no `if __name__ == "__main__"`, as `multiprocessing` asks for with
spawn, and no process is forked that has threads. A helper that fails costs time and nothing else:
its items are done here.
"""

import importlib
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from tgdt_mini.files.progress import progress_bar

LEAST = 400  # items a process: with fewer, no helper is started
HEAD_START = 700  # items that are done here before a helper has begun: it imports torch first
MOST = 4  # processes, this one included


def map_on_cores(
    function: Callable, items: Sequence, *arguments, progress: bool = False, desc: str = "", unit=""
) -> list:
    """[function(item, *arguments) for item in items]; a part of them in other processes.

    function: of a module, by its own name there. Items, arguments and results are plain values
    (numbers, text, bytes, lists, tuples, dicts of them); other items are all done here. Its errors
    are raised here. progress, desc, unit: of the bar.
    """
    count = max(1, min(MOST, _cores(), len(items) // LEAST))
    own, *others = _parts(items, count)
    helpers = [_start(function, part, arguments) for part in others]
    try:
        results = []
        with progress_bar(None, progress, desc, len(items), unit=unit) as bar:
            told = 0  # of all items, as if the helpers were as far as this process
            for number, item in enumerate(own, start=1):
                results.append(function(item, *arguments))
                reached = number * len(items) // len(own)
                bar.update(reached - told)
                told = reached
        for helper, part in zip(helpers, others):
            done = _result(helper)
            results += [function(item, *arguments) for item in part] if done is None else done
    finally:
        for helper in helpers:
            if helper is not None:
                helper.kill()
                helper.wait()
    return results


def _cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parts(items, count):
    """The items in `count` runs: the first has a head start, the others are about as long."""
    first = min(HEAD_START, len(items)) if count > 1 else 0
    rest = len(items) - first
    ends = [0] + [first + rest * i // count for i in range(1, count + 1)]
    return [items[start:end] for start, end in zip(ends, ends[1:])]


def _start(function, items, arguments):
    """A helper at work, or None where no program can be started, or items are no plain values."""
    try:
        name = function.__module__, function.__name__
        task = marshal.dumps((*name, list(items), arguments))
    except ValueError:
        return None
    folders = os.pathsep.join(folder for folder in sys.path if folder)
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE) | {"stderr": subprocess.DEVNULL}
    try:
        environment = os.environ | {"PYTHONPATH": folders}
        helper = subprocess.Popen([sys.executable, "-m", __name__], env=environment, **pipes)
    except OSError:
        return None
    with suppress(OSError), helper.stdin:  # it may have ended: `_result` sees that
        helper.stdin.write(task)
    return helper


def _result(helper):
    """What a helper has made, or None if it has failed."""
    if helper is None:
        return None
    with helper.stdout:
        made = helper.stdout.read()
    if helper.wait() != 0:
        return None
    return marshal.loads(made)


def _help():
    """Be a helper: read a function's name and items, write what it makes of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    # all of it before what may take a second to import
    module, name, items, arguments = marshal.loads(sys.stdin.buffer.read())
    function = getattr(importlib.import_module(module), name)
    made = marshal.dumps([function(item, *arguments) for item in items])
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    _help()
