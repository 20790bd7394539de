"""What the explorer knows and does, without a page: a query, two settings, and how hits moved.

    Explorer("a yellow star above a pink square")

is the last line of a notebook's cell: a page to play with where anywidget is installed, a picture
of the search where it is not.
"""

import base64
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tgdt_mini import scenes
from tgdt_mini.files.check import real_number, typed, whole_number
from tgdt_mini.reports import figure, plots
from tgdt_mini.runs.pictures import Picture, as_picture
from tgdt_mini.runs.retriever import Retriever, built
from tgdt_mini.search.gallery import SETTINGS, Gallery
from tgdt_mini.search.hits import Hits
from tgdt_mini.similarity import MOST_WEIGHT

SHORTLISTS = (10, 20, 50, 100, 200, 500, 1000)
MOST_WEIGHED = 8.0  # the largest local weight that is offered
CAPTION_SCENES = 200  # the test scenes whose captions a picture is compared with: a second or two
LONGEST = 1000  # characters of a caption; a model reads some forty words
ALT = "A search: what was asked, then its best hits. Where this runs, it is a page to explore."
SCORE = attrgetter("score")


@dataclass(frozen=True)
class Tile:
    """One hit as it is shown. Positions are counted from 0.

    was: its position in the order before; None if it was not on the shortlist then.
    """

    row: int  # of the gallery
    item: Any
    score: float
    position: int
    was: int | None

    @property
    def up(self) -> int:
        """By how many positions it has moved up; negative is down, 0 also for one that is new."""
        return 0 if self.was is None else self.was - self.position


