"""What the commands `index` and `search` do: their options to a gallery, what is asked of it, and
how hits are shown.

Pictures are the test scenes, files of one's own, or those whose features are in a folder. No
formula here: a `Gallery` searches (see `retrieval.py`), or Qdrant does (see `scaling/qdrant.py`).
"""

import warnings
from functools import partial
from pathlib import Path

from tgdt_mini import scenes
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoders.load import load_encoders
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.feature_folder import finder
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.runs.photos import encode_split
from tgdt_mini.search.gallery import Gallery

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def index(model, args) -> int:
    """How many pictures are now in the gallery at --out, and in Qdrant where --qdrant says so."""
    if args.images and args.features:
        raise ValueError("--images and --features name two sets of pictures; give one of them")
    if args.images and args.split != "test":
        raise ValueError(
            f"--split is {args.split}, but the pictures of --images have no splits; leave it out"
        )
    if args.features:
        found, names = encode_split(model, args.features, args.split)[:2]
        gallery = _built(model, found, names, "image")
    else:
        load_encoders(model)
        gallery = (
            _encoded(model, _names_of(args.images), open_image)
            if args.images
            else _scenes(model, args.split)
        )
    gallery.save(args.out)
    if args.qdrant:
        from tgdt_mini.scaling.qdrant import QdrantGallery

        there = QdrantGallery.upload(gallery, args.qdrant, args.collection)
        if more := len(there) - len(gallery):
            warnings.warn(
                f"{there.engine} holds {more} item{'s' if more > 1 else ''} more than the gallery, and they are found "
                "too: name another --collection to leave them out",
                stacklevel=2,
            )
        there.close()
    return len(gallery)


def asked(args):
    """The caption, or the picture, to search by. ValueError for options of `search` that do not go
    together.
    """
    if (args.caption is None) == (args.image is None):
        raise ValueError("give a caption or --image FILE, one of the two")
    if args.k < 1:
        raise ValueError(f"-k is {args.k}; ask for at least 1 hit")
    if args.image is not None and (args.gallery or args.qdrant):
        raise ValueError("--gallery and --qdrant hold pictures; with --image captions are searched")
    if args.gallery and args.qdrant:
        raise ValueError("--gallery and --qdrant name two galleries to search; give one of them")
    return args.caption if args.image is None else open_image(args.image)


def search(model, asked, args):
    """(hits, how many items were searched, a function from an item to what a figure shows of
    it).
    """
    load_encoders(model)
    chosen, picture_of, stored = stored_settings(model), partial(_shown, model), None
    if args.features:
        stored = encode_split(model, args.features, args.split)
        picture_of = finder(args.features, args.split)
    if args.image is None:
        side, gallery, query = (
            "caption",
            _pictures(model, stored, args),
            encode_texts(model, [asked]),
        )
    else:
        side, gallery, query = (
            "image",
            _captions(model, stored, args.split),
            encode_pictures(model, [asked]),
        )
    shortlist = args.shortlist if args.shortlist is not None else chosen.shortlist[side]
    hits = gallery.search(query, args.k, shortlist, chosen.local_weight)
    return hits, len(gallery), picture_of if side == "caption" else str


def _pictures(model, stored, args):
    """The gallery that a caption searches: one that is there, the pictures of a folder of features,
    or the scenes.
    """
    if args.qdrant:
        from tgdt_mini.scaling.qdrant import QdrantGallery

        return QdrantGallery.open(args.qdrant, args.collection, expect_model=model.fingerprint)
    if args.gallery:
        return Gallery.load(args.gallery, expect_model=model.fingerprint)
    if stored:
        return _built(model, *stored[:2], "image")
    if model.config.image_source:
        raise ValueError(
            "the model knows photographs, and none are given: add --features, or --gallery made by index"
        )
    if args.split == "test":
        ready = Gallery.load(shipped() / "gallery")
        if ready.model == model.fingerprint:
            return ready
    print(
        f"encoding the {scenes.SPLITS[args.split][1]:,} {args.split} scenes for this model; index would keep them"
    )
    return _scenes(model, args.split)


def _captions(model, stored, split):
    """The gallery that a picture searches: the captions of a folder of features, or those of a
    split of the scenes.
    """
    if stored:
        return _built(model, *stored[2:], "caption")
    texts = [caption for own in scenes.captions_of(split) for caption in own]
    return _built(model, encode_texts(model, texts), texts, "caption")


def _scenes(model, split):
    """The gallery of a split of the scenes."""
    return _encoded(
        model,
        [scenes.id_of(split, place) for place in range(scenes.SPLITS[split][1])],
        scenes.picture,
    )


def _encoded(model, names, open_one):
    """The gallery of some pictures, read one by one."""
    from tqdm import tqdm

    bar = tqdm(names, "encoding", unit=" images", disable=None)  # None: shown on a terminal only
    groups = _grouped((open_one(name) for name in bar), 100)
    found = Embedding.cat([encode_pictures(model, group) for group in groups])
    return _built(model, found, names, "image")


def _built(model, embedding, items, holds):
    """A gallery by a model, with the settings of search that validation chose for it, if any."""
    settings = None
    if "choice" in model.notes:
        chosen, query_is = stored_settings(model), "caption" if holds == "image" else "image"
        settings = {
            "local_weight": chosen.local_weight,
            "shortlist": chosen.shortlist[query_is],
        }
    return Gallery.build(embedding, items, holds, model.fingerprint, settings=settings)


def _names_of(folder):
    if not folder.is_dir():
        raise ValueError(f"--images {folder} is not a folder")
    names = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not names:
        raise ValueError(f"--images {folder} holds no picture ({', '.join(PICTURES)})")
    return names


def _shown(model, item):
    """What a figure shows of an item: its picture where there is one, else its name."""
    if Path(str(item)).is_file():
        return open_image(item)
    return (
        scenes.picture(item) if not model.config.image_source and scenes.is_id(item) else str(item)
    )


def _grouped(things, size):
    group = []
    for thing in things:
        group.append(thing)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
