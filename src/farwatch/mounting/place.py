"""Where a mount is now: what it is in may be renamed, and it may be moved, while it is served."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple, Self

from farwatch.linux import fusermount, mounts
from farwatch.linux.mounts import MountInfo
from farwatch.transports.devfuse import FSTYPE


class Place(NamedTuple):
    """A mount by its id, which is given to another when this one has gone, and its file system.

    ``device`` is the st_dev of that.
    """

    mount_id: int
    device: int

    @classmethod
    def of(cls, target: bytes) -> Self:
        """The mount that is on top at ``target``.  Its server is not asked.  Raises OSError."""
        fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls.numbered(mounts.statx_mount_id(fd))
        finally:
            os.close(fd)

    @classmethod
    def numbered(cls, mount_id: int) -> Self:
        """The mount of this id.  Raises OSError if there is none."""
        entry = next((each for each in _table() if each.mount_id == mount_id), None)
        if entry is None:
            raise OSError(errno.EINVAL, "no mount of this namespace has this id")
        return cls(mount_id, entry.device)

    def find(self) -> MountInfo | None:
        """The mount with its present path, or None if it is gone."""
        return self._in(_table())

    def unmount(self, flags: int = 0) -> None:
        """Takes this mount away, and no other.  Raises OSError as umount(2) does.

        EINVAL if it is gone, EBUSY if another one covers it.
        """
        table = _table()
        entry = self._in(table)
        if entry is None:
            raise OSError(errno.EINVAL, "it is gone")
        top = mounts.topmost(entry.mount_point, table)
        if top is None or top.mount_id != self.mount_id:
            raise OSError(errno.EBUSY, "another mount covers it", entry.mount_point)
        if os.geteuid() == 0:
            mounts.umount(entry.mount_point, flags | mounts.UMOUNT_NOFOLLOW)
        else:
            fusermount.unmount(entry.mount_point, lazy=bool(flags & mounts.MNT_DETACH))

    def _in(self, table: list[MountInfo]) -> MountInfo | None:
        for entry in table:
            if (entry.mount_id, entry.device, entry.fstype) == (*self, FSTYPE):
                return entry
        return None


def _table() -> list[MountInfo]:
    return mounts.parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
