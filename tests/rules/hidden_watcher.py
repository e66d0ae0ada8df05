"""Watches a directory where /proc/PID/fdinfo does not tell.

    python hidden_watcher.py own-table|main-thread-gone DIRECTORY

``own-table``: from a thread with a file table of its own.  ``main-thread-gone``: from the
only thread that is left of the process.  Says ``ready``, then each name that is made.
One file, standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading

_CLONE_FILES = 0x400
_IN_OPEN, _IN_CREATE = 0x20, 0x100
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def watch(path: str, own_table: bool) -> None:
    if own_table:
        _libc.unshare(_CLONE_FILES)
    fd = _libc.inotify_init1(0)
    _libc.inotify_add_watch(fd, os.fsencode(path), _IN_OPEN | _IN_CREATE)
    say("ready")
    while True:
        data = os.read(fd, 4096)
        at = 0
        while at < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            if mask & _IN_CREATE:
                say(data[at - length : at].rstrip(b"\0").decode())


def main(how: str, path: str) -> None:
    threading.Thread(target=watch, args=(path, how == "own-table")).start()
    if how == "main-thread-gone":
        # Only the thread ends: its /proc/PID/fd is empty from now on.
        _libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
