"""Write the stored figures into the pages again: `python docs/refresh.py [--check]`.

A table between the marks `<!-- NAME -->` and `<!-- end of NAME -->` comes from the reports in
data/results/. docs/architecture.png, data/searches.png and data/photographs/searches.png are drawn
again. --check writes nothing; the exit code is 1 if a page differs from the reports.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from PIL import Image

from tgdt_mini import Gallery, bench, cli, load_model, scenes
from tgdt_mini.bench import tables as bench_tables
from tgdt_mini.bench.rows import number
from tgdt_mini.encoding import encode_texts
from tgdt_mini.reports import plots
from tgdt_mini.reports.architecture import architecture
from tgdt_mini.runs import ablations
from tgdt_mini.runs.samples import sample_captions, sample_gallery, sample_photographs

TOP = Path(__file__).resolve().parent.parent
RESULTS = TOP / "data" / "results"
SHOWN = ", two stages from disk, K 100"  # ends the rows of the benchmark that README shows
ASKED = (5, 15, 20, 30)  # captions of the test scenes, chosen because they succeed
WAYS = ("from disk", "from disk, compact", "ten lines around faiss")
SHIPPED = RESULTS / "default-0.json"  # the report of the model in data/weights/
SHIPPED_FOR_PHOTOGRAPHS = RESULTS / "photographs" / "default" / "default-0.json"


def tables() -> dict[tuple[str, str], str]:
    """{(page, mark): Markdown} of every table that the stored reports and the commands give."""
    report = bench.read(RESULTS / "bench.json")
    default = ablations.table(ablations.read(RESULTS))
    photographs = RESULTS / "photographs"
    return {
        ("README.md", "results"): default,
        ("README.md", "speed"): speed(report),
        ("docs/results.md", "results"): default,
        ("docs/results.md", "ablations"): ablations.table(ablations.read(RESULTS / "ablations")),
        ("docs/results.md", "photographs"): ablations.table(
            ablations.read(photographs / "default")
        ),
        ("docs/results.md", "photograph ablations"): ablations.table(
            ablations.read(photographs / "ablations")
        ),
        ("docs/benchmark.md", "bench"): bench_tables.table(report),
        ("docs/benchmark.md", "gpu"): bench_tables.gpu_table(bench.read(RESULTS / "gpu.json")),
        ("data/weights/README.md", "figures"): figures_of_one_model(SHIPPED),
        ("data/weights/photographs/README.md", "figures"): figures_of_one_model(
            SHIPPED_FOR_PHOTOGRAPHS
        ),
        ("docs/commands.md", "options"): options(),
    }


def options() -> str:
    """Every option of every command, as `--help` explains it; first those that all of them have."""
    top = next(action for action in cli.parser()._actions if action.choices)
    commands = {
        name: {option: text for option, text in map(explained, parser._actions) if text}
        for name, parser in top.choices.items()
    }
    train, *others = commands["train"], *commands.values()
    shared = {option: text for option, text in train.items() if all(option in o for o in others)}
    shared = {option: text.replace("runs/train", "runs/COMMAND") for option, text in shared.items()}
    parts = [f"## All commands\n\n{option_table(shared)}"]
    for choice in top._choices_actions:
        own = {o: text for o, text in commands[choice.dest].items() if o not in shared}
        listed = option_table(own)
        if choice.dest != "train" and own.items() <= train.items():
            names = ", ".join(f"`{option.split()[0]}`" for option in own)
            listed = f"It takes these options of `train`: {names}.\n"
        parts.append(f"## `{choice.dest}`\n\n{choice.help}\n\n{listed}")
    return "\n".join(parts).rstrip("\n")


def option_table(rows: dict[str, str]) -> str:
    lines = [f"| `{option}` | {text} |\n" for option, text in rows.items()]
    return "| option | what it does |\n|---|---|\n" + "".join(lines)


def explained(action) -> tuple[str, str]:
    """(an option as one types it, its help in Markdown); no help for one that is hidden."""
    name, text = (action.option_strings or [action.dest])[-1], action.help
    if action.nargs != 0 and action.option_strings:
        value = "\\|".join(map(str, action.choices)) if action.choices else action.metavar
        name += f" {value or action.dest.upper()}" + " ..." * (action.nargs == "+")
    if not text or text == argparse.SUPPRESS:
        return name, ""
    text = (text % {"default": action.default}).replace("|", "\\|").replace("*", "\\*")
    return name, text


def speed(report: dict) -> str:
    """Milliseconds of one caption query, in galleries of each size: README's short table."""
    lines = [f"| images | {' | '.join(WAYS)} | scoring everything |", "|---" * 5 + "|"]
    full = {row["what"]: row["theirs"] for row in report["rows"] if row["table"] == "Search"}
    for what, everything in full.items():
        if what.endswith(SHOWN):
            size = what.split(" images")[0]
            rows = [
                row
                for row in report["rows"]
                if row["table"] == "Ten lines"
                and row["what"].startswith(f"{size} images, from disk")
                and row["peer"].endswith("mapped")
            ]
            times = [row["ours"] for row in rows] + [rows[0]["theirs"], everything]
            lines.append(f"| {size} | {' | '.join(f'{number(time)} ms' for time in times)} |")
    return "\n".join(lines)


