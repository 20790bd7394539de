"""How the explorer looks: a style sheet, and the HTML of what a person sees.

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
WIDE, NARROW = 5, 2  # hits in a row
SECONDS = 0.7  # that a hit takes to its new place

UP, DOWN = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"
HINT = f"Move a slider: {UP} 3 is three places up. Click a hit to see where the words look."

# A hit begins at the place where it was: --was and --is are places, --columns how many are in a
# row. A length of 100% in `translate` is the hit's own, so no script has to measure anything.
STYLE = f"""<style>
.tgdt {{ container-type: inline-size; width: 100%; overflow: visible; }}
.tgdt .widget-label, .tgdt .widget-readout {{ font-size: 14px; }}
.tgdt .tgdt-ask, .tgdt .tgdt-set {{ display: grid; gap: 4px 12px;
  grid-template-columns: 1fr auto auto; }}
.tgdt .tgdt-set {{ grid-template-columns: 1fr 1fr; gap: 4px 32px; }}
.tgdt .tgdt-ask > *, .tgdt .tgdt-set > * {{ width: auto; min-width: 0; }}
/* the button would count its files: "(0)"; its name for screen readers stays */
.tgdt .widget-upload {{ font-size: 0; padding: 0 16px; }}
.tgdt .widget-upload::after {{ content: "Search by a picture" / ""; font-size: 14px; }}
.tgdt-line {{ line-height: 1.45; }}
.tgdt-line p, .tgdt-look p {{ margin: 4px 0; line-height: 1.45; }}
.tgdt-line small {{ opacity: 0.75; font-size: 13px; }}
.tgdt-line img {{ height: 96px; vertical-align: middle; margin-right: 12px; border-radius: 4px; }}
.tgdt-wrong {{ border-left: 4px solid #d55e00; padding-left: 8px; }}
.tgdt .tgdt-hits {{ --columns: {WIDE}; display: grid; gap: 12px; padding: 4px;
  grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); overflow: visible; }}
.tgdt-hits > * {{ width: auto; margin: 0; overflow: visible; position: relative; }}
.tgdt-hits .widget-html, .tgdt-hits .widget-html-content {{ width: 100%; margin: 0; padding: 0;
  height: auto; overflow: visible; }}
.tgdt-stale {{ opacity: 0.35; }}
.tgdt-tile {{ position: relative; aspect-ratio: 1; border-radius: 6px; background: #f3f3f3;
  color: #222; overflow: hidden; line-height: 1.3; }}
.tgdt-tile img {{ width: 100%; height: 100%; object-fit: contain; display: block; }}
.tgdt-tile p {{ margin: 0; padding: 10px; font-size: 14px; overflow-wrap: anywhere; }}
.tgdt-moved {{ animation: tgdt-move {SECONDS}s ease-in-out; z-index: 1; }}
.tgdt-new {{ animation: tgdt-come {SECONDS}s ease-in-out; }}
.tgdt-badge {{ position: absolute; top: 4px; right: 4px; padding: 1px 7px; border-radius: 10px;
  font-size: 13px; font-weight: 600; color: white; background: #555; }}
.tgdt-badge.up {{ background: #007a5a; }}
.tgdt-badge.down {{ background: #a44400; }}
.tgdt-hits button.jupyter-button {{ position: static; width: 100%; margin: 3px 0 0; height: 28px;
  font-size: 14px; }}
.tgdt-hits button.jupyter-button::after {{ content: ""; position: absolute; inset: 0;
  border-radius: 6px; z-index: 2; }}
.tgdt-hits button.jupyter-button:focus-visible::after,
.tgdt-chosen button.jupyter-button::after {{ outline: 3px solid #0072b2; outline-offset: 1px; }}
.tgdt-hits > .tgdt-look {{ grid-column: 1 / -1; }}
.tgdt-maps {{ display: flex; flex-wrap: wrap; gap: 10px; margin: 6px 0 10px; }}
.tgdt-maps figure {{ margin: 0; width: 132px; }}
.tgdt-maps figcaption {{ font-weight: 600; overflow-wrap: anywhere; line-height: 1.4; }}
.tgdt-map {{ position: relative; }}
.tgdt-map img {{ width: 100%; display: block; border-radius: 3px; }}
.tgdt-map span {{ position: absolute; border: 3px solid; box-sizing: border-box; }}
@keyframes tgdt-move {{ from {{ transform: translate(
  calc((mod(var(--was), var(--columns)) - mod(var(--is), var(--columns))) * (100% + 12px)),
  calc((round(down, var(--was) / var(--columns), 1) - round(down, var(--is) / var(--columns), 1))
    * (100% + 43px))); }} }}
@keyframes tgdt-come {{ from {{ opacity: 0; transform: scale(0.8); }} }}
@container (max-width: 620px) {{
  .tgdt .tgdt-hits {{ --columns: {NARROW}; }}
  .tgdt .tgdt-ask, .tgdt .tgdt-set {{ grid-template-columns: 1fr; }}
  .tgdt-maps figure {{ width: calc(33.3% - 7px); }}
}}
@media (prefers-reduced-motion: reduce) {{ .tgdt-moved, .tgdt-new {{ animation: none; }} }}
</style>"""


def look_place(place: int, most: int) -> str:
    """The style that shows where words look below the row of a hit, however many are in a row.

    The hits, `most`, have the orders 0, 2, 4 ...: what is below a row comes after its last one.
    """
    orders = "".join(f".tgdt-hits > :nth-child({i + 1}) {{ order: {2 * i}; }}" for i in range(most))
    row_end = f"round(up, {place + 1} / var(--columns), 1) * var(--columns) * 2 - 1"
    return f"<style>{orders} .tgdt-hits > .tgdt-look {{ order: calc({row_end}); }}</style>"


def tile_html(tile: Tile, content: Image.Image | str, most: int) -> str:
    """A hit: its picture or text, which comes from the place where it was, and how far it moved.

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
    start = tile.place if tile.was is None else min(tile.was, most)
    style = f"--was: {start}; --is: {tile.place}"
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
    parts += [_wrong(words) for words in beware]
    parts.append(f"<p><small>{HINT}</small></p>")
    return _status("".join(parts))


def wrong_html(words: str) -> str:
    """One line for what cannot be done."""
    return _status(_wrong(words))


def _wrong(words):
    return f"<p class='tgdt-wrong'>{escape(in_one_line(words)[:400])}</p>"


def _status(inside):
    return f"<div class='tgdt-line' role='status' aria-live='polite'>{inside}</div>"


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
        f"<div role='status' aria-live='polite'><p>Where each word looks in <b>{name}</b>: "
        "brighter is more alike; the best region is framed, with its similarity.</p>"
        f"<div class='tgdt-maps'>{''.join(maps)}</div></div>"
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
