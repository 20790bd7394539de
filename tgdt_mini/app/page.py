"""The HTML of what the explorer found: hits, a line about the search, where the words look.

Whatever comes from outside, such as a caption or the name of a file, is escaped here.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from tgdt_mini.app.explorer import Explorer, Tile
from tgdt_mini.reports.plots import WORDS, shaded
from tgdt_mini.search.hits import in_one_line

SIDE = 192  # pixels of a picture on the page: sharp on a screen of two dots a pixel

UP, DOWN = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"
HINT = f"Move a slider: {UP} 3 is three positions up. Click a hit to see where the words look."


def tile_html(tile: Tile, content: Image.Image | str, most: int) -> str:
    """A hit: its picture or text, which comes from the position where it was, and how far it moved.

    most: how many are shown; one that was below begins right behind the last one.
    """
    badge, words, kind = "", "", ""
    if tile.was is None:
        badge, words, kind = "<span class='tgdt-badge'>new</span>", ", new on the list", "tgdt-new"
    elif tile.up:
        way, sign = ("up", UP) if tile.up > 0 else ("down", DOWN)
        badge = f"<span class='tgdt-badge {way}' aria-hidden='true'>{sign} {abs(tile.up)}</span>"
        words, kind = f", {abs(tile.up)} {way}", "tgdt-moved"
    name = escape(name_of(tile.item))
    if isinstance(content, str):
        inside = f"<p>{escape(in_one_line(content)[:300])}</p>"
    else:
        inside = image_html(small(content), f"{name}{words}")
    start = tile.position if tile.was is None else min(tile.was, most)
    style = f"--was: {start}; --is: {tile.position}"
    return f"<div class='tgdt-tile {kind}' style='{style}' title='{name}'>{inside}{badge}</div>"


def line_html(explorer: Explorer, told: Sequence[str] = ()) -> str:
    """What was asked, how it was searched, and what to beware of; told: warnings of the search."""
    found = explorer.hits
    parts = []
    if isinstance(explorer.query, str):
        asked, what = f"<b>{escape(in_one_line(explorer.query))}</b>", "pictures"
    else:
        asked, what = image_html(small(explorer.query), "your picture"), "captions"
    kept = min(explorer.shortlist, explorer.searched)
    first, second = (1000 * found.seconds[stage] for stage in ("shortlist", "rerank"))
    parts.append(
        f"<p>{asked} in {explorer.searched:,} {what}: the global score kept {kept:,} of them "
        f"({first:.1f} ms), which global + {explorer.local_weight:g} \N{MULTIPLICATION SIGN} local "
        f"put in order ({second:.1f} ms).</p>"
    )
    beware = list(told)
    if unseen := explorer.unseen_words:
        words = ", ".join(map(repr, unseen[:10]))
        beware.append(f"The model has never seen {words}, and can only guess what is meant.")
    parts += [wrong_html(words) for words in beware]
    parts.append(f"<p><small>{HINT}</small></p>")
    return "".join(parts)


def wrong_html(words: str) -> str:
    """One line for what cannot be done, or is to be bewared of."""
    return f"<p class='tgdt-wrong'>{escape(in_one_line(words)[:400])}</p>"


def look_html(picture: Image.Image, words: list[str], similarities, boxes, name: str) -> str:
    """The picture once for each word: as bright as a region is like the word, the best one framed.

    similarities (W, R), boxes (R, 4) as fractions: what `Explorer.look` gives.
    """
    picture = small(picture)
    pixels, maps = np.asarray(picture), []
    for number, (word, row) in enumerate(zip(words, np.asarray(similarities))):
        x0, y0, x1, y1 = (100 * float(side) for side in boxes[int(row.argmax())])
        colour = WORDS[number % len(WORDS)]
        shown = Image.fromarray(shaded(pixels, row, np.asarray(boxes)))
        box = f"left:{x0:.1f}%;top:{y0:.1f}%;width:{x1 - x0:.1f}%;height:{y1 - y0:.1f}%"
        word = escape(in_one_line(word))
        alt = f"{word} looks at {x0:.0f} to {x1:.0f}% from the left, {y0:.0f} to {y1:.0f}% down"
        maps.append(
            f"<figure><div class='tgdt-map'>{image_html(shown, alt)}"
            f"<span style='{box};border-color:{colour}'></span></div>"
            f"<figcaption style='color:{colour}'>{word} {row.max():.2f}</figcaption></figure>"
        )
    name = escape(in_one_line(name)[:200])
    return (
        f"<p>Where each word looks in <b>{name}</b>: "
        "brighter is more alike; the best region is framed, with its similarity.</p>"
        f"<div class='tgdt-maps'>{''.join(maps)}</div>"
    )


def name_of(item) -> str:
    """An item as it is called on the page, in one line: of the path of a file, its last part."""
    name = in_one_line(item)
    return Path(name).name if isinstance(item, str) and Path(name).is_absolute() else name


def small(picture: Image.Image) -> Image.Image:
    """A picture as RGB, scaled to SIDE pixels at most."""
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return picture


def image_html(picture: Image.Image, alt: str) -> str:
    """An <img> that holds the picture; alt must be escaped already."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='{alt}' src='data:image/png;base64,{content}'>"
