"""Where a directory is, by the disk."""

from __future__ import annotations

import errno
import os

from farwatch.events import Key, Place
from farwatch.export.anchor import Anchor
from farwatch.linux.handles import name_to_handle


class Places(Anchor):
    """From a directory's key to its name."""

    def place_of(self, node: Key) -> Place | None:
        """The directory and name that hold a directory; None if there is none (left).

        May be called by any thread.  The path that the kernel prints for the
        descriptor gives no more than a name to try: what is found under it is compared.
        """
        if node == self.root_key:
            return None
        try:
            fd = self._open_directory(node)
        except OSError:
            return None
        try:
            parent = self._parent_key(fd)
            if parent is None:
                return None
            name = _name_of(fd)
            found = self._child_key(fd, name) if name else None
        except OSError:
            return None
        finally:
            self._leave(fd)
        return Place(parent, name) if found == node else None

    def _parent_key(self, fd: int) -> Key | None:
        try:
            parent = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            # Not below the export: the kernel shows no way up out of a bind mount.
            return None
        try:
            return self._key_of(parent, os.fstat(parent).st_dev)
        except OSError:
            return None
        finally:
            os.close(parent)

    def _child_key(self, fd: int, name: bytes) -> Key | None:
        try:
            handle, mount_id = name_to_handle(fd, b"../" + name)
            return self._prefixes[mount_id] + handle
        except (OSError, KeyError):
            return None


def _name_of(fd: int) -> bytes:
    """What a directory is called, perhaps; nothing if that cannot be said.  Raises OSError."""
    try:
        return os.path.basename(os.readlink(b"/proc/self/fd/%d" % fd))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    # The kernel prints no path of more than a page: so the directory above is searched.
    inode = os.fstat(fd).st_ino
    above = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(above) as entries:
            return next((os.fsencode(e.name) for e in entries if e.inode() == inode), b"")
    finally:
        os.close(above)
