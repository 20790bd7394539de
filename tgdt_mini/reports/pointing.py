"""The pointing game on photographs: does a word's best region lie on the thing that it means?

Flickr30k Entities (Plummer et al., ICCV 2015) has boxes for the phrases of captions. A point is
right if it is inside one of the phrase's boxes, as in Zhang et al. (ECCV 2016). A word's point is
the centre of its best region; a phrase's point is that of the region with the best mean over its
words. Two baselines help to read the shares: the picture's centre, which photographers favour, and
a region drawn at random. A phrase without a box, such as a scene, is left out.
"""

import re

import torch

from tgdt_mini.data import TokenSet
from tgdt_mini.embedding import Embedding

CENTRE = torch.tensor([[0.5, 0.5]])


def pointing_game(
    images: Embedding, captions: Embedding, tokens: TokenSet, records, pieces
) -> dict[str, float]:
    """Percent of words and of phrases, and of both baselines, that point into a box of the phrase.

    records: I records with `captions`, `boxes` and `phrases` (see `photos/sources.py`), in the
    order of `images`. pieces: as `TextTokenizer.pieces` of the tokenizer that cut the captions.
    Counts are "word pieces" and "phrases with a box". Raises ValueError if no phrase has a box.
    """
    right = dict.fromkeys(("words", "phrases", "centre", "random"), 0.0)
    word_count = phrase_count = caption = 0
    for row, record in enumerate(records):
        start, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
        corners = tokens.boxes[start:end].cpu()  # (R, 4)
        points = (corners[:, :2] + corners[:, 2:]) / 2  # (R, 2)
        regions = images.local_tokens[row, : end - start].cpu()  # (R, D)
        boxes = {}
        for box in record["boxes"]:
            boxes.setdefault(box["region"], []).append(box["box"])
        for number, text in enumerate(record["captions"]):
            words = captions.local_tokens[caption][captions.mask[caption]].cpu()  # (W, D)
            spans = [(first, last) for _, first, last in pieces(text)][: len(words)]
            caption += 1
            phrases = [phrase for phrase in record["phrases"] if phrase["caption"] == number]
            phrase_spans = spans_of([phrase["text"] for phrase in phrases], text)
            for phrase, (begin, stop) in zip(phrases, phrase_spans):
                inside = [
                    i for i, (first, last) in enumerate(spans) if begin <= first and last <= stop
                ]
                if phrase["region"] not in boxes or not inside:
                    continue
                hit = _inside(points, boxes[phrase["region"]])  # (R,)
                scores = words[inside] @ regions.T  # (w, R)
                right["words"] += float(hit[scores.argmax(dim=1)].float().sum())
                right["phrases"] += float(hit[scores.mean(dim=0).argmax()])
                right["centre"] += float(_inside(CENTRE, boxes[phrase["region"]])[0])
                right["random"] += float(hit.float().mean())
                word_count, phrase_count = word_count + len(inside), phrase_count + 1
    if not phrase_count:
        raise ValueError(
            "records hold no phrase with a box; the pointing game needs Flickr30k Entities or "
            "data of that kind"
        )
    shares = {name: 100 * count / phrase_count for name, count in right.items()}
    shares["words"] = 100 * right["words"] / word_count
    return shares | {"word pieces": word_count, "phrases with a box": phrase_count}


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
