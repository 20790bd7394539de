"""What each part is worth: the recipe without one of its parts, trained and judged over several seeds.

`run` trains what is not there yet, one report a recipe and seed, so that it can be stopped and run again; `read` gives
the stored reports back and `table` prints them in Markdown. A difference within the spread over seeds means nothing.
"""

import json
from pathlib import Path
from statistics import mean, stdev

from tgdt_mini.paths import shipped, write_whole
from tgdt_mini.recipe import TrainingConfig

EPOCHS, SEEDS = 8, (0, 1, 2)
HISTORY = ("epoch", "loss", "inter_global", "inter_local", "intra", "inter", "rsum_mixed")  # kept of each epoch
RECIPES = {  # name: (what is otherwise than in the default, image tokens, what it is)
    "default": ({}, "regions", "everything on: InfoNCE for 70% of the epochs, then the hardest negative"),
    "global only": ({"use_local": False, "hard_captions": 0.0}, "regions", "no inter-modal term on local scores"),
    "local only": ({"use_global": False, "use_intra": False}, "regions", "no term on global scores"),
    "no intra": ({"use_intra": False}, "regions", "without the intra-modal consistency term"),
    "InfoNCE": ({"inter": "info_nce"}, "regions", "all negatives, as a softmax, to the end"),
    "mean hinge": ({"inter": "mean"}, "regions", "all negatives, as hinges, to the end"),
    "hardest": ({"inter": "hardest"}, "regions", "the hardest negative from the first step"),
    "staged": ({"recipe": "staged"}, "regions", "local terms first, then the global layers on stop-gradient tokens"),
    "no hard captions": ({"hard_captions": 0.0}, "regions", "without negatives made of a caption's own words"),
    "patches": ({}, "patches", "a grid of patches instead of regions"),
}


def settings(name: str, seed: int = 0, epochs: int = EPOCHS) -> TrainingConfig:
    """The training settings of a recipe. ValueError for an unknown name."""
    if name not in RECIPES:
        raise ValueError(f"recipe is {name!r}; it must be one of {', '.join(RECIPES)}")
    return TrainingConfig(**({"hard_captions": 1.0, "epochs": epochs, "seed": seed} | RECIPES[name][0]))


def run(out: Path, names=tuple(RECIPES), seeds=SEEDS, epochs: int = EPOCHS, device: str = "auto",
        first: int | None = None, other: int | None = None, progress: bool = True) -> None:  # fmt: skip
    """Train and judge each recipe with each seed; writes out/NAME-SEED.json, and leaves alone what is already there.

    first, other: only so many scenes to train on, and to validate and judge on. Stopped, it goes on where it was.
    """
    from tgdt_mini.experiments import assess_on_scenes, train_on_scenes

    every = [(name, seed, settings(name, seed, epochs)) for seed in seeds for name in names]
    for place, (name, seed, config) in enumerate(every, start=1):
        report = path_of(out, name, seed)
        if report.is_file():
            continue
        if progress:
            print(f"{place} of {len(every)}: {name}, seed {seed}", flush=True)
        folder = Path(out) / "runs" / report.stem
        begun = (folder / "last" / "state.json").is_file()
        model = train_on_scenes(config, folder, device, RECIPES[name][1], first, other, begun, progress)
        found, _, _ = assess_on_scenes(model, "test", other, progress)
        found["history"] = [{key: row[key] for key in HISTORY} for row in model.notes["history"]]
        write_whole(report, json.dumps(found, indent=1) + "\n")


def path_of(folder: Path, name: str, seed: int) -> Path:
    """Where the report of a recipe and a seed lies."""
    return Path(folder) / f"{name.replace(' ', '_')}-{seed}.json"


def read(folder: Path | None = None) -> dict[str, list[dict]]:
    """{recipe: its reports, by seed} of a folder of reports, in the order of RECIPES. Default: the shipped ones."""
    folder = Path(folder) if folder else shipped() / "results" / "ablations"
    found = {}
    for name in RECIPES:
        paths = [path for seed in range(100) if (path := path_of(folder, name, seed)).is_file()]
        if paths:
            found[name] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not found:
        raise ValueError(f"{folder} holds no report; make some with `python -m tgdt_mini ablate --out {folder}`")
    return found


COLUMNS = {  # heading: how it is read from a report
    "image→text R@1": lambda report, way: report["rows"][way]["i2t"]["1"],
    "text→image R@1": lambda report, way: report["rows"][way]["t2i"]["1"],
    "share of oracle": lambda report, way: report["share_of_oracle"][way],
    "rsum": lambda report, way: report["rows"][way]["rsum"],
    "hard pairs": lambda report, way: report["hard_pairs"][way],
    "grounding": lambda report, way: report["grounding"]["right"] if way == "local" else None,
}


def table(found: dict[str, list[dict]], ways=("global", "local", "two-stage")) -> str:
    """Markdown: mean ± the sample's standard deviation over the seeds, a row for each way of scoring a recipe."""

    def cell(reports, way, read_one):
        values = [read_one(report, way) for report in reports]
        if None in values:
            return ""
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    lines = [f"| recipe | scored by | {' | '.join(COLUMNS)} | seeds |", "|---" * (len(COLUMNS) + 3) + "|"]
    for recipe, reports in found.items():
        for way in ways:
            cells = " | ".join(cell(reports, way, read_one) for read_one in COLUMNS.values())
            lines.append(f"| {recipe if way == ways[0] else ''} | {way} | {cells} | {len(reports)} |")
    return "\n".join(lines)
