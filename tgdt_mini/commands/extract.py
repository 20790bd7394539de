"""The command `extract`: run pretrained encoders over photographs and captions, once, for `train`.

What the options say of the data is kept beside the features (source.json), so that `search` finds
the pictures again.
"""

from pathlib import Path

from tgdt_mini.commands import arguments, common, endings
from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.files.check import named
from tgdt_mini.files.paths import lasting
from tgdt_mini.files.progress import remark
from tgdt_mini.photos.records import SPLITS


def add_options(parser) -> None:
    parser.set_defaults(out=Path("runs/features"), stopped=endings.AGAIN)
    add_data(parser)
    add_regions(parser)
    add_encoders(parser)
    parser.add_argument(
        "--precision",
        default="float16",
        choices=("float16", "int8"),
        help="of the stored numbers (default float16)",
    )


def add_data(parser) -> None:
    """Add the options that say where the data are and which of them are taken."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="SET",
        help="a .json of Karpathy or COCO, a table with file names (.csv, .tsv, .jsonl, .parquet, "
        "or .json with an array), a folder of parquet files, an image folder, SCAN's *_precomp, "
        "flickr8k, flickr30k or coco from the hub, or any hub name",
    )
    arguments.add_path(
        parser, "--images", "the folder of the pictures that a .json or a table names"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help="names of the columns, such as image=photo image_id=name split=part captions=text, "
        "or captions=caption_0,caption_1",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="take only these, or rename them, THEIRS=OURS: extra=test",
    )
    parser.add_argument(
        "--divide",
        metavar="80/10/10",
        help="make train, validation and test of data with one split, in these shares; by picture, "
        "at random, from --seed; two shares leave test out; --split 80/10/10 does the same",
    )
    arguments.add_switch(
        parser, "--no-restval", "leave out COCO's restval pictures, which otherwise count as train"
    )
    arguments.add_number(
        parser,
        "--most-captions",
        "keep only the first N captions of each picture, such as COCO's 5",
    )
    arguments.add_path(
        parser,
        "--entities",
        "Flickr30k Entities, a folder with Annotations/ and Sentences/: for the pointing game",
    )
    arguments.add_switch(
        parser,
        "--foils",
        "also extract captions with two words swapped: hard negatives for train, hard pairs for "
        "evaluate",
    )


def add_regions(parser) -> None:
    """Add the options for a detector's regions, which stand in for a vision encoder."""
    arguments.add_path(
        parser,
        "--detections",
        "regions of bottom-up attention, files ID.npz or ID.npy, instead of a vision encoder; "
        "--vision then names the detector",
    )
    arguments.add_path(
        parser, "--boxes", "boxes of the regions, files ID.npy, if they are in another folder"
    )
    arguments.add_path(
        parser,
        "--sizes",
        "sizes of pictures that are not here, for boxes in pixels: JSON, "
        '{"image id": [width, height]}, or annotations of COCO',
        "FILE",
    )
    arguments.add_number(parser, "--width", "how many numbers a region has (default 2048)")
    arguments.add_switch(parser, "--allow-strays", "ignore regions that belong to no picture")


def add_encoders(parser) -> None:
    """Add the options of the encoders of pictures and of captions."""
    parser.add_argument(
        "--vision", metavar="ENCODER", help=f"a folder or hub name (default {LITE})"
    )
    side = f"resize pictures to N x N pixels, for {LITE} (default: the encoder's own)"
    arguments.add_number(parser, "--side", side, 0)
    arguments.add_switch(
        parser,
        "--mirrored",
        "take the mean of the features of each picture and of its mirror image",
    )
    arguments.add_bfloat16(parser)
    stages = f"add to each cell what the last N stages of {LITE} saw there (default 0)"
    arguments.add_number(parser, "--stages", stages, 0)
    arguments.add_number(
        parser, "--grid", "average the cells to N x N larger ones (default 0: leave them)", 0
    )
    parser.add_argument(
        "--text", default=MINILM, metavar="ENCODER", help=f"a folder or hub name (default {MINILM})"
    )
    depth = (
        "take only the first N layers of --text; the paper takes 6 of BERT's 12 (default 0: all)"
    )
    arguments.add_number(parser, "--text-depth", depth, 0)
    states = "keep for each word the states of the last N layers, side by side (default 1)"
    arguments.add_number(parser, "--text-states", states, 1)
    for kind in ("vision", "text"):
        trained = (
            f"leave the last N layers of the {kind} encoder to be trained by train (default 0)"
        )
        arguments.add_number(parser, f"--{kind}-layers", trained, 0)


