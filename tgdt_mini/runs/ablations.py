"""What each part is worth: the recipe without one of its parts, trained and judged over seeds.

`run` trains what is not there yet, one report for each variant and seed, so that it can be stopped
and run again; `read` gives the stored reports back and `table` prints them in Markdown. A
difference within the spread over seeds means nothing. Only what was trained alike can be compared:
a folder with a report of other settings or other data is refused.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

from tgdt_mini.files.check import one_of, real_number
from tgdt_mini.files.manifest import read_json, write_report
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.progress import remark
from tgdt_mini.files.whole import standing
from tgdt_mini.photos.feature_folder import identity
from tgdt_mini.photos.features import read_manifest
from tgdt_mini.reports import markdown
from tgdt_mini.runs.photos import PHOTO_DEFAULTS, assess_on_photos, capped, train_on_photos
from tgdt_mini.runs.scenes import SCENE_DEFAULTS, assess_on_scenes, train_on_scenes
from tgdt_mini.scenes import SPLITS
from tgdt_mini.training_config import CHANGEABLE_ON_RESUME, TrainingConfig

EPOCHS, SEEDS = 8, (0, 1, 2)
WAYS = ("global", "local", "two-stage")
MAY_DIFFER = (*CHANGEABLE_ON_RESUME, "precision")  # "auto" is another one on another device
DEFAULTS = asdict(TrainingConfig())
# kept of each epoch
HISTORY = ("epoch", "loss", "inter_global", "inter_local", "intra", "inter_mixed")
HISTORY += ("contrastive", "rsum_mixed")


@dataclass(frozen=True)
class Variant:
    """What differs from the default: settings, or how pictures become tokens."""

    text: str
    changes: dict = field(default_factory=dict)
    kind: str = "regions"
    sizes: dict = field(default_factory=dict)  # changes to photo_config


VARIANTS = {  # the default's text is of the scenes
    "default": Variant("everything on: InfoNCE for 70% of the epochs, then the hardest negative"),
    "global only": Variant(
        "no inter-modal term on local scores",
        {"use_local": False, "use_mixed": False, "hard_captions": 0.0},
    ),
    "local only": Variant(
        "no term on global scores",
        {"use_global": False, "use_intra": False, "use_local": True, "use_mixed": False},
    ),
    "no intra": Variant("without the intra-modal consistency term", {"use_intra": False}),
    "InfoNCE": Variant("all negatives, as a softmax, to the end", {"contrastive": "info_nce"}),
    "mean hinge": Variant("all negatives, as hinges, to the end", {"contrastive": "mean"}),
    "hardest": Variant("the hardest negative from the first step", {"contrastive": "hardest"}),
    "staged": Variant(
        "local terms first, then the global layers on stop-gradient tokens", {"schedule": "staged"}
    ),
    "no hard captions": Variant(
        "without negatives made of a caption's own words", {"hard_captions": 0.0}
    ),
    "AdamW": Variant("AdamW for all weights, instead of Muon", {"optimizer": "adamw"}),
    "no ground": Variant("things alone, without the ground's region", kind="things"),
    "patches": Variant("a grid of patches instead of regions", kind="patches"),
    "curriculum": Variant(
        "InfoNCE for 80% of the epochs, then the hardest negative", {"contrastive": "curriculum"}
    ),
    "random start": Variant(
        "random weights instead of the closed form (photos/correlation.py)", {"start": "random"}
    ),
    "curriculum from random": Variant(
        "both of the last two", {"contrastive": "curriculum", "start": "random"}
    ),
    "local term": Variant(
        "the local score learns by itself, not on top of the global score",
        {"use_local": True, "use_mixed": False},
    ),
    "shared maps": Variant(
        "local tokens have the maps of slot 0, and three times slot 0 is added to them",
        sizes={"own_maps": False, "global_residual": 3.0},
    ),
    "all words": Variant("stop words have local tokens too", sizes={"stop_ids": None}),
}
# Photographs have no lexicon and no regions found in their pixels, their model has no global layers
# to train apart, and their default learns from the hardest negative throughout.
SCENES_ONLY = ("no hard captions", "AdamW", "no ground", "patches", "staged", "hardest")
# "curriculum from random" is what scenes do by default.
PHOTOS_ONLY = ("curriculum", "random start", "curriculum from random")
PHOTOS_ONLY += ("shared maps", "all words")


def names_for(features: Path | None = None) -> list[str]:
    """The variants that make sense: of the scenes, or of photographs (a folder of features)."""
    return [name for name in VARIANTS if name not in (SCENES_ONLY if features else PHOTOS_ONLY)]


def settings(
    name: str,
    seed: int = 0,
    epochs: int = EPOCHS,
    photos: bool = False,
    batch: int | None = None,
) -> TrainingConfig:
    """The training settings of a variant. ValueError for a name that such data do not have.

    batch: pairs in a step; None for the default of the data.
    """
    one_of("variant", name, names_for(photos))
    base = PHOTO_DEFAULTS if photos else SCENE_DEFAULTS
    changes = VARIANTS[name].changes | ({"hard_captions": 0.0} if photos else {})
    if batch is not None:
        base = base | {"batch": batch}
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
    batch: int | None = None,
) -> None:
    """Train and judge each variant with each seed; writes out/NAME-SEED.json where there is none.

    first, other: only so many scenes to train on, and to validate and judge on. features:
    photographs instead of scenes, as extract wrote them; share: the first part of each of their
    splits. batch: pairs in a step. Stopped, it goes on where it was. ValueError, before anything is
    trained, where `out` holds a report of other settings or other data.
    """
    names, data = names or names_for(features), _data(features, first, other, share)
    if features:
        batch = _batch_for(features, share, batch)
    runs = [
        (name, seed, settings(name, seed, epochs, bool(features), batch))
        for seed in seeds
        for name in names
    ]
    _check(out, epochs, data, batch)
    for number, (name, seed, config) in enumerate(runs, start=1):
        path = path_of(out, name, seed)
        if path.is_file():
            continue
        if progress:
            remark(f"{number} of {len(runs)}: {name}, seed {seed}")
        folder = Path(out) / "runs" / path.stem
        begun = (standing(folder / "last") / "state.json").is_file()
        if features:
            how = {"share": share, **VARIANTS[name].sizes}
            model = train_on_photos(features, config, folder, device, begun, progress, **how)
            report = assess_on_photos(model, features, share=share)
        else:
            kind = VARIANTS[name].kind
            model = train_on_scenes(config, folder, device, kind, first, other, begun, progress)
            report, _, _ = assess_on_scenes(model, "test", other, progress)
        report["history"] = [{key: row[key] for key in HISTORY} for row in model.notes["history"]]
        write_report(path, report | {"data": data})


def _data(features, first, other, share):
    """What is trained and judged on, as a report says it. ValueError without such features."""
    if not features:
        return {
            "kind of data": "scenes",
            "pictures to train on": first or SPLITS["train"][1],
            "pictures to judge on": other or SPLITS["test"][1],
        }
    part = "all" if share == 1 else f"{share:.0%}"
    return {
        "kind of data": "photographs",
        "pictures to train on": part,
        "pictures to judge on": part,
        "features": identity(features),
    }


def _batch_for(features, share, batch):
    """The batch of a run on photographs: the default or the one asked for, if they suffice."""
    pictures = read_manifest(Path(features) / "train" / "images")["items"]
    config = TrainingConfig(**(PHOTO_DEFAULTS | ({} if batch is None else {"batch": batch})))
    return capped(config, max(1, round(share * pictures))).batch


def _check(out, epochs, data, batch=None):
    """ValueError that names a report in `out` of other settings or other data, and what differs."""
    photos = data["kind of data"] == "photographs"
    for name in VARIANTS:
        for seed, path in _stored(out, name).items():
            report = _read(path)
            if name not in names_for(photos) or "training" not in report.get("trained", {}):
                raise ValueError(
                    f"{path} is no report of a variant for {data['kind of data']}; choose another "
                    "--out"
                )
            now = data | asdict(settings(name, seed, epochs, photos, batch))
            before = report.get("data", {}) | report["trained"]["training"]
            for key, value in now.items():
                # a setting that the report does not name was not there yet: it had its default
                if key not in MAY_DIFFER and before.get(key, DEFAULTS.get(key)) != value:
                    raise ValueError(
                        f"{path} differs in {key} ({before.get(key)!r} instead of {value!r}), so "
                        "it does not compare; choose another --out"
                    )


def path_of(folder: Path, name: str, seed: int) -> Path:
    """Where the report of a variant and a seed lies."""
    return Path(folder) / f"{name.replace(' ', '_')}-{seed}.json"


def read(folder: Path | None = None) -> dict[str, list[dict]]:
    """{variant: its reports, by seed} of a folder, in the order of VARIANTS; default: the shipped.

    ValueError for a folder without a report.
    """
    folder = Path(folder) if folder else shipped() / "results" / "ablations"
    stored = {name: _stored(folder, name).values() for name in VARIANTS}
    reports = {name: [_read(path) for path in paths] for name, paths in stored.items() if paths}
    if not reports:
        raise ValueError(
            f"{folder} holds no report; make some with `python -m tgdt_mini ablate --out {folder}`"
        )
    return reports


def _stored(folder, name):
    """{seed: path} of a variant's reports in a folder, by seed."""
    begins = path_of(folder, name, 0).name.removesuffix("0.json")
    paths = {path.stem.removeprefix(begins): path for path in Path(folder).glob(f"{begins}*.json")}
    seeds = [seed for seed in paths if seed.removeprefix("-").isdecimal()]
    return {int(seed): paths[seed] for seed in sorted(seeds, key=int)}


