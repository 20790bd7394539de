"""Which model is meant (a shipped name, a folder, a name on the hub), and what it knows."""

import re
from pathlib import Path

from tgdt_mini.files.check import named, one_line, shown
from tgdt_mini.files.paths import lasting, shipped
from tgdt_mini.files.whole import standing
from tgdt_mini.scenes.words import known_words

SHIPPED = {"scenes": ("weights",), "photographs": ("weights", "photographs")}


def folder_of(name):
    """The folder of a model: a shipped one's name, a name on the hub, or the folder itself.

    ValueError for a name that the hub does not know.
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"name is {name!r}; give a name or a folder")
    if str(name) in SHIPPED and (isinstance(name, str) or not (name / "config.json").is_file()):
        return shipped().joinpath(*SHIPPED[str(name)])
    on_hub = isinstance(name, str) and name.count("/") == 1 and not standing(name).exists()
    if not on_hub or name.startswith((".", "~", "/")):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{named(name)} is no folder, and the Hugging Face hub did not give it "
            f"({one_line(error)}); check the name"
        ) from error


def source_of(name: str | Path, folder: Path | None = None) -> str:
    """How a gallery names its model, to find it again from any folder.

    folder: as `folder_of` gives it for the name, where the caller has it already.
    """
    folder = folder or folder_of(name)
    is_shipped = str(name) in SHIPPED and folder.is_relative_to(shipped())
    return str(name) if is_shipped else lasting(folder)


def knows_photographs(model) -> bool:
    """Whether a model was trained on features of photographs; otherwise on drawn scenes."""
    return model.config.reader == "photos"


def unseen_words(model, text: str) -> list[str]:
    """The words of a text that a model has never seen, in order, each once.

    A model of scenes has seen the words of their captions. Another one has seen what its tokenizer
    has pieces for.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is {shown(text)}; it must be a string")
    if not knows_photographs(model):
        words, known = re.findall(r"\w+", text.lower()), known_words()
        return [word for word in dict.fromkeys(words) if word not in known]
    unknown = getattr(model.tokenizer, "tokenizer", model.tokenizer).unknown
    pieces = model.tokenizer.pieces(text)
    return list(dict.fromkeys(text[start:end] for piece, start, end in pieces if piece == unknown))
