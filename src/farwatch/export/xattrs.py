"""Extended attributes of nodes of every type; none is opened for it."""

from __future__ import annotations

import errno
import os

from farwatch.events import Key, Place
from farwatch.export.anchor import Anchor, Caller, failure, fd_link

__all__ = ["Xattrs"]

_FLAGS = os.XATTR_CREATE | os.XATTR_REPLACE


class Xattrs(Anchor):
    """xattr(7) by way of an O_PATH descriptor's link in /proc.

    The link leads to just that inode: a symbolic link's own attributes are
    meant, and a device or FIFO is not opened.  Raises OSError as the system
    calls do: ENODATA without such an attribute, EOPNOTSUPP, EPERM.
    """

    def getxattr(self, node: Key, name: bytes) -> bytes:
        """An attribute's value."""
        _check(name)
        fd = self._open_path(node)
        try:
            return os.getxattr(fd_link(fd), name)
        finally:
            os.close(fd)

    def listxattr(self, node: Key) -> list[bytes]:
        """The names of the attributes."""
        fd = self._open_path(node)
        try:
            return [os.fsencode(name) for name in os.listxattr(fd_link(fd))]
        finally:
            os.close(fd)

    def setxattr(
        self,
        node: Key,
        name: bytes,
        value: bytes,
        flags: int,
        caller: Caller,
        *,
        place: Place | None = None,
    ) -> None:
        """Set an attribute; ``flags``: XATTR_CREATE or XATTR_REPLACE, EINVAL for others.

        ``place`` as for ``setattr``.
        """
        _check(name)
        if flags & ~_FLAGS:
            raise failure(errno.EINVAL)
        fd = self._open_as(node, place)
        try:
            os.setxattr(fd_link(fd), name, value, flags)
        finally:
            os.close(fd)

    def removexattr(self, node: Key, name: bytes, *, place: Place | None = None) -> None:
        """Remove an attribute.  ``place`` as for ``setattr``."""
        _check(name)
        fd = self._open_as(node, place)
        try:
            os.removexattr(fd_link(fd), name)
        finally:
            os.close(fd)


def _check(name: bytes) -> None:
    # The kernel itself refuses what is empty or longer than 255 bytes (ERANGE).
    if b"\0" in name:
        raise failure(errno.EINVAL)
