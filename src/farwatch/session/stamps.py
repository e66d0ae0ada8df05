"""Stamps: what shows that an inode has changed; and entries, which are names with such.

There is one for each name in each directory that is known to be watched, so they are kept
packed, in the machine's byte order:

    ns mtime, ns ctime, size    8 bytes each
    mode, uid, gid, nlink       4 bytes each

    empty                       stale: nobody has looked since it changed
    CONTENT, METADATA           that was told of and then dropped: other than any
"""

from __future__ import annotations

import os
import struct
from stat import S_ISDIR
from typing import NamedTuple

from farwatch.events import Key

_STAMP = struct.Struct("=qqqIIII")
CONTENT, METADATA = b"c", b"m"
"""Stamps of what was told of and then dropped: other than any."""


class Stamp(NamedTuple):
    """What shows that an inode has changed: times in ns, size in bytes, as of stat(2)."""

    mtime: int
    ctime: int
    size: int
    mode: int
    uid: int
    gid: int
    nlink: int

    def packed(self) -> bytes:
        """As it is kept."""
        return _STAMP.pack(*self)


class Entry(NamedTuple):
    """What a name holds.  ``stamp`` is packed; empty where it is stale."""

    key: Key
    is_dir: bool
    stamp: bytes = b""


def entry_of(key: Key, status: os.stat_result) -> Entry:
    """A name that has just been looked at."""
    return Entry(key, S_ISDIR(status.st_mode), stamp_of(status))


def stamp_of(status: os.stat_result) -> bytes:
    """The stamp of an inode, packed."""
    return _STAMP.pack(
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
    )


def stamp(packed: bytes) -> Stamp | None:
    """A stamp again; None for one that is stale or was dropped."""
    return Stamp._make(_STAMP.unpack(packed)) if len(packed) == _STAMP.size else None
