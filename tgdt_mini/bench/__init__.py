"""Measure what is fast here, and others' code on the same arrays: `python -m tgdt_mini bench`.

`run` gives everything as JSON values, `tables.table` prints it. The package needs none of this.
"""

import os
from pathlib import Path

# what numpy's and others' libraries read when they are loaded; `one_thread` sets torch's own
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
THREADS = dict.fromkeys(THREADS, "1")
SIZES = (1_000, 10_000, 100_000)  # pictures
BYTES = 100_000  # of memory that a picture takes, in all forms that are compared
PARTS = {  # what can be measured by itself, and the tables that it fills
    "search": ("Search", "Ten lines", "Stages"),
    "by-image": ("Search by image",),
    "gallery": ("Gallery",),
    "scenes": ("Evaluation",),
    "training": ("Training",),
    "million": (),
}


def run(
    sizes=SIZES,
    quick: bool = False,
    million_in: Path | None = None,
    progress: bool = True,
    only: tuple[str, ...] = (),
    before: dict | None = None,
) -> dict:
    """All measurements as JSON values.

    They take minutes, one thread and, for 100,000 pictures, 10 GB of memory. quick: the smallest
    size, few repeats, a part of the comparisons: does it run? million_in: a folder for a gallery of
    a million, measured only if given. only: the PARTS to measure; the others stay as they are in
    `before`, an earlier report. Raises ValueError for a size below 1,000 or too large for this
    machine's memory, an unknown part, or a report that cannot be compared with this one.
    """
    from tgdt_mini.bench.measure import machine, one_thread, speed

    if min(sizes) < 1000:
        raise ValueError(f"sizes holds {min(sizes)}; each must be at least 1,000 pictures")
    if max(sizes) * BYTES > (room := _memory()):
        raise ValueError(
            f"sizes holds {max(sizes)}, which needs {max(sizes) * BYTES / 1e9:,.0f} GB of memory, "
            f"and there are {room / 1e9:,.0f}; give smaller ones"
        )
    for part in only:
        if part not in PARTS:
            raise ValueError(f"only holds {part!r}; it must be {', '.join(PARTS)}")
    sizes, repeats = (sorted(sizes)[:1], 3) if quick else (sorted(sizes), 5)
    with one_thread():
        report = {"machine": machine(), "quick": quick, "repeats": repeats}
        report |= _kept(before, report, only)
        if "speed" not in report:
            report["speed"] = speed()
        rows = report.pop("rows", [])
        for part in PARTS:
            if part not in (only or PARTS) or (part == "million" and million_in is None):
                continue
            if progress:
                print(f"measuring {part} ...", flush=True)
            measured = _measure(part, sizes, quick, repeats, million_in, report["speed"])
            rows += [row.to_dict() for row in measured.pop("rows", [])]
            report |= measured
    return report | {"rows": rows}


def _memory():
    """The bytes of memory of this machine; infinite where that is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return float("inf")


def _measure(part, sizes, quick, repeats, million_in, speed):
    """A part of the report: {"rows": [Row]} and whatever else its tables and figures show."""
    from tgdt_mini.bench import disk, galleries, judged, steps

    if part == "search":
        report = {"rows": [], "curves": {}, "missed": {}, "engines": []}
        for size in sizes:
            measured = galleries.search_size(size, speed, repeats, engines=size >= 10_000)
            report["rows"] += measured["rows"]
            report["engines"] += measured["engines"]
            report["curves"][str(size)] = measured["curve"]
            report["missed"][str(size)] = measured["missed"]
        return report
    if part == "by-image":
        return {"rows": [row for size in sizes for row in galleries.image_queries(size, repeats)]}
    if part == "gallery":
        return {"rows": disk.memory_rows(min(100_000, sizes[-1]), repeats)}
    if part == "scenes":
        first = 100 if quick else None
        *validation, settings = judged.embedded("validation", first)
        images, captions, *_ = judged.embedded("test", first)
        return {
            "scenes": judged.shortlist_loss(*validation, settings.local_weight),
            "rows": judged.evaluation_rows(images, captions, repeats),
        }
    if part == "training":
        rows = steps.similarity_rows((64,) if quick else (64, 256), repeats)
        return {
            "rows": rows + steps.step_rows(repeats) + [steps.import_row(1 if quick else repeats)]
        }
    return {"million": disk.million(million_in)}


def read(path: Path) -> dict | None:
    """A report as it was written, or None if there is none. ValueError if it is damaged."""
    from tgdt_mini.files.manifest import read_json

    cure = "measure everything again, without --only"
    return read_json(path, {}, "report", cure, sealed=None) if path.is_file() else None


def _kept(before, report, only):
    """The parts of an earlier report that are not measured now; ValueError if none can be kept."""
    if not only:
        return {}
    for name in ("machine", "quick", "repeats"):
        if before is None or before.get(name) != report[name]:
            other = before and f"its {name} is {before.get(name)}, not {report[name]}"
            reason = other or "there is none"
            raise ValueError(
                f"--only keeps the rest of an earlier report, but {reason}; "
                "measure everything, without --only"
            )
    again = [table for part in only for table in PARTS[part]]
    return before | {"rows": [row for row in before["rows"] if row["table"] not in again]}
