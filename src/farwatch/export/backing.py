"""Files whose content the kernel reads and writes itself: FUSE passthrough."""

from __future__ import annotations

import ctypes
import struct

from farwatch.events import Key
from farwatch.export.setid import killing_set_id
from farwatch.linux.descriptors import Closable
from farwatch.linux.files import ioctl

__all__ = ["BackingFiles"]

# linux/fuse.h 7.40
_MAP = struct.Struct("=iIQ")
"""``struct fuse_backing_map``: fd, flags, padding."""
_ID = struct.Struct("=I")


def _iow(number: int, size: int) -> int:
    """``_IOW`` of asm-generic/ioctl.h, of the type that /dev/fuse has."""
    return 1 << 30 | size << 16 | 229 << 8 | number


BACKING_OPEN = _iow(1, _MAP.size)
"""``FUSE_DEV_IOC_BACKING_OPEN``: returns the id."""
BACKING_CLOSE = _iow(2, _ID.size)
"""``FUSE_DEV_IOC_BACKING_CLOSE``."""


class BackingFiles(Closable):
    """The backing ids of one /dev/fuse connection, which may not own ``fuse_fd``.

    An inode has one id at a time, so its opens share it; it goes with the last.
    The kernel holds the file open for as long as an id or an open that uses it
    lives, and all ids go with the connection.
    """

    def __init__(self, fuse_fd: int) -> None:
        self._fuse_fd = fuse_fd
        self._held: dict[Key, tuple[int, int]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def acquire(self, key: Key, fd: int) -> int:
        """The backing id of a node, for one more open of it.

        ``fd`` is registered if the node has no id yet, and need not stay open.
        The first one serves all the opens that share the id, so it should be
        open for reading and writing.  Raises OSError: EPERM without
        CAP_SYS_ADMIN, EOPNOTSUPP for what cannot be read or written so, ELOOP
        for a file system that is stacked itself.
        """
        backing_id, opens = self._held.get(key, (0, 0))
        if not opens:
            request = ctypes.create_string_buffer(_MAP.pack(fd, 0, 0), _MAP.size)
            # With the credentials of this moment the kernel writes, whoever it is for: it
            # must not leave set-id bits that were given since to a file that a user writes.
            with killing_set_id():
                backing_id = ioctl(self._fuse_fd, BACKING_OPEN, request)
        self._held[key] = (backing_id, opens + 1)
        return backing_id

    def share(self, key: Key) -> int | None:
        """The backing id of a node for one more open of it; None if it has none."""
        backing_id, opens = self._held.get(key, (0, 0))
        if not opens:
            return None
        self._held[key] = (backing_id, opens + 1)
        return backing_id

    def release(self, key: Key) -> None:
        """One open of the node is gone.  KeyError if it had none."""
        backing_id, opens = self._held.pop(key)
        if opens > 1:
            self._held[key] = (backing_id, opens - 1)
            return
        self._close(backing_id)

    def close(self) -> None:
        """Give all ids back."""
        while self._held:
            _, (backing_id, _) = self._held.popitem()
            self._close(backing_id)

    def _close(self, backing_id: int) -> None:
        request = ctypes.create_string_buffer(_ID.pack(backing_id), _ID.size)
        ioctl(self._fuse_fd, BACKING_CLOSE, request)
