"""Where a mount is now: what it is in may be renamed, and it may be moved, while it is served.

Which mount that is has to be asked with care.  The kernel gives the number of a mount that is
gone, and that of its file system, to the next one: the mount of another who starts while this
one ends would be taken for it, and taken away.  From Linux 6.8 on its unique id tells.  Before,
nothing does while it is served; when its server has ended, a mount that answers is another's.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple, Self

from farwatch.agent.endings import SERVER_GONE
from farwatch.linux import fusermount, mounts
from farwatch.linux.mounts import MountId, MountInfo
from farwatch.transports.devfuse import FSTYPE


class Place(NamedTuple):
    """A mount by its ids, as in ``MountId``, and the st_dev of its file system."""

    number: int
    unique: int
    device: int

    @classmethod
    def of(cls, target: bytes) -> Self:
        """The mount that is on top at ``target``.  Its server is not asked.  Raises OSError."""
        fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls.numbered(mounts.statx_mount_ids(fd))
        finally:
            os.close(fd)

    @classmethod
    def numbered(cls, mount: MountId) -> Self:
        """The mount of these ids.  Raises OSError if there is none."""
        entry = next((each for each in _table() if each.mount_id == mount.number), None)
        if entry is None:
            raise OSError(errno.EINVAL, "no mount of this namespace has this id")
        return cls(*mount, entry.device)

    def find(self) -> MountInfo | None:
        """The mount with its present path, or None if it is gone."""
        return self._in(_table())

    def unmount(self, flags: int = 0) -> None:
        """Takes this mount away, and no other.  Raises OSError as umount(2) does.

        EINVAL if it is gone, EBUSY if another one covers it.
        """
        _unmount(self._top(), flags)

    def unmount_dead(self) -> None:
        """The same, also if it is in use, for who knows that its server has ended."""
        where = self._top()
        if self._is_attached() is None and not _is_dead(where):
            raise OSError(errno.EINVAL, "it is gone")
        _unmount(where, mounts.MNT_DETACH)

    def _top(self) -> bytes:
        table = _table()
        entry = self._in(table)
        if entry is None:
            raise OSError(errno.EINVAL, "it is gone")
        top = mounts.topmost(entry.mount_point, table)
        if top is None or top.mount_id != self.number:
            raise OSError(errno.EBUSY, "another mount covers it", entry.mount_point)
        return entry.mount_point

    def _in(self, table: list[MountInfo]) -> MountInfo | None:
        ours = (self.number, self.device, FSTYPE)
        for entry in table:
            if (entry.mount_id, entry.device, entry.fstype) == ours:
                return entry if self._is_attached() is not False else None
        return None

    def _is_attached(self) -> bool | None:
        return mounts.is_attached(MountId(self.number, self.unique))


def _unmount(target: bytes, flags: int) -> None:
    if os.geteuid() == 0:
        mounts.umount(target, flags | mounts.UMOUNT_NOFOLLOW)
    else:
        fusermount.unmount(target, lazy=bool(flags & mounts.MNT_DETACH))


def _is_dead(target: bytes) -> bool:
    try:
        os.statvfs(target)
    except OSError as error:
        return error.errno in SERVER_GONE
    return False


def _table() -> list[MountInfo]:
    return mounts.parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
