"""The explorer as an ipywidget: fields, sliders and hits, each wired to one call of `Explorer`."""

import warnings
from collections.abc import Sequence
from typing import Any

from ipywidgets import (
    HTML,
    Box,
    Button,
    FileUpload,
    FloatSlider,
    Layout,
    SelectionSlider,
    Text,
    VBox,
)

from tgdt_mini.app import page
from tgdt_mini.app.explorer import MOST_WEIGHED, Explorer
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.search.hits import in_one_line


class Panel:
    """The widgets of one explorer. Each change of a field or a slider is one search."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.rows: list[int] = []  # of the gallery, as they are shown
        self.query: Any = None
        self.chosen: int | None = None  # the place of the hit whose words are shown
        self.caption = Text(
            value=explorer.query if isinstance(explorer.query, str) else "",
            placeholder="what do you want to see?",
            description="Caption",
            continuous_update=False,
            layout=Layout(width="auto"),
            style={"description_width": "5em"},
        )
        self.search = Button(description="Search", icon="search", button_style="primary")
        self.upload = FileUpload(accept="image/*", description="Search by a picture", icon="")
        wide = {"layout": Layout(width="auto"), "style": {"description_width": "9em"}}
        self.shortlist = SelectionSlider(
            options=[(f"{length:,}", length) for length in explorer.shortlists],
            value=explorer.shortlist,
            description="Shortlist",
            **wide,
        )
        weight = explorer.local_weight
        self.weight = FloatSlider(
            value=weight,
            min=min(0, weight),
            max=max(MOST_WEIGHED, weight),
            step=0.25,
            description="Local weight",
            **wide,
        )
        self.line, self.look = HTML(), HTML()
        tip = "Where do the words look?"
        self.tiles = [(HTML(), Button(tooltip=tip)) for _ in range(explorer.k)]
        for place, (_, button) in enumerate(self.tiles):
            button.on_click(lambda _, place=place: self.on_hit(place))
        self.boxes = [VBox(parts) for parts in self.tiles]
        ask = Box([self.caption, self.search, self.upload])
        settings = Box([self.shortlist, self.weight])
        self.hits = Box([*self.boxes, self.look])
        self.widget = VBox([HTML(page.STYLE), ask, settings, self.line, self.hits])
        classes = {"ask": ask, "set": settings, "look": self.look, "hits": self.hits}
        for name, part in classes.items():
            part.add_class(f"tgdt-{name}")
        self.widget.add_class("tgdt")
        self.caption.observe(lambda change: self.on_caption(change["new"]), "value")
        self.search.on_click(lambda _: self.on_search())
        self.upload.observe(lambda change: self.on_upload(change["new"]), "value")
        self.shortlist.observe(lambda change: self.ask(shortlist=change["new"]), "value")
        self.weight.observe(lambda change: self.ask(local_weight=change["new"]), "value")
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
        self.line.value = page.wrong_html(why)
        self.hits.add_class("tgdt-stale")

    def show(self, told: Sequence[str] = ()) -> None:
        """Show the hits. What is as before is not sent again, and so does not move again."""
        explorer = self.explorer
        self.line.value = page.line_html(explorer, told)
        self.hits.remove_class("tgdt-stale")
        rows = [tile.row for tile in explorer.tiles]
        same = rows == self.rows and explorer.query is self.query
        self.rows, self.query = rows, explorer.query
        if not same:
            self.close()
        for place, (picture, button) in enumerate(self.tiles):
            there = place < len(explorer.tiles)
            self.boxes[place].layout.display = None if there else "none"
            if not there:
                continue
            tile = explorer.tiles[place]
            button.description = f"{place + 1}: {tile.score:.3f}"
            if not same:
                picture.value = page.tile_html(tile, explorer.picture(tile), explorer.k)

    def on_search(self) -> None:
        """Search by the caption again, after a picture; the field tells its changes by itself."""
        if self.caption.value != self.explorer.query:
            self.on_caption(self.caption.value)

    def on_caption(self, caption: str) -> None:
        if caption.strip():
            self.ask(query=caption)
        else:
            self.refuse("Write a caption first, such as: a yellow star above a pink square")

    def on_upload(self, files) -> None:
        """Search by the picture that came. The field is emptied: the same file may come again."""
        if not files:
            return
        file, self.upload.value = files[-1], ()
        try:
            picture = open_image(bytes(file["content"]), in_one_line(file["name"])[:80])
        except ValueError as error:
            self.refuse(str(error))
            return
        self.ask(query=picture)

    def on_hit(self, place: int) -> None:
        """Show where the words look in a hit, or hide it again."""
        if place == self.chosen:
            self.close()
            return
        self.close()
        tile, below = self.explorer.tiles[place], page.look_place(place, self.explorer.k)
        try:
            with warnings.catch_warnings(action="ignore"):  # told when the search was made
                picture, words, similarities, boxes = self.explorer.look(tile)
        except (ValueError, TypeError, OSError) as error:
            self.look.value = below + page.wrong_html(str(error))
        else:
            look = page.look_html(picture, words, similarities, boxes, page.name_of(tile.item))
            self.look.value = below + look
        self.chosen = place
        self.boxes[place].add_class("tgdt-chosen")

    def close(self) -> None:
        """Hide where the words look."""
        if self.chosen is not None:
            self.boxes[self.chosen].remove_class("tgdt-chosen")
        self.chosen, self.look.value = None, ""
