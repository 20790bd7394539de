"""The command `search`: pictures by a caption, or captions by a picture."""

from pathlib import Path

from tgdt_mini.commands import common


def add_options(parser) -> None:
    common.add_model(parser)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("caption", nargs="?", help='such as "a yellow star above a pink square"')
    common.add_path(query, "--image", "search the test captions by this picture instead", "FILE")
    pictures = parser.add_mutually_exclusive_group()
    common.add_path(pictures, "--gallery", "made by index (default: the test scenes)")
    pictures.add_argument(
        "--qdrant",
        metavar="WHERE",
        help="search in Qdrant instead: a server's address, or a folder",
    )
    common.add_collection(parser)
    common.add_features(parser)
    parser.add_argument("-k", type=int, default=5, help="how many hits (default 5)")
    parser.add_argument(
        "--shortlist",
        type=int,
        help="candidates that stage two re-orders (default: the model's choice)",
    )


def run(args) -> None:
    """Print the best hits, and draw them in --out/hits.png."""
    if args.k < 1:
        raise ValueError(f"-k is {args.k}; ask for at least 1 hit")
    if args.image and (args.gallery or args.qdrant):
        raise ValueError("--gallery and --qdrant hold pictures; with --image captions are searched")
    features = common.checked_features(args.features, args.check_all)

    from tgdt_mini.commands import galleries
    from tgdt_mini.encoders.load import load_encoders
    from tgdt_mini.encoding import encode_pictures, encode_texts
    from tgdt_mini.photos.image_io import open_image
    from tgdt_mini.photos.origin import finder
    from tgdt_mini.reports.choice import stored_settings
    from tgdt_mini.runs.retriever import picture_finder
    from tgdt_mini.search.gallery import Gallery

    # the query first: what is wrong with it is said before a gallery is encoded
    query = open_image(args.image) if args.image else args.caption
    gallery = Gallery.load(args.gallery) if args.gallery else None
    model = common.load_model(args.model or (gallery and gallery.source), args.device)
    load_encoders(model)
    if args.image:
        query_is, embedding = "image", encode_pictures(model, [query])
    else:
        query_is, embedding = "caption", encode_texts(model, [query])

    if args.qdrant:
        gallery = galleries.in_qdrant(model, args.qdrant, args.collection)
    elif args.gallery:
        gallery.check_model(model.fingerprint)
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
        picture_of = picture_finder(common.knows_photographs(model))
    show(query, hits, picture_of, args.out / "hits.png")
    times = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in hits.seconds.items())
    print(f"{len(gallery)} searched ({times}); the hits are drawn in {args.out}/hits.png")


def show(query, hits, picture_of, path: Path) -> None:
    """Print the hits of one query as a table, and draw what `picture_of` gives for each item."""
    from tgdt_mini.reports import plots

    items, scores = hits.items[0], hits.scores[0].tolist()
    print(f"{'rank':>4}  {'score':>6}  {'image' if isinstance(query, str) else 'caption'}")
    for rank, (item, score) in enumerate(zip(items, scores), start=1):
        print(f"{rank:4}  {score:6.3f}  {item}")
    plots.hits([query], [[picture_of(item) for item in items]], None, [scores], path)
