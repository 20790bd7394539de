"""What is fast here, beside what others do with the same arrays in the same process: `python -m tgdt_mini bench`.

`run` measures everything and gives JSON values, `tables.table` prints them. Nothing else in the package needs this.
"""

from pathlib import Path

SIZES = (1_000, 10_000, 100_000)


def run(sizes=SIZES, quick: bool = False, million_in: Path | None = None, progress: bool = True) -> dict:
    """All measurements as JSON values. One thread; minutes, and 10 GB of memory with 100,000 pictures.

    quick: the smallest size, few repeats, a part of the comparisons: does it run? million_in: a folder for a gallery of
    a million. Raises ValueError for a size below 1,000.
    """
    from tgdt_mini.bench import judged, search, training
    from tgdt_mini.bench.measure import machine, one_thread
    from tgdt_mini.bench.million import million

    if min(sizes) < 1000:
        raise ValueError(f"sizes holds {min(sizes)}; each must be at least 1,000 pictures")
    sizes, repeats = (sorted(sizes)[:1], 3) if quick else (sorted(sizes), 5)

    def tell(what):
        if progress:
            print(f"measuring {what} ...", flush=True)

    with one_thread():
        report = {"machine": machine(), "quick": quick, "repeats": repeats, "curves": {}, "missed": {}, "engines": []}
        rows = []
        for size in sizes:
            tell(f"searches of {size:,} pictures")
            found = search.search_size(size, repeats, engines=size >= 10_000)
            rows += found["rows"] + search.image_queries(size, repeats)
            report["curves"][str(size)], report["missed"][str(size)] = found["curve"], found["missed"]
            report["engines"] += found["engines"]
        tell("a gallery on disk")
        rows += search.memory_rows(min(100_000, sizes[-1]), repeats)
        tell("the shipped model on scenes")
        first = 100 if quick else None
        *validation, choice = judged.embedded("validation", first)
        report["scenes"] = judged.shortlist_loss(*validation, choice.local_weight)
        *test, _ = judged.embedded("test", first)
        report["precisions"] = judged.precision_costs(*test, choice.local_weight)
        rows += judged.evaluation_rows(*test[:2], repeats)
        tell("training")
        rows += training.similarity_rows((64,) if quick else (64, 256), repeats)
        rows += training.step_rows(repeats)
        rows.append(training.import_row(1 if quick else repeats))
        report["rows"] = [row.to_dict() for row in rows]
        if million_in:
            tell("a million pictures")
            report["million"] = million(million_in)
    return report
