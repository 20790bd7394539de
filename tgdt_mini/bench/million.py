"""A million generated pictures: built by appending, opened, searched. Takes minutes and gigabytes:
only when asked.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from tgdt_mini.bench.galleries import ASKED, REGIONS, WEIGHT, WORDS, K, grow, search_megabytes
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import in_fresh_process
from tgdt_mini.search.gallery import Gallery

SIZE, WIDTH = 1_000_000, 128  # 36 regions, as in the paper's data; the width of `mini`


def million(
    folder: Path, size: int = SIZE, width: int = WIDTH, local_precision: str = "float16"
) -> dict:
    """Figures of one gallery, which is deleted afterwards. Seconds by the clock and of CPU time, MB
    of 10^6 bytes.

    "cold": the first search of each query after the system was asked to forget the files (Linux
    only), "warm": the same queries again. Raises ValueError when the disk has not twice the space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = size * REGIONS * width * (2 if local_precision == "float16" else 1)
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.0f} GB free; a gallery of {needed / 1e9:.0f} GB needs twice that"
        )
    pictures = Pictures(size, REGIONS, width)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "gallery"
        began = time.perf_counter(), time.process_time()
        grow(path, pictures, local_precision)
        built = _since(began)
        stored = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        segments = sum(each.is_dir() for each in path.iterdir())
        forgotten = _forget(path)
        began = time.perf_counter(), time.process_time()
        gallery = Gallery.load(path)
        opened = _since(began)
        asked = pictures.captions(torch.arange(ASKED) * (size // ASKED), WORDS)
        cold = [_search(gallery, asked[[i]]) for i in range(ASKED)] if forgotten else []
        warm = [_search(gallery, asked[[i]]) for _ in range(2) for i in range(ASKED)][ASKED:]
        found = sum(
            f"pictures/{i * (size // ASKED):08d}.jpg" in _best(gallery, asked[[i]])
            for i in range(ASKED)
        )
        del gallery
        megabytes = in_fresh_process(search_megabytes, path, width)
    names = ("wall", "cpu")
    return {
        "size": size,
        "regions": REGIONS,
        "width": width,
        "local_precision": local_precision,
        "segments": segments,
        "bytes": stored,
        "built": dict(zip(names, built)),
        "opened": dict(zip(names, opened)),
        "cold": {name: median(each[i] for each in cold) for i, name in enumerate(names)}
        if cold
        else None,
        "warm": {name: median(each[i] for each in warm) for i, name in enumerate(names)},
        "found_among_ten": found,
        "asked": ASKED,
        "globals_megabytes": size * width * 4 / 1e6,
        "megabytes": megabytes,
    }


def _search(gallery, query):
    began = time.perf_counter(), time.process_time()
    gallery.search(query, 10, K, WEIGHT)
    return _since(began)


def _best(gallery, query):
    return gallery.search(query, 10, K, WEIGHT).items[0]


def _since(began):
    return time.perf_counter() - began[0], time.process_time() - began[1]


def _forget(path):
    """Ask the system to drop a folder's files from its cache; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for each in path.rglob("*.npy"):
        with each.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
