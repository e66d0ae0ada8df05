"""What the kernel's ``fsnotify`` is told when a file system changes, in its order.

One fact is told to a directory with a name, and to the node, or to the node alone; inotify
and fanotify make their events from it.  The order of several is that of fs/namei.c and
fs/open.c: see ``WatchedDisk``, and test_native, where the kernel confirms it.
"""

from __future__ import annotations

from typing import NamedTuple

from farwatch.events import Key, Mask, Place

ACCESS = int(Mask.ACCESS)
MODIFY = int(Mask.MODIFY)
ATTRIB = int(Mask.ATTRIB)
CLOSE_WRITE = int(Mask.CLOSE_WRITE)
CLOSE_NOWRITE = int(Mask.CLOSE_NOWRITE)
OPEN = int(Mask.OPEN)
MOVED_FROM = int(Mask.MOVED_FROM)
MOVED_TO = int(Mask.MOVED_TO)
CREATE = int(Mask.CREATE)
DELETE = int(Mask.DELETE)
DELETE_SELF = int(Mask.DELETE_SELF)
MOVE_SELF = int(Mask.MOVE_SELF)
Q_OVERFLOW = int(Mask.Q_OVERFLOW)
IGNORED = int(Mask.IGNORED)
RENAME = int(Mask.RENAME)
ISDIR = int(Mask.ISDIR)
ALL = 0xFFF
"""IN_ALL_EVENTS."""

NAMES = CREATE | DELETE
SELF = DELETE_SELF | MOVE_SELF
OPENED = OPEN | ACCESS | MODIFY | CLOSE_WRITE | CLOSE_NOWRITE
"""What is done through an open file, and so can be done to one that has lost its name."""


class Fact(NamedTuple):
    """One call of ``fsnotify``.

    ``mask``      one kind, with ISDIR
    ``place``     the directory that hears of it, with the name; None: the node alone
    ``unlinked``  of what is done through an open file: the name is no more
    """

    mask: int
    node: Key
    place: Place | None
    thread: int
    new_place: Place | None = None
    unlinked: bool = False


def kinds(mask: int) -> str:
    """The bits' names, for people."""
    found = [bit.name or hex(bit) for bit in Mask if mask & bit]
    return "|".join(found) or "0"
