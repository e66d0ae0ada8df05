"""How nodes are shown where the export spans several mounts, and the client has one.

What is told is not quite what the disk says:

    inode     Each file system, and each subvolume of btrfs, counts its inodes for itself: the
    numbers   top of every subvolume is number 256.  To find, du, tar and rsync, which compare
              (st_dev, st_ino), two files of one number on one device are one file, and a
              directory with the number of one above it is a loop.  So the numbers of each
              further device are told with a tag of that device in their upper bits (not the
              highest: some take them for signed).
    nosuid    A mount below the export may forbid what the client's mount allows.  There no
    nodev     set-id bits, no file capabilities and no device numbers are told, so that nobody
              gains by going around it.
"""

from __future__ import annotations

import os
import stat
import zlib
from typing import NamedTuple

from farwatch.events import Key
from farwatch.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID

CAPABILITIES = b"security.capability"
"""The extended attribute that gives privileges to who runs a file (capabilities(7))."""
_PREFIX = 8
_SHIFT = 48
_MOST = (1 << 63 - _SHIFT) - 1
_SET_ID = stat.S_ISUID | stat.S_ISGID


class Seen(NamedTuple):
    """What is told of a node in place of what the disk says."""

    ino: int
    mode: int
    rdev: int


class Guise:
    """Of one export.  One thread changes it, any may ask."""

    def __init__(self, device: int) -> None:
        """``device`` is the st_dev whose inode numbers are told as they are."""
        self._tags = {device: 0}
        self._taken = {0}
        self._forbidden: dict[bytes, int] = {}

    def knows(self, device: int) -> bool:
        """Whether the device has its tag."""
        return device in self._tags

    def learn(self, device: int, fsid: bytes) -> None:
        """Give a device a tag of its own, the same each time if no other has it by chance.

        ``fsid`` names it, as st_dev does not after the next mount.
        """
        tag = zlib.crc32(fsid) & _MOST
        while tag in self._taken and len(self._taken) <= _MOST:
            tag = tag + 1 & _MOST
        self._taken.add(tag)
        self._tags[device] = tag << _SHIFT

    def forbid(self, prefix: bytes, attributes: int) -> None:
        """The nodes whose keys begin so are on a mount with these MOUNT_ATTR_… bits."""
        bits = attributes & (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
        others = {name: had for name, had in self._forbidden.items() if name != prefix}
        self._forbidden = {**others, prefix: bits} if bits else others

    def tag(self, device: int) -> int:
        """What is added (by exclusive or) to the inode numbers of a device."""
        return self._tags.get(device, 0)

    def of(self, node: Key, status: os.stat_result) -> Seen:
        """How a node is shown of which the disk says this."""
        ino = status.st_ino ^ self._tags.get(status.st_dev, 0)
        mode, rdev = status.st_mode, status.st_rdev
        if self._forbidden:
            bits = self._forbidden.get(node[:_PREFIX], 0)
            if bits & MOUNT_ATTR_NOSUID and stat.S_ISREG(mode):
                mode &= ~_SET_ID
            if bits & MOUNT_ATTR_NODEV:
                rdev = 0
        return Seen(ino, mode, rdev)

    def hides(self, node: Key, xattr: bytes) -> bool:
        """Whether an extended attribute of a node is not shown."""
        return (
            xattr == CAPABILITIES
            and bool(self._forbidden)
            and bool(self._forbidden.get(node[:_PREFIX], 0) & MOUNT_ATTR_NOSUID)
        )
