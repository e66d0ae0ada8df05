"""fanotify_init(2) and fanotify_mark(2)."""

from __future__ import annotations

import ctypes
import os

from farwatch.linux.descriptors import Closable
from farwatch.linux.files import AT_FDCWD
from farwatch.linux.libc import declare, fail

# linux/fanotify.h
FAN_ACCESS = 0x00000001
FAN_MODIFY = 0x00000002
FAN_ATTRIB = 0x00000004
FAN_CLOSE_WRITE = 0x00000008
FAN_CLOSE_NOWRITE = 0x00000010
FAN_OPEN = 0x00000020
FAN_MOVED_FROM = 0x00000040
FAN_MOVED_TO = 0x00000080
FAN_CREATE = 0x00000100
FAN_DELETE = 0x00000200
FAN_DELETE_SELF = 0x00000400
FAN_MOVE_SELF = 0x00000800
FAN_OPEN_EXEC = 0x00001000
FAN_Q_OVERFLOW = 0x00004000
FAN_OPEN_PERM = 0x00010000
FAN_ACCESS_PERM = 0x00020000
FAN_OPEN_EXEC_PERM = 0x00040000
FAN_PRE_ACCESS = 0x00100000
FAN_EVENT_ON_CHILD = 0x08000000
FAN_RENAME = 0x10000000
FAN_ONDIR = 0x40000000
FAN_CLOSE = FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE

FAN_CLOEXEC = 0x00000001
FAN_NONBLOCK = 0x00000002
FAN_CLASS_NOTIF = 0x00000000
FAN_CLASS_CONTENT = 0x00000004
FAN_CLASS_PRE_CONTENT = 0x00000008
FAN_UNLIMITED_QUEUE = 0x00000010
FAN_UNLIMITED_MARKS = 0x00000020
FAN_REPORT_TID = 0x00000100
FAN_REPORT_FID = 0x00000200
FAN_REPORT_DIR_FID = 0x00000400
FAN_REPORT_NAME = 0x00000800
FAN_REPORT_TARGET_FID = 0x00001000
FAN_REPORT_DFID_NAME = FAN_REPORT_DIR_FID | FAN_REPORT_NAME
FAN_REPORT_DFID_NAME_TARGET = FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID

FAN_MARK_ADD = 0x00000001
FAN_MARK_REMOVE = 0x00000002
FAN_MARK_DONT_FOLLOW = 0x00000004
FAN_MARK_ONLYDIR = 0x00000008
FAN_MARK_INODE = 0x00000000
FAN_MARK_MOUNT = 0x00000010
FAN_MARK_IGNORED_SURV_MODIFY = 0x00000040
FAN_MARK_FLUSH = 0x00000080
FAN_MARK_FILESYSTEM = 0x00000100
FAN_MARK_EVICTABLE = 0x00000200
FAN_MARK_IGNORE = 0x00000400

_fanotify_init = declare("fanotify_init", ctypes.c_uint, ctypes.c_uint)
_fanotify_mark = declare(
    "fanotify_mark",
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
    checked=False,
)


class Group(Closable):
    """A fanotify group; owns its descriptor.

    Raises OSError as fanotify_init(2) does: EPERM without CAP_SYS_ADMIN where
    the flags need it, EINVAL for flags that the kernel does not know, ENOSYS.
    """

    def __init__(self, flags: int, event_f_flags: int = os.O_RDONLY) -> None:
        self._fd: int = _fanotify_init(flags, event_f_flags)

    def mark(self, flags: int, mask: int, dirfd: int = AT_FDCWD, path: bytes | None = None) -> None:
        """Add, change or remove a mark; without ``path``, on ``dirfd`` itself.

        An O_PATH descriptor is refused then (EBADF); with the path ``b"."`` it is not.
        """
        if _fanotify_mark(self.fileno(), flags, mask, dirfd, path) < 0:
            fail(path)

    def read(self, buffer: bytearray | memoryview) -> int:
        """Fill the buffer with whole events; the number of bytes.

        Raises BlockingIOError when nothing waits in a FAN_NONBLOCK group,
        OSError(EINVAL) when the next event does not fit.
        """
        return os.readv(self._fd, (buffer,))

    def fileno(self) -> int:
        """The descriptor; ValueError once closed."""
        if self._fd < 0:
            raise ValueError("the fanotify group is closed")
        return self._fd

    def close(self) -> None:
        """Give up the group and its marks.  Closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # __init__ may have failed before there was a descriptor.
        if getattr(self, "_fd", -1) >= 0:
            self.close()
