"""The vocabulary of change: what a source reads, what a settled change is.

Nothing here does I/O, and every other layer speaks in these words.

    Record   one entry of a source's queue.  The kernel merges entries that wait
             together, so a record's mask may hold several kinds, in no order.
    Change   one thing that happened, in the order in which it is to be told.
    Key      a node's identity: the file system's id and the file handle.
             Unlike a path it survives renames, unlike an inode number it is
             not used twice (handles hold the inode's generation), and unlike
             a descriptor it does not keep a deleted inode alive.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import NamedTuple

Key = bytes
"""``fsid`` (8 bytes) followed by ``struct file_handle`` (``u32 handle_bytes``,
``i32 handle_type``, the handle): the layout in which fanotify(7) reports it
after ``struct fanotify_event_info_header``."""


class Mask(IntFlag):
    """Event bits; inotify(7) and fanotify(7) give them the same values."""

    ACCESS = 0x00000001
    MODIFY = 0x00000002
    ATTRIB = 0x00000004
    CLOSE_WRITE = 0x00000008
    CLOSE_NOWRITE = 0x00000010
    OPEN = 0x00000020
    MOVED_FROM = 0x00000040
    MOVED_TO = 0x00000080
    CREATE = 0x00000100
    DELETE = 0x00000200
    DELETE_SELF = 0x00000400
    MOVE_SELF = 0x00000800
    OPEN_EXEC = 0x00001000
    """Beside OPEN: to run the file as a program.  ``FAN_OPEN_EXEC``, Linux 5.0."""
    UNMOUNT = 0x00002000
    Q_OVERFLOW = 0x00004000
    IGNORED = 0x00008000
    RENAME = 0x10000000
    """Both halves of a rename in one event: ``FAN_RENAME``, Linux 5.17."""
    ISDIR = 0x40000000


READING = Mask.OPEN | Mask.ACCESS | Mask.CLOSE_NOWRITE
"""Kinds that reading makes.  They are frequent and rarely wanted, so a source
is asked for them only while somebody's watch wants them."""


class Place(NamedTuple):
    """A name in a directory."""

    directory: Key
    name: bytes


class Record(NamedTuple):
    """One entry of a source's queue, as it was read.

    ``place`` is None for an event that the source reports on the inode alone
    (a link count that changed, DELETE_SELF).  ``node`` is None where the source
    could not encode the child.  ``new_place`` is set for RENAME only.
    ``thread`` is the id of the thread that made the change, 0 if it lives in
    another pid namespace.
    """

    mask: int
    thread: int
    place: Place | None
    node: Key | None
    new_place: Place | None = None


class Kind(StrEnum):
    """What one change is.  In the order in which a file lives."""

    CREATE = "create"
    """A name appeared: made, linked, or moved in from another file system's view."""
    OPEN = "open"
    ACCESS = "access"
    MODIFY = "modify"
    ATTRIB = "attrib"
    CLOSE_WRITE = "close_write"
    CLOSE_NOWRITE = "close_nowrite"
    RENAME = "rename"
    """The name at ``place`` went to ``new_place``; what was there is replaced."""
    EXCHANGE = "exchange"
    """``node`` at ``place`` and ``other`` at ``new_place`` changed places."""
    DELETE = "delete"
    """A name went away.  With ``place`` None only its inode is to be told."""
    DEATH = "death"
    """The inode is gone: no link and no opener is left (DELETE_SELF)."""
    OVERFLOW = "overflow"
    """The source lost events; nothing is known of what they were."""


class Change(NamedTuple):
    """One settled change, ready to be delivered.

    A ``place`` of None means that only watches on the node itself are to hear
    of it.  ``linked`` marks a CREATE that is a further name of a node (a hard
    link), an ATTRIB or DELETE that belongs to a link count, and a DEATH that was
    reported before the last name went, because nobody had the inode open.
    ``other`` is the second node of an EXCHANGE, and what a RENAME replaced if a
    link count said so.
    """

    kind: Kind
    place: Place | None
    node: Key | None
    is_dir: bool = False
    new_place: Place | None = None
    other: Key | None = None
    linked: bool = False
    thread: int = 0
    """Who made it, as ``Record.thread``; an OPEN's mode can be asked of it."""
