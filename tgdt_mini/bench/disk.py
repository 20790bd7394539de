"""A generated gallery on disk: its bytes, opening it, the memory of a search; and a million."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from tgdt_mini.bench.galleries import QUERIES, REGIONS, SHORTLIST, WEIGHT, WIDTH, WORDS
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.measure import cpu_milliseconds, in_fresh_process, megabytes_of
from tgdt_mini.bench.rows import Row
from tgdt_mini.search.gallery import Gallery

NAME = "pictures/{:08d}.jpg"  # of an item


def memory_rows(size: int, repeats: int = 5) -> list[Row]:
    """Bytes of a gallery on disk, how long it takes to open, and the memory that searches need."""
    rows = []
    for local, global_, number_bytes in (("float16", "float32", 4), ("int8", "float16", 2)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery"
            grow(path, Pictures(size, REGIONS, WIDTH), local, global_, block=10_000)
            stored = bytes_in(path)
            opened = cpu_milliseconds({"": lambda path=path: Gallery.load(path)}, repeats)[""]
            megabytes = in_fresh_process(search_megabytes, path, WIDTH)
        name = f"{size:,} images, locals {local}, globals {global_}"
        in_memory = size * WIDTH * number_bytes / 1e6
        memory = f"{name}: memory of searching (globals: {in_memory:.0f} MB)"
        at_most = 1.0 if size == 100_000 else None
        rows += [
            Row("Gallery", f"{name}: on disk, an image", stored / size / 1000, "kB"),
            Row("Gallery", f"{name}: opened in", opened / 1000, "s of CPU time", at_most=at_most),
            Row("Gallery", memory, megabytes, "MB", at_most=in_memory + 300),
        ]
    return rows


def grow(path: Path, pictures: Pictures, local="float16", global_="float32", block=50_000) -> None:
    """Write a gallery of pictures, of which no more than a block is ever in memory."""
    precisions = {"local_precision": local, "global_precision": global_}
    for start in range(0, pictures.size, block):
        end = min(start + block, pictures.size)
        items = [NAME.format(i) for i in range(start, end)]
        part = Gallery.build(pictures.images(start, end), items, **precisions)
        part.append(path) if start else part.save(path)


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def search_megabytes(path: Path, width: int) -> float | None:
    """Memory of opening a gallery and searching it, one caption at a time and all together."""
    captions = Pictures(1000, REGIONS, width).captions(torch.arange(QUERIES), WORDS)

    def use():
        gallery = Gallery.load(path)
        for i in range(8):
            gallery.search(captions[[i]], 10, SHORTLIST, WEIGHT)
        gallery.search(captions, 10, 200, WEIGHT)

    return megabytes_of(use)


def million(folder: Path, size: int = 1_000_000, width: int = 128) -> dict:
    """Figures of a gallery as wide as `mini`, which is deleted afterwards; times are medians.

    "cold": the first search of each query after the system was asked to drop the files from memory
    (Linux only, else None); "warm": the same queries again. Raises ValueError if the disk has less
    than twice the space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = 2 * size * REGIONS * width, shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.0f} GB free; a gallery of {needed / 1e9:.0f} GB needs "
            "twice that: choose another --out"
        )
    pictures = Pictures(size, REGIONS, width)
    wanted = torch.arange(QUERIES) * (size // QUERIES)
    captions = pictures.captions(wanted, WORDS)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "gallery"
        _, built = _timed(grow, path, pictures)
        dropped = _drop_from_memory(path)
        gallery, opened = _timed(Gallery.load, path)
        (_, cold), _, (items, warm) = [_search_all(gallery, captions) for _ in range(3)]
        figures = {"bytes": bytes_in(path), "shards": len(gallery.stored.rows.arrays)}
        del gallery
        figures["megabytes"] = in_fresh_process(search_megabytes, path, width)
    names = [NAME.format(row) for row in wanted.tolist()]
    return figures | {
        "size": size,
        "regions": REGIONS,
        "width": width,
        "local_precision": "float16",
        "built": built,
        "opened": opened,
        "cold": cold if dropped else None,
        "warm": warm,
        "found_among_ten": sum(name in hits for name, hits in zip(names, items)),
        "asked": len(names),
        "globals_megabytes": size * width * 4 / 1e6,
    }


def _timed(function, *arguments):
    """What a call returns, and its seconds, by the clock and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _search_all(gallery, captions):
    """The ten best items of each caption, and the median seconds of a search."""
    settings = 10, SHORTLIST, WEIGHT
    runs = [_timed(gallery.search, captions[[i]], *settings) for i in range(len(captions))]
    seconds = {name: median(times[name] for _, times in runs) for name in ("wall", "cpu")}
    return [hits.items[0] for hits, _ in runs], seconds


def _drop_from_memory(folder):
    """Ask the system to keep a folder's arrays no longer in memory; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
