"""The command `index`: encode pictures once, into a gallery to search."""

import warnings
from dataclasses import replace
from pathlib import Path

from tgdt_mini.commands import arguments, common, endings
from tgdt_mini.files.check import named
from tgdt_mini.files.progress import remark


def add_options(parser) -> None:
    parser.set_defaults(out=Path("runs/gallery"), stopped=endings.AGAIN)
    arguments.add_model(parser)
    arguments.add_path(parser, "--images", "the folder of your pictures (default: the test scenes)")
    arguments.add_switch(
        parser, "--recursive", "also take the pictures in the folders inside --images"
    )
    broken = "end with exit code 0 instead of 3 if pictures could not be read"
    arguments.add_switch(parser, "--skip-broken", broken)
    append = "keep the gallery in --out, and add the pictures of --images that are new"
    arguments.add_switch(parser, "--append", append)
    arguments.add_features(parser)
    parser.add_argument(
        "--qdrant",
        metavar="WHERE",
        help="also put the gallery into Qdrant: a server's address, or a folder",
    )
    arguments.add_collection(parser)
    arguments.add_encoder_paths(parser)
    arguments.add_bfloat16(parser)


def run(args) -> int:
    """Write the gallery to --out, and to Qdrant where --qdrant says so.

    Returns 0, or 3 if the gallery is there but some pictures could not be read.
    """
    check(args)
    features = common.checked_features(args.features, args.check_all)

    from tgdt_mini.commands import galleries
    from tgdt_mini.runs.model_names import knows_photographs, source_of
    from tgdt_mini.search.gallery import NAME, Gallery

    if args.qdrant:  # before any work is done: is it an address, or a folder?
        from tgdt_mini.scaling.qdrant_engines import engine_of

        engine_of(args.qdrant, args.collection)
    if args.append and not args.model and (args.out / NAME).is_file():
        args.model = Gallery.load(args.out).source  # None for one that is not known
    model = common.load_model(args.model, args.device)
    source, refused = source_of(args.model or "scenes"), {}
    if args.images and not args.model:
        remark("the model knows drawn scenes; for photographs add --model photographs")
    if args.images:
        common.load_encoders(model, args.model, args)
        if args.bfloat16:
            use_bfloat16(model)
        gallery, refused = of_files(model, source, args)
    else:
        if features:
            gallery = galleries.of_features(model, features, args.split, "image")
        else:
            common.refuse_scenes(model, "add --images FOLDER or --features FOLDER")
            gallery = galleries.of_scenes(model, args.split)
        gallery = replace(gallery, source=source)
        gallery.save(args.out)
    if args.qdrant:
        upload(gallery, args.qdrant, args.collection)
    remark(f"{len(gallery)} pictures are in {args.out}/")
    example = "a red star above a blue circle"
    if knows_photographs(model):
        example = "two dogs run through the snow"
    more = common.feature_args(features, args.split)
    remark(f"next: {common.shell_line('search', example, '--gallery', args.out, *more)}")
    return 3 if refused and not args.skip_broken else 0


def check(args) -> None:
    """ValueError for options that do not go together."""
    if args.images and args.features:
        raise ValueError("--images and --features name two sets of pictures; give one of them")
    if args.images and args.split != "test":
        raise ValueError(
            f"--split is {args.split}, but the pictures of --images have no splits; leave it out"
        )
    for name in ("recursive", "skip_broken", "append", "bfloat16"):
        if getattr(args, name) and not args.images:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} speaks of a folder of pictures; add --images FOLDER")


def use_bfloat16(model) -> None:
    """Let a model's vision encoder multiply in bfloat16. ValueError if it has none."""
    encoder = getattr(model.image_reader, "encoder", None)
    if not hasattr(encoder, "bfloat16"):
        raise ValueError("--bfloat16 is for a vision encoder, and the model has none; leave it out")
    encoder.bfloat16 = True


def of_files(model, source: str, args):
    """(gallery of a folder's pictures, {path: why it was refused}); says what is left out."""
    from tgdt_mini.photos.picture_folder import find_pictures
    from tgdt_mini.runs.indexing import index_pictures

    try:
        folder = find_pictures(args.images, args.recursive)
    except ValueError as error:
        raise ValueError(f"--images {error}") from None
    indexed = index_pictures(model, folder.paths, args.out, source, args.append)
    if folder.left_out:
        remark(str(folder))
    for why in indexed.refused.values():
        common.warn(f"left out: {why}")
    if args.append:
        remark(f"{indexed.added} pictures are new, {indexed.known} were there already")
        for what, old in (("changed since", indexed.changed), ("gone", indexed.gone)):
            if old:
                common.warn(
                    f"in the gallery, but {what}: {len(old)}, such as {named(old[0])}; it holds "
                    "what was there, so index without --append to make it anew"
                )
    if indexed.refused:
        common.warn(f"{len(indexed.refused)} of {len(folder.paths)} pictures cannot be read")
    return indexed.gallery, indexed.refused


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
