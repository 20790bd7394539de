"""Which engine of Qdrant a place means: a server, or the one in this process on a folder.

Both classes have the same methods. Points are (number, {"global": ..., "local": ...}, {"item":
...}), and `stored` gives {number: (item, global token)} of those that are there.
"""

import os
import re
from pathlib import Path

from tgdt_mini.files.check import shown
from tgdt_mini.files.paths import to_install
from tgdt_mini.scaling.qdrant_folder import Embedded
from tgdt_mini.scaling.qdrant_server import Server


def engine_of(where, collection: str):
    """The engine of an address, a folder or a QdrantClient.

    Raises ValueError when the package that it needs is missing.
    """
    if not isinstance(where, (str, Path)):
        return Server(where, "the client's address", collection)
    _check_collection(collection)
    if re.match("https?://", str(where), re.IGNORECASE):
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise ValueError(
                f"the Qdrant server {where} needs the package qdrant-client: {to_install('qdrant')}"
            ) from None
        key = os.environ.get("QDRANT_API_KEY")
        client = QdrantClient(url=str(where), api_key=key, timeout=60, check_compatibility=False)
        return Server(client, str(where), collection)
    # a colon stands in addresses, and on Windows behind the letter of a drive
    has_colon = ":" in str(where)[2:] or str(where).startswith(":")
    if not str(where).strip() or (has_colon and not os.path.isdir(where)):
        raise ValueError(
            f"where is {str(where)!r}; give a server's address with its scheme, such as "
            "http://localhost:6333, or a folder, such as runs/qdrant"
        )
    return Embedded(Path(where) / collection)


def _check_collection(name):
    """ValueError for a name that no server takes and that would leave a folder."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w .-]{1,255}", name) or set(name) <= {"."}:
        raise ValueError(
            f"collection is {shown(name)}; name it with letters, digits, dots, dashes and spaces"
        )
