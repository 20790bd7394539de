"""The pointing game on photographs: does a word's best region lie on the thing that it means?

Flickr30k Entities (Plummer et al., ICCV 2015) has boxes for the phrases of captions. A point is
right if it is inside one of the phrase's boxes, as in Zhang et al. (ECCV 2016). Three units are
counted: every word piece that has a local token; those of them that are no stop words; and phrases,
whose point is that of the region with the best mean over its words. Two baselines help to read each
share: the picture's centre, which photographers favour, and a region drawn at random. They are
counted over the same units, since a long phrase has more words. A phrase without a box, such as a
scene, is left out.
"""

import re

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding
from tgdt_mini.photos.stop_words import is_stop_word

CENTRE = torch.tensor([[0.5, 0.5]])
UNITS = ("words", "content words", "phrases")


def pointing_game(
    images: Embedding, captions: Embedding, tokens: TokenSet, records, pieces
) -> dict[str, dict[str, float]]:
    """{unit of UNITS: {"right", "centre", "random": percent, "count": how many there are}}.

    records: I records with `captions`, `boxes` and `phrases` (see `photos/sources.py`), in the
    order of `images`. pieces: as `TextTokenizer.pieces` of the tokenizer that cut the captions.
    A unit that does not occur is left out. Raises ValueError if no phrase has a box.
    """
    sums, caption = {unit: torch.zeros(4, dtype=torch.float64) for unit in UNITS}, 0
    for row, record in enumerate(records):
        start, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
        corners = tokens.boxes[start:end].cpu()  # (R, 4)
        points = (corners[:, :2] + corners[:, 2:]) / 2  # (R, 2)
        regions = images.local_tokens[row, : end - start].cpu()  # (R, D)
        boxes = {}
        for box in record["boxes"]:
            boxes.setdefault(box["region"], []).append(box["box"])
        for number, text in enumerate(record["captions"]):
            words, mask = captions.local_tokens[caption].cpu(), captions.mask[caption].tolist()
            cut = pieces(text)[: len(mask)]  # piece i has local token i
            caption += 1
            phrases = [phrase for phrase in record["phrases"] if phrase["caption"] == number]
            phrase_spans = spans_of([phrase["text"] for phrase in phrases], text)
            for phrase, (begin, stop) in zip(phrases, phrase_spans):
                inside = [
                    i
                    for i, (_, first, last) in enumerate(cut)
                    if mask[i] and begin <= first and last <= stop
                ]
                if phrase["region"] not in boxes or not inside:
                    continue
                hit = _inside(points, boxes[phrase["region"]]).double()  # (R,)
                centre = float(_inside(CENTRE, boxes[phrase["region"]])[0])
                scores = words[inside] @ regions.T  # (w, R)
                right = hit[scores.argmax(dim=1)].tolist()  # of each word
                content = [r for r, i in zip(right, inside) if not is_stop_word(text, *cut[i][1:])]
                best = float(hit[scores.mean(dim=0).argmax()])
                for unit, rights in zip(UNITS, (right, content, [best])):
                    hits, random = sum(rights), float(hit.mean())
                    sums[unit] += torch.tensor(
                        [hits, centre * len(rights), random * len(rights), len(rights)]
                    )
    if not sums["phrases"][3]:
        raise ValueError(
            "records hold no phrase with a box; the pointing game needs Flickr30k Entities or "
            "data of that kind"
        )
    return {
        unit: {
            name: 100 * share / count
            for name, share in zip(("right", "centre", "random"), (right, centre, random))
        }
        | {"count": int(count)}
        for unit, (right, centre, random, count) in (
            (u, total.tolist()) for u, total in sums.items()
        )
        if count
    }


def has_places(records) -> bool:
    """Whether any phrase of the records has a box: without one there is no game."""
    if not {"boxes", "phrases"} <= set(records.column_names):
        return False
    return any(
        {box["region"] for box in boxes} & {phrase["region"] for phrase in phrases}
        for boxes, phrases in zip(records["boxes"][:], records["phrases"][:])
    )


def spans_of(phrases: list[str], caption: str) -> list[tuple[int, int]]:
    """(start, end) of each phrase in its caption, in characters; (0, 0) for one that is not there.

    A phrase is there if its words are whole words of the caption. Phrases are searched for in the
    caption's order, each after the one before it; what is not there is searched for from the start.
    Example: "a man", "a man" in "a man by a man" -> (0, 5), (9, 14).
    """
    spans, after = [], 0
    for phrase in phrases:
        whole_words = rf"(?<!\w){re.escape(phrase)}(?!\w)"  # "man" is not in "woman"
        pattern = re.compile(whole_words, re.IGNORECASE)
        match = pattern.search(caption, after) or pattern.search(caption)
        spans.append(match.span() if match else (0, 0))
        after = match.end() if match else after
    return spans


def _inside(points, boxes):
    """(P,) bool: which points (P, 2) lie in any of the boxes (N, 4)."""
    boxes = torch.tensor(boxes)
    low, high = points[:, None] >= boxes[None, :, :2], points[:, None] <= boxes[None, :, 2:]
    return (low & high).all(dim=2).any(dim=1)