def run(args) -> None:
    """Write the features of all splits to --out. ValueError names an option that is wrong."""
    from tgdt_mini.photos.division import copies, read_shares
    from tgdt_mini.photos.precomputed import Precomputed, is_precomputed

    if args.splits and not args.divide and len(args.splits) == 1 and "/" in args.splits[0]:
        args.divide, args.splits = args.splits[0], None  # --split 80/10/10
    places = ("data", "images", "detections", "entities")
    given = {name: getattr(args, name) for name in places}
    source = {name: lasting(path) for name, path in given.items() if path is not None} | {
        "columns": read_columns(args.columns),
        "splits": read_splits(args.splits),
        "restval": not args.no_restval,
        "most_captions": args.most_captions,
    }
    if args.divide:
        source["divide"] = {"shares": read_shares(args.divide), "seed": args.seed}
    source = {name: value for name, value in source.items() if value not in (None, {}, [])}
    cells = {
        name: getattr(args, name) for name in ("grid", "side", "mirrored", "stages", "bfloat16")
    }
    regions = {n: getattr(args, n) for n in ("boxes", "sizes", "width", "allow_strays")}
    vision, vision_layers, entities = args.vision, args.vision_layers, args.entities
    text = (args.text, args.text_layers, args.text_depth, args.text_states)
    out, precision, device = args.out, args.precision, args.device
    foils, seed = args.foils, args.seed
    detector = "detections" in source or is_precomputed(args.data)
    check_kind(detector, cells | {"vision_layers": vision_layers}, regions)

    from tgdt_mini.config import pick_device
    from tgdt_mini.encoders.text import TextBackbone
    from tgdt_mini.encoders.vision import VisionBackbone
    from tgdt_mini.photos import feature_folder, origin
    from tgdt_mini.photos.detections import BOTTOM_UP
    from tgdt_mini.photos.entities import add_phrases
    from tgdt_mini.photos.word_classes import add_foils

    device = pick_device(device)
    data = origin.open_pictures(source)
    if entities:
        data = add_phrases(data, entities)
    if foils:
        data = add_foils(data, out, seed)
    if pairs := copies(data):
        more = f" (and {len(pairs) - 3} more)" if len(pairs) > 3 else ""
        common.warn(
            "the same picture is in two splits under two names: "
            f"{'; '.join(' = '.join(pair) for pair in pairs[:3])}{more}; what is tested on must "
            "not be trained on, so leave it out of one"
        )
    if is_precomputed(args.data):
        image_encoder = Precomputed(args.data, vision or BOTTOM_UP)
    elif detector:
        image_encoder = open_regions(source, data, vision, **regions)
    else:
        with arguments.told_as(trained_layers="--vision-layers", **as_options(cells)):
            image_encoder = VisionBackbone(vision or LITE, vision_layers, **cells, device=device)
    names = dict(trained_layers="--text-layers", layers="--text-depth", states="--text-states")
    with arguments.told_as(**names):
        text_encoder = TextBackbone(*text, device=device)
    feature_folder.extract(data, image_encoder, text_encoder, out, precision, source)
    sizes = ", ".join(f"{len(records)} {split}" for split, records in data.items())
    remark(f"features of {sizes} pictures are in {out}/")
    remark(f"next: {next_step(out)}")


def check_kind(detector: bool, cells: dict, regions: dict) -> None:
    """ValueError for options of cells beside a detector's regions, or of regions without them."""
    options = as_options(cells if detector else regions)
    for name, value in (cells if detector else regions).items():
        option = options[name]
        if value and detector:
            raise ValueError(
                f"{option} is {value}, but a detector's regions are taken as they are; leave it out"
            )
        if value:
            raise ValueError(
                f"{option} speaks of a detector's regions; give their folder, too: "
                "--detections FOLDER"
            )


def as_options(names) -> dict[str, str]:
    """{argument: its option} of names that are the same but for their dashes."""
    return {name: f"--{name.replace('_', '-')}" for name in names}


def open_regions(source, data, detector, boxes, sizes, width, allow_strays):
    """A detector's regions for the pictures of all splits.

    ValueError for a picture without a file or, unless strays are allowed, a file without a picture.
    """
    from tgdt_mini.photos.boxes import read_sizes
    from tgdt_mini.photos.detections import BOTTOM_UP, WIDTH, Detections
    from tgdt_mini.photos.image_io import size_finder
    from tgdt_mini.photos.sources import picture_numbers

    regions = Detections(
        source["detections"],
        boxes,
        read_sizes(sizes) if sizes else None,
        size_finder(data),
        width=width or WIDTH,
        detector=detector or BOTTOM_UP,
    )
    image_ids = [image_id for records in data.values() for image_id in records["image_id"]]
    numbers = picture_numbers(source["data"])
    regions.use_numbers(numbers, image_ids)
    regions.check(image_ids, None if allow_strays else list(numbers))
    return regions


def next_step(out: Path) -> str:
    """What is to be done after extraction into a folder: the splits that lack, or training."""
    from tgdt_mini.photos.feature_folder import encoders_of

    splits = encoders_of(out)["splits"]
    missing = [split for split in ("train", "validation") if split not in splits]
    if missing:
        step = (
            f"extract {' and '.join(missing)} into the same folder, too, which train needs; data "
            "with one split are divided by --divide 80/10/10, in another --out"
        )
        if "test" in splits:
            step += f"; or {common.shell_line('evaluate', '--features', out, '--model', 'MODEL')}"
        return step
    return common.shell_line("train", "--features", out, "--out", "runs/photos")


def read_columns(pairs: list[str]) -> dict:
    """{"captions": "text"} of ["captions=text"]; captions=a,b names two columns."""
    columns = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise ValueError(f"--columns {named(pair)} is not OURS=THEIRS, such as captions=text")
        several = ours == "captions" and "," in theirs
        columns[ours] = theirs.split(",") if several else theirs
    return columns


def read_splits(names: list[str] | None) -> list[str] | dict[str, str] | None:
    """The names as they are or, where one is THEIRS=OURS, {theirs: ours} of all."""
    if not any("=" in name for name in names or ()):
        return names
    splits = {}
    for name in names:
        theirs, sign, ours = name.partition("=")
        if not theirs or (sign and not ours):
            raise ValueError(f"--splits {named(name)} is not THEIRS=OURS, such as dev=validation")
        splits[theirs] = ours or SPLITS.get(theirs.lower(), theirs)
    return splits
