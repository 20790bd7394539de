"""One writer at a time for a folder that is written in several steps.

The lock is the operating system's, on a small file in a folder of the user's below /tmp, whatever
TMPDIR, LOGNAME and USER say: it holds for the processes of one user on one machine, those of sudo
among them, and ends with its process, however that ends. Nothing is left in the folder that is
written. Processes with a /tmp of their own, as in a container, are another machine's here.
"""

import hashlib
import os
import stat
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tgdt_mini.files.check import named

PLACE = "/tmp"  # where the folder of the locks is; what TMPDIR names is not the same for all


@contextmanager
def only_writer(folder: Path | str, wait: float = 0.0):
    """Inside the block no other process that asks for it writes to the folder.

    wait: seconds to wait for another one. ValueError, naming the folder, if it has not ended then.
    A process, or a thread, may ask again for what it has already.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as locks:
        for path in _files_of(Path(folder)):
            # open to all, as root must share it: only one user and root can reach it
            lock = FileLock(path, mode=0o666, is_singleton=True)
            try:
                lock.acquire(timeout=wait)
            except Timeout:
                raise ValueError(
                    f"{folder} is being written to by another process; wait until it has ended, or "
                    "choose another folder"
                ) from None
            locks.callback(lock.release)
        yield


def _files_of(folder):
    """The files that stand for a folder, however the folder is named: one, or two by sudo."""
    name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    if not hasattr(os, "geteuid"):  # Windows, where every user has temporary files of his own
        home = Path(tempfile.gettempdir(), "tgdt-mini-locks")
        home.mkdir(parents=True, exist_ok=True)
        return [home / f"{name[:32]}.lock"]
    return [_home(user) / f"{name[:32]}.lock" for user in _users()]


def _home(user):
    """The folder of a user's locks. ValueError where something else has its name."""
    place = PLACE if os.access(PLACE, os.W_OK) else tempfile.gettempdir()
    home = Path(place, f"tgdt-mini-locks-{user}")
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
        os.chown(home, user, -1)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode):
        problem = "is no folder, as the one of the locks must be"
    elif found.st_uid != user:
        problem = f"belongs to another user, and must be of user {user}"
    else:
        return home
    raise ValueError(f"{named(home)} {problem}; delete it, or have it deleted")


def _users():
    """The numbers of the users whose locks count: of this one, and of who called sudo, in order."""
    user, caller = os.geteuid(), os.environ.get("SUDO_UID", "")
    by_sudo = user == 0 and caller.isascii() and caller.isdigit()
    return sorted({user, int(caller)}) if by_sudo else [user]
