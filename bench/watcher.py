"""The watching program: plain inotify, nothing but the time of each read.

    python watcher.py each|end MASK PATH

``each``: every read(2) is handed on at once.  ``end``: reads are kept until the
name ``end`` arrives (or SIGTERM), and then handed on together, so that nothing
but reading happens while events pour in.  On standard output first an empty
line, when the watch is placed, and then for each read: the moment at which it
returned (u64, CLOCK_MONOTONIC, ns), a length (u32), the bytes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import time

HEADER = struct.Struct("=QI")
END = b"end\0"


class _Terminated(Exception):
    pass


def main(mode: str, mask: int, path: str) -> None:
    """Watch ``path`` for the events of ``mask``."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_CLOEXEC)
    if libc.inotify_add_watch(queue, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
        sys.exit(f"watcher: {path}: {os.strerror(ctypes.get_errno())}")
    output = sys.stdout.buffer
    output.write(b"\n")
    output.flush()
    if mode == "each":
        _each(queue)
    else:
        for record in _until_end(queue):
            output.write(record)
        output.flush()


def _each(queue: int) -> None:
    while True:
        data = os.read(queue, 1 << 16)
        at = time.monotonic_ns()
        os.write(1, HEADER.pack(at, len(data)) + data)


def _until_end(queue: int) -> list[bytes]:
    def terminate(*_: object) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    records = []
    try:
        while True:
            data = os.read(queue, 1 << 20)
            at = time.monotonic_ns()
            records.append(HEADER.pack(at, len(data)) + data)
            # The end is the last name, so it is in the last event of a read.
            if END in data[-32:]:
                break
    except _Terminated:
        pass
    return records


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
