"""The command `app`: the explorer as a page in the browser, for this machine alone."""

from tgdt_mini.commands import arguments, common
from tgdt_mini.files.progress import remark


def add_options(parser) -> None:
    arguments.add_model(parser)
    arguments.add_path(
        parser,
        "--gallery",
        "a gallery that index made (default: the model's own; without --model, the scenes)",
    )
    arguments.add_encoder_paths(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve on (default %(default)s: for this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=arguments.whole,
        default=8866,
        help="port of the page (default %(default)s; 0: any free one)",
    )
    arguments.add_switch(
        parser, "--no-browser", "print the address of the page, and do not open a browser"
    )


def run(args) -> None:
    """Serve the page until Ctrl-C. What is wrong with model or gallery is said before."""
    common.need("voila", "anywidget")

    from tgdt_mini.app.server import free_port, is_loopback, opened, serve
    from tgdt_mini.runs.model_names import source_of

    options = {
        "model": None if args.model is None else source_of(args.model),
        "gallery": None if args.gallery is None else str(args.gallery.absolute()),
        "device": args.device,
    }
    for name in ("vision_path", "text_path"):
        if (folder := getattr(args, name)) is not None:
            options[name] = str(folder.absolute())
    port = free_port(args.host, args.port)
    count = len(opened(**options).retriever.gallery)
    if not is_loopback(args.host):
        common.warn(f"everybody who reaches {args.host} can search and see these pictures")
    remark(f"{count:,} pictures; the first page takes some seconds")
    serve(options, args.host, port, not args.no_browser)
    raise KeyboardInterrupt  # a server ends because somebody stops it
