"""The report of `bench.run` in Markdown: each ratio with its limit, and the machine it is from."""

from tgdt_mini.bench import rows
from tgdt_mini.bench.rows import Row, number
from tgdt_mini.reports import markdown

TABLES = ("Search", "Search by image", "Ten lines")
TABLES += ("Stages", "Gallery", "Evaluation", "Training")
QUICK = "This was --quick: it shows that everything runs, and no figure to quote."
NOTE = (
    "Search, Ten lines, Stages, Gallery: generated pictures, 36 regions x 256, captions of 15 "
    "words; a global token is the blurred mean of the local ones. They show how search behaves, "
    "not how good a model is. Evaluation: the loop is given a tenth of the queries, and its time "
    "is multiplied."
)


def table(report: dict) -> str:
    """The whole report, fresh or read back from JSON."""
    machine = report["machine"]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, torch {machine['torch']}; CPU time of one thread, median of "
        f"{report['repeats']} after a warm-up, what is compared in turns on the same arrays.",
        NOTE,
        f"Limit: what reading the bytes and multiplying the numbers takes at best, at "
        f"{report['speed']['read']:.0f} GB/s and {report['speed']['multiply']:.0f} GFLOP/s of "
        "float32, which one thread reached here; and how many times that a search took.",
    ]
    if report["quick"]:
        parts.append(QUICK)
    for name in TABLES:
        measured = [Row(**row) for row in report["rows"] if row["table"] == name]
        if measured:
            parts.append(f"**{name}**\n\n{rows.table(measured)}")
    parts.append(f"**What a shortlist of K loses of full scoring**\n\n{_missed(report)}")
    if report["engines"]:
        cells = [
            (f"{row['size']:,}", row["engine"], number(row["ms"]), f"{row['recall']:.1f}")
            for row in report["engines"]
        ]
        heads = ("pictures", "index", "ms", "% found")
        parts.append(
            f"**The 100 best by global token, by index**\n\n{markdown.table(heads, cells)}"
        )
    if "million" in report:
        parts.append(f"**A million**\n\n{_million(report['million'])}")
    return "\n\n".join(parts)


def _missed(report):
    """Percent of the best answers that are not in the shortlist, and points of rsum."""
    scenes = report["scenes"]
    shares = {
        "validation scenes, text to image": scenes["t2i"],
        "validation scenes, image to text": scenes["i2t"],
    } | {f"{int(size):,} generated": by_top for size, by_top in report["missed"].items()}
    rows = {("validation scenes", "points of rsum"): scenes["rsum"]} | {
        (data, f"% of top {top} missed"): row
        for data, by_top in shares.items()
        for top, row in by_top.items()
    }
    cells = [(*names, *(f"{lost:.1f}" for lost in row.values())) for names, row in rows.items()]
    heads = ("data", "", *(f"K {k}" for k in scenes["rsum"]))
    enough = (
        "each of these K loses more than 0.5 points of rsum."
        if scenes["enough"] is None
        else f"K {scenes['enough']} is the smallest of these that loses at most 0.5 points of rsum."
    )
    return f"{markdown.table(heads, cells)}\n\nOn validation scenes {enough}"


def _million(figures):
    """What was built, and its times: the clock also counts the waiting for the disk."""
    names = {
        "built": "built, by appending",
        "opened": "opened",
        "cold": "one query, K 100, no file in memory",
        "warm": "one query, K 100, its pages in memory",
    }
    cells = [
        (name, number(figures[part]["wall"]), number(figures[part]["cpu"]))
        for part, name in names.items()
        if figures[part]
    ]
    memory = "not measured" if figures["megabytes"] is None else f"{figures['megabytes']:,.0f} MB"
    return (
        f"{figures['size']:,} generated pictures ({figures['regions']} regions x "
        f"{figures['width']}, {figures['local_precision']}): {figures['bytes'] / 1e9:.1f} GB in "
        f"{figures['shards']} shards. Memory of searching: {memory}, of which the global "
        f"tokens take {figures['globals_megabytes']:,.0f} MB. Among the first ten: "
        f"{figures['found_among_ten']} of {figures['asked']} described pictures.\n\n"
        + markdown.table(("a million", "s by the clock", "s of CPU time"), cells)
    )


def gpu_table(report: dict) -> str:
    """The report of `gpu.run`, fresh or read back from JSON."""
    machine = report["machine"]
    memory = f"{machine['memory']:g} GB, CUDA {machine['cuda']}, " if "cuda" in machine else ""
    parts = [
        f"{machine['device']}, {memory}torch {machine['torch']}, Python {machine['python']}, "
        f"{machine['cores']} cores of {machine['processor']}; seconds by the clock, median of five "
        "after a warm-up."
    ]
    if report["quick"]:
        parts.append(QUICK)
    heads = ("model", "parameters", "batch", "precision", "steps a second", "pairs a second")
    heads += ("most memory", "operations a step", "GPU busy")
    parts.append(f"**Training**\n\n{markdown.table(heads, map(_gpu_steps, report['steps']))}")
    kinds = [f"{what} {name}" for what in ("pictures", "captions") for name in ("fp32", "bf16")]
    cells = [
        (row["model"], row["batch"], *(f"{row[kind]:,.0f}" for kind in kinds))
        for row in report["encoding"]
    ]
    heads = ("model", "batch", *(f"{kind}, a second" for kind in kinds))
    parts.append(f"**Encoding**\n\n{markdown.table(heads, cells)}")
    search = report["search"]
    cells = [
        (
            f"{row['queries']:,}",
            f"{number(1000 * row['two_stage'])} ms",
            f"{number(1000 * row['everything'])} ms",
            number(row["everything"] / row["two_stage"]),
        )
        for row in search["rows"]
    ]
    heads = ("captions together", "two stages, each", "scoring everything, each", "ratio")
    parts.append(
        f"**Search** among {search['size']:,} generated pictures, float16, "
        f"{search['bytes'] / 1e9:.1f} GB on the device, K {search['shortlist']}\n\n"
        f"{markdown.table(heads, cells)}"
    )
    return "\n\n".join(parts)


def _gpu_steps(row):
    """A row of steps as text."""
    precision = row["precision"] + (", compiled" if row["compiled"] else "")
    return (
        row["model"],
        f"{row['parameters'] / 1e6:,.1f} million",
        row["batch"],
        precision,
        number(1 / row["seconds"]),
        number(row["batch"] / row["seconds"]),
        "" if row["peak"] is None else f"{row['peak'] / 1e9:.2f} GB",
        "" if row["operations"] is None else f"{row['operations']:,.0f}",
        "" if row["busy"] is None else f"{100 * row['busy'] / row['seconds']:.0f}%",
    )
