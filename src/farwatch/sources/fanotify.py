"""A source that is one fanotify mark on the export's whole file system."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from types import TracebackType
from typing import Self

from farwatch.abi.fanotify import METADATA_SIZE, parse
from farwatch.events import READING, Record
from farwatch.linux import fanotify as fan

BASE = (
    fan.FAN_CREATE
    | fan.FAN_DELETE
    | fan.FAN_RENAME
    | fan.FAN_MODIFY
    | fan.FAN_ATTRIB
    | fan.FAN_CLOSE_WRITE
    | fan.FAN_DELETE_SELF
    | fan.FAN_ONDIR
)
"""What is asked for always: all kinds but those that reading makes."""

GROUP_FLAGS = (
    fan.FAN_CLASS_NOTIF
    | fan.FAN_REPORT_DFID_NAME_TARGET
    | fan.FAN_REPORT_TID
    | fan.FAN_UNLIMITED_QUEUE
    | fan.FAN_NONBLOCK
    | fan.FAN_CLOEXEC
)

SILENCED = fan.FAN_OPEN | fan.FAN_ACCESS | fan.FAN_MODIFY | fan.FAN_CLOSE | fan.FAN_ONDIR
"""The kinds that the kernel reports with a mount, and so can ignore for one."""

_READ_SIZE = 1 << 16
_LIMIT = 1 << 22
_LONGEST = 2048
"""More bytes than any event takes: two names of 255 bytes and five handles of 128."""

_NO_GROUP = {
    errno.EPERM: "fanotify needs CAP_SYS_ADMIN (run it as root)",
    errno.EINVAL: "the kernel's fanotify is too old (Linux 5.17 is needed)",
    errno.ENOSYS: "the kernel has no fanotify",
    errno.EMFILE: "too many fanotify groups (fs.fanotify.max_user_groups) or open files",
}
_NO_MARK = {
    errno.EOPNOTSUPP: "it has no file handles that last"
    " (as proc and sysfs; overlayfs has them when mounted with index=on,nfs_export=on)",
    errno.ENODEV: "it has no file system id (as FUSE, virtiofs, NFS and 9p)",
    errno.EXDEV: "it is a btrfs subvolume, whose id is not that of its file system"
    " (export the top of the file system)",
    errno.EINVAL: "the kernel does not report its changes (Linux 5.17 is needed)",
    errno.ENOSPC: "too many fanotify marks (fs.fanotify.max_user_marks)",
    errno.EPERM: "fanotify may not watch whole file systems here (CAP_SYS_ADMIN is needed)",
}


class NoSource(OSError):
    """The file system's changes cannot be had from fanotify; one line says why."""


class FanotifySource:
    """Everything that changes in one file system; owns its group."""

    def __init__(self, group: fan.Group, src_fd: int) -> None:
        self._group = group
        self._src_fd = src_fd
        self._wanted = 0
        self._silenced: int | None = None
        self.is_silent = False
        """Whether ``silence`` is in effect."""
        self._buffer = memoryview(bytearray(_READ_SIZE))

    @classmethod
    def open(cls, src_fd: int) -> Self:
        """Start watching the file system of ``src_fd``.

        ``src_fd`` is any descriptor of a directory there, O_PATH too; it stays
        the caller's, and is duplicated.  Raises NoSource.
        """
        try:
            group = fan.Group(GROUP_FLAGS)
        except OSError as error:
            raise _explained(error, _NO_GROUP) from error
        try:
            _mark(group, fan.FAN_MARK_ADD, BASE, src_fd)
            return cls(group, os.dup(src_fd))
        except OSError as error:
            group.close()
            raise _explained(error, _NO_MARK) from error

    @property
    def wanted(self) -> int:
        """The kinds that reading makes which are asked for now (Mask bits)."""
        return self._wanted

    def want(self, mask: int) -> None:
        """Ask for exactly these of the READING kinds from now on.

        Other bits of ``mask`` are left out.  Events that wait in the queue
        already stay there.
        """
        new = int(mask) & int(READING)
        added, dropped = new & ~self._wanted, self._wanted & ~new
        if added:
            _mark(self._group, fan.FAN_MARK_ADD, added, self._src_fd)
        if dropped:
            _mark(self._group, fan.FAN_MARK_REMOVE, dropped, self._src_fd)
        self._wanted = new

    def silence(self, mount_fd: int) -> None:
        """Hear nothing of opens, reads, writes and closes through this mount.

        ``mount_fd`` is a directory (O_PATH too) of a mount that is attached somewhere.
        Names that are made, removed or renamed through it are reported still,
        as are attributes and truncation by name: these have no mount.
        ``mount_fd`` stays the caller's, and is duplicated.  Once for each source.
        """
        self._silenced = os.dup(mount_fd)
        self.be_silent(is_silent=True)

    def be_silent(self, *, is_silent: bool) -> None:
        """Take what ``silence`` did back, or do it again; nothing if it was never called."""
        if self._silenced is None or is_silent == self.is_silent:
            return
        self._group.mark(
            (fan.FAN_MARK_ADD if is_silent else fan.FAN_MARK_REMOVE)
            | fan.FAN_MARK_MOUNT
            | fan.FAN_MARK_IGNORE
            | fan.FAN_MARK_IGNORED_SURV_MODIFY,
            SILENCED,
            self._silenced,
            b".",
        )
        self.is_silent = is_silent

    def read(self, limit: int = _LIMIT) -> list[Record]:
        """What has happened; an empty list if nothing waits.

        Reads until the queue is empty or ``limit`` bytes are read.
        """
        records: list[Record] = []
        buffer, group = self._buffer, self._group
        while limit > 0:
            try:
                size = group.read(buffer)
            except BlockingIOError:
                break
            records += parse(buffer[:size].tobytes())
            limit -= size
            # The kernel fills the buffer while events wait: this was all of them.
            if size < _READ_SIZE - _LONGEST:
                break
        return records

    def queued(self) -> int:
        """How many events wait to be read.

        FIONREAD of a fanotify group counts 24 bytes for an event, whatever its
        length.
        """
        answer = fcntl.ioctl(self._group, termios.FIONREAD, b"\0\0\0\0")
        size: int = struct.unpack("=i", answer)[0]
        return size // METADATA_SIZE

    def fileno(self) -> int:
        """For poll: readable when something happened.  ValueError once closed."""
        return self._group.fileno()

    def close(self) -> None:
        """Stop watching.  Closing twice does nothing."""
        self._group.close()
        fd, self._src_fd = self._src_fd, -1
        if fd >= 0:
            os.close(fd)
        silenced, self._silenced = self._silenced, None
        if silenced is not None:
            os.close(silenced)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _mark(group: fan.Group, action: int, mask: int, fd: int) -> None:
    # By the name ".": fanotify_mark refuses O_PATH descriptors themselves (EBADF).
    group.mark(action | fan.FAN_MARK_FILESYSTEM, mask, fd, b".")


def _explained(error: OSError, reasons: dict[int, str]) -> NoSource:
    number = error.errno or 0
    reason = reasons.get(number, os.strerror(number))
    return NoSource(number, f"no events from this file system: {reason}")
