"""Where things lie: what the project ships, and the cache."""

import os
from pathlib import Path


def shipped() -> Path:
    """The folder `data/`: next to the package in a checkout, inside it when a wheel was installed.

    Raises FileNotFoundError where there is none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "data", package.parent / "data"):
        if (folder / "checksums.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no data folder in or next to {package}: "
        "install with `pip install -e .` from a full checkout"
    )


def to_install(extra: str) -> str:
    """The command that brings the packages of an extra; the project is on no package index."""
    return f"`pip install -e '.[{extra}]'` in the project's folder"


def lasting(path: Path | str) -> str:
    """A path that holds in any working folder; a name that is no path here stays as it is."""
    return str(Path(path).absolute() if os.path.exists(path) else path)


def cache() -> Path:
    """The folder of drawn scenes and their tokens: $TGDT_MINI_CACHE, else ~/.cache/tgdt_mini."""
    return Path(os.environ.get("TGDT_MINI_CACHE") or Path.home() / ".cache" / "tgdt_mini")
