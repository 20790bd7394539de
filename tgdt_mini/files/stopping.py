"""Signals that ask a program to end: of Ctrl-C, of a scheduler, of a terminal that is closed."""

import signal
import threading
from contextlib import contextmanager

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def on_stop(handler):
    """Inside the block, handler(number, frame) gets the signals of NAMES.

    A signal that is ignored, as nohup does, stays so. Only the main thread can have signals: in
    another one nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
