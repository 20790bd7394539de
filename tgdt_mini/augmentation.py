"""Training batches made harder than the data: mirrored pictures, hidden regions, hidden words. Off unless asked for.

Needed where a model could learn its few thousand training pictures by heart, as with real photographs. A mirror turns
the boxes round and leaves the features, since a region looks much the same either way; "left" in a caption then lies,
so it is for photographs, where captions rarely speak of sides. Only training calls this.
"""

from dataclasses import replace

import torch

from tgdt_mini.data import ImageTokens
from tgdt_mini.text_tokens import TextTokens


def augmented(images: ImageTokens, captions: TextTokens, mirror: bool = False, hide_regions: float = 0.0,
              hide_words: float = 0.0) -> tuple[ImageTokens, TextTokens]:  # fmt: skip
    """The batch with half of its pictures mirrored, and shares of its regions and words hidden by their masks."""
    if mirror:
        flip = torch.rand(len(images), 1, 1, device=images.boxes.device) < 0.5
        turned = images.boxes[..., [2, 1, 0, 3]] * images.boxes.new_tensor([-1, 1, -1, 1])
        turned = turned + images.boxes.new_tensor([1, 0, 1, 0])
        images = replace(images, boxes=torch.where(flip, turned, images.boxes))
    if hide_regions:
        images = replace(images, mask=_thinned(images.mask, hide_regions))
    if hide_words:
        kept = _thinned(captions.words, hide_words)
        captions = replace(captions, mask=captions.mask & (kept | ~captions.words), words=kept)
    return images, captions


def _thinned(mask, share):
    """The mask without a random share of what is real; a row that would lose everything stays as it is."""
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= share)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)
