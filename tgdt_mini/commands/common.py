"""What each command does: arguments in, a few calls into the package, files and messages out.

The command line itself, with its help and its errors, is in `cli.py`. What `extract` makes of its
many options is in `commands/extract.py`, what `index` and `search` make of theirs in `commands/search.py`.
Whatever takes long to import waits inside its command, so that help and errors come at once.
"""

import os
import shlex
import subprocess
import time

DEMO_EPOCHS, QUICK = 16, dict(epochs=6, train=1500, other=250)
QUARTER = 0.25  # of photographs, for --quick
AGAIN = "; what is whole in {out} is kept, go on with the same command"


def run_train(args):
    if _train(args) is not None:
        data = ()
        if args.features:
            from tgdt_mini.photos.feature_folder import encoders_of

            data = _of(
                args.features,
                "test" if "test" in encoders_of(args.features)["splits"] else "validation",
            )
        print(f"next: {shell_line('evaluate', '--model', args.out / 'model', *data)}")


def run_demo(args):
    from tgdt_mini.files.whole import write_report, write_whole
    from tgdt_mini.reports import plots
    from tgdt_mini.reports.report import table
    from tgdt_mini.runs import scenes as experiments

    began = time.perf_counter()
    model = _train(args, DEMO_EPOCHS)
    report, dataset, tokens = experiments.assess_on_scenes(
        model, "test", QUICK["other"] if args.quick else None
    )
    write_report(args.out / "results.json", report)
    write_whole(args.out / "results.txt", table(report) + "\n")
    plots.loss_curve(model.notes["history"], args.out / "loss_curve.png")
    plots.shortlist_curve(report, args.out / "shortlist.png")
    plots.comparison(report, args.out / "comparison.png")
    experiments.draw_searches(model, dataset, tokens, args.out)
    print(f"\n{table(report)}\n")
    print(
        f"{time.perf_counter() - began:.0f} seconds in all, seed {args.seed}; everything is in {args.out}/"
    )
    figures = ("loss_curve", "comparison", "shortlist", "hits", "misses", "words")
    drawn = [
        f"{name}.png" for name in figures if (args.out / f"{name}.png").is_file()
    ]  # there may be no miss to show
    print(f"figures: {', '.join(drawn)}")
    print(f"next: {shell_line('search', tokens.captions[0], '--model', args.out / 'model')}")
    print(f"      {shell_line('evaluate')}      (the shipped model, trained longer)")


def run_evaluate(args):
    from tgdt_mini.files.whole import write_report
    from tgdt_mini.reports.report import table
    from tgdt_mini.runs import scenes as experiments

    model = _load(args)
    if args.features:
        from tgdt_mini.runs.photos import assess_on_photos

        report = assess_on_photos(model, args.features, args.split, args.folds)
    elif args.folds or model.config.image_source:
        asked = (
            "--folds is given" if args.folds else "the model was trained on features of photographs"
        )
        raise ValueError(f"{asked}, but no features are: add --features FOLDER")
    else:
        report, _, _ = experiments.assess_on_scenes(model, args.split)
    write_report(args.out / "results.json", report)
    print(f"{table(report)}\n\nas JSON in {args.out}/results.json")


def run_ablate(args):
    from tgdt_mini.runs import ablations

    names = args.recipes or ablations.names_for(args.features)
    seeds, epochs, part, share = args.seeds or ablations.SEEDS, ablations.EPOCHS, (None, None), 1.0
    if args.quick:
        seeds, epochs, part, share = (
            args.seeds or [args.seed],
            2,
            (QUICK["train"], QUICK["other"]),
            QUARTER,
        )
    epochs = epochs if args.epochs is None else args.epochs
    ablations.run(
        args.out, names, seeds, epochs, args.device, *part, features=args.features, share=share
    )
    print(ablations.table(ablations.read(args.out)))
    print(
        f"\nthe reports are in {args.out}/; run it again with more --seeds, and only those are trained"
    )


def run_index(args):
    from tgdt_mini.commands import search as searching

    model = _load(args)
    count = searching.index(model, args)
    example = (
        "two dogs run through the snow"
        if model.config.image_source
        else "a red star above a blue circle"
    )
    of_model = ("--model", args.model) if args.model else ()
    data = _of(args.features, args.split) if args.features else ()
    print(f"{count} pictures are in {args.out}/")
    print(f"next: {shell_line('search', example, '--gallery', args.out, *of_model, *data)}")


