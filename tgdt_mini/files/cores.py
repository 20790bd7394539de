"""The same function for many items, on several cores, in the order of the items.

The helpers are programs of their own (`python -m tgdt_mini.files.cores`), which read their tasks
from a pipe and write the results to one, as plain values by `marshal`: nothing in them is run. So a
script that calls this needs no `if __name__ == "__main__"`, as `multiprocessing` asks for with
spawn, and no process is forked that has threads. Whoever is free takes the next few items. A helper
that fails costs time and nothing else: its items are done here.
"""

import importlib
import marshal
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from threading import Lock, Thread

from tgdt_mini.files.progress import progress_bar

LEAST = 400  # items a process: with fewer, no helper is started
CHUNK = 25  # items of a task
MOST = 4  # processes, this one included


def map_on_cores(
    function: Callable, items: Sequence, *arguments, progress: bool = False, desc: str = "", unit=""
) -> list:
    """[function(item, *arguments) for item in items]; some of them in other processes.

    function: of a module, by its own name there. Items, arguments and results are plain values
    (Python's numbers, text, bytes, lists, tuples, dicts of them); most others are all done here,
    but NumPy's would arrive as bytes. Errors are raised here. progress, desc, unit: of the bar.
    """
    parts = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    left, results, told = deque(range(len(parts))), {}, 0
    count = max(1, min(MOST, _cores(), len(items) // LEAST))
    helpers = [helper for _ in range(count - 1) if (helper := _start(function))]
    work = arguments, parts, left, results
    threads = [Thread(target=_serve, args=(helper, *work), daemon=True) for helper in helpers]
    try:
        for thread in threads:
            with suppress(RuntimeError):  # no more threads can be had: all is done here
                thread.start()
        with progress_bar(None, progress, desc, len(items), unit=unit) as bar:
            # what a helper still works at, or has failed at, is done here too: nobody waits for it
            for number in chain(iter(partial(_next, left), None), range(len(parts))):
                if number not in results:
                    results[number] = [function(item, *arguments) for item in parts[number]]
                    done = sum(len(parts[other]) for other in list(results))
                    bar.update(done - told)
                    told = done
    finally:
        left.clear()  # nobody begins another part
        _end(helpers, threads)
    return [result for number in range(len(parts)) for result in results[number]]


@contextmanager
def meanwhile(function: Callable, item, *arguments, items: int):
    """A block beside which another process works; it gives a function that waits for the result.

    Function, values and result as for `map_on_cores`; items: how many they stand for. With few of
    them, on one core, or where the helper fails, function(item, *arguments) is computed when asked.
    """
    helper = _start(function) if _cores() > 1 and items >= LEAST else None
    asked, lock, made = helper is not None and _tell(helper, [item], arguments), Lock(), []

    def result():
        with lock:  # whoever asks first reads the answer
            if not made:
                made.extend((asked and _answer(helper)) or [function(item, *arguments)])
        return made[0]

    try:
        yield result
    finally:
        _end([helper] if helper else [])


def _cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _next(left):
    """The number of a part that nobody has begun, or None; several threads may ask."""
    with suppress(IndexError):
        return left.popleft()


def _serve(helper, arguments, parts, left, results):
    """Hand a helper one part after the other, until none is left or it fails."""
    while (number := _next(left)) is not None:
        made = _answer(helper) if _tell(helper, parts[number], arguments) else None
        if made is None:
            return
        results[number] = made


def _start(function):
    """A helper that waits for tasks of a function; None where no program can be started."""
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE) | {"stderr": subprocess.DEVNULL}
    try:
        folders = os.pathsep.join(os.fspath(folder or os.getcwd()) for folder in sys.path)
        names = function.__module__, function.__name__
        environment = os.environ | {"PYTHONPATH": folders}
        # -P: a folder tgdt_mini where the user happens to be is not this package
        line = [sys.executable, "-P", "-m", __name__, *names, os.urandom(8).hex()]
        return subprocess.Popen(line, env=environment, **pipes)
    except OSError:
        return None


def _tell(helper, items, arguments):
    """Whether a helper could be given a task: it may have ended, or items are no plain values."""
    try:
        helper.stdin.write(marshal.dumps((list(items), arguments)))
        helper.stdin.flush()
    except (OSError, ValueError):
        return False
    return True


def _answer(helper):
    """What a helper has made of its task, or None if it has failed, or printed something else."""
    mark = helper.args[-1].encode()
    try:
        return marshal.load(helper.stdout) if helper.stdout.read(len(mark)) == mark else None
    except (EOFError, ValueError, TypeError):
        return None


def _end(helpers, threads=()):
    """Stop helpers, whatever they do, and the threads that serve them."""
    for helper in helpers:
        helper.kill()
    for helper in helpers:
        helper.wait()
    for thread in threads:
        if thread.ident is not None:  # it has been started
            thread.join()
    for helper in helpers:
        with suppress(OSError), helper.stdout, helper.stdin:
            pass


def _help(module, name, mark):
    """Be a helper of a function: read items, write what it makes of them, until none come.

    mark: what no one else prints, before each answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no answer
    function = getattr(importlib.import_module(module), name)
    with suppress(EOFError):
        while True:
            items, arguments = marshal.load(sys.stdin.buffer)
            made = marshal.dumps([function(item, *arguments) for item in items])
            answers.write(mark.encode() + made)
            answers.flush()


if __name__ == "__main__":
    _help(*sys.argv[1:])
