"""How far a long piece of work has come: a bar on a terminal, else a line now and then.

Inside `silence()` there is neither, nor any remark: only results, warnings and errors.
"""

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tgdt_mini.files.check import true_or_false

SECONDS = 60.0  # between two lines where there is no terminal
_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silence(wanted: bool = True) -> Iterator[None]:
    """Inside, `progress_bar` and `remark` show nothing. wanted: False changes nothing."""
    token = _silent.set(wanted or _silent.get())
    try:
        yield
    finally:
        _silent.reset(token)


def remark(text: str) -> None:
    """Print what is not a result, such as what to do next."""
    if not _silent.get():
        print(text, flush=True)


def progress_bar(
    steps: Collection | None = None,
    progress: bool = True,
    desc: str = "",
    total: int | None = None,
    initial: int = 0,
    unit: str = " steps",
) -> Any:
    """A bar, as tqdm's: to iterate over `steps`, or with `total` to be told by `update`.

    progress: False shows nothing. desc: what is done, to so many of `unit`. initial: how many are
    done already.
    """
    true_or_false("progress", progress)
    if progress and not _silent.get() and not sys.stderr.isatty():
        return Lines(steps, desc, total, initial, unit)
    from tqdm import tqdm

    hidden = not progress or _silent.get()
    return tqdm(steps, desc=desc, total=total, initial=initial, unit=unit, disable=hidden)


class Lines:
    """Stands for a bar where nobody sees one move: a line on stderr, once a minute."""

    def __init__(self, steps, desc, total, initial, unit):
        self.steps, self.desc, self.unit, self.count = steps, desc, unit, initial
        self.total = len(steps) if total is None else total
        self.said = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        for step in self.steps:
            yield step
            self.update()

    def update(self, count: int = 1) -> None:
        """So many steps more are done."""
        self.count += count
        if time.monotonic() - self.said >= SECONDS:
            self.said = time.monotonic()
            self.say()

    def set_postfix(self, **values) -> None:
        """What a bar shows at its end, such as the loss: in a line of its own."""
        self.say("".join(f", {name} {value}" for name, value in values.items()))

    def say(self, more: str = "") -> None:
        """Print how many steps are done, on stderr."""
        line = f"{self.desc}: {self.count} of {self.total}{self.unit}{more}"
        self.write(line, sys.stderr)

    @staticmethod
    def write(text: str, file=None) -> None:
        """Print a text of its own, as a bar's `write` does."""
        print(text, file=file, flush=True)
