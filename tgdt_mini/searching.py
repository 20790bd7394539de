"""What the commands `index` and `search` do: their options to a gallery, what is asked of it, and how hits are shown.

Pictures are the test scenes, files of one's own, or those whose features are in a folder. No formula here: a `Gallery`
searches (see `retrieval.py`), or Qdrant does (see `qdrant.py`).
"""

import warnings
from pathlib import Path

from tgdt_mini import scenes
from tgdt_mini.assessment import choice_of
from tgdt_mini.backbones import attach
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode_texts
from tgdt_mini.experiments import encode_pictures
from tgdt_mini.paths import shipped
from tgdt_mini.photo_experiments import encode_split
from tgdt_mini.photos import finder
from tgdt_mini.pictures import open_image
from tgdt_mini.retrieval import Gallery

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def index(model, args) -> int:
    """How many pictures are now in the gallery at --out, and in Qdrant where --qdrant says so."""
    if args.features:
        found, names = encode_split(model, args.features, args.split)[:2]
    else:
        attach(model)
        if args.images is None:
            names = [f"test-{i:04d}" for i in range(scenes.SPLITS["test"][1])]
            pictures = (scenes.picture(name) for name in names)
        else:
            names = _names_of(args.images)
            pictures = (open_image(name) for name in names)
        groups = _grouped(_shown(pictures, len(names), "encoding"), 100)
        found = Embedding.cat([encode_pictures(model, group) for group in groups])
    gallery = Gallery.build(found, names, "image", model.fingerprint)
    gallery.save(args.out)
    if args.qdrant:
        from tgdt_mini.qdrant import QdrantGallery

        there = QdrantGallery.upload(gallery, args.qdrant, args.collection)
        if more := len(there) - len(gallery):
            warnings.warn(
                f"{there.engine} holds {more} item{'s' if more > 1 else ''} more than the gallery, and they are found "
                "too: name another --collection to leave them out",
                stacklevel=2,
            )
        there.close()
    return len(names)


def asked(args):
    """The caption, or the picture, to search by. ValueError for options of `search` that do not go together."""
    if (args.caption is None) == (args.image is None):
        raise ValueError("give a caption or --image FILE, one of the two")
    if args.k < 1:
        raise ValueError(f"-k is {args.k}; ask for at least 1 hit")
    if args.image is not None and (args.gallery or args.qdrant):
        raise ValueError("--gallery and --qdrant hold pictures; with --image the test captions are searched")
    return args.caption if args.image is None else open_image(args.image)


def search(model, asked, args):
    """(hits, how many items were searched, a function from an item to what a figure shows of it)."""
    attach(model)
    chosen, picture_of, stored = choice_of(model), _picture, None
    if args.features:
        stored = encode_split(model, args.features, args.split)
        picture_of = finder(args.features, args.split)
    if args.image is None:
        side, gallery, query = "caption", _pictures(model, stored, args), encode_texts(model, [asked])
    else:
        side, gallery, query = "image", _captions(model, stored), encode_pictures(model, [asked])
    shortlist = args.shortlist if args.shortlist is not None else chosen.shortlist[side]
    hits = gallery.search(query, args.k, shortlist, chosen.local_weight)
    return hits, len(gallery), picture_of if side == "caption" else str


def _pictures(model, stored, args):
    """The gallery that a caption searches: one that is there, or the pictures of a folder of features."""
    if args.qdrant:
        from tgdt_mini.qdrant import QdrantGallery

        return QdrantGallery.open(args.qdrant, args.collection, expect_model=model.fingerprint)
    if stored and not args.gallery:
        return Gallery.build(*stored[:2], "image", model.fingerprint)
    return Gallery.load(args.gallery or shipped() / "gallery", expect_model=model.fingerprint)


def _captions(model, stored):
    """The gallery that a picture searches: the captions of a folder of features, or those of the test scenes."""
    if stored:
        return Gallery.build(*stored[2:], "caption", model.fingerprint)
    texts = [caption for own in scenes.captions_of("test") for caption in own]
    return Gallery.build(encode_texts(model, texts), texts, "caption", model.fingerprint)


def _names_of(folder):
    if not folder.is_dir():
        raise ValueError(f"--images {folder} is not a folder")
    names = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not names:
        raise ValueError(f"--images {folder} holds no picture ({', '.join(PICTURES)})")
    return names


def _picture(item):
    return open_image(item) if Path(item).suffix else scenes.picture(item)


def _shown(things, total, name):
    from tqdm import tqdm

    return tqdm(things, name, total=total, unit=" images", disable=None)  # None: shown on a terminal only


def _grouped(things, size):
    group = []
    for thing in things:
        group.append(thing)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
