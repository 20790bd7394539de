"""The command `bench`: measure what is fast, beside its peers, on this machine."""

import os

from tgdt_mini import bench
from tgdt_mini.commands import arguments
from tgdt_mini.files.progress import remark


def add_options(parser) -> None:
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=arguments.whole,
        metavar="N",
        help="numbers of images in the galleries (default 1000 10000 100000)",
    )
    arguments.add_switch(
        parser, "--quick", "the smallest gallery and few repeats: only to see whether it runs"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART",
        default=[],
        help=f"measure only these ({', '.join(bench.PARTS)}); the rest stays as it is in --out",
    )
    million = "also a gallery of a million images: 20 GB of disk, several minutes"
    arguments.add_switch(parser, "--million", million)
    on_gpu = "measure a GPU instead: training steps, encoding, search; writes gpu.json and gpu.md"
    arguments.add_switch(parser, "--gpu", on_gpu)
    compiled = "with --gpu: also steps by torch.compile, several minutes more"
    arguments.add_switch(parser, "--compile", compiled)


def run(args) -> None:
    """Measure, print the tables, and write them to --out as JSON and Markdown, with a figure."""
    if args.gpu:
        return _run_gpu(args)
    if args.compile:
        raise ValueError("--compile is for --gpu; give both, or leave it out")
    os.environ.update(bench.THREADS)  # before numpy and faiss are loaded

    from tgdt_mini.bench.tables import table
    from tgdt_mini.files.manifest import write_report
    from tgdt_mini.files.whole import write_whole
    from tgdt_mini.reports import plots

    path, million = args.out / "bench.json", args.million or "million" in args.only
    before = bench.read(path) if args.only else None
    sizes, folder = args.sizes or bench.SIZES, args.out if million else None
    with arguments.told_as(sizes="--sizes", only="--only"):
        report = bench.run(sizes, args.quick, folder, True, args.only, before)
    write_report(path, report)
    write_whole(args.out / "bench.md", table(report) + "\n")
    plots.search_times(report, args.out / "search_times.png")
    print(table(report))
    remark(f"\nas JSON, Markdown and a picture in {args.out}/")


def _run_gpu(args):
    """The same for a GPU, in a report of its own."""
    for name in ("sizes", "only", "million"):
        if getattr(args, name):
            raise ValueError(f"--{name} is for a processor; leave it out beside --gpu")

    from tgdt_mini.bench import gpu, tables
    from tgdt_mini.config import pick_device
    from tgdt_mini.files.manifest import write_report
    from tgdt_mini.files.whole import write_whole

    report = gpu.run(pick_device("cuda"), args.quick, compiled=args.compile)
    write_report(args.out / "gpu.json", report)
    text = tables.gpu_table(report)
    write_whole(args.out / "gpu.md", text + "\n")
    print(text)
    remark(f"\nas JSON and Markdown in {args.out}/")
