"""The command `index`: encode pictures once, into a gallery to search."""

import warnings
from dataclasses import replace
from pathlib import Path

from tgdt_mini.commands import common


def add_options(parser) -> None:
    parser.set_defaults(out=Path("runs/gallery"))
    common.add_model(parser)
    common.add_path(parser, "--images", "your pictures (default: the test scenes)")
    common.add_features(parser)
    parser.add_argument(
        "--qdrant",
        metavar="WHERE",
        help="put the gallery into Qdrant too: a server's address, or a folder",
    )
    common.add_collection(parser)


def run(args) -> None:
    """Write the gallery to --out, and to Qdrant where --qdrant says so."""
    features = common.checked_features(args.features, args.check_all)
    if args.images and features:
        raise ValueError("--images and --features name two sets of pictures; give one of them")
    if args.images and args.split != "test":
        raise ValueError(
            f"--split is {args.split}, but the pictures of --images have no splits; leave it out"
        )

    from tgdt_mini.commands import galleries
    from tgdt_mini.encoders.load import load_encoders

    model = common.load_model(args.model, args.device)
    if features:
        gallery = galleries.of_features(model, features, args.split, "image")
    elif args.images:
        load_encoders(model)
        gallery = galleries.of_files(model, args.images)
    else:
        common.refuse_scenes(model, "add --images FOLDER or --features FOLDER")
        gallery = galleries.of_scenes(model, args.split)
    gallery = replace(gallery, source=common.source_of(args.model))
    gallery.save(args.out)
    if args.qdrant:
        upload(gallery, args.qdrant, args.collection)
    print(f"{len(gallery)} pictures are in {args.out}/")
    example = "a red star above a blue circle"
    if common.knows_photographs(model):
        example = "two dogs run through the snow"
    more = common.feature_args(features, args.split)
    print(f"next: {common.shell_line('search', example, '--gallery', args.out, *more)}")


def upload(gallery, address: str, collection: str) -> None:
    """Put a gallery into Qdrant; warns if items of other galleries are there too."""
    from tgdt_mini.scaling.qdrant import QdrantGallery

    uploaded = QdrantGallery.upload(gallery, address, collection)
    if more := len(uploaded) - len(gallery):
        warnings.warn(
            f"{uploaded.engine} holds {more} item{'s' if more > 1 else ''} more than the gallery, "
            "and they are found too: name another --collection to leave them out"
        )
    uploaded.close()
