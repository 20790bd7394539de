"""One object to search with: a model, the encoders that it needs, and a gallery.

    retriever = Retriever.from_pretrained("photographs")
    retriever.index("FOLDER")
    print(retriever.search("a dog runs through the snow"))

Nothing is computed here that `load_model`, `encode_texts` and `Gallery` do not do by themselves.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from tgdt_mini import scenes
from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.config import pick_device
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoders.load import copy_encoders, load_encoders
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.files.check import shown, true_or_false
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.whole import standing
from tgdt_mini.model import TGDT
from tgdt_mini.photos.picture_folder import find_pictures
from tgdt_mini.reports.choice import stored_settings
from tgdt_mini.runs.model_names import (
    SHIPPED,
    folder_of,
    knows_photographs,
    source_of,
    unseen_words,
)
from tgdt_mini.runs.pictures import (
    TAKEN,
    Picture,
    PictureFinder,
    as_picture,
    encode_in_groups,
    encoded_groups,
    readable,
    several,
)
from tgdt_mini.search.gallery import Gallery, check_items
from tgdt_mini.search.hits import Hits

# tokenizers and encoders keep a state while they work, and models share them
ONE_AT_A_TIME = threading.Lock()


class Retriever:
    """A model that encodes pictures and captions, and the gallery that it searches, if any.

    model: a TGDT with its tokenizer, as `load_model` gives it. The shortlist and the weight of the
    local score that validation chose for it are those of each search. Many threads may use one.
    """

    def __init__(
        self,
        model: TGDT,
        gallery: Gallery | None = None,
        source: str | None = None,
        **encoders: str | Path | None,
    ):
        self._tokenizer = getattr(model, "tokenizer", None)  # an encoder may take its place
        if self._tokenizer is None:
            raise ValueError("the model has no tokenizer; take one that load_model has loaded")
        if gallery is not None:
            if not hasattr(gallery, "check_model"):  # that of Qdrant is searched as well
                raise TypeError(f"gallery is {shown(gallery)}; it must be a Gallery")
            gallery.check_model(model.fingerprint)
        load_encoders(model, **encoders)
        self.model, self.gallery, self.source = model.eval(), gallery, source
        self.refused: dict[int, str] = {}  # of the last `index`: {a picture's number: why}
        self._drawn = not self.knows_photographs  # whether items may be the names of drawn scenes

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "auto",
        vision_path: str | Path | None = None,
        text_path: str | Path | None = None,
        gallery: str | Path | None = None,
    ) -> "Retriever":
        """A retriever by name or folder.

        name: "scenes" (with the gallery of the test scenes) or "photographs", which are shipped; a
        folder that `save`, or a training, wrote; or a name on the Hugging Face hub, such as
        "user/model", whose files are downloaded. vision_path, text_path: where the encoders lie, if
        neither where they were nor beside the model. gallery: a folder that `Gallery.save` or the
        command `index` wrote, to be searched instead of the model's own.
        Raises ValueError that names what is missing or damaged.
        """
        folder = standing(folder_of(name))
        model = load_model(folder, pick_device(device))
        is_scenes = folder == shipped().joinpath(*SHIPPED["scenes"])
        own = shipped() / "gallery" if is_scenes else folder / "gallery"
        if gallery is None and own.is_dir():  # also if its gallery.json is lost, which is told
            gallery = own
        places = {"vision": vision_path, "text": text_path, "beside": folder}
        stored = None if gallery is None else Gallery.load(gallery)
        retriever = cls(model, stored, source_of(name, folder), **places)
        retriever._drawn = stored is not None and scenes.is_split(stored.items)
        return retriever

    def __repr__(self):
        held = f"{len(self.gallery)} {self.gallery.holds}s" if self.gallery else "no gallery"
        return f"Retriever({self.source or 'a model'}, {held})"

    @property
    def knows_photographs(self) -> bool:
        """Whether the model was trained on features of photographs; else on drawn scenes."""
        return knows_photographs(self.model)

    def encode_images(self, images: Picture | Iterable[Picture]) -> Embedding:
        """Embedding of one picture or several: PIL pictures, paths, or arrays (H, W, 3) of uint8.

        ValueError names an image that cannot be read; TypeError one of another type.
        """
        pictures = several(images, "images", TAKEN)
        with ONE_AT_A_TIME:
            return encode_pictures(self.model, [as_picture(picture) for picture in pictures])

    def encode_texts(self, texts: str | Iterable[str]) -> Embedding:
        """Embedding of one caption or several. ValueError for none, TypeError for another type."""
        taken = "a string, or several of them"
        captions = several(texts, "texts", taken)
        for caption in captions:
            if not isinstance(caption, str):
                raise TypeError(f"texts holds {shown(caption)}; give {taken}")
        with ONE_AT_A_TIME:
            return encode_texts(self.model, captions)

    def index(
        self,
        images: Picture | Iterable[Picture],
        items: Iterable | None = None,
        progress: bool = True,
        recursive: bool = False,
        skip_broken: bool = False,
    ) -> "Retriever":
        """Encode pictures into a new gallery, which is searched from then on; returns self.

        images: a folder, whose pictures are taken, or pictures as for `encode_images`. items: what
        a hit returns for each picture, any JSON values; by default its path, or else its number.
        recursive: take the pictures of the folders in it too. progress: show a bar.
        skip_broken: leave out what cannot be read, with one warning; `refused` tells which and why.
        ValueError names the first such picture without it, or where no other is left.
        """
        switches = dict(progress=progress, recursive=recursive, skip_broken=skip_broken)
        for name, value in switches.items():
            true_or_false(name, value)
        if isinstance(images, (str, Path)) and os.path.isdir(images):
            pictures: list = list(find_pictures(images, recursive).paths)
        else:
            pictures = several(images, "images", TAKEN)
        if items is None:
            is_path = [isinstance(picture, (str, Path)) for picture in pictures]
            numbered = enumerate(zip(pictures, is_path))
            items = [str(Path(i).absolute()) if path else n for n, (i, path) in numbered]
        if isinstance(items, str):
            raise TypeError(f"items is {shown(items)}; give a list, one for each picture")
        items = list(items)
        if len(items) != len(pictures):
            raise ValueError(f"{len(items)} items for {len(pictures)} images; give one for each")
        check_items(items)  # before the pictures are encoded
        refused: dict[int, str] = {}
        if skip_broken:
            embedding, read = self._encode_readable(pictures, refused, progress)
            items = [items[number] for number in read]
        else:
            try:
                embedding = encode_in_groups(self.encode_images, pictures, progress)
            except ValueError as error:
                raise ValueError(f"{error}; skip_broken=True leaves out such a picture") from error
        self.gallery = built(self.model, embedding, items, "image", self.source)
        self._drawn, self.refused = False, refused
        return self

    def _encode_readable(self, pictures, refused, progress):
        """(Embedding, numbers) of the pictures that can be read; `refused` gets the others."""
        read: list[int] = []

        def encode(numbers):
            wanted = readable({number: pictures[number] for number in numbers}, read, refused)
            with ONE_AT_A_TIME:
                first = next(wanted, None)
                if first is None:
                    return None
                return encode_pictures(self.model, chain([first], wanted))

        parts = encoded_groups(encode, list(range(len(pictures))), progress)
        if refused:
            count, why = f"{len(refused)} of {len(pictures)} pictures", next(iter(refused.values()))
            if not parts:
                raise ValueError(f"{why}; none of {len(pictures)} pictures can be read")
            warnings.warn(f"{count} cannot be read and are left out, the first: {why}")
        return Embedding.cat(parts), read

    def index_texts(self, texts: Iterable[str]) -> "Retriever":
        """Encode captions into a new gallery, to be searched by pictures; returns self."""
        texts = list(several(texts, "texts", "a string, or several of them"))
        self.gallery = built(self.model, self.encode_texts(texts), texts, "caption", self.source)
        return self

    def search(
        self,
        query: Picture | Iterable[Picture],
        k: int = 5,
        shortlist: int | None = None,
        local_weight: float | None = None,
    ) -> Hits:
        """The k best items for a caption or a picture, or for each of several.

        A gallery of pictures is asked with captions (str), one of captions with pictures.
        shortlist, local_weight: by default what validation chose for the model.
        """
        gallery = self.gallery  # another thread may index meanwhile
        if gallery is None:
            raise ValueError("there is no gallery to search yet; call index(images) first")
        encode: Callable = self.encode_texts
        if gallery.holds == "caption":
            encode, asked = self.encode_images, "captions: ask it with a picture"
        else:
            asked = "pictures: ask it with captions, or make one of captions by index_texts"
        try:
            embedding = encode(query)
        except (TypeError, ValueError) as error:
            raise type(error)(f"query: {error} (the gallery holds {asked})") from error
        hits = gallery.search(embedding, k, shortlist=shortlist, local_weight=local_weight)
        if gallery.holds == "caption":  # which may be called like a file
            return replace(hits, picture_of=str)
        return replace(hits, picture_of=PictureFinder(self._drawn))

    def word_regions(
        self, caption: str, picture: Picture
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """(W word pieces, their similarities with R regions (W, R), the regions' boxes (R, 4)).

        Only pieces that have a local token. Boxes are x0, y0, x1, y1 as fractions of the picture's
        sides. `plots.word_regions(picture, *...)` draws them: where the words look.
        """
        if not isinstance(caption, str):
            raise TypeError(f"caption is {shown(caption)}; give one string")
        words, pictures = self.encode_texts(caption), several(picture, "picture", "one picture")
        if len(pictures) > 1:
            raise ValueError(f"picture is {len(pictures)} pictures; give one")
        picture = pictures[0]
        with ONE_AT_A_TIME, torch.no_grad():
            tokens = self.model.image_reader.cut([as_picture(picture)])
            device = next(self.model.parameters()).device
            regions = self.model.encode_images(tokens.to(device)).local_tokens[0]  # (R, D)
            pieces = self.model.tokenizer.pieces(caption)
        real = words.mask[0].tolist()
        pieces = [piece for (piece, _, _), is_real in zip(pieces, real) if is_real]
        similarities = words.local_tokens[0][words.mask[0]] @ regions.T
        return pieces, similarities.cpu(), tokens.boxes[0].cpu()

    def unseen_words(self, text: str) -> list[str]:
        """The words of a caption that the model has never seen, in order."""
        return unseen_words(self.model, text)

    def save(self, folder: str | Path, encoders: bool = False) -> None:
        """Write model and gallery to a folder, for `from_pretrained`, whole or not at all.

        encoders: copy the encoders too that lie in folders here, so that the model finds them on
        another machine. ValueError for a folder that holds other files.
        """
        gallery = self.gallery
        true_or_false("encoders", encoders)
        if not isinstance(folder, (str, Path)):
            raise TypeError(f"folder is {shown(folder)}; give a folder's name")

        def also(staging):
            if gallery is not None:
                gallery.save(staging / "gallery")
            # those that lie in the folder would be lost with what it held
            copy_encoders(self.model, staging, None if encoders else Path(folder).absolute())

        save_model(self.model, folder, self._tokenizer, self.model.notes, also=also)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload what `save` writes to the Hugging Face hub as "user/model"; returns its address.

        options: of huggingface_hub.HfApi.create_repo, such as private=True or a token.
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=options.pop("token", None))
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "model", encoders=True)
            address = api.create_repo(name, exist_ok=True, **options)
            name, local = getattr(address, "repo_id", name), Path(folder) / "model"
            api.upload_folder(repo_id=name, folder_path=local, delete_patterns="gallery/*")
        return str(address)


def built(
    model, embedding: Embedding, items: list, holds: str, source: str | None = None
) -> Gallery:
    """A gallery whose searches use what validation chose for the model, or else the defaults."""
    chosen = None
    if model.notes.get("choice"):
        settings, query_is = stored_settings(model), "caption" if holds == "image" else "image"
        chosen = {"local_weight": settings.local_weight, "shortlist": settings.shortlist[query_is]}
    gallery = Gallery.build(embedding, items, holds, model.fingerprint, settings=chosen)
    return replace(gallery, source=source)
