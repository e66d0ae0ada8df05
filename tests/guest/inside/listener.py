"""A program with raw inotify: prints what happens in a directory, one line an event.

    python3 -m tests.guest.inside.listener DIRECTORY

Standard library only.  It says "ready" when it watches.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

ALL_EVENTS = 0xFFF
"""IN_ALL_EVENTS of <sys/inotify.h>."""
HEADER = struct.Struct("iIII")


def main(directory: str) -> None:
    """Prints mask, cookie (0 or 1: whether there is one) and name of each event, for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(directory), ALL_EVENTS) < 0:
        number = ctypes.get_errno()
        sys.exit(f"{directory}: {os.strerror(number)}")
    print("ready", flush=True)  # noqa: T201
    while True:
        data = os.read(fd, 65536)
        while data:
            _, mask, cookie, length = HEADER.unpack_from(data)
            name = data[HEADER.size : HEADER.size + length].rstrip(b"\0")
            data = data[HEADER.size + length :]
            print(f"{mask:#x} {int(cookie != 0)} {os.fsdecode(name)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
