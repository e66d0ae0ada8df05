"""The agent's own clone of the mount, and how it learns that the mount is gone.

The agent never holds the mount itself: descriptors on it would make ``umount`` fail with
EBUSY.  It works through a detached clone, which has none of the client's submounts, is
writable though the client may have remounted the mount read-only, and keeps the file
system alive until the agent lets go of it.

An ordinary user's may have to do without (clone.py): then it works in the mount itself, which
is busy until the agent ends, and so never goes while it is there.
"""

from __future__ import annotations

import os
import select

from farwatch.agent.clone import clone_as_user
from farwatch.linux import mounts
from farwatch.linux.descriptors import Closable
from farwatch.linux.files import AT_FDCWD

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_SAFE = mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC | mounts.MOUNT_ATTR_NOSUID


class MountPoint(Closable):
    """A mount that the agent serves.  Owns the clone and its view of the mount table."""

    def __init__(self, path: bytes) -> None:
        """Clones the mount that ``path`` is on.  Raises OSError.  For a process with one thread."""
        self._path = os.path.realpath(path)
        self._table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._client_root = os.open("/", _DIRECTORY)
        self.clone = -1
        try:
            self._mount_id = _mount_id(self._path)
            self.clone = self._cloned() if os.geteuid() == 0 else self._opened()
            self.device = os.stat(b".", dir_fd=self.clone, follow_symlinks=False).st_dev
        except OSError:
            self.close()
            raise

    def _cloned(self) -> int:
        clone = mounts.open_tree(AT_FDCWD, self._path, mounts.OPEN_TREE_CLONE)
        try:
            mounts.mount_setattr(clone, _SAFE, mounts.MOUNT_ATTR_RDONLY, recursive=False)
        except OSError:
            os.close(clone)
            raise
        return clone

    def _opened(self) -> int:
        try:
            return clone_as_user(self._path, _SAFE)
        except OSError:
            return os.open(self._path, _DIRECTORY)

    def fileno(self) -> int:
        """For poll with POLLPRI: the mount table of the client has changed."""
        return self._table

    def mount_ids(self) -> set[int]:
        """The ids of all mounts of this file system in the client's namespace.

        It is the namespace that the agent was started in, whatever it has entered since.
        """
        return {entry.mount_id for entry in self._mounts()}

    def _mounts(self) -> list[mounts.MountInfo]:
        os.lseek(self._table, 0, os.SEEK_SET)
        chunks = []
        while chunk := os.read(self._table, 1 << 16):
            chunks.append(chunk)
        entries = mounts.parse_mountinfo(b"".join(chunks))
        return [entry for entry in entries if entry.device == self.device]

    def is_gone(self, seconds: float) -> bool:
        """Whether it is gone from the client's mounts; after this time if it is not."""
        poll = select.poll()
        poll.register(self._table, select.POLLPRI)
        poll.poll(seconds * 1000)
        return not self.mount_ids()

    def open_visible(self) -> int | None:
        """A new O_PATH descriptor of the mount as the client sees it; None if it is gone.

        Not to be kept: it makes the mount busy.  The mount may have been moved meanwhile, or
        what it is in renamed.
        """
        ours = [entry for entry in self._mounts() if entry.mount_id == self._mount_id]
        if not ours:
            return None
        path = ours[0].mount_point.lstrip(b"/") or b"."
        try:
            fd = os.open(path, _DIRECTORY, dir_fd=self._client_root)
        except OSError:
            return None
        if os.stat(fd).st_dev == self.device:
            return fd
        os.close(fd)
        return None

    def open_root(self) -> int:
        """A new descriptor of the clone's root directory, for ioctl and handles."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(b".", flags, dir_fd=self.clone)

    def close(self) -> None:
        """Let go of the clone.  May be called twice."""
        for fd in (self.clone, self._table, self._client_root):
            if fd >= 0:
                os.close(fd)
        self.clone = self._table = self._client_root = -1


def _mount_id(path: bytes) -> int:
    fd = os.open(path, _DIRECTORY)
    try:
        return mounts.statx_mount_id(fd)
    finally:
        os.close(fd)
