"""What a command's process owes to its surroundings: streams, signals, and final messages."""

import io
import os
import sys
import tempfile
import traceback
from contextlib import contextmanager, suppress

from tgdt_mini.files.stopping import on_stop

STOPPED = 130  # exit code, as shells have it for Ctrl-C


def open_streams() -> None:
    """See to it that whatever is printed can be: nothing that a command does ends for an output.

    A stream that was closed (`2>&-`) becomes one that swallows; a sign that an output's encoding
    lacks is written as its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def stoppable():
    """Inside, a signal that asks to stop is a KeyboardInterrupt. Yields a list of those that came.

    An import of torch that is interrupted cannot be taken back: then the process ends at once.
    Nothing has been written by then.
    """
    came: list[int] = []

    def stop(number, _):
        came.append(number)
        if is_being_imported("torch"):
            with suppress(OSError):
                os.write(2, b"\nstopped\n")
            os._exit(STOPPED)
        raise KeyboardInterrupt

    with on_stop(stop):
        yield came


@contextmanager
def no_error_of(came: list[int]):
    """Inside, an error after a signal that asked to stop is a KeyboardInterrupt again.

    A library may make an error of its own out of it, as torch does while it reads weights.
    """
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise


def is_being_imported(name: str) -> bool:
    """Whether a module's import has begun, and has not come to its end."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "_initializing", False)


def explained(command: str, error: Exception) -> str:
    """What to say of an error that nobody foresaw: its kind, and the file with its traceback."""
    what = f"{command} ended with {type(error).__name__}"
    if text := " ".join(str(error).split()):
        what += f" ({text[:200]})"
    lines = "".join(traceback.format_exception(error))
    try:
        options = {"prefix": "tgdt-mini-", "suffix": ".txt", "delete": False}
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", **options) as file:
            file.write(lines.encode("utf-8", "backslashreplace").decode("utf-8"))
    except OSError:
        return f"{what}; no file could be written for the rest:\n{lines}"
    return f"{what}, which should not be; please report it with {file.name}"


def drop_output() -> None:
    """Let what is still to be printed go nowhere, after the reader of a pipe has gone away."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")
