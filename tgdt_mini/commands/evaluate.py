"""The command `evaluate`: judge a model on test data, scenes or photographs."""

from tgdt_mini.commands import arguments, common
from tgdt_mini.files.progress import remark


def add_options(parser) -> None:
    arguments.add_model(parser)
    arguments.add_features(parser)
    folds = (
        "also give the mean of N folds, each searched alone: 5 for COCO's 1K protocol, beside 5K"
    )
    arguments.add_number(parser, "--folds", folds, 0)
    arguments.add_json(parser, "print the report as JSON, as in results.json, and nothing else")


def run(args) -> None:
    """Print the report of a model, and write it to --out/results.json."""
    features = common.checked_features(args.features, args.check_all)
    if args.folds and not features:
        raise ValueError("--folds is given, but no features are: add --features FOLDER")

    from tgdt_mini.files.manifest import write_report
    from tgdt_mini.reports.table import table
    from tgdt_mini.runs import photos, scenes

    model = common.load_model(args.model, args.device)
    if features:
        report = photos.assess_on_photos(model, features, args.split, args.folds)
    else:
        common.refuse_scenes(model, "add --features FOLDER")
        report, _, _ = scenes.assess_on_scenes(model, args.split)
    write_report(args.out / "results.json", report)
    if args.json:
        print((args.out / "results.json").read_text(encoding="utf-8"), end="")
    else:
        print(table(report))
    remark(f"\nas JSON in {args.out}/results.json")
