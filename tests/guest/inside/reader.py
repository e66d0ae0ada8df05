"""Reads a file in every way at each event, and says what it has found.

    python3 -m tests.guest.inside.reader PATH ROOM

Standard library only.  The file stays open and mapped, ROOM bytes of it; its directory is
watched for IN_MODIFY.  A line of input announces a change:

    WAYS SIZE       in which order it is to be read, and how long it will be

At the event the file is read, and a line printed: for each way the digest of what it gave, for
"a" the size.  A way is one letter:

    m  through the mapping     v  through one that is private
    p  pread(2)                o  open(2) and read(2)
    a  fstat(2), the size

With a third argument a thread reads all the time besides.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable

IN_MODIFY = 2
BUSY_PAUSE = 0.002


class Reader:
    """The file, open and mapped."""

    def __init__(self, path: str, room: int) -> None:
        self._path = path
        self._room = room
        self._fd = os.open(path, os.O_RDWR)
        self._shared = mmap.mmap(self._fd, room, prot=mmap.PROT_READ)
        self._private = mmap.mmap(self._fd, room, mmap.MAP_PRIVATE, mmap.PROT_READ)
        self._ways: dict[str, Callable[[int], bytes]] = {
            "m": lambda size: self._shared[:size],
            "v": lambda size: self._private[:size],
            "p": lambda _: os.pread(self._fd, self._room, 0),
            "o": lambda _: self._opened(),
        }

    def _opened(self) -> bytes:
        fd = os.open(self._path, os.O_RDONLY)
        try:
            return os.read(fd, self._room)
        finally:
            os.close(fd)

    def read(self, ways: str, size: int) -> str:
        """What is found; the mappings are only good for ``size`` bytes."""
        found = []
        for way in ways:
            if way == "a":
                found.append(str(os.fstat(self._fd).st_size))
            else:
                found.append(hashlib.sha256(self._ways[way](size)).hexdigest())
        return " ".join(found)

    def read_on(self) -> None:
        """For ever; of the mapping what is never cut off."""
        while True:
            self.read("mp", 1)
            time.sleep(BUSY_PAUSE)


def watch(directory: str) -> int:
    """An inotify descriptor that hears of IN_MODIFY there."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(directory), IN_MODIFY) < 0:
        sys.exit(f"{directory}: {os.strerror(ctypes.get_errno())}")
    return int(fd)


def main(path: str, room: str, busy: str = "") -> None:
    """Until the end of standard input."""
    reader = Reader(path, int(room))
    events = watch(os.path.dirname(path))
    if busy:
        threading.Thread(target=reader.read_on, daemon=True).start()
    print(reader.read("mvpoa", os.stat(path).st_size), flush=True)  # noqa: T201
    for line in sys.stdin:
        ways, size = line.split()
        os.read(events, 65536)
        print(reader.read(ways, int(size)), flush=True)  # noqa: T201
        # So that every page that is there is cached when the next change comes.
        reader.read("mvp", int(size))
        print(flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
