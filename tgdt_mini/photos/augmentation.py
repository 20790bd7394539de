"""Training batches made harder than the data: mirrored pictures, left-out regions, hidden words.
Off unless asked for.

Needed where a model could learn its few thousand training pictures by heart, as with real
photographs. A mirror turns the boxes round and leaves the features, since a region looks much the
same either way; "left" in a caption then lies, so it is for photographs, where captions rarely
speak of sides. Regions that are left out cost nothing either: half of them make a step nearly twice
as fast (FLIP, Li et al., CVPR 2023, does so with patches). Only training calls this.
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
    """The batch with half of its pictures mirrored, fewer regions, and a share of its words hidden
    by their masks.

    hide_regions: share of the most regions that a picture of the batch has; each keeps at most what
    is left, at random.
    """
    if mirror:
        flip = torch.rand(len(images), 1, 1, device=images.boxes.device) < 0.5
        turned = images.boxes[..., [2, 1, 0, 3]] * images.boxes.new_tensor([-1, 1, -1, 1])
        turned = turned + images.boxes.new_tensor([1, 0, 1, 0])
        images = replace(images, boxes=torch.where(flip, turned, images.boxes))
    if hide_regions:
        images = _some_regions(images, max(1, round((1 - hide_regions) * images.mask.shape[1])))
    if hide_words:
        kept = _thinned(captions.words, hide_words)
        captions = replace(captions, mask=captions.mask & (kept | ~captions.words), words=kept)
    return images, captions


def _some_regions(images, most):
    """At most `most` random regions of each picture, real ones before pads, in their order."""
    lot = (
        torch.rand(images.mask.shape, device=images.mask.device) - images.mask.float()
    )  # real ones come first
    kept = lot.argsort(dim=1)[:, :most].sort(dim=1).values  # (B, most)

    def take(tensor):
        return tensor.gather(1, kept[..., None].expand(-1, -1, tensor.shape[2]))

    return replace(
        images,
        features=take(images.features),
        boxes=take(images.boxes),
        mask=images.mask.gather(1, kept),
    )


def _thinned(mask, share):
    """The mask without a random share of what is real; a row that would lose everything stays as it
    is.
    """
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= share)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)
