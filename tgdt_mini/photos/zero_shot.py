"""What a pair of towers (CLIP, SigLIP) finds by itself, to compare a trained model with."""

from pathlib import Path

import torch

from tgdt_mini.evaluation import BothWays, both_ways
from tgdt_mini.photos.feature_folder import encoders_of
from tgdt_mini.photos.features import Features


def zero_shot(
    folder: Path | str, split: str, caption_image: torch.Tensor, images: int
) -> BothWays | None:
    """Recalls of a split by the cosine of both towers' embeddings, which nothing was trained on.

    None where the features are not of the two towers of one model. caption_image (C,): the image of
    each caption of the split; images: the first so many are searched, with their captions.
    """
    keys = {name: encoders_of(folder)[name].get("aligned") for name in ("vision", "text")}
    if not keys["vision"] or keys["vision"] != keys["text"]:
        return None
    embedded = [
        Features(Path(folder) / split / name).array("aligned").float()
        for name in ("images", "captions")
    ]
    taken = caption_image < images
    return both_ways(embedded[0][:images] @ embedded[1][taken].T, caption_image[taken])
