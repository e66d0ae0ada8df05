"""Extended attributes of nodes of every type; none is opened for it."""

from __future__ import annotations

import errno
import os

from farwatch.events import Key, Place
from farwatch.export.anchor import Anchor, Caller, failure, fd_link
from farwatch.export.setid import killing_set_id

__all__ = ["Xattrs"]

ACCESS_ACL = b"system.posix_acl_access"
_FLAGS = os.XATTR_CREATE | os.XATTR_REPLACE


class Xattrs(Anchor):
    """xattr(7) by way of an O_PATH descriptor's link in /proc.

    The link leads to just that inode: a symbolic link's own attributes are
    meant, and a device or FIFO is not opened.  Raises OSError as the system
    calls do: ENODATA without such an attribute, EOPNOTSUPP, EPERM.
    """

    def has_acls(self) -> bool:
        """Whether the export's file system has access control lists (acl(5))."""
        try:
            os.getxattr(self._fd, ACCESS_ACL)
        except OSError as error:
            return error.errno == errno.ENODATA
        return True

    def getxattr(self, node: Key, name: bytes) -> bytes:
        """An attribute's value."""
        _check(name)
        if self.guise.hides(node, name):
            raise failure(errno.ENODATA)
        fd = self._open_path(node)
        try:
            return os.getxattr(fd_link(fd), name)
        finally:
            os.close(fd)

    def listxattr(self, node: Key) -> list[bytes]:
        """The names of the attributes."""
        fd = self._open_path(node)
        try:
            names = [os.fsencode(name) for name in os.listxattr(fd_link(fd))]
            return [name for name in names if not self.guise.hides(node, name)]
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
        kill_sgid: bool = False,
    ) -> None:
        """Set an attribute; ``flags``: XATTR_CREATE or XATTR_REPLACE, EINVAL for others.

        ``place`` as for ``setattr``.  ``kill_sgid``: an access control list takes the
        set-gid bit away, as for a caller who is not in the node's group.
        """
        _check(name)
        if flags & ~_FLAGS:
            raise failure(errno.EINVAL)
        fd = self._open_as(node, place)
        try:
            if kill_sgid:
                with killing_set_id():
                    os.setxattr(fd_link(fd), name, value, flags)
            else:
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
