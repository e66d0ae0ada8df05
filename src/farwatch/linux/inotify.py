"""inotify(7)."""

from __future__ import annotations

import ctypes
import os

from farwatch.linux.descriptors import Closable
from farwatch.linux.libc import declare, fail

# linux/inotify.h; the event bits are those of events.Mask.
IN_CLOEXEC = os.O_CLOEXEC
IN_NONBLOCK = os.O_NONBLOCK
IN_ALL_EVENTS = 0x00000FFF
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_EXCL_UNLINK = 0x04000000
IN_MASK_CREATE = 0x10000000
IN_MASK_ADD = 0x20000000
IN_ONESHOT = 0x80000000

_inotify_init1 = declare("inotify_init1", ctypes.c_int)
_inotify_add_watch = declare(
    "inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32, checked=False
)
_inotify_rm_watch = declare("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


class Inotify(Closable):
    """An inotify instance; owns its descriptor.

    Raises OSError as inotify_init1(2) does: EMFILE beyond the user's limit.
    """

    def __init__(self, flags: int = IN_CLOEXEC | IN_NONBLOCK) -> None:
        self._fd: int = _inotify_init1(flags)

    def add(self, path: str | bytes | os.PathLike[str], mask: int) -> int:
        """Watch a path; the watch descriptor.  OSError: ENOENT, ENOSPC, EEXIST …"""
        name = os.fsencode(path)
        watch: int = _inotify_add_watch(self.fileno(), name, mask)
        if watch < 0:
            fail(name)
        return watch

    def add_fd(self, fd: int, mask: int) -> int:
        """Watch what a descriptor (O_PATH too) is open on.  Needs /proc."""
        return self.add(b"/proc/self/fd/%d" % fd, mask)

    def remove(self, watch: int) -> None:
        """Remove a watch, which queues IN_IGNORED.  OSError(EINVAL) if it is gone."""
        _inotify_rm_watch(self.fileno(), watch)

    def read(self, buffer: bytearray | memoryview) -> int:
        """Fill the buffer with whole events; the number of bytes.

        Raises BlockingIOError when nothing waits in an IN_NONBLOCK instance,
        OSError(EINVAL) when the next event does not fit.
        """
        return os.readv(self._fd, (buffer,))

    def fileno(self) -> int:
        """The descriptor; ValueError once closed."""
        if self._fd < 0:
            raise ValueError("the inotify instance is closed")
        return self._fd

    def close(self) -> None:
        """Give up the instance and its watches.  Closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # __init__ may have failed before there was a descriptor.
        if getattr(self, "_fd", -1) >= 0:
            self.close()
