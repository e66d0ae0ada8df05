"""A source that is one fanotify group with a mark on each file system of the export.

Marks come and go with what is mounted:

    open       the export's own file system
    add        one more, that is mounted below; ``remove`` again
    silence    a mount of the export through which the server works
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
import threading
from collections.abc import Callable
from typing import Self

from farwatch.abi.fanotify import METADATA_SIZE, parse
from farwatch.events import READING, Record
from farwatch.linux import fanotify as fan
from farwatch.linux.descriptors import Closable
from farwatch.linux.files import AT_FDCWD
from farwatch.linux.handles import fsid
from farwatch.linux.mounts import statx_mount_id
from farwatch.linux.superblocks import open_whole

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

SILENCED = (
    fan.FAN_OPEN
    | fan.FAN_OPEN_EXEC
    | fan.FAN_ACCESS
    | fan.FAN_MODIFY
    | fan.FAN_CLOSE
    | fan.FAN_ONDIR
)
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
    errno.EXDEV: "it is a btrfs subvolume, and the top of its file system cannot be opened"
    " (CAP_DAC_READ_SEARCH is needed)",
    errno.EINVAL: "the kernel does not report its changes (Linux 5.17 is needed)",
    errno.ENOSPC: "too many fanotify marks (fs.fanotify.max_user_marks)",
    errno.EPERM: "fanotify may not watch whole file systems here (CAP_SYS_ADMIN is needed)",
}


class NoSource(OSError):
    """The file system's changes cannot be had from fanotify; one line says why."""