def figures_of_one_model(path: Path) -> str:
    """The test figures of a shipped model, by each way of scoring: its model card's table."""
    report = json.loads(path.read_text(encoding="utf-8"))
    heads = [f"{way} R@{k}" for way in ("image→text", "text→image") for k in (1, 5, 10)]
    heads += ["rsum"] + ["hard pairs"] * ("hard_pairs" in report)
    lines = [f"| scored by | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name in ("global", "local", "two-stage"):
        row = report["rows"][name]
        recalls = [f"{value:.1f}" for way in ("i2t", "t2i") for value in row[way].values()]
        cells = [*recalls, f"{row['rsum']:.1f}"]
        if "hard_pairs" in report:
            cells.append(f"{report['hard_pairs'][name]:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def inside(text: str, mark: str) -> str:
    """What a page holds between the marks of a table. ValueError if they are not there once."""
    found = re.findall(rf"<!-- {mark} -->\n(.*?)<!-- end of {mark} -->", text, re.S)
    if len(found) != 1:
        raise ValueError(f"the marks of the table {mark!r} are there {len(found)} times, not once")
    return found[0].strip()


def with_table(text: str, mark: str, table: str) -> str:
    """The page with another table between the marks."""
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    head, rest = text.split(start)
    return f"{head}{start}{table}\n{end}{rest.split(end, 1)[1]}"


def scene_searches(path: Path, asked=ASKED, k: int = 5) -> list[bool]:
    """Draw searches of the shipped scenes by test captions; whether each found its own first."""
    texts = [caption for own in scenes.captions_of("test") for caption in own]
    model, true = load_model(TOP / "data" / "weights"), scenes.truth("test")  # (I, C)
    captions = encode_texts(model, [texts[row] for row in asked])
    hits = Gallery.load(TOP / "data" / "gallery").search(captions, k)
    shown = [[scenes.picture(item) for item in items] for items in hits.items]
    found = zip(asked, hits.indices.tolist())
    marks = [plots.marks(places, row // 5, true[:, row]) for row, places in found]
    plots.hits([texts[row] for row in asked], shown, marks, None, path)
    _smaller(path)
    return [row[0] == "own" for row in marks]


def photograph_searches(path: Path, asked=(2, 12, 7, 1), k: int = 5) -> list[bool]:
    """Draw searches of the shipped photographs by their own captions; whether each came first.

    asked: the numbers of the captions, one of which is chosen because it fails.
    """
    records, (texts, captions) = sample_photographs(), sample_captions()
    hits = sample_gallery().search(captions[list(asked)], k)
    pictures = {record["image_id"]: record["image"] for record in records}
    right = [
        [item == records[row]["image_id"] for item in items]
        for row, items in zip(asked, hits.items)
    ]
    shown = [[pictures[item] for item in items] for items in hits.items]
    plots.hits([texts[row] for row in asked], shown, right, hits.scores.tolist(), path)
    _smaller(path)
    return [ticks[0] for ticks in right]


def _smaller(path):
    """Store a drawn picture in a third of the bytes; no colour becomes another one."""
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, 2, dither=0)
    small.save(path, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    changed = []
    for (page, mark), table in tables().items():
        text = (TOP / page).read_text(encoding="utf-8")
        if inside(text, mark) != table:
            changed.append(f"{page}: {mark}")
            if not args.check:
                text = with_table(text, mark, table)
                (TOP / page).write_text(text, encoding="utf-8", newline="\n")
    if not args.check:
        architecture(TOP / "docs" / "architecture.png")
        scene_searches(TOP / "data" / "searches.png")
        photograph_searches(TOP / "data" / "photographs" / "searches.png")
    print(*changed, f"{len(changed)} tables changed", sep="\n")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
