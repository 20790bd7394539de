"""Where words look on drawn scenes, whose ground truth says which words speak of which object, and
where that lies.

Three figures frame the one that counts: a region drawn at random, the best that the proposed
regions allow, and, with the scenes' attributes, how many words look at another object that they are
also true of. Photographs have phrases and
boxes instead: see `reports/pointing.py`.
"""

import torch

from tgdt_mini.data import TokenSet


def grounding(model, images, captions, tokens: TokenSet, dataset, true_of=None) -> dict[str, float]:
    """Percent of linked word pieces whose best region lies inside an object that the word speaks
    of.

    Inside: at least half of the region's area is in the object's box. "chance" is the share for a
    region drawn at random, "possible" that of words for which any region lies inside, "words" how
    many pieces were judged. Only words
    with a link count: those that speak of an object. true_of(row, object, word): whether the word,
    alone, is true of an object of image `row`; with it, "true" is the percent of pieces on an
    object that is meant or that the word is true
    of: "red" on another red thing is no error of sight, only of context.
    """
    counts, caption = dict.fromkeys(("right", "true", "chance", "possible", "words"), 0.0), 0
    for row, (boxes, links, own) in enumerate(
        zip(dataset["boxes"], dataset["links"], dataset["captions"])
    ):
        start, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
        inside = (
            inside_share(tokens.boxes[start:end].cpu(), torch.tensor(boxes)) >= 0.5
        )  # (R, objects)
        regions = images.local_tokens[row, : end - start]  # (R, D)
        for c, text in enumerate(own):
            mine = [link for link in links if link["caption"] == c]
            places = captions.mask[caption].nonzero()[:, 0]
            best = (captions.local_tokens[caption, places] @ regions.T).argmax(dim=1).cpu()  # (W,)
            for (_, first, last), pick in zip(model.tokenizer.pieces(text), best):
                links_here = [
                    link for link in mine if link["start"] <= first and last <= link["end"]
                ]
                meant = [thing for link in links_here for thing in link["objects"]]
                if not meant:
                    continue
                fits = inside[:, meant].any(dim=1)  # (R,)
                right = bool(fits[pick])
                on, word = inside[pick].nonzero()[:, 0].tolist(), _word_at(text, first, last)
                true = right or bool(true_of and any(true_of(row, thing, word) for thing in on))
                found = {
                    "right": right,
                    "true": true,
                    "chance": float(fits.float().mean()),
                    "possible": bool(fits.any()),
                    "words": 1,
                }
                counts = {name: counts[name] + value for name, value in found.items()}
            caption += 1
    words = counts.pop("words")
    if not words:
        raise ValueError("links names no word; grounding needs captions with links")
    if not true_of:
        del counts["true"]
    return {name: 100 * value / words for name, value in counts.items()} | {"words": int(words)}


def _word_at(text, first, last):
    """The whole word that a piece from `first` to `last` belongs to."""
    while first and text[first - 1].isalpha():
        first -= 1
    while last < len(text) and text[last].isalpha():
        last += 1
    return text[first:last]


def inside_share(regions: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """(R, O) share of each region's area that lies in each object's box. Example: a region in its
    object's box is 1.
    """
    low = torch.maximum(regions[:, None, :2], objects[None, :, :2])
    high = torch.minimum(regions[:, None, 2:], objects[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)  # (R, O)
    return shared / (regions[:, 2:] - regions[:, :2]).prod(dim=1)[:, None]
