"""What each part is worth: the recipe without one of its parts, trained and judged over several
seeds.

`run` trains what is not there yet, one report a recipe and seed, so that it can be stopped and run
again; `read` gives the stored reports back and `table` prints them in Markdown. A difference within
the spread over seeds means nothing. Only what was trained alike can be compared: a folder with a
report of other settings or other data is refused.
"""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev

from tgdt_mini.files.paths import shipped
from tgdt_mini.files.whole import standing, write_report
from tgdt_mini.scenes import SPLITS
from tgdt_mini.training_config import CHANGEABLE_ON_RESUME, TrainingConfig

EPOCHS, SEEDS = 8, (0, 1, 2)
MAY_DIFFER = (*CHANGEABLE_ON_RESUME, "precision")  # "auto" is another one on another device
HISTORY = (
    "epoch",
    "loss",
    "inter_global",
    "inter_local",
    "intra",
    "inter",
    "rsum_mixed",
)  # kept of each epoch
# name: (what is otherwise than in the default, image tokens, what it is; the default as on scenes)
RECIPES = {
    "default": (
        {},
        "regions",
        "everything on: InfoNCE for 70% of the epochs, then the hardest negative",
    ),
    "global only": (
        {"use_local": False, "hard_captions": 0.0},
        "regions",
        "no inter-modal term on local scores",
    ),
    "local only": (
        {"use_global": False, "use_intra": False},
        "regions",
        "no term on global scores",
    ),
    "no intra": ({"use_intra": False}, "regions", "without the intra-modal consistency term"),
    "InfoNCE": ({"inter": "info_nce"}, "regions", "all negatives, as a softmax, to the end"),
    "mean hinge": ({"inter": "mean"}, "regions", "all negatives, as hinges, to the end"),
    "hardest": ({"inter": "hardest"}, "regions", "the hardest negative from the first step"),
    "staged": (
        {"recipe": "staged"},
        "regions",
        "local terms first, then the global layers on stop-gradient tokens",
    ),
    "no hard captions": (
        {"hard_captions": 0.0},
        "regions",
        "without negatives made of a caption's own words",
    ),
    "patches": ({}, "patches", "a grid of patches instead of regions"),
    "curriculum": (
        {"inter": "curriculum"},
        "regions",
        "InfoNCE for 80% of the epochs, then the hardest negative",
    ),
    "random start": (
        {"start": "random"},
        "regions",
        "random weights instead of the closed form (photos/correlation.py)",
    ),
    "curriculum from random": (
        {"inter": "curriculum", "start": "random"},
        "regions",
        "both of the last two",
    ),
}


# photographs have neither lexicon nor regions found in their pixels, their model no global layers
# to train apart, and
# their default learns from the hardest negative throughout
SCENES_ONLY = ("no hard captions", "patches", "staged", "hardest")
PHOTOS_ONLY = (
    "curriculum",
    "random start",
    "curriculum from random",
)  # the last is what scenes do by default


def names_for(features: Path | None = None) -> list[str]:
    """The recipes that make sense: all of them on the scenes, some on photographs (a folder of
    features).
    """
    return [name for name in RECIPES if name not in (SCENES_ONLY if features else PHOTOS_ONLY)]


def settings(
    name: str, seed: int = 0, epochs: int = EPOCHS, photos: bool = False
) -> TrainingConfig:
    """The training settings of a recipe. ValueError for an unknown name, or one that photographs do
    not have.
    """
    known = names_for(photos)
    if name not in known:
        raise ValueError(f"recipe is {name!r}; it must be one of {', '.join(known)}")
    base = {"hard_captions": 1.0}
    if photos:
        from tgdt_mini.runs.photos import RECIPE as base
    changes = RECIPES[name][0] | ({"hard_captions": 0.0} if photos else {})
    return TrainingConfig(**(base | {"epochs": epochs, "seed": seed} | changes))


def run(
    out: Path,
    names: list[str] | None = None,
    seeds=SEEDS,
    epochs: int = EPOCHS,
    device: str = "auto",
    first: int | None = None,
    other: int | None = None,
    progress: bool = True,
    features: Path | None = None,
    share: float = 1.0,
) -> None:
    """Train and judge each recipe with each seed; writes out/NAME-SEED.json, and leaves alone what
    is already there.

    ValueError, before anything is trained, where `out` holds a report of other settings or other
    data.

    first, other: only so many scenes to train on, and to validate and judge on. features:
    photographs instead of scenes, as extract wrote them; share: the first part of each of their
    splits. Stopped, it goes on where it was.
    """
    from tgdt_mini.runs.scenes import assess_on_scenes, train_on_scenes

    names, data = names or names_for(features), _data(features, first, other, share)
    every = [
        (name, seed, settings(name, seed, epochs, bool(features)))
        for seed in seeds
        for name in names
    ]
    _check(out, epochs, data)
    for place, (name, seed, config) in enumerate(every, start=1):
        report = path_of(out, name, seed)
        if report.is_file():
            continue
        if progress:
            print(f"{place} of {len(every)}: {name}, seed {seed}", flush=True)
        folder = Path(out) / "runs" / report.stem
        begun = (standing(folder / "last") / "state.json").is_file()
        if features:
            from tgdt_mini.runs.photos import assess_on_photos, train_on_photos

            model = train_on_photos(features, config, folder, device, begun, progress, share=share)
            found = assess_on_photos(model, features, share=share)
        else:
            model = train_on_scenes(
                config, folder, device, RECIPES[name][1], first, other, begun, progress
            )
            found, _, _ = assess_on_scenes(model, "test", other, progress)
        found["history"] = [{key: row[key] for key in HISTORY} for row in model.notes["history"]]
        write_report(report, found | {"data": data})