def _read(path):
    cure = "delete it, and ablate trains it again"
    report = read_json(path, {"rows": dict}, "report", cure, sealed=None)
    for part, column in COLUMNS.values():
        for way in WAYS if part in report else ():
            try:
                value = column(report, way)
                real_number(f"{part} of {way}", 0 if value is None else value)
            except (LookupError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} is damaged, or no report ({error!r:.100}); {cure}"
                ) from None
    return report


COLUMNS = {  # heading: (part of a report that it needs, how it is read)
    "image→text R@1": ("rows", lambda report, way: report["rows"][way]["i2t"]["1"]),
    "text→image R@1": ("rows", lambda report, way: report["rows"][way]["t2i"]["1"]),
    "share of oracle": ("share_of_oracle", lambda report, way: report["share_of_oracle"][way]),
    "rsum": ("rows", lambda report, way: report["rows"][way]["rsum"]),
    "hard pairs": ("hard_pairs", lambda report, way: report["hard_pairs"][way]),
    "grounding": (
        "grounding",
        lambda report, way: report["grounding"]["right"] if way == "local" else None,
    ),
    "pointing": (
        "pointing",
        lambda report, way: report["pointing"]["phrases"]["right"] if way == "local" else None,
    ),
}


def table(reports: dict[str, list[dict]], ways=WAYS) -> str:
    """Markdown: mean ± the sample's standard deviation over seeds, for each way of scoring."""
    first = next(iter(reports.values()))[0]
    columns = {name: column for name, (part, column) in COLUMNS.items() if part in first}

    def cell(seeds, way, column):
        values = [column(report, way) for report in seeds]
        if None in values:
            return ""
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    rows = [
        (
            name if way == ways[0] else "",
            way,
            *(cell(seeds, way, column) for column in columns.values()),
            len(seeds),
        )
        for name, seeds in reports.items()
        for way in ways
    ]
    return markdown.table(("recipe", "scored by", *columns, "seeds"), rows)
