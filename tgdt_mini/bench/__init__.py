"""What is fast here, beside what others do with the same arrays in the same process: `python -m
tgdt_mini bench`.

`run` measures everything and gives JSON values, `tables.table` prints them. Nothing else in the
package needs this.
"""

import json
from pathlib import Path

SIZES = (1_000, 10_000, 100_000)
PARTS = {  # what can be measured alone, and the tables that it fills
    "search": ("Search", "Stages"),
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
    """All measurements as JSON values. One thread; minutes, and 10 GB of memory with 100,000
    pictures.

    quick: the smallest size, few repeats, a part of the comparisons: does it run? million_in: a
    folder for a gallery of a million, which is measured if there is one. only: the PARTS to
    measure; the others stay as they are in `before`, an earlier report. Raises ValueError for a
    size below 1,000, an unknown part, or a report of another machine.
    """
    from tgdt_mini.bench import galleries, judged, steps
    from tgdt_mini.bench.measure import machine, one_thread
    from tgdt_mini.bench.million import million

    if min(sizes) < 1000:
        raise ValueError(f"sizes holds {min(sizes)}; each must be at least 1,000 pictures")
    for part in only:
        if part not in PARTS:
            raise ValueError(f"only holds {part!r}; it must be {', '.join(PARTS)}")
    sizes, repeats = (sorted(sizes)[:1], 3) if quick else (sorted(sizes), 5)
    rows = []

    def wanted(part, what):
        if (only and part not in only) or (part == "million" and million_in is None):
            return False
        if progress:
            print(f"measuring {what} ...", flush=True)
        return True

    with one_thread():
        report = {"machine": machine(), "quick": quick, "repeats": repeats}
        kept = _kept(before, report, only)
        report |= kept
        if wanted("search", "searches by caption"):
            report |= {"curves": {}, "missed": {}, "engines": []}
            for size in sizes:
                found = galleries.search_size(size, repeats, engines=size >= 10_000)
                rows += found["rows"]
                report["curves"][str(size)], report["missed"][str(size)] = (
                    found["curve"],
                    found["missed"],
                )
                report["engines"] += found["engines"]
        if wanted("by-image", "searches by image"):
            rows += [row for size in sizes for row in galleries.image_queries(size, repeats)]
        if wanted("gallery", "a gallery on disk"):
            rows += galleries.memory_rows(min(100_000, sizes[-1]), repeats)
        if wanted("scenes", "the shipped model on scenes"):
            first = 100 if quick else None
            *validation, choice = judged.embedded("validation", first)
            report["scenes"] = judged.shortlist_loss(*validation, choice.local_weight)
            *test, _ = judged.embedded("test", first)
            report["precisions"] = judged.precision_costs(*test, choice.local_weight)
            rows += judged.evaluation_rows(*test[:2], repeats)
        if wanted("training", "training"):
            rows += steps.similarity_rows((64,) if quick else (64, 256), repeats)
            rows += steps.step_rows(repeats)
            rows.append(steps.import_row(1 if quick else repeats))
        report["rows"] = kept.get("rows", []) + [row.to_dict() for row in rows]
        if wanted("million", "a million pictures"):
            report["million"] = million(million_in)
    return report


def read(path: Path) -> dict | None:
    """A report as it was written, or None if there is none. ValueError if it is damaged."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); measure everything again, without --only"
        ) from None


def _kept(before, report, only):
    """What an earlier report holds besides the parts that are measured now; ValueError if it is not
    comparable.
    """
    if not only:
        return {}
    for name in ("machine", "quick", "repeats"):
        if before is None or before.get(name) != report[name]:
            found = (
                "no report" if before is None else f"a report of another {name}, {before.get(name)}"
            )
            raise ValueError(
                f"there is {found} to keep the other parts of; measure everything, without --only"
            )
    again = [table for part in only for table in PARTS[part]]
    return before | {"rows": [row for row in before["rows"] if row["table"] not in again]}
