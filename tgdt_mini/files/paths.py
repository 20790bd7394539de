"""Where things lie: what the project ships, and the cache."""

import os
from pathlib import Path


def shipped() -> Path:
    """The folder `data/` of the project: beside the package in a checkout, inside it when installed
    from a wheel.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "data", here.parent / "data"):
        if (folder / "checksums.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no data folder in or beside {here}: install with `pip install -e .` from a full checkout"
    )


def cache() -> Path:
    """Where drawn scenes and image features are kept: $TGDT_MINI_CACHE, else ~/.cache/tgdt_mini."""
    return Path(os.environ.get("TGDT_MINI_CACHE") or Path.home() / ".cache" / "tgdt_mini")
