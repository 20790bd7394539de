"""The galleries that `index` keeps and `search` searches: of features, of drawn scenes.

No formula here: a `Gallery` searches itself (see `search/gallery.py`).
"""

from pathlib import Path

from tgdt_mini import scenes
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.progress import remark
from tgdt_mini.runs.pictures import encode_in_groups
from tgdt_mini.runs.retriever import built
from tgdt_mini.search.gallery import Gallery


def of_features(model, folder: Path, split: str, holds: str) -> Gallery:
    """The gallery of the images or captions (`holds` "image" or "caption") of stored features."""
    from tgdt_mini.photos.encoding import encode_split

    images, ids, captions, texts = encode_split(model, folder, split)
    if holds == "image":
        return built(model, images, ids, "image")
    return built(model, captions, texts, "caption")


def of_scenes(model, split: str) -> Gallery:
    """The gallery of a split of the drawn scenes."""
    ids = [scenes.id_of(split, row) for row in range(scenes.SPLITS[split][1])]

    def encode(group):
        return encode_pictures(model, [scenes.picture(name) for name in group])

    return built(model, encode_in_groups(encode, ids), ids, "image")


def shipped_or_of_scenes(model, split: str) -> Gallery:
    """The same, but the shipped gallery if this model has made it."""
    if split == "test":
        gallery = Gallery.load(shipped() / "gallery")
        if gallery.model == model.fingerprint:
            return gallery
    count = f"{scenes.SPLITS[split][1]:,} {split} scenes"
    remark(f"encoding the {count} for this model; index would keep them")
    return of_scenes(model, split)


def of_scene_captions(model, split: str) -> Gallery:
    """The gallery of the captions of a split of the drawn scenes."""
    texts = [text for captions in scenes.captions_of(split) for text in captions]
    return built(model, encode_texts(model, texts), texts, "caption")


def in_qdrant(model, address: str, collection: str):
    """A collection of Qdrant, which is searched as a Gallery is. ValueError for another model's."""
    from tgdt_mini.scaling.qdrant import QdrantGallery

    return QdrantGallery.open(address, collection, expect_model=model.fingerprint)
