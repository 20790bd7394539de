"""The galleries that `index` keeps and `search` searches: of files, of features, of drawn scenes.

No formula here: a `Gallery` searches itself (see `search/gallery.py`).
"""

from collections.abc import Callable
from pathlib import Path

from tgdt_mini import scenes
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.search.gallery import Gallery

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
GROUP = 100  # pictures that are in memory at a time


def of_files(model, folder: Path) -> Gallery:
    """The gallery of a folder's pictures; its items are their paths. ValueError without any."""
    if not folder.is_dir():
        raise ValueError(f"--images {folder} is not a folder")
    paths = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        raise ValueError(f"--images {folder} holds no picture ({', '.join(ENDINGS)})")
    return _of_pictures(model, paths, open_image)


def of_features(model, folder: Path, split: str, holds: str) -> Gallery:
    """The gallery of the images or captions (`holds` "image" or "caption") of stored features."""
    from tgdt_mini.photos.encoding import encode_split

    images, ids, captions, texts = encode_split(model, folder, split)
    if holds == "image":
        return _built(model, images, ids, "image")
    return _built(model, captions, texts, "caption")


def of_scenes(model, split: str) -> Gallery:
    """The gallery of a split of the drawn scenes."""
    ids = [scenes.id_of(split, row) for row in range(scenes.SPLITS[split][1])]
    return _of_pictures(model, ids, scenes.picture)


def shipped_or_of_scenes(model, split: str) -> Gallery:
    """The same, but the shipped gallery if this model has made it."""
    if split == "test":
        gallery = Gallery.load(shipped() / "gallery")
        if gallery.model == model.fingerprint:
            return gallery
    count = f"{scenes.SPLITS[split][1]:,} {split} scenes"
    print(f"encoding the {count} for this model; index would keep them")
    return of_scenes(model, split)


def of_scene_captions(model, split: str) -> Gallery:
    """The gallery of the captions of a split of the drawn scenes."""
    texts = [text for captions in scenes.captions_of(split) for text in captions]
    return _built(model, encode_texts(model, texts), texts, "caption")


def in_qdrant(model, address: str, collection: str):
    """A collection of Qdrant, which is searched as a Gallery is. ValueError for another model's."""
    from tgdt_mini.scaling.qdrant import QdrantGallery

    return QdrantGallery.open(address, collection, expect_model=model.fingerprint)


def picture_finder(photographs: bool) -> Callable:
    """A function from an item to its picture, if it is a file or a drawn scene, else to its name.

    photographs: no item is a drawn scene, though it may be called like one.
    """

    def find(item):
        if Path(str(item)).is_file():
            return open_image(item)
        return scenes.picture(item) if not photographs and scenes.is_id(item) else str(item)

    return find


def _of_pictures(model, names: list[str], open_picture: Callable) -> Gallery:
    from tqdm import tqdm

    groups = [names[start : start + GROUP] for start in range(0, len(names), GROUP)]
    parts = []
    # disable None: a bar on a terminal only
    with tqdm(total=len(names), desc="encoding", unit=" images", disable=None) as bar:
        for group in groups:
            parts.append(encode_pictures(model, [open_picture(name) for name in group]))
            bar.update(len(group))
            if bar.disable and len(parts) % 10 == 0:  # not on a terminal: a line now and then
                print(f"{sum(map(len, parts))} of {len(names)} pictures are encoded", flush=True)
    return _built(model, Embedding.cat(parts), names, "image")


def _built(model, embedding, items, holds):
    """A gallery whose searches use the settings that validation chose for the model."""
    query_is = "caption" if holds == "image" else "image"
    settings = stored_settings(model)
    chosen = {"local_weight": settings.local_weight, "shortlist": settings.shortlist[query_is]}
    return Gallery.build(embedding, items, holds, model.fingerprint, settings=chosen)
