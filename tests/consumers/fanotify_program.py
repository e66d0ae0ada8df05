"""A fanotify program of the classic kind: FAN_CLASS_NOTIF, events with descriptors.

    python fanotify_program.py inode PATH...      marks on inodes, with FAN_EVENT_ON_CHILD
    python fanotify_program.py mount PATH         one mark on the mount that holds PATH

One file, standard library only.  Says ``ready``; then, for each event, its kinds, the
name of what its descriptor is open on, and the content of a regular file:
``MODIFY /mnt/d/x 'hello'``.  Its own events are left out, by their pid.

Numbers are those of <linux/fanotify.h>.
"""

# ruff: noqa: T201

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

KINDS = {0x1: "ACCESS", 0x2: "MODIFY", 0x8: "CLOSE_WRITE", 0x10: "CLOSE_NOWRITE", 0x20: "OPEN"}
FAN_CLOEXEC = 1
FAN_MARK_ADD = 1
FAN_MARK_MOUNT = 0x10
FAN_EVENT_ON_CHILD = 0x08000000
FAN_ONDIR = 0x40000000
AT_FDCWD = -100
METADATA = struct.Struct("=IBBHqii")

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mark(group: int, flags: int, mask: int, path: str) -> None:
    arguments = (ctypes.c_uint(flags), ctypes.c_uint64(mask), AT_FDCWD, os.fsencode(path))
    check(_libc.fanotify_mark(group, *arguments), path)


def content(fd: int) -> str:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return "-"
    return repr(os.pread(fd, 100, 0))[1:]


def tell(data: bytes) -> None:
    at = 0
    while at < len(data):
        length, _, _, _, mask, fd, pid = METADATA.unpack_from(data, at)
        at += length
        if fd < 0:
            print("Q_OVERFLOW" if mask & 0x4000 else f"no descriptor {mask:#x}")
            continue
        if pid != os.getpid():
            kinds = "|".join(name for bit, name in KINDS.items() if mask & bit)
            print(kinds, os.readlink(f"/proc/self/fd/{fd}"), content(fd))
        os.close(fd)
    sys.stdout.flush()


def main() -> None:
    how, *paths = sys.argv[1:]
    group = check(_libc.fanotify_init(FAN_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC), "fanotify_init")
    mask = sum(KINDS)
    for path in paths:
        if how == "mount":
            mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, mask, path)
        else:
            mark(group, FAN_MARK_ADD, mask | FAN_EVENT_ON_CHILD, path)
    print("ready")
    sys.stdout.flush()
    while True:
        tell(os.read(group, 65536))


if __name__ == "__main__":
    main()
