"""A few photographs that may be shown, and what the shipped model for photographs makes of them.

The model's encoders come in the extra `photos`. What they and the model made of these pictures and
captions is kept beside them, so that the book shows searches in photographs without the extra.
data/photographs/README.md says whose the photographs are. After a change of the model or of a
caption, write it again: `python -m tgdt_mini.runs.samples`.
"""

from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.manifest import load_json
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.runs.retriever import Retriever
from tgdt_mini.search.gallery import Gallery

FOLDER = shipped() / "photographs"


def sample_photographs() -> list[dict]:
    """Records of the photographs: image, image_id, one caption, boxes, phrases that speak of them.

    The form of `photos/records.py`; boxes are fractions of width and height.
    """
    records = _read()["photographs"]
    return [record | {"image": _picture(record["image_id"])} for record in records]


def sample_captions() -> tuple[list[str], Embedding]:
    """(C captions, their Embedding): each photograph's own, in order, then the other searches."""
    return _captions(), Embedding(**load_file(FOLDER / "captions.safetensors"))


def sample_gallery() -> Gallery:
    """The photographs as the shipped model encoded them; its items are their `image_id`."""
    return Gallery.load(FOLDER / "gallery")


def encode_samples(folder: Path) -> None:
    """Encode photographs and captions anew and write both into a folder. It needs the encoders."""
    records, retriever = sample_photographs(), Retriever.from_pretrained("photographs", "cpu")
    names, pictures = ([record[key] for record in records] for key in ("image_id", "image"))
    retriever.index(pictures, items=names, progress=False)
    told = retriever.encode_texts(_captions())
    parts = {name: getattr(told, name).contiguous() for name in _PARTS}
    folder.mkdir(parents=True, exist_ok=True)
    retriever.gallery.save(folder / "gallery")
    save_file(parts, folder / "captions.safetensors")
    (folder / "captions.safetensors").chmod(0o644)  # safetensors writes for its owner alone


_PARTS = ("global_token", "local_tokens", "mask")


def _read():
    return load_json(FOLDER / "records.json", "install the project again")


def _captions():
    read = _read()
    return [record["captions"][0] for record in read["photographs"]] + read["searches"]


def _picture(name) -> Image.Image:
    return open_image(FOLDER / name)


if __name__ == "__main__":
    encode_samples(FOLDER)