def _data(features, first, other, share):
    """What is trained and judged on, as a report tells it. ValueError if there are no such
    features.
    """
    if not features:
        kind, train, test, more = "scenes", SPLITS["train"][1], SPLITS["test"][1], {}
    else:
        from tgdt_mini.photos.feature_folder import identity

        part = "all" if share == 1 else f"{share:.0%}"
        kind, train, test, more = "photographs", part, part, {"features": identity(features)}
    return {
        "kind of data": kind,
        "pictures to train on": first or train,
        "pictures to judge on": other or test,
    } | more


def _check(out, epochs, data):
    """ValueError that names a report in `out` which was made with other settings or on other data,
    and what differs.
    """
    kind = data["kind of data"]
    photos = kind == "photographs"
    for name in RECIPES:
        for seed, path in _stored(out, name).items():
            report = _read(path)
            if name not in names_for(photos) or "training" not in report.get("trained", {}):
                raise ValueError(
                    f"{path} is no report of a recipe that {kind} have; choose another --out"
                )
            differs = _difference(report, data, settings(name, seed, epochs, photos))
            if differs:
                raise ValueError(
                    f"{path} differs in {differs}, so it does not compare; choose another --out"
                )


def _difference(report, data, config):
    """What is otherwise in a report than in a recipe, in words; "" if nothing is."""
    before = {"kind of data": "photographs"}
    if "scenes" in report:
        before = {"kind of data": "scenes", "pictures to judge on": report["scenes"]}
    before |= report.get("data", {})  # which reports of earlier versions lack
    before |= (
        asdict(TrainingConfig()) | report["trained"]["training"]
    )  # a setting newer than it was at its default
    now = {key: value for key, value in data.items() if key in before} | asdict(config)
    changed = [key for key, value in now.items() if key not in MAY_DIFFER and before[key] != value]
    return (
        f"{changed[0]} ({before[changed[0]]!r} instead of {now[changed[0]]!r})" if changed else ""
    )


def path_of(folder: Path, name: str, seed: int) -> Path:
    """Where the report of a recipe and a seed lies."""
    return Path(folder) / f"{name.replace(' ', '_')}-{seed}.json"


def read(folder: Path | None = None) -> dict[str, list[dict]]:
    """{recipe: its reports, by seed} of a folder of reports, in the order of RECIPES. Default: the
    shipped ones.
    """
    folder = Path(folder) if folder else shipped() / "results" / "ablations"
    found = {}
    for name in RECIPES:
        paths = _stored(folder, name).values()
        if paths:
            found[name] = [_read(path) for path in paths]
    if not found:
        raise ValueError(
            f"{folder} holds no report; make some with `python -m tgdt_mini ablate --out {folder}`"
        )
    return found


def _stored(folder, name):
    """{seed: path} of a recipe's reports in a folder, by seed."""
    begins = path_of(folder, name, 0).name.removesuffix("0.json")
    seeds = {path.stem.removeprefix(begins): path for path in Path(folder).glob(f"{begins}*.json")}
    return {int(seed): seeds[seed] for seed in sorted(filter(str.isdecimal, seeds), key=int)}


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it, and ablate trains it again"
        ) from None


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
    """Markdown: mean ± the sample's standard deviation over the seeds, a row for each way of
    scoring a recipe.
    """

    def cell(reports, way, read_one):
        values = [read_one(report, way) for report in reports]
        if None in values:
            return ""
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    first = next(iter(found.values()))[0]
    columns = {
        name: read_one for name, read_one in COLUMNS.items() if NEEDS.get(name, "rows") in first
    }
    lines = [
        f"| recipe | scored by | {' | '.join(columns)} | seeds |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for recipe, reports in found.items():
        for way in ways:
            cells = " | ".join(cell(reports, way, read_one) for read_one in columns.values())
            lines.append(
                f"| {recipe if way == ways[0] else ''} | {way} | {cells} | {len(reports)} |"
            )
    return "\n".join(lines)
