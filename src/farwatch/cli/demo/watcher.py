"""An ordinary inotify program: it knows nothing of farwatch, and imports nothing of it.

    python watcher.py DIRECTORY [FILE ...]

It watches what it is given, and prints each event as one line of JSON, with the
moment (CLOCK_MONOTONIC, ns) at which read(2) returned it.  An empty line says
that all watches are placed.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import time

# linux/inotify.h.  OPEN, ACCESS and CLOSE_NOWRITE are left out: they would be
# about those who read, and this shows those who change.
MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
MASK = (
    MODIFY
    | ATTRIB
    | CLOSE_WRITE
    | MOVED_FROM
    | MOVED_TO
    | CREATE
    | DELETE
    | DELETE_SELF
    | MOVE_SELF
)
EVENT = struct.Struct("=iIII")


def main(paths: list[str]) -> None:
    """Watch ``paths`` and print their events until killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_CLOEXEC)
    watched = {}
    for path in paths:
        watch = libc.inotify_add_watch(queue, os.fsencode(path), ctypes.c_uint32(MASK))
        if watch < 0:
            error = ctypes.get_errno()
            sys.exit(f"watcher: {path}: {os.strerror(error)}")
        watched[watch] = os.path.basename(path)
    os.write(1, b"\n")
    while True:
        data = os.read(queue, 1 << 16)
        at = time.monotonic_ns()
        lines = []
        offset = 0
        while offset < len(data):
            watch, mask, cookie, length = EVENT.unpack_from(data, offset)
            offset += EVENT.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            lines.append(json.dumps([at, watched.get(watch, ""), mask, cookie, name]))
        os.write(1, "".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