def run_search(args):
    from tgdt_mini.commands import search as searching
    from tgdt_mini.reports import plots

    asked = searching.asked(args)
    hits, size, shown = searching.search(_load(args), asked, args)
    print(f"{'rank':>4}  {'score':>6}  {'image' if args.image is None else 'caption'}")
    for place, (score, item) in enumerate(zip(hits.scores[0].tolist(), hits.items[0]), start=1):
        print(f"{place:4}  {score:6.3f}  {item}")
    found = [shown(item) for item in hits.items[0]]
    plots.hits([asked], [found], None, hits.scores.tolist(), args.out / "hits.png")
    times = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in hits.seconds.items())
    print(f"{size} searched ({times}); the hits are drawn in {args.out}/hits.png")


def run_bench(args):
    from tgdt_mini import bench
    from tgdt_mini.bench.tables import table
    from tgdt_mini.files.whole import write_report, write_whole
    from tgdt_mini.reports import plots

    path, million = args.out / "bench.json", args.million or "million" in args.only
    before = bench.read(path) if args.only else None
    report = bench.run(
        args.sizes or bench.SIZES,
        args.quick,
        args.out if million else None,
        True,
        args.only,
        before,
    )
    write_report(path, report)
    write_whole(args.out / "bench.md", table(report) + "\n")
    plots.search_times(report, args.out / "search_times.png")
    print(f"\n{table(report)}\n\nas JSON, Markdown and a picture in {args.out}/")


def _train(args, epochs=None):
    """Train as the arguments say; returns the best model, which is in --out/model. In all processes
    but one: None.

    epochs: instead of the recipe's, where neither --epochs nor --quick says how many.
    """
    from tgdt_mini.runs import scenes as experiments
    from tgdt_mini.scaling import distributed
    from tgdt_mini.training_config import TrainingConfig

    args.out.mkdir(parents=True, exist_ok=True)
    names = (
        "epochs",
        "batch",
        "learning_rate",
        "start",
        "recipe",
        "inter",
        "patience",
        "precision",
        "seed",
        "chunk",
        "compile",
        "top_rate",
    )
    usual = QUICK["epochs"] if args.quick else epochs
    asked = {} if usual is None else {"epochs": usual}
    asked |= {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    asked |= {
        f"use_{part}": not getattr(args, f"no_{part}") for part in ("intra", "global", "local")
    }
    asked["hard_captions"] = 0.0 if args.no_hard_captions else 1.0
    part = (QUICK["train"], QUICK["other"]) if args.quick else (None, None)
    features = getattr(args, "features", None)
    if not features and any(
        getattr(args, name, None) for name in ("vision_layers", "text_layers", "top_rate")
    ):
        raise ValueError(
            "--vision-layers, --text-layers and --top-rate are of pretrained encoders: add --features FOLDER"
        )
    if features:
        from tgdt_mini.runs import photos as photo_experiments

        if args.image_tokens != "regions":
            raise ValueError(
                f"--image-tokens {args.image_tokens} is of scenes, but --features are given; leave it out"
            )
        asked = photo_experiments.RECIPE | asked | {"hard_captions": 0.0}
    config = TrainingConfig(**asked)
    with distributed.joined(args.device) as device:
        if features:
            trained = {"vision": args.vision_layers, "text": args.text_layers}
            share = QUARTER if args.quick else 1.0
            return photo_experiments.train_on_photos(
                features, config, args.out, device, args.resume, trained=trained, share=share
            )
        return experiments.train_on_scenes(
            config, args.out, device, args.image_tokens, *part, resume=args.resume
        )


def _load(args):
    from tgdt_mini.checkpoint import load_model
    from tgdt_mini.files.paths import shipped
    from tgdt_mini.training_config import pick_device

    folder = args.model or shipped() / "weights"
    model = load_model(folder, pick_device(args.device))
    if model.tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer.json; save the model with its tokenizer")
    return model


def _of(features, split):
    return "--features", features, *(("--split", split) if split != "test" else ())


def shell_line(*words):
    """A command line of this program, to be copied; what has spaces in it is quoted as this system
    wants it.
    """
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"python -m tgdt_mini {join([str(word) for word in words])}"
