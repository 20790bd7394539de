"""The command `search`: pictures by a caption, or captions by a picture."""

import json
from pathlib import Path

from tgdt_mini.commands import arguments, common, endings
from tgdt_mini.files.progress import remark

MOST_DRAWN = 50  # hits on one page; a table of more is printed all the same


def add_options(parser) -> None:
    arguments.add_model(parser)
    query = parser.add_mutually_exclusive_group()
    query.add_argument("caption", nargs="?", help='such as "a yellow star above a pink square"')
    arguments.add_path(
        query,
        "--image",
        "search captions by this picture: those of the test scenes, or of --features",
        "FILE",
    )
    pictures = parser.add_mutually_exclusive_group()
    arguments.add_path(
        pictures, "--gallery", "search in this gallery, which index made (default: the test scenes)"
    )
    pictures.add_argument(
        "--qdrant",
        metavar="WHERE",
        help="search in Qdrant: a server's address, or a folder",
    )
    arguments.add_collection(parser)
    arguments.add_encoder_paths(parser)
    arguments.add_features(parser)
    parser.add_argument(
        "-k", type=arguments.whole, default=5, help="how many hits to print (default 5)"
    )
    arguments.add_json(parser, "print the hits as JSON and nothing else, and draw nothing")
    parser.add_argument(
        "--shortlist",
        type=arguments.whole,
        help="how many candidates stage one keeps by the global score, for stage two to sort by "
        "both scores; -k at least (default: as many as validation chose for the model)",
    )


def run(args) -> None:
    """Print the best hits, and draw the first of them in --out/hits.png."""
    if args.k < 1:
        raise ValueError(f"-k is {args.k}; ask for at least 1 hit")
    if args.caption is None and not args.image:
        raise ValueError('give a caption, such as "two red stars", or a picture: --image FILE')
    if args.image and (args.gallery or args.qdrant):
        raise ValueError(
            "--gallery and --qdrant hold pictures; with --image captions are searched: leave them "
            "out, or give --features FOLDER"
        )
    features = common.checked_features(args.features, args.check_all)

    from tgdt_mini import scenes
    from tgdt_mini.commands import galleries
    from tgdt_mini.encoding import encode_pictures, encode_texts
    from tgdt_mini.photos.image_io import open_image
    from tgdt_mini.photos.origin import finder
    from tgdt_mini.reports.choice import stored_settings
    from tgdt_mini.runs.model_names import knows_photographs, unseen_words
    from tgdt_mini.runs.pictures import PictureFinder
    from tgdt_mini.search.gallery import Gallery

    # the query first: what is wrong with it is said before a gallery is encoded
    query = open_image(args.image) if args.image else args.caption
    gallery = Gallery.load(args.gallery) if args.gallery else None
    folder = args.model or (gallery and gallery.source)
    model = common.load_model(folder, args.device)
    common.load_encoders(model, folder, args)
    if args.image:
        query_is, embedding = "image", encode_pictures(model, [query])
    else:
        query_is, embedding = "caption", encode_texts(model, [query])
        if unseen := unseen_words(model, query):
            words = ", ".join(map(repr, unseen))
            common.warn(f"the model has never seen {words}, and can only guess what is meant")

    if args.qdrant:
        gallery = galleries.in_qdrant(model, args.qdrant, args.collection)
    elif args.gallery:
        gallery.check_model(model.fingerprint, args.gallery)
        if gallery.holds != "image":
            raise ValueError(f"--gallery {args.gallery} holds captions; name one of pictures")
    elif features:
        holds = "caption" if args.image else "image"
        gallery = galleries.of_features(model, features, args.split, holds)
    elif args.image:
        common.refuse_scenes(model, "add --features FOLDER, whose captions are searched")
        gallery = galleries.of_scene_captions(model, args.split)
    else:
        common.refuse_scenes(model, "add --features, or --gallery made by index")
        gallery = galleries.shipped_or_of_scenes(model, args.split)

    settings = stored_settings(model)
    shortlist = settings.shortlist[query_is] if args.shortlist is None else args.shortlist
    hits = gallery.search(embedding, args.k, shortlist, settings.local_weight)

    if args.image:
        picture_of = str
    elif features:
        picture_of = finder(features, args.split)
    else:
        may_be_drawn = not args.gallery or scenes.is_split(gallery.items)
        picture_of = PictureFinder(may_be_drawn and not knows_photographs(model))
    if args.json:
        print(as_json(args, gallery, hits))
        return
    show(query, hits)
    times = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in hits.seconds.items())
    drawn = draw(query, hits, picture_of, args.out / "hits.png")
    remark(f"{len(gallery)} searched ({times}); {drawn}")


def as_json(args, gallery, hits) -> str:
    """The query and its hits: {"caption" or "image", "searched", "seconds", "hits"}."""
    query = {"image": str(args.image)} if args.image else {"caption": args.caption}
    answer = {"searched": len(gallery), "seconds": hits.seconds, "hits": hits.rows()[0]}
    return json.dumps(query | answer, indent=1)


def show(query, hits) -> None:
    """Print the hits of one query as a table."""
    from tgdt_mini.search.hits import in_one_line

    print(f"{'rank':>4}  {'score':>6}  {'image' if isinstance(query, str) else 'caption'}")
    for row in hits.rows()[0]:
        print(f"{row['rank']:4}  {row['score']:6.3f}  {in_one_line(row['item'])}")


def draw(query, hits, picture_of, path: Path) -> str:
    """Draw what `picture_of` gives for each of the first hits; says where, or why it did not."""
    from tgdt_mini.reports import plots

    items, scores = hits.items[0][:MOST_DRAWN], hits.scores[0, :MOST_DRAWN].tolist()
    try:
        plots.hits([query], [[picture_of(item) for item in items]], None, [scores], path)
    except ModuleNotFoundError as error:
        return f"nothing is drawn: {endings.missing(error)}"
    which = f"the first {MOST_DRAWN}" if MOST_DRAWN < len(hits.items[0]) else "the hits"
    return f"{which} are drawn in {path}"
