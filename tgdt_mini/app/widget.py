"""The explorer as a widget: what the page shows, and one call of `Explorer` for all that is done.

`panel.js` draws the traits below and tells what a person does; `panel.css` is how it looks.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anywidget import AnyWidget
from traitlets import Bool, Float, Int, List, Unicode

from tgdt_mini.app import page
from tgdt_mini.app.explorer import MOST_WEIGHED, Explorer
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.search.hits import in_one_line

HERE = Path(__file__).parent
LARGEST = 9 * 2**20  # bytes of a picture: a notebook's connection breaks at a message of 10 MiB
NONE = -1  # the position of no hit


class Panel(AnyWidget):
    """The page of one explorer. Each caption, picture or move of a slider is one search.

    largest: bytes that the connection to the browser takes in one message.
    """

    _esm = HERE / "panel.js"
    _css = HERE / "panel.css"
    k = Int().tag(sync=True)  # hits at most
    caption = Unicode().tag(sync=True)  # that the field begins with
    largest = Int().tag(sync=True)
    lengths = List(Int()).tag(sync=True)  # what the slider of shortlists offers
    weights = List(Float()).tag(sync=True)  # the least and the most that the other one offers
    shortlist = Int().tag(sync=True)  # these two the page sets
    local_weight = Float().tag(sync=True)
    line = Unicode().tag(sync=True)  # HTML: how it was searched, or why not
    tiles = List(Unicode()).tag(sync=True)  # HTML of each hit
    names = List(Unicode()).tag(sync=True)  # rank and score of each hit
    look = Unicode().tag(sync=True)  # HTML: where the words look
    chosen = Int(NONE).tag(sync=True)  # the position of the hit whose words are shown
    stale = Bool(False).tag(sync=True)  # the hits are those of an earlier search

    def __init__(self, explorer: Explorer, largest: int = LARGEST):
        weight = explorer.local_weight
        super().__init__(
            k=explorer.k,
            caption=explorer.query if isinstance(explorer.query, str) else "",
            largest=largest,
            lengths=explorer.shortlists,
            weights=[min(0, weight), max(MOST_WEIGHED, weight)],
            shortlist=explorer.shortlist,
            local_weight=weight,
        )
        self.explorer = explorer
        self.rows: list[int] = []  # of the gallery, as they are shown
        self.query: Any = None
        self.on_msg(self.on_said)
        self.observe(self.on_setting, ["shortlist", "local_weight"])
        self.show()

    def ask(self, **change) -> None:
        """Search again with one thing changed; what cannot be done is one line."""
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                self.explorer.ask(**change)
        except (ValueError, TypeError, OSError) as error:
            self.refuse(str(error))
            return
        self.show([str(warning.message) for warning in told])

    def refuse(self, why: str) -> None:
        """Say why nothing was searched; the hits of before stay, but pale."""
        self.line, self.stale = page.wrong_html(why), True

    def show(self, told: Sequence[str] = ()) -> None:
        """Show the hits. What is as before is not sent again, and so does not move again."""
        explorer = self.explorer
        self.line, self.stale = page.line_html(explorer, told), False
        rows = [tile.row for tile in explorer.tiles]
        if rows != self.rows or explorer.query is not self.query:
            self.close_look()
            self.tiles = [
                page.tile_html(tile, explorer.picture(tile), explorer.k) for tile in explorer.tiles
            ]
        self.rows, self.query = rows, explorer.query
        self.names = [f"{tile.position + 1}: {tile.score:.3f}" for tile in explorer.tiles]

    def on_said(self, _, said: dict, buffers: Sequence = ()) -> None:
        """Do what a person did, as the page says it.

        said: {"caption": text}, {"hit": position}, or {"files": count, "name", "size"} of the
        first. buffers: the bytes of a file, if it is one and fits.
        """
        with self.hold_sync():  # the page gets all that changes at once
            match said:
                case {"caption": str(caption)}:
                    self.on_caption(caption)
                case {"hit": int(position)} if 0 <= position < len(self.explorer.tiles):
                    self.on_hit(position)
                case {"files": int(count), "name": str(name), "size": int(size)}:
                    self.on_files(count, in_one_line(name)[:80], size, *map(bytes, buffers))

    def on_setting(self, change) -> None:
        """Search with the setting that a slider has sent."""
        with self.hold_sync():
            self.ask(**{change["name"]: change["new"]})

    def on_caption(self, caption: str) -> None:
        """Search by a caption. The same one again is for who comes back from a picture."""
        if not caption.strip():
            self.refuse("Write a caption first, such as: a yellow star above a pink square")
        elif caption != self.explorer.query or self.stale:
            self.ask(query=caption)

    def on_files(self, count: int, name: str, size: int, content: bytes = b"") -> None:
        """Search by the picture that was chosen or dropped."""
        if count != 1:
            many = f"These are {count} files; give one picture at a time"
            self.refuse(many if count else "That is no file; give the file of a picture")
            return
        if size > self.largest:
            most = f"{self.largest / 2**20:.0f} MB at most"
            self.refuse(f"{name} has {size / 2**20:.0f} MB; give a picture of {most}")
            return
        try:
            picture = open_image(content, name)
        except ValueError as error:
            self.refuse(str(error))
            return
        self.ask(query=picture)

    def on_hit(self, position: int) -> None:
        """Show where the words look in a hit, or hide it again."""
        if position == self.chosen:
            self.close_look()
            return
        tile = self.explorer.tiles[position]
        try:
            with warnings.catch_warnings(action="ignore"):  # told when the search was made
                picture, words, similarities, boxes = self.explorer.look(tile)
        except (ValueError, TypeError, OSError) as error:
            self.look = page.wrong_html(str(error))
        else:
            name = page.name_of(tile.item)
            self.look = page.look_html(picture, words, similarities, boxes, name)
        self.chosen = position

    def close_look(self) -> None:
        """Hide where the words look. (`close` is the widget's own.)"""
        self.chosen, self.look = NONE, ""
