"""The report of `bench.run` in Markdown: every ratio beside its floor, and on what it was
measured.
"""

from tgdt_mini.bench.rows import Row, markdown, number

TABLES = ("Search", "Search by image", "Stages", "Gallery", "Evaluation", "Training")


def table(report: dict) -> str:
    """Everything that a report holds, fresh or read back from JSON."""
    rows, on = [Row(**each) for each in report["rows"]], report["machine"]
    parts = [
        f"{on['processor']}, {on['cores']} cores, {on['system']}, Python {on['python']}, torch {on['torch']}; CPU time "
        f"of one thread, median of {report['repeats']} after a warm-up, what is compared in turns on the same arrays.",
        "Search, Stages, Gallery: generated pictures, 36 regions x 256, captions of 15 words; a global token is the "
        "blurred mean of the local ones. They show how search behaves, not how good a model is. Evaluation: the loop "
        "is given a tenth of the queries, and its time is multiplied.",
    ]
    if report["quick"]:
        parts.append(
            "This was --quick, few repeats of a part: it shows that everything runs, and no figure to quote."
        )
    for name in TABLES:
        some = [row for row in rows if row.table == name]
        parts += [f"**{name}**\n\n{markdown(some)}"] if some else []
    parts.append(
        f"**What a shortlist of K loses of full scoring**\n\n{_missed(report)}\n\n{_enough(report)}"
    )
    if report["engines"]:
        cells = [
            [f"{each['size']:,}", each["engine"], number(each["ms"]), f"{each['recall']:.1f}"]
            for each in report["engines"]
        ]
        parts.append(
            "**The 100 best by global token, by index**\n\n"
            + _cells(["pictures", "index", "ms", "% found"], cells)
        )
    cells = [
        [each["locals"], each["globals"], f"{each['rsum']:.2f}"] for each in report["precisions"]
    ]
    parts.append(
        "**What stored precision costs**, shipped model, test scenes, all scored\n\n"
        + _cells(["locals", "globals", "rsum"], cells)
    )
    if "million" in report:
        parts.append(f"**A million**\n\n{_million(report['million'])}")
    return "\n\n".join(parts)


def _missed(report):
    scenes, lines = report["scenes"], []
    for way, name in (("t2i", "text to image"), ("i2t", "image to text")):
        lines += [
            (f"validation scenes, {name}", f"% of top {top} missed", row)
            for top, row in scenes[way].items()
        ]
    lines.append(("validation scenes", "points of rsum", scenes["rsum"]))
    for size, found in report["missed"].items():
        lines += [
            (f"{int(size):,} generated", f"% of top {top} missed", row)
            for top, row in found.items()
        ]
    shortlists = [f"K {k}" for k in scenes["rsum"]]
    return _cells(
        ["data", "", *shortlists],
        [[data, what, *(f"{value:.1f}" for value in row.values())] for data, what, row in lines],
    )


def _enough(report):
    enough = report["scenes"]["enough"]
    if enough is None:
        return "On validation scenes each of these K loses more than 0.5 points of rsum."
    return f"On validation scenes K {enough} is the smallest of these that loses at most 0.5 points of rsum."


def _million(found):
    cold = f"{_milliseconds(found['cold'])} with nothing in memory, " if found["cold"] else ""
    memory = "not measured here" if found["megabytes"] is None else f"{found['megabytes']:,.0f} MB"
    built, opened = found["built"], found["opened"]
    return (
        f"{found['size']:,} generated pictures ({found['regions']} regions x {found['width']}, "
        f"{found['local_precision']}): {found['bytes'] / 1e9:.1f} GB in {found['segments']} segments, built by "
        f"appending in {built['wall']:.0f} s by the clock ({built['cpu']:.0f} s of CPU time), opened in "
        f"{opened['wall']:.1f} s by the clock ({opened['cpu']:.1f} s of CPU time). One query, K 100: {cold}"
        f"{_milliseconds(found['warm'])} when its pages are there. Memory of searching: {memory}, of which the global "
        f"tokens take {found['globals_megabytes']:,.0f} MB. Among the first ten: {found['found_among_ten']} of "
        f"{found['asked']} described pictures."
    )


def _milliseconds(seconds):
    """Both ways of counting: by the clock a search also waits for the disk, and for whoever else
    uses the machine.
    """
    return f"{1000 * seconds['wall']:,.0f} ms by the clock ({1000 * seconds['cpu']:,.0f} ms of CPU time)"


def _cells(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
