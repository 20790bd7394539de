"""The pointing game on photographs: does the region that a word picks lie on the thing that the
word means?

Flickr30k Entities (Plummer et al., ICCV 2015) boxes the phrases of captions. A point counts as
right if it is inside one of the phrase's boxes, as in Zhang et al. (ECCV 2016). The point of a word
is the centre of its best region; that of a phrase, the centre of the region with the best mean over
its words. Beside them stand the picture's centre, which photographers favour, and a region drawn at
random. A phrase without a box (a scene, say) has no place: it is left out.
"""

import re

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding


def pointing_game(
    images: Embedding, captions: Embedding, tokens: TokenSet, records, pieces
) -> dict[str, float]:
    """Percent of words and of phrases that point into a box of their phrase, of the two baselines,
    and the counts.

    records: I records with `captions`, `boxes` and `phrases` (see `photos/sources.py`), in the order of
    `images`. pieces: as `TextTokenizer.pieces`; captions must have been cut by the same. Raises
    ValueError if no phrase has a box.
    """
    right = dict.fromkeys(("words", "phrases", "centre", "random"), 0.0)
    words = phrases = caption = 0
    for row, record in enumerate(records):
        start, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
        corners = tokens.boxes[start:end].cpu()  # (R, 4)
        points = (corners[:, :2] + corners[:, 2:]) / 2  # (R, 2)
        regions = images.local_tokens[row, : end - start].cpu()  # (R, D)
        boxes = {}
        for box in record["boxes"]:
            boxes.setdefault(box["region"], []).append(box["box"])
        for place, text in enumerate(record["captions"]):
            mine = [phrase for phrase in record["phrases"] if phrase["caption"] == place]
            own = captions.local_tokens[caption][captions.mask[caption]].cpu()  # (W, D)
            caption += 1
            spans = [(first, last) for _, first, last in pieces(text)]
            for phrase, (first, last) in zip(
                mine, places_of([phrase["text"] for phrase in mine], text)
            ):
                inside = [
                    i
                    for i, span in enumerate(spans)
                    if first <= span[0] and span[1] <= last and i < len(own)
                ]
                if phrase["region"] not in boxes or not inside:
                    continue
                hit = _inside(points, boxes[phrase["region"]])  # (R,)
                scores = own[inside] @ regions.T  # (w, R)
                right["words"] += float(hit[scores.argmax(dim=1)].float().sum())
                right["phrases"] += float(hit[scores.mean(dim=0).argmax()])
                right["centre"] += float(
                    _inside(torch.tensor([[0.5, 0.5]]), boxes[phrase["region"]])[0]
                )
                right["random"] += float(hit.float().mean())
                words, phrases = words + len(inside), phrases + 1
    if not phrases:
        raise ValueError(
            "records hold no phrase with a box; the pointing game needs Flickr30k Entities or the like"
        )
    shares = {
        name: 100 * value / (words if name == "words" else phrases) for name, value in right.items()
    }
    return shares | {"word pieces": words, "phrases with a box": phrases}


def has_places(records) -> bool:
    """Whether records have the columns boxes and phrases, and any phrase a box: else there is no
    game.
    """
    if not {"boxes", "phrases"} <= set(records.column_names):
        return False
    rows = zip(records["boxes"][:], records["phrases"][:])
    return any(
        {box["region"] for box in boxes} & {phrase["region"] for phrase in own}
        for boxes, own in rows
    )


def places_of(phrases: list[str], caption: str) -> list[tuple[int, int]]:
    """(start, end) of each phrase in its caption, in characters; (0, 0) for one that is not there
    as whole words.

    Phrases come in the caption's order, so that each is looked for after the one before it; one
    that is not there is
    looked for from the start. Example: "a man", "a man" in "a man by a man" -> (0, 5), (9, 14).
    """
    found, after = [], 0
    for phrase in phrases:
        wanted = re.compile(
            rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE
        )  # "man" is not in "woman"
        place = wanted.search(caption, after) or wanted.search(caption)
        found.append(place.span() if place else (0, 0))
        after = place.end() if place else after
    return found


def _inside(points, boxes):
    """(P,) bool: which points (P, 2) lie in any of the boxes."""
    boxes = torch.tensor(boxes)  # (N, 4)
    low, high = points[:, None] >= boxes[None, :, :2], points[:, None] <= boxes[None, :, 2:]
    return (low & high).all(dim=2).any(dim=1)
