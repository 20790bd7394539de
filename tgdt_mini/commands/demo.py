"""The command `demo`: draw the data, train, evaluate, draw figures."""

import time

from tgdt_mini.commands import common
from tgdt_mini.commands.train import add_training_options, training_config
from tgdt_mini.files.progress import remark

EPOCHS = 6
FIGURES = ("loss_curve", "comparison", "shortlist", "hits", "misses", "words")

add_options = add_training_options


def run(args) -> None:
    """Train on the drawn scenes, judge on the test scenes, and write all that there is to see."""
    common.check_resume(args)

    from tgdt_mini.files.manifest import write_report
    from tgdt_mini.files.whole import write_whole
    from tgdt_mini.reports import plots
    from tgdt_mini.reports.table import table
    from tgdt_mini.runs import scenes

    began, out = time.perf_counter(), args.out
    defaults = scenes.SCENE_DEFAULTS | {"epochs": EPOCHS, "validation_captions": 1}
    config = training_config(defaults, args.quick, args.settings, args.seed)
    train, other = common.scene_counts(args.quick)
    model = scenes.train_on_scenes(
        config, out, args.device, args.image_tokens, train, other, resume=args.resume
    )
    report, dataset, tokens = scenes.assess_on_scenes(model, "test", other)
    write_report(out / "results.json", report)
    write_whole(out / "results.txt", table(report) + "\n")
    plots.loss_curve(model.notes["history"], out / "loss_curve.png")
    plots.shortlist_curve(report, out / "shortlist.png")
    plots.comparison(report, out / "comparison.png")
    scenes.draw_searches(model, dataset, tokens, out)
    print(table(report))
    remark("")
    seconds = time.perf_counter() - began
    remark(f"{seconds:.0f} seconds in all, seed {args.seed}; everything is in {out}/")
    # a good model may have no miss to show
    drawn = [f"{name}.png" for name in FIGURES if (out / f"{name}.png").is_file()]
    remark(f"figures: {', '.join(drawn)}")
    remark(f"next: {common.shell_line('search', tokens.captions[0], '--model', out / 'model')}")
    remark(f"      {common.shell_line('evaluate')}      (the shipped model, trained longer)")
