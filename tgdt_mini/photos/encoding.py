"""A split of a folder of features, opened or embedded for a model that reads such features.

A model is refused the features of other encoders than those it was trained with.
"""

from pathlib import Path

from tgdt_mini.encoding import encode
from tgdt_mini.model import TGDT
from tgdt_mini.photos.feature_folder import difference, encoders_of, open_features
from tgdt_mini.photos.reader import settings_of


def features_for(model: TGDT, folder: Path, split: str):
    """(records, TokenSet) of a split. ValueError if other encoders made its features."""
    encoders, settings = encoders_of(folder), settings_of(model.config)
    for name in ("vision", "text"):
        source = getattr(settings, "image_source" if name == "vision" else "text_source", None)
        if not source:
            raise ValueError(
                f"the model reads no features of a {name} encoder, so {folder} is not for it; give "
                "one that was trained on such features: --model FOLDER"
            )
        if source["key"] != encoders[name]["key"]:
            raise ValueError(
                f"{folder} holds features of another {name} encoder than the model was trained on: "
                f"{difference(encoders[name], source)}; extract them as for the model"
            )
    return open_features(folder, split)


def encode_split(model: TGDT, folder: Path, split: str):
    """(Embedding of the images, their ids, Embedding of the captions, the captions) of a split."""
    _, tokens = features_for(model, folder, split)
    images, captions = encode(model, tokens)
    return images, list(tokens.image_ids), captions, list(tokens.captions)
