"""Names: looking them up, removing and renaming them, further names of a node."""

from __future__ import annotations

import errno
import os

from farwatch.events import Key, Place
from farwatch.export.acting import acting_for
from farwatch.export.anchor import (
    DIRECTORY,
    PATH,
    Anchor,
    Caller,
    check_caller,
    check_name,
    failure,
)
from farwatch.export.numbers import WITHOUT_HANDLES
from farwatch.linux.files import AT_EMPTY_PATH, linkat, renameat2
from farwatch.linux.handles import name_to_handle

__all__ = ["Naming"]

_FSID = 8
_DEEPEST = 65536
"""Steps towards the root after which ``inside`` gives up."""


class Naming(Anchor):
    """The operations on names that make no new node.

    All raise OSError: ESTALE if a directory is gone, ENOTDIR if it is none,
    EINVAL or ENAMETOOLONG for what cannot be a name, else as the system call.
    """

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        """Key and attributes of the node at a name: of one and the same inode.

        "." is the node itself, of any type.  ".." is never above the root, and
        ESTALE where the directory has left the export.
        """
        if name == b"." or name == b"..":
            return self._lookup_relative(directory, name)
        check_name(name)
        fd = self._open_directory(directory)
        try:
            return self._entry(fd, name)
        finally:
            if fd != self._fd:
                os.close(fd)

    def _lookup_relative(self, node: Key, name: bytes) -> tuple[Key, os.stat_result]:
        if name == b".":
            fd = self._open_path(node)
        elif node == self.root_key:
            return node, os.fstat(self._fd)
        else:
            fd = self._open_parent(node)
        try:
            return self._told(fd)
        finally:
            os.close(fd)

    def _open_parent(self, directory: Key) -> int:
        fd = self._open_directory(directory)
        try:
            parent = os.open(b"..", DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            # Outside the subtree of a bind mount the kernel refuses "..".
            raise failure(errno.ESTALE) from None
        finally:
            self._leave(fd)
        if not self._leads_to_root(parent):
            os.close(parent)
            raise failure(errno.ESTALE)
        return parent

    def node_at(self, directory: Key, name: bytes) -> Key | None:
        """The key of the node at a name, None if there is none or no directory.

        May be called by any thread.  Cheaper than ``lookup``.  Of a directory that
        something is mounted on it is the key of the directory: mounts raise no events.
        """
        check_name(name)
        try:
            fd = self._open_directory(directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None
        try:
            handle, mount_id = name_to_handle(fd, name)
            prefix = directory[:_FSID]
            if self._prefixes.get(mount_id) != prefix:
                return self._covered.get(Place(directory, name))
            if prefix in self._unhandled:
                return self._entry(fd, name)[0]
            return prefix + handle
        except FileNotFoundError:
            return None
        except OSError as error:
            if not self._unhandled or error.errno not in WITHOUT_HANDLES:
                raise
            covered = self._covered.get(Place(directory, name))
            return covered or self._entry(fd, name)[0]
        finally:
            self._leave(fd)

    def is_mount_point(self, directory: Key, name: bytes) -> bool:
        """Whether another mount of the export lies at a name."""
        return Place(directory, name) in self._covered

    def inside(self, node: Key) -> bool:
        """Whether a directory is (still) below the root, or the root itself.

        A directory that was renamed out of the export still works by its key.
        False also if it is gone.  Raises OSError(ENOTDIR) for other nodes.
        Takes two system calls for each level.
        """
        try:
            fd = self._open_directory(node)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return False
        try:
            return self._leads_to_root(fd)
        finally:
            self._leave(fd)

    def _leads_to_root(self, directory_fd: int) -> bool:
        """Whether the root is met on the way up.  ``directory_fd`` stays open."""
        fd = directory_fd
        last = None
        try:
            for _ in range(_DEEPEST):
                status = os.fstat(fd)
                here = (status.st_dev, status.st_ino)
                if here == self._root_id:
                    return True
                if here == last:
                    return False
                last = here
                parent = os.open(b"..", DIRECTORY, dir_fd=fd)
                if fd != directory_fd:
                    os.close(fd)
                fd = parent
        except FileNotFoundError:
            return False
        finally:
            if fd != directory_fd:
                os.close(fd)
        return False

    def link(
        self, node: Key, directory: Key, name: bytes, fd: int | None = None
    ) -> tuple[Key, os.stat_result]:
        """Give a node a further name.

        With ``fd``, an open descriptor of the node, a file without a name can
        be linked where the file system finds no such file by its handle (tmpfs).
        """
        check_name(name)
        directory_fd = self._open_directory(directory)
        try:
            node_fd = self._open_path(node) if fd is None else fd
            try:
                self._give_name(node, node_fd, directory_fd, name)
                return node, os.fstat(node_fd)
            finally:
                if node_fd != fd:
                    os.close(node_fd)
        finally:
            self._leave(directory_fd)

    def _give_name(self, node: Key, fd: int, directory_fd: int, name: bytes) -> None:
        """Give a node a further name, by a descriptor of it."""
        linkat(fd, b"", directory_fd, name, AT_EMPTY_PATH)

    def hold(self, directory: Key, name: bytes) -> int | None:
        """An O_PATH descriptor of what is at a name, the caller's; None if it cannot be had."""
        check_name(name)
        try:
            fd = self._open_directory(directory)
        except OSError:
            return None
        try:
            return os.open(name, PATH, dir_fd=fd)
        except OSError:
            return None
        finally:
            self._leave(fd)

    def unlink(self, directory: Key, name: bytes) -> None:
        """Remove the name of anything but a directory (EISDIR)."""
        check_name(name)
        fd = self._open_directory(directory)
        try:
            os.unlink(name, dir_fd=fd)
        finally:
            self._leave(fd)

    def rmdir(self, directory: Key, name: bytes) -> None:
        """Remove an empty directory."""
        check_name(name)
        fd = self._open_directory(directory)
        try:
            os.rmdir(name, dir_fd=fd)
        finally:
            self._leave(fd)

    def rename(
        self,
        old_directory: Key,
        old_name: bytes,
        new_directory: Key,
        new_name: bytes,
        flags: int,
        maker: Caller | None = None,
    ) -> None:
        """Rename; ``flags`` are those of renameat2(2), EINVAL for others.

        ``maker`` is whose the whiteout is that RENAME_WHITEOUT leaves.
        """
        if maker is not None:
            check_caller(maker)
            with acting_for(maker):
                self.rename(old_directory, old_name, new_directory, new_name, flags)
            return
        check_name(old_name)
        check_name(new_name)
        old_fd = self._open_directory(old_directory)
        try:
            if old_directory == new_directory:
                renameat2(old_fd, old_name, old_fd, new_name, flags)
                return
            new_fd = self._open_directory(new_directory)
            try:
                renameat2(old_fd, old_name, new_fd, new_name, flags)
            finally:
                self._leave(new_fd)
        finally:
            self._leave(old_fd)
