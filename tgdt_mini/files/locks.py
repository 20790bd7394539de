"""One writer at a time for a folder that is written in several steps.

The lock is the operating system's, on a small file among the temporary ones: it holds for the
processes of one machine, and ends with its process, however that ends. Nothing is left in the
folder.
"""

import getpass
import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_writer(folder: Path | str, wait: float = 0.0):
    """Inside the block no other process that asks for it writes to the folder.

    wait: seconds to wait for another one. ValueError, naming the folder, if it has not ended then.
    A process, or a thread, may ask again for what it has already.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(_file_of(Path(folder)), is_singleton=True)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise ValueError(
            f"{folder} is being written to by another process; wait until it has ended, or choose "
            "another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _file_of(folder):
    """The file that stands for a folder, however the folder is named."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a number without a name, as containers have it
        user = "nobody"
    home = Path(tempfile.gettempdir(), f"tgdt-mini-locks-{user}")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return home / f"{name[:32]}.lock"
