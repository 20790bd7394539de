"""What the command `extract` does: its options to records, an encoder or a detector's files, and
features on disk.

What the options say is kept in encoders.json, so that `search` finds the pictures again. No formula
and no model here.
"""

from pathlib import Path

from tgdt_mini.encoders.pretrained import LITE
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.photos import feature_folder
from tgdt_mini.photos.detections import BOTTOM_UP, WIDTH, Detections, read_sizes
from tgdt_mini.photos.entities import add_phrases
from tgdt_mini.photos.image_io import picture_sizes
from tgdt_mini.photos.records import SPLITS
from tgdt_mini.photos.sources import karpathy_numbers
from tgdt_mini.training_config import pick_device


def run(args) -> dict:
    """Extract as the command line's arguments say; returns the records. ValueError names an option
    that is wrong.
    """
    of_detections = {
        "boxes": args.boxes,
        "sizes": args.sizes,
        "width": args.width,
        "allow-strays": args.allow_strays,
    }
    for name, value in of_detections.items():
        if value and not args.detections:
            raise ValueError(
                f"--{name} speaks of a detector's regions; give their folder, too: --detections FOLDER"
            )
    if args.detections and args.vision_layers:
        raise ValueError(
            f"--vision-layers is {args.vision_layers}, but the layers of a detector are not here; use 0"
        )
    for name, value in {"grid": args.grid, "side": args.side, "mirrored": args.mirrored}.items():
        if value and args.detections:
            raise ValueError(
                f"--{name} is {value}, but a detector's regions are taken as they are; leave it out"
            )
    device, source = pick_device(args.device), source_of(args)
    data = feature_folder.open_pictures(source)
    if args.entities:
        data = add_phrases(data, args.entities)
    if args.detections:
        vision = detections_of(args, data)
    else:
        vision = VisionBackbone(
            args.vision or LITE, args.vision_layers, args.grid, args.side, args.mirrored, device
        )
    text = TextBackbone(
        args.text, args.text_layers, args.text_depth, args.text_states, device=device
    )
    feature_folder.extract(data, vision, text, args.out, args.precision, source)
    return data


def source_of(args) -> dict:
    """Where the data are, as JSON values for `photos.open_pictures`; what lies here by its whole
    path.
    """
    source = {
        name: _whole(getattr(args, name)) for name in ("data", "images", "detections", "entities")
    }
    source["columns"] = {
        ours: _listed(ours, theirs) for ours, theirs in map(_column, args.columns or ())
    }
    if any("=" in name for name in args.splits or ()):
        source["splits"] = dict(_split(name) for name in args.splits)
    else:
        source["splits"] = args.splits
    source |= {"restval": not args.no_restval, "most_captions": args.most_captions}
    return {name: value for name, value in source.items() if value not in (None, {}, [])}


def detections_of(args, data: dict) -> Detections:
    """The regions of a detector for the pictures of all splits, each with its file, and no file
    without a picture.
    """
    ids = [name for records in data.values() for name in records["image_id"]]
    regions = Detections(
        args.detections,
        args.boxes,
        read_sizes(args.sizes) if args.sizes else None,
        width=args.width or WIDTH,
        detector=args.vision or BOTTOM_UP,
    )
    numbers = karpathy_numbers(args.data) if Path(args.data).suffix.lower() == ".json" else {}
    if not regions.has(ids):
        regions.names = numbers
        regions.names = numbers if regions.has(ids) else {}
    regions.check(ids, None if args.allow_strays else list(numbers))
    if regions.lacks_size(ids[0]):
        with_pictures = [records for records in data.values() if "image" in records.column_names]
        regions.sizes |= {
            name: size for records in with_pictures for name, size in picture_sizes(records).items()
        }
    return regions


def _whole(place):
    """A path as it is from anywhere; what is none, such as a hub name, as it is."""
    return (
        str(Path(place).absolute())
        if place is not None and Path(place).exists()
        else place and str(place)
    )


def _column(pair):
    ours, _, theirs = pair.partition("=")
    if not ours or not theirs:
        raise ValueError(f"--columns {pair} is not OURS=THEIRS, such as captions=text")
    return ours, theirs


def _listed(ours, theirs):
    """Captions may lie in several columns: caption_0,caption_1."""
    return theirs.split(",") if ours == "captions" and "," in theirs else theirs


def _split(name):
    """("dev", "validation") of "dev=validation", or of "dev" alone."""
    there, sign, here = name.partition("=")
    if not there or (sign and not here):
        raise ValueError(f"--splits {name} is not THEIRS=OURS, such as dev=validation")
    return there, here or SPLITS.get(there.lower(), there)
