"""Curves and bars: training, shortlists, times, and scores beside each other."""

from pathlib import Path

import numpy as np

from tgdt_mini.reports.figure import COLOURS, figure


def loss_curve(history: list[dict], path: Path | str | None = None) -> None:
    """Loss and its parts, and validation rsum, over the epochs; a line where the negatives change.

    A part that is 0, or switched off, has a gap there. One that never is a hundredth of the loss
    has no curve: it would press all others together.
    """
    from matplotlib.ticker import LogLocator

    epochs = [row["epoch"] for row in history]
    turns = [
        after["epoch"] - 0.5
        for before, after in zip(history, history[1:])
        if (before["contrastive"], before["stage"]) != (after["contrastive"], after["stage"])
    ]
    alt = (
        "Left, the training loss and its parts over the epochs; right, validation rsum by global, "
        "local, mixed score."
    )
    parts = (
        ("loss", "total", "black"),
        ("inter_global", "inter, global", COLOURS["global"]),
        ("inter_local", "inter, local", COLOURS["local"]),  # dashed: the two may be equal
        ("inter_mixed", "inter, mixed", COLOURS["mixed"]),
        ("intra", "intra", "#cc79a7"),
        ("hard_caption_loss", "hard captions", "#d55e00"),
    )
    with figure(path, 10, 3.6, alt, columns=2) as axes:
        left, right = axes[0]
        for name, label, colour in parts:
            values = [row.get(name) or np.nan for row in history]  # a log scale has no 0
            if any(value >= 0.01 * row["loss"] for value, row in zip(values, history)):
                style = "--" if name == "inter_local" else "-"
                left.plot(epochs, values, style, label=label, color=colour, marker=".")
        for name in ("global", "local", "mixed"):
            rsums = [row[f"rsum_{name}"] for row in history]
            right.plot(epochs, rsums, label=name, color=COLOURS[name], marker=".")
        left.set(ylabel="training loss", title="What training minimises", yscale="log")
        left.yaxis.set_major_formatter("{x:g}")
        low, high = left.get_ylim()
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        left.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")
        right.set(ylabel="validation rsum (of 600)", title="What it is for")
        for ax in (left, right):
            ax.set_xlabel("epoch")
            for turn in turns:
                ax.axvline(turn, color="grey", linestyle="--", linewidth=1)
        left.legend(frameon=True, ncols=2, fontsize=9)
        right.legend(frameon=True)


def shortlist_curve(report: dict, path: Path | str | None = None) -> None:
    """rsum of two-stage search by shortlist, between global only and scoring everything."""
    curve = {int(k): value for k, value in report["two_stage_by_shortlist"].items()}
    alt = "rsum of two-stage search rising with the shortlist towards full scoring."
    sizes, rsums = list(curve), list(curve.values())
    lines = (
        ("global", "global only", COLOURS["global"], ":"),
        ("full mixed", "scoring everything", "black", "--"),
    )
    with figure(path, 6.5, 3.8, alt) as ax:
        ax.plot(sizes, rsums, color=COLOURS["two-stage"], marker="o", label="two-stage")
        for name, label, colour, style in lines:
            ax.axhline(report["rows"][name]["rsum"], color=colour, linestyle=style, label=label)
        ax.set(xscale="log", xlabel="shortlist size", ylabel="rsum (of 600)")
        ax.set_title("How long a shortlist is enough?")
        ax.set_xticks(sizes, [str(k) for k in sizes])
        ax.minorticks_off()
        ax.legend(frameon=True)


def search_times(report: dict, path: Path | str | None = None) -> None:
    """Agreement with full scoring by milliseconds a query: a line a gallery, a point a shortlist.

    report: of `bench.run`, fresh or read back from JSON. A star stands where everything is scored.
    """
    colours = ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7")
    alt = (
        "Agreement with full scoring against time: for each gallery a line that rises with K, and "
        "a star far right."
    )
    with figure(path, 7.5, 4, alt) as ax:
        for colour, (size, curve) in zip(colours, report["curves"].items()):
            points = curve["two-stage"]
            times, shares = ([point[name] for point in points] for name in ("ms", "agreement"))
            ax.plot(times, shares, color=colour, marker="o", label=f"{int(size):,} pictures")
            ax.plot(curve["full"], 100, color=colour, marker="*", markersize=14)
            lengths = [point["shortlist"] for point in points]
        star = dict(color="grey", marker="*", markersize=12, linestyle="")
        ax.plot([], [], **star, label="everything scored")
        ax.set(xscale="log", ylim=(None, 105), xlabel="CPU milliseconds a query")
        ends = f"{min(lengths)} to {max(lengths)}"
        ax.set(ylabel="ten best answers found (%)", title=f"Along each line K grows from {ends}")
        ax.legend(frameon=True, loc="lower right")


def comparison(report: dict, path: Path | str | None = None) -> None:
    """R@1 both ways of global, local and two-stage scoring, with the oracle's."""
    alt = (
        "Bars of R@1 both ways for global, local and two-stage scoring; a dashed line is the "
        "oracle's."
    )
    with figure(path, 7, 3.4, alt) as ax:
        for i, name in enumerate(("global", "local", "two-stage")):
            values = [_recall(report["rows"][name][way], 1) for way in ("i2t", "t2i")]
            x = np.arange(2) + 0.26 * (i - 1)
            bars = ax.bar(x, values, 0.24, color=COLOURS[name], label=name)
            ax.bar_label(bars, fmt="%.1f", fontsize=9)
        if "oracle" in report:
            for place, way in enumerate(("i2t", "t2i")):
                oracle, ends = [_recall(report["oracle"][way], 1)] * 2, [place - 0.42, place + 0.42]
                label = None if place else "oracle"
                ax.plot(ends, oracle, color="black", linestyle="--", label=label)
        ax.set_xticks(range(2), ["image to text", "text to image"])
        ax.set(ylabel="R@1 (%)", ylim=(0, 105), title="The first answer is right")
        ax.grid(axis="x", visible=False)
        ax.legend(frameon=True, loc="center left", bbox_to_anchor=(1, 0.5))


def _recall(recalls, k):
    """R@k of a report that is fresh (int keys) or read back from JSON (str keys)."""
    return recalls[k] if k in recalls else recalls[str(k)]