class Explorer:
    """A search that can be asked again with other settings, and tells what moved.

    query: a caption, or a picture that is compared with captions. retriever: with a gallery of
    pictures; by default the shipped one of drawn scenes. captions: what a picture is compared with;
    by default those of 200 drawn scenes or, for photographs, those that were asked before. k: how
    many hits are shown. ValueError for a retriever without a gallery of pictures.
    """

    @typed
    def __init__(
        self,
        query: Picture,
        retriever: Retriever | None = None,
        captions: Sequence[str] = (),
        k: int = 10,
    ):
        self.retriever = Retriever.from_pretrained("scenes") if retriever is None else retriever
        gallery = self.retriever.gallery
        if gallery is None or gallery.holds != "image":
            raise ValueError("the explorer shows pictures; call retriever.index(pictures) first")
        self.k = min(whole_number("k", k, 1), len(gallery))
        chosen = SETTINGS | (gallery.settings or {})
        self.shortlist: int = min(max(chosen["shortlist"], self.k), len(gallery))
        self.local_weight: float = chosen["local_weight"]
        self._pictures = gallery
        self._told: Gallery | None = None  # captions, for a picture
        self._captions = list(captions)
        self._asked: list[str] = []  # captions
        self.query: Any = None
        self.hits: Hits
        self.tiles: list[Tile] = []
        self._order: list[int] = []
        self.ask(query)

    def ask(
        self,
        query: Picture | None = None,
        shortlist: int | None = None,
        local_weight: float | None = None,
    ) -> Hits:
        """Search again with what is given changed; the first k hits. `tiles` tell what moved.

        An error, ValueError or TypeError, leaves everything as it was.
        """
        query, is_new = (self.query, False) if query is None else (query, True)
        shortlist = self.shortlist if shortlist is None else whole_number("shortlist", shortlist, 1)
        weight = self.local_weight if local_weight is None else local_weight
        weight = real_number("local_weight", weight, -MOST_WEIGHT, MOST_WEIGHT)
        if isinstance(query, str) and len(query) > LONGEST:
            raise ValueError(f"query has {len(query):,} characters; give {LONGEST:,} at most")
        if is_new and not isinstance(query, str):
            query = as_picture(query)
        retriever = copy.copy(self.retriever)
        retriever.gallery = gallery = self._gallery_for(query)
        # the whole shortlist: who comes up from below the last shown hit was somewhere, too
        found = retriever.search(
            query, max(self.k, shortlist), shortlist=shortlist, local_weight=weight
        )
        self.query, self.shortlist, self.local_weight = query, shortlist, weight
        self.searched = len(gallery)  # items: pictures, or captions
        if is_new and isinstance(query, str) and query not in self._asked:
            self._asked.append(query)
        order = found.indices[0].tolist()
        self._move(order, found, is_new)
        self.hits = replace(
            found,
            indices=found.indices[:, : self.k],
            scores=found.scores[:, : self.k],
            items=[items[: self.k] for items in found.items],
        )
        return self.hits

    def _move(self, order, found, is_new):
        """Set `tiles`. Where the shown order is as before, each keeps the move that it shows."""
        shown = order[: self.k]
        if not is_new and shown == [tile.row for tile in self.tiles]:
            was = [tile.was for tile in self.tiles]
        elif is_new:
            was = list(range(len(shown)))
        else:
            before = {row: position for position, row in enumerate(self._order)}
            was = [before.get(row) for row in shown]
        scores = found.scores[0].tolist()
        parts = zip(shown, found.items[0], scores, range(len(shown)), was)
        self.tiles, self._order = [Tile(*part) for part in parts], order

    def _gallery_for(self, query) -> Gallery:
        """The gallery of pictures for a caption, one of captions for a picture."""
        if isinstance(query, str):
            return self._pictures
        if not self._captions and not self.retriever.knows_photographs:
            own = scenes.captions_of("test")[:CAPTION_SCENES]
            self._captions = list(dict.fromkeys(text for each in own for text in each))
        captions = self._captions or list(self._asked)
        if not captions:
            raise ValueError("there is no caption to compare a picture with; write one first")
        if self._told is None or self._told.items != captions:
            embedding = self.retriever.encode_texts(captions)
            self._told = built(self.retriever.model, embedding, captions, "caption")
        return self._told

    @property
    def shortlists(self) -> list[int]:
        """The lengths to choose from: those of SHORTLISTS that fit, the present one, and all."""
        size = len(self._pictures)
        offered = {n for n in (*SHORTLISTS, size) if self.k <= n <= min(size, SHORTLISTS[-1])}
        return sorted({*offered, self.shortlist})

    @property
    def unseen_words(self) -> list[str]:
        """The words of the query that the model has never seen."""
        return self.retriever.unseen_words(self.query) if isinstance(self.query, str) else []

    def picture(self, tile: Tile) -> Image.Image | str:
        """What a tile shows: a picture, or a text where there is none."""
        return self.hits.picture_of(tile.item) if self.hits.picture_of else str(tile.item)

    def look(self, tile: Tile) -> tuple[Image.Image, list[str], torch.Tensor, torch.Tensor]:
        """(picture, W words, similarities (W, R), boxes (R, 4)): where the words of a pair look.

        The pair is the caption and a hit's picture, or the picture and a hit's caption.
        ValueError if there is no picture any more.
        """
        caption, picture = self.query, self.picture(tile)
        if not isinstance(self.query, str):
            caption, picture = tile.item, self.query
        if isinstance(picture, str):
            raise ValueError(f"there is no picture of {picture:.200}; was the file moved?")
        return picture, *self.retriever.word_regions(caption, picture)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        """The page, and for readers without it a picture of the same search with a description.

        The page leaves no trace in a stored chapter: `notebooks/refresh.py` takes it out.
        """
        data: dict[str, Any] = {"text/plain": ALT}
        metadata = {}
        try:
            kind, content = self._figure()
            data[kind] = base64.b64encode(content).decode()
            metadata[kind] = {"alt": ALT}
        except ModuleNotFoundError:  # no matplotlib
            data["text/html"] = self.hits._repr_html_()
        try:
            from tgdt_mini.app.widget import Panel
        except ModuleNotFoundError:  # no anywidget
            return data, metadata
        view = {"version_major": 2, "version_minor": 0, "model_id": Panel(self).model_id}
        return data | {"application/vnd.jupyter.widget-view+json": view}, metadata

    def _figure(self):
        """(MIME type, bytes) of a picture of the search."""
        pictures, scores = ([f(tile) for tile in self.tiles] for f in (self.picture, SCORE))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "hits.png"
            plots.hits([self.query], [pictures], None, [scores], path)
            return figure.for_page(path.read_bytes())
