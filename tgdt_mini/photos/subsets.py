"""Parts of a `TokenSet`: its first images, or fewer captions of each. Features stay on the disk."""

from dataclasses import replace

import torch

from tgdt_mini.data import TokenSet


def first_images(tokens: TokenSet, images: int) -> TokenSet:
    """The same set cut to its first images, with all of their captions.

    Features on the disk stay there. Raises ValueError for more images than there are, or none.
    """
    if not 0 < images <= tokens.image_count:
        raise ValueError(
            f"images is {images}; this set has {tokens.image_count}, "
            f"so use 1 to {tokens.image_count}"
        )
    end = int(tokens.starts[images])
    cut = replace(
        tokens,
        features=tokens.features[:end],
        boxes=tokens.boxes[:end],
        starts=tokens.starts[: images + 1],
        pooled=tokens.pooled[:images],
        image_ids=tokens.image_ids[:images],
    )
    return _with_captions(cut, (tokens.caption_image < images).nonzero()[:, 0])


def limit_captions(tokens: TokenSet, captions: int) -> TokenSet:
    """The same images with at most so many captions each, their first ones."""
    order = torch.argsort(tokens.caption_image, stable=True)
    image = tokens.caption_image[order]  # (C,) ascending
    number = torch.arange(len(image)) - torch.searchsorted(image, image)  # among its image's
    return replace(_with_captions(tokens, order[number < captions].sort().values), hard=None)


def _with_captions(tokens, rows):
    """The same images with some of the captions."""
    return replace(
        tokens,
        text=tokens.text.part(rows),
        caption_image=tokens.caption_image[rows],
        captions=tuple(tokens.captions[row] for row in rows.tolist()),
        hard=tokens.hard and tokens.hard.part(rows),
    )