class FanotifySource(Closable):
    """Everything that changes in some file systems; owns its group.

    Marks may be changed by one thread while another reads.
    """

    def __init__(self, group: fan.Group, whole: int) -> None:
        """``whole`` (see ``open_whole``) is owned from now on; its file system is marked."""
        self._group = group
        self._lock = threading.Lock()
        self._wholes = {fsid(whole): whole}
        """Each file system that is marked, by its id."""
        self._first = fsid(whole)
        self._wanted = 0
        self._silenced: dict[int, int] = {}
        """Each mount of which nothing is to be heard, by its id: a descriptor on it."""
        self.is_silent = False
        """Whether ``silence`` is in effect."""
        self.translate: Callable[[list[Record]], list[Record]] = lambda records: records
        """What becomes of the records that are read; see ``aliases``."""
        self._buffer = memoryview(bytearray(_READ_SIZE))

    @classmethod
    def open(cls, src_fd: int) -> Self:
        """Start watching the file system of ``src_fd``.

        ``src_fd`` is any descriptor of a directory there; it stays the caller's.
        Raises NoSource.
        """
        try:
            group = fan.Group(GROUP_FLAGS)
        except OSError as error:
            raise _explained(error, _NO_GROUP) from error
        whole = -1
        try:
            whole = open_whole(src_fd)
            _mark(group, fan.FAN_MARK_ADD, BASE, whole)
            return cls(group, whole)
        except OSError as error:
            group.close()
            if whole >= 0:
                os.close(whole)
            raise _explained(error, _NO_MARK) from error

    def add(self, fd: int) -> None:
        """Watch the file system of ``fd`` as well, which stays the caller's.

        Nothing if it is watched already.  Raises NoSource.
        """
        try:
            whole = open_whole(fd)
        except OSError as error:
            raise _explained(error, _NO_MARK) from error
        with self._lock:
            name = fsid(whole)
            if name in self._wholes:
                os.close(whole)
                return
            try:
                _mark(self._group, fan.FAN_MARK_ADD, BASE | _asked(self._wanted), whole)
            except OSError as error:
                os.close(whole)
                raise _explained(error, _NO_MARK) from error
            self._wholes[name] = whole

    def remove(self, name: bytes) -> None:
        """Watch the file system with this id no more; nothing if it is not watched.

        Its events that wait to be read stay there.
        """
        with self._lock:
            whole = self._wholes.pop(name, None)
            if whole is None:
                return
            try:
                _mark(self._group, fan.FAN_MARK_REMOVE, BASE | _asked(int(READING)), whole)
            except FileNotFoundError:
                pass  # It was unmounted everywhere, and its mark went with it.
            finally:
                os.close(whole)

    @property
    def wanted(self) -> int:
        """The kinds that reading makes which are asked for now (Mask bits)."""
        return self._wanted

    def want(self, mask: int) -> None:
        """Ask for exactly these of the READING kinds from now on.

        Other bits of ``mask`` are left out.  Events that wait in the queue
        already stay there.
        """
        with self._lock:
            new = int(mask) & int(READING)
            added, dropped = new & ~self._wanted, self._wanted & ~new
            for whole in self._wholes.values():
                if added:
                    _mark(self._group, fan.FAN_MARK_ADD, _asked(added), whole)
                if dropped:
                    _mark(self._group, fan.FAN_MARK_REMOVE, _asked(dropped), whole)
            self._wanted = new

    def silence(self, mount_fd: int) -> None:
        """Hear nothing of opens, reads, writes and closes through this mount either.

        ``mount_fd`` is a directory of a mount that is attached somewhere.
        Names that are made, removed or renamed through it are reported still,
        as are attributes and truncation by name: these have no mount.
        ``mount_fd`` stays the caller's.  The first such mount is the export's own: from then
        on its file system is reached by way of it, and whatever ``open`` was given is let go.
        """
        whole = open_whole(mount_fd)
        with self._lock:
            if not self._silenced and fsid(whole) == self._first:
                os.close(self._wholes[self._first])
                self._wholes[self._first] = os.dup(whole)
            self._silenced[statx_mount_id(whole)] = whole
            if self.is_silent or len(self._silenced) == 1:
                self._ignore(fan.FAN_MARK_ADD, whole)
                self.is_silent = True

    def let_go(self, mount_fd: int) -> None:
        """Hold a mount that was silenced no longer: it is going away."""
        with self._lock:
            whole = self._silenced.pop(statx_mount_id(mount_fd), None)
        if whole is not None:
            os.close(whole)

    def be_silent(self, *, is_silent: bool) -> None:
        """Take what ``silence`` did back, or do it again; nothing if it was never called."""
        if not self._silenced or is_silent == self.is_silent:
            return
        with self._lock:
            for whole in self._silenced.values():
                self._ignore(fan.FAN_MARK_ADD if is_silent else fan.FAN_MARK_REMOVE, whole)
            self.is_silent = is_silent

    def _ignore(self, action: int, fd: int) -> None:
        self._group.mark(
            action | fan.FAN_MARK_MOUNT | fan.FAN_MARK_IGNORE | fan.FAN_MARK_IGNORED_SURV_MODIFY,
            SILENCED,
            AT_FDCWD,
            _link(fd),
        )

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
        return self.translate(records)

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
        with self._lock:
            for fd in (*self._wholes.values(), *self._silenced.values()):
                os.close(fd)
            self._wholes.clear()
            self._silenced.clear()


def _mark(group: fan.Group, action: int, mask: int, fd: int) -> None:
    group.mark(action | fan.FAN_MARK_FILESYSTEM, mask, AT_FDCWD, _link(fd))


def _asked(reading: int) -> int:
    """What to ask for: who runs a program is never seen to have it open (openmodes.py)."""
    return reading | fan.FAN_OPEN_EXEC if reading & fan.FAN_OPEN else reading


def _link(fd: int) -> bytes:
    """A path to what ``fd`` is open on: fanotify_mark refuses O_PATH descriptors (EBADF)."""
    return b"/proc/self/fd/%d" % fd


def _explained(error: OSError, reasons: dict[int, str]) -> NoSource:
    number = error.errno or 0
    reason = reasons.get(number, os.strerror(number))
    return NoSource(number, f"no events from this file system: {reason}")
