"""How the benchmark measures: processor time of one thread, in turns, and memory.

A time is the CPU time of the process with all its threads, so that other programs on the machine
count little. What is compared runs in turns in one process on the same arrays, and the median
counts. Times of two machines cannot be compared, ratios of one run nearly can.
"""

import os
import platform
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from multiprocessing import get_context
from statistics import median

import torch

from tgdt_mini.bench import THREADS


@contextmanager
def one_thread():
    """Everything inside runs on one thread, in this process and in those that it starts."""
    before, threads = {name: os.environ.get(name) for name in THREADS}, torch.get_num_threads()
    os.environ.update(THREADS)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def cpu_milliseconds(functions: dict, repeats: int = 5, least: float = 0.02) -> dict[str, float]:
    """{name: median CPU milliseconds of a call}, over `repeats` rounds in turns after a warm-up.

    least: seconds of CPU time of one sample; a fast function is called often enough to fill them.
    """
    calls, samples = {}, {name: [] for name in functions}
    for name, function in functions.items():
        function()
        began = time.process_time()
        function()
        calls[name] = max(1, int(least / max(time.process_time() - began, 1e-6)))
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.process_time()
            for _ in range(calls[name]):
                function()
            samples[name].append(1000 * (time.process_time() - began) / calls[name])
    return {name: median(values) for name, values in samples.items()}


def speed() -> dict[str, float]:
    """What one thread can do at best: {"read": GB/s of memory, "multiply": GFLOP/s of float32}."""
    numbers, square = torch.ones(2**26), torch.ones(1024, 1024)  # 268 MB; 4 MB
    times = cpu_milliseconds({"read": numbers.sum, "multiply": lambda: square @ square})
    return {
        "read": 4 * numbers.numel() / 1e6 / times["read"],
        "multiply": 2 * 1024**3 / 1e6 / times["multiply"],
    }


def in_fresh_process(function, *arguments):
    """What a function of a module returns when a new process calls it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def megabytes_of(function) -> float | None:
    """The most memory that a call adds to the process, in MB of 10^6 bytes, sampled each ms.

    Memory that holds a file's pages does not count: the system can take it back. Call this once,
    in a fresh process, since memory that was freed before can be used again. None where Linux's
    /proc, which tells it, is missing.
    """
    before = _anonymous_bytes()
    if before is None:
        return None
    most, done = [before], threading.Event()

    def watch():
        while not done.wait(0.001):
            most[0] = max(most[0], _anonymous_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        function()
    finally:
        done.set()
        thread.join()
    return (max(most[0], _anonymous_bytes()) - before) / 1e6


def _anonymous_bytes():
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return None


def version(package: str) -> str | None:
    """An installed package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict:
    """The processor, the system and the versions that a report is from."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "faiss-cpu": version("faiss-cpu"),
        "maxsim-cpu": version("maxsim-cpu"),
    }


def _processor():
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
