"""The bits of an inotify mask, and which watches a kind of fact is for."""

from __future__ import annotations

import errno
import os
from enum import Enum
from typing import NamedTuple

from farwatch.events import Mask
from farwatch.linux.inotify import (
    IN_ALL_EVENTS,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
)

# Plain numbers: an IntFlag is slow, and its ~ leaves out bits that it does not know.

ISDIR = int(Mask.ISDIR)
UNMOUNT = int(Mask.UNMOUNT)
IGNORED = int(Mask.IGNORED)
Q_OVERFLOW = int(Mask.Q_OVERFLOW)
RENAME = int(Mask.RENAME)
MOVED_FROM = int(Mask.MOVED_FROM)
MOVED_TO = int(Mask.MOVED_TO)
MOVE_SELF = int(Mask.MOVE_SELF)
DELETE_SELF = int(Mask.DELETE_SELF)

OPEN_EXEC = 0x1000
"""fsnotify_backend.h: comes with OPEN, no inotify watch can ask for it or is told of it."""

DIRENT = int(Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)
"""What happens to a name.  Only the directory is told (fsnotify_backend.h)."""
ARRIVES = int(Mask.CREATE | Mask.MOVED_TO)
"""Of these, what brings a name."""
SELF = DELETE_SELF | MOVE_SELF
"""What happens to an inode as such.  Only the inode is told."""
THROUGH_OPEN = int(Mask.ACCESS | Mask.MODIFY | Mask.OPEN | Mask.CLOSE_WRITE | Mask.CLOSE_NOWRITE)
"""What is done through an open file, and so by the name that it was opened by."""
TOLD = IN_ALL_EVENTS | OPEN_EXEC | RENAME | ISDIR
"""The bits that a fact may have for marks."""

READABLE = IN_ALL_EVENTS | ISDIR | UNMOUNT | IGNORED | Q_OVERFLOW
"""The bits that read(2) shows (inotify_user.c)."""
VALID = (
    READABLE
    | IN_ONLYDIR
    | IN_DONT_FOLLOW
    | IN_EXCL_UNLINK
    | IN_MASK_CREATE
    | IN_MASK_ADD
    | IN_ONESHOT
)
"""ALL_INOTIFY_BITS (linux/inotify.h)."""


class Asked(NamedTuple):
    """What an inotify_add_watch(2) asks for."""

    events: int
    one_shot: bool
    exclude_unlinked: bool
    adds: bool
    """IN_MASK_ADD: to what the watch has already."""
    creates: bool
    """IN_MASK_CREATE: there must be no watch yet."""
    only_directory: bool


def asked(mask: int) -> Asked:
    """Take a mask apart.

    Any valid bit will do, as in the kernel: a watch for no event at all hears UNMOUNT and
    IGNORED.  Raises OSError(EINVAL) for an empty mask, an unknown bit, and IN_MASK_ADD
    together with IN_MASK_CREATE.
    """
    if not mask or mask & ~VALID:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"mask {mask:#x}")
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "IN_MASK_ADD and IN_MASK_CREATE")
    return Asked(
        mask & IN_ALL_EVENTS,
        bool(mask & IN_ONESHOT),
        bool(mask & IN_EXCL_UNLINK),
        bool(mask & IN_MASK_ADD),
        bool(mask & IN_MASK_CREATE),
        bool(mask & IN_ONLYDIR),
    )


class Route(Enum):
    """Whose watches a fact is for."""

    RENAME = "both directories with their names, and the node"
    DIRECTORY = "the directory, with the name"
    NODE = "the node"
    BOTH = "the directory, with the name, and then the node"
    NOBODY = "nobody: no kind that an inotify watch can have"


def route(mask: int) -> Route:
    """Whose watches a fact with this mask is for."""
    if mask & RENAME:
        return Route.RENAME
    if mask & DIRENT:
        return Route.DIRECTORY
    if mask & SELF:
        return Route.NODE
    return Route.BOTH if mask & IN_ALL_EVENTS else Route.NOBODY
