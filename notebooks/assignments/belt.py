"""A seat belt for a notebook that somebody else has written: what it may touch while it is graded.

`confine.py` sends this file's text into the kernel before any cell of the submission. Python asks
an audit hook, which cannot be taken away again, before it opens, changes or deletes a file, starts
a program or makes a connection. That stops accidents and the usual curiosity. It is no wall: what
does not go through Python (ctypes, a library's own way to open a file) is not seen. Against intent
only a container, or a user account that may read nothing else, helps.
"""

import os
import sys

CHANGES = {  # an event -> which of its arguments are paths that change; which are open folders
    "os.chflags": ([0], []),
    "os.chmod": ([0], [2]),
    "os.chown": ([0], [3]),
    "os.link": ([0, 1], [2, 3]),
    "os.mkdir": ([0], [2]),
    "os.remove": ([0], [1]),
    "os.removexattr": ([0], []),
    "os.rename": ([0, 1], [2, 3]),
    "os.rmdir": ([0], [1]),
    "os.setxattr": ([0], []),
    "os.symlink": ([1], [2]),
    "os.truncate": ([0], []),
    "os.utime": ([0], [3]),
    "shutil.rmtree": ([0], []),
    "sqlite3.connect": ([0], []),
}
READS = {"os.chdir", "os.listdir", "os.scandir"}
NEVER = {
    "os.exec": "start another program",
    "os.fork": "start another process",
    "os.forkpty": "start another process",
    "os.posix_spawn": "start another program",
    "os.spawn": "start another program",
    "os.startfile": "start another program",
    "os.system": "start another program",
    "os.killpg": "end other programs",
    "subprocess.Popen": "start another program",
    "socket.connect": "use the network",
    "socket.getaddrinfo": "use the network",
    "socket.sendto": "use the network",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def fasten(folder, closed, opened, memory):
    """From now on: changes in `folder` only; nothing is read in `closed` besides `opened`.

    closed, opened: lists of folders. memory: bytes that this process may ask for, where the
    operating system keeps to it.
    """
    real, kill, null = os.path.realpath, os.getpid(), os.path.realpath(os.devnull)
    folder = real(folder)
    closed, opened = [real(path) for path in closed], [folder, *(real(path) for path in opened)]

    def within(path, places):
        return any(path == place or path.startswith(place + os.sep) for place in places)

    def refuse(deed):
        raise PermissionError(f"refused while a submission is graded: to {deed}")

    def look(path, changes):
        if isinstance(path, int) or path is None:  # a file that is open already, or this folder
            return
        path = real(os.fsdecode(path))
        if changes and path not in (null, ":memory:") and not within(path, [folder]):
            refuse(f"change {path}, which lies outside the submission's folder")
        if within(path, closed) and not within(path, opened):
            refuse(f"read {path}")

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writing = any(letter in (mode or "") for letter in "wax+") or flags & WRITING
            # an open folder is a way round: names in it are not seen whole
            look(path, writing or (not isinstance(path, int) and os.path.isdir(path)))
        elif event in CHANGES:
            paths, folders = CHANGES[event]
            for place in paths:
                look(arguments[place], True)
            if any(arguments[place] != -1 for place in folders):
                names = [os.fsdecode(arguments[place]) for place in paths]
                if any(os.path.dirname(name) or name == ".." for name in names):
                    refuse(f"change {names} by way of an open folder")
        elif event in READS:
            look(arguments[0], False)
        elif event in NEVER or (event == "os.kill" and arguments[0] != kill):
            refuse(NEVER.get(event, "end other programs"))

    try:
        import resource
    except ImportError:  # Windows has no such limits
        pass
    else:
        for kind, size in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, 2**30)):
            hard = resource.getrlimit(kind)[1]
            size = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(kind, (size, size))
    sys.addaudithook(hook)
