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
    "random start": ({"start": "random"}, "regions", "random weights instead of the closed form (correlation.py)"),
}


# photographs have neither lexicon nor regions found in their pixels, and their model no global layers to train apart
SCENES_ONLY = ("no hard captions", "patches", "staged")
PHOTOS_ONLY = ("random start",)  # scenes start there anyway


def names_for(features: Path | None = None) -> list[str]:
    """The recipes that make sense: all of them on the scenes, some on photographs (a folder of features)."""
    return [name for name in RECIPES if name not in (SCENES_ONLY if features else PHOTOS_ONLY)]


def settings(name: str, seed: int = 0, epochs: int = EPOCHS, photos: bool = False) -> TrainingConfig:
    """The training settings of a recipe. ValueError for an unknown name, or one that photographs do not have."""
    known = names_for(photos)
    if name not in known:
        raise ValueError(f"recipe is {name!r}; it must be one of {', '.join(known)}")
    base = {"hard_captions": 1.0}
    if photos:
        from tgdt_mini.photo_experiments import RECIPE as base
    changes = RECIPES[name][0] | ({"hard_captions": 0.0} if photos else {})
    return TrainingConfig(**(base | {"epochs": epochs, "seed": seed} | changes))


def run(out: Path, names: list[str] | None = None, seeds=SEEDS, epochs: int = EPOCHS, device: str = "auto",
        first: int | None = None, other: int | None = None, progress: bool = True,
        features: Path | None = None, share: float = 1.0) -> None:  # fmt: skip
    """Train and judge each recipe with each seed; writes out/NAME-SEED.json, and leaves alone what is already there.

    first, other: only so many scenes to train on, and to validate and judge on. features: photographs instead of
    scenes, as extract wrote them; share: the first part of each of their splits. Stopped, it goes on where it was.
    """
    from tgdt_mini.experiments import assess_on_scenes, train_on_scenes

    names = names or names_for(features)
    every = [(name, seed, settings(name, seed, epochs, bool(features))) for seed in seeds for name in names]
    for place, (name, seed, config) in enumerate(every, start=1):
        report = path_of(out, name, seed)
        if report.is_file():
            continue
        if progress:
            print(f"{place} of {len(every)}: {name}, seed {seed}", flush=True)
        folder = Path(out) / "runs" / report.stem
        begun = (folder / "last" / "state.json").is_file()
        if features:
            from tgdt_mini.photo_experiments import assess_on_photos, train_on_photos

            model = train_on_photos(features, config, folder, device, begun, progress, share=share)
            found = assess_on_photos(model, features, share=share)
        else:
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
    "pointing": lambda report, way: report["pointing"]["words"] if way == "local" else None,
}
NEEDS = {
    "share of oracle": "share_of_oracle",
    "hard pairs": "hard_pairs",
    "grounding": "grounding",
    "pointing": "pointing",
}


def table(found: dict[str, list[dict]], ways=("global", "local", "two-stage")) -> str:
    """Markdown: mean ± the sample's standard deviation over the seeds, a row for each way of scoring a recipe."""

    def cell(reports, way, read_one):
        values = [read_one(report, way) for report in reports]
        if None in values:
            return ""
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    first = next(iter(found.values()))[0]
    columns = {name: read_one for name, read_one in COLUMNS.items() if NEEDS.get(name, "rows") in first}
    lines = [f"| recipe | scored by | {' | '.join(columns)} | seeds |", "|---" * (len(columns) + 3) + "|"]
    for recipe, reports in found.items():
        for way in ways:
            cells = " | ".join(cell(reports, way, read_one) for read_one in columns.values())
            lines.append(f"| {recipe if way == ways[0] else ''} | {way} | {cells} | {len(reports)} |")
    return "\n".join(lines)
