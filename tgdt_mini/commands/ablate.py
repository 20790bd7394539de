"""The command `ablate`: train and judge the default without each of its parts, over some seeds."""

from pathlib import Path

from tgdt_mini.commands import arguments, common, endings
from tgdt_mini.files.progress import remark


def add_options(parser) -> None:
    parser.set_defaults(out=Path("runs/ablations"), stopped=endings.AGAIN)
    variants = parser.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help='rows of the table, such as default "no intra" (default: all)',
    )
    parser.add_argument("--recipes", action=arguments.OldName, new=variants)
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=arguments.whole,
        metavar="SEED",
        help="train each variant once with each of these (default 0 1 2; --quick takes --seed)",
    )
    parser.add_argument(
        "--epochs", type=arguments.whole, help="of each training (default 8, with --quick 2)"
    )
    arguments.add_number(
        parser,
        "--batch",
        "pairs of a picture and a caption in a step (default 64, photographs 512)",
    )
    arguments.add_features(parser, "train on photographs", split=False)
    quick = "a quarter of the data, one seed and few epochs: only to see whether it runs"
    arguments.add_switch(parser, "--quick", quick)


def run(args) -> None:
    """Train and judge what has no report in --out yet, and print the table of all reports."""
    features = common.checked_features(args.features, args.check_all)

    from tgdt_mini.runs import ablations

    seeds, epochs, share = ablations.SEEDS, ablations.EPOCHS, 1.0
    if args.quick:
        seeds, epochs, share = (args.seed,), 2, common.QUARTER
    names = dict(seed="--seeds" if args.seeds else "--seed", epochs="--epochs", batch="--batch")
    with arguments.told_as(**names):
        ablations.run(
            args.out,
            args.variants or ablations.names_for(features),
            args.seeds or seeds,
            epochs if args.epochs is None else args.epochs,
            args.device,
            *common.scene_counts(args.quick),
            features=features,
            share=share,
            batch=args.batch,
        )
    print(ablations.table(ablations.read(args.out)))
    remark(
        f"\nthe reports are in {args.out}/; run it again with more --seeds, and only those are "
        "trained"
    )
