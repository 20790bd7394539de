"""Where words look on drawn scenes, whose links say which words speak of which object.

Four figures help to read the share of right words: that of a region drawn at random; the best that
the proposed regions allow; and, given the scenes' truth, the words on another object that they are
true of, and what an oracle reaches where captions fit several objects. Photographs have phrases and
boxes instead: see `reports/pointing.py`.
"""

import torch

from tgdt_mini.data import TokenSet


def grounding(
    model, images, captions, tokens: TokenSet, dataset, true_of=None, meant=None
) -> dict[str, float]:
    """Percent of word pieces whose best region lies inside an object that the word speaks of.

    Inside: at least half of the region's area is in the object's box. Only words with a link count:
    "words" is the number of their pieces. "chance" is the percent for a region drawn at random,
    "possible" that of pieces for which any region lies inside. true_of(row, object, word) says
    whether a word by itself is true of an object of image `row`. With it, "true" is the percent of
    pieces on an object that is meant or that the word is true of: "red" on another red thing is an
    error of context, not of sight. meant(row, caption, objects): in which share of the readings of
    a caption that are true of image `row` a word means these objects. With it, "oracle" is the
    percent of a reader who knows all true readings, and takes one by chance (a yardstick, no upper
    bound); "settled" the percent of pieces with one reading alone, and "settled right" the percent
    of these that are right. Raises ValueError if no word has a link.
    """
    counts = dict.fromkeys(("right", "true", "chance", "oracle", "possible", "words"), 0.0)
    settled = []  # whether each piece that has one reading alone is right
    caption = 0  # counted over all images
    for row, (boxes, links, texts) in enumerate(
        zip(dataset["boxes"], dataset["links"], dataset["captions"])
    ):
        start, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
        inside = inside_share(tokens.boxes[start:end].cpu(), torch.tensor(boxes)) >= 0.5  # (R, O)
        seen = [set(own.nonzero()[:, 0].tolist()) for own in inside]  # of each region
        regions = images.local_tokens[row, : end - start]  # (R, D)
        for number, text in enumerate(texts):
            words = captions.local_tokens[caption][captions.mask[caption]]  # (W, D)
            picks = (words @ regions.T).argmax(dim=1).tolist()  # (W,) the best region of each piece
            for (_, first, last), pick in zip(model.tokenizer.pieces(text), picks):
                objects = _objects(links, number, first, last)
                if not objects:
                    continue
                fits = [not things.isdisjoint(objects) for things in seen]  # (R,)
                counts["right"] += fits[pick]
                counts["true"] += fits[pick] or bool(
                    true_of
                    and any(true_of(row, i, _word_at(text, first, last)) for i in seen[pick])
                )
                counts["chance"] += sum(fits) / len(fits)
                counts["possible"] += any(fits)
                share = meant(row, number, objects) if meant else 0
                counts["oracle"] += share * any(fits)
                if share == 1:
                    settled.append(fits[pick])
                counts["words"] += 1
            caption += 1
    words = counts.pop("words")
    if not words:
        raise ValueError("links names no word; grounding needs captions with links")
    for name, judge in (("true", true_of), ("oracle", meant)):
        if not judge:
            del counts[name]
    shares = {name: 100 * count / words for name, count in counts.items()} | {"words": int(words)}
    if settled:
        shares["settled"] = 100 * len(settled) / words
        shares["settled right"] = 100 * sum(settled) / len(settled)
    return shares


def _objects(links, number, first, last):
    """The objects that characters first to last of the image's caption `number` speak of."""
    return [
        thing
        for link in links
        if link["caption"] == number and link["start"] <= first and last <= link["end"]
        for thing in link["objects"]
    ]


def _word_at(text, first, last):
    """The whole word that a piece from `first` to `last` belongs to."""
    while first and text[first - 1].isalpha():
        first -= 1
    while last < len(text) and text[last].isalpha():
        last += 1
    return text[first:last]


def inside_share(regions: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """(R, O) share of each region's area that lies in each object's box.

    Example: a region within its object's box is 1, one that has half of its area there 0.5.
    """
    low = torch.maximum(regions[:, None, :2], objects[None, :, :2])
    high = torch.minimum(regions[:, None, 2:], objects[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)  # (R, O)
    return shared / (regions[:, 2:] - regions[:, :2]).prod(dim=1)[:, None]
