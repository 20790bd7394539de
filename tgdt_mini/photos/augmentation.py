"""Training batches made harder than the data: mirrored, with fewer regions, with hidden words.

A model could learn its few thousand photographs by heart; this makes it difficult. A mirror turns
the boxes round and leaves the features, since a region looks much the same either way. "Left" in a
caption is then wrong, so it is for photographs, whose captions rarely speak of sides. Regions that
are left out save time: half of them make a step nearly twice as fast (FLIP, Li et al., CVPR 2023,
does so with patches). Only training calls this.
"""

from dataclasses import replace

import torch

from tgdt_mini.data import ImageTokens
from tgdt_mini.text_tokens import TextTokens


def augmented(
    images: ImageTokens,
    captions: TextTokens,
    mirror: bool = False,
    hide_regions: float = 0.0,
    hide_words: float = 0.0,
) -> tuple[ImageTokens, TextTokens]:
    """The batch with half of its pictures mirrored, fewer regions, and some words masked.

    hide_regions: share of the most regions that a picture of the batch has; each picture keeps at
    most the rest, at random. hide_words: share of a caption's words; one at least stays.
    """
    if mirror:
        flip = torch.rand(len(images), 1, 1, device=images.boxes.device) < 0.5
        x0, y0, x1, y1 = images.boxes.unbind(-1)
        turned = torch.stack((1 - x1, y0, 1 - x0, y1), -1)  # no constant to bring to a GPU
        images = replace(images, boxes=torch.where(flip, turned, images.boxes))
    if hide_regions:
        images = _fewer_regions(images, max(1, round((1 - hide_regions) * images.mask.shape[1])))
    if hide_words:
        words = _drop_words(captions.word_mask, hide_words)
        mask = captions.mask & (words | ~captions.word_mask)  # special tokens stay
        captions = replace(captions, mask=mask, word_mask=words)
    return images, captions


def _fewer_regions(images, most):
    """At most `most` random regions of each picture, real ones before pads, in their order."""
    # a real region draws from -1 to 0, a pad from 0 to 1: real ones come first
    order = torch.rand(images.mask.shape, device=images.mask.device) - images.mask.float()
    kept = order.argsort(dim=1)[:, :most].sort(dim=1).values  # (B, most)

    def take(tensor):
        return tensor.gather(1, kept[..., None].expand(-1, -1, tensor.shape[2]))

    return replace(
        images,
        features=take(images.features),
        boxes=take(images.boxes),
        mask=images.mask.gather(1, kept),
    )


def _drop_words(mask, share):
    """The mask without a random share of what is real; a row that would lose all stays as it is."""
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= share)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)
