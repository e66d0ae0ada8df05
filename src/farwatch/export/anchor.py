"""What every operation on an export starts from: its root, and nodes by their keys."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from farwatch.events import Key, Place
from farwatch.export.guise import Guise
from farwatch.linux.descriptors import Closable
from farwatch.linux.handles import fsid, name_to_handle, open_by_handle
from farwatch.linux.superblocks import whole_fsid

__all__ = [
    "DIRECTORY",
    "NAME_MAX",
    "PATH",
    "Anchor",
    "Caller",
    "check_caller",
    "check_name",
    "failure",
    "fd_link",
]

PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a node of any type is opened without any effect on it (open(2), O_PATH)."""
DIRECTORY = PATH | os.O_DIRECTORY

NAME_MAX = 255
"""Longest name in bytes that Linux's file systems take (``limits.h``)."""
_FSID = 8
_ATTEMPTS = 64
"""How often an inode number may be found in the middle of being used again."""
_NO_ID = 0xFFFFFFFF
"""``(uid_t)-1``: for the kernel "no change", never somebody's id (chown(2))."""


class Caller(NamedTuple):
    """Who asks: the ids under which new files are made, and the thread that asks.

    ``groups``  further groups of his that matter to what he makes
    ``umask``   what is taken from the modes of what he makes, unless there is a default
                access control list
    """

    uid: int
    gid: int
    pid: int
    groups: tuple[int, ...] = ()
    umask: int = 0


def failure(number: int) -> OSError:
    """The OSError (of the right subclass) for an errno."""
    return OSError(number, os.strerror(number))


def check_name(name: bytes) -> None:
    """Raise OSError unless ``name`` may stand in a directory, "." and ".." apart.

    EINVAL if it is empty, "." or "..", or holds "/" or NUL; ENAMETOOLONG
    above NAME_MAX bytes.
    """
    if not name or name == b"." or name == b".." or b"/" in name or b"\0" in name:
        raise failure(errno.EINVAL)
    if len(name) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG)


def check_caller(caller: Caller) -> None:
    """Raise OSError(EINVAL) for ids under which no file can be made.

    setfsuid(2) takes -1 as a question: the file would be root's.
    """
    if not (0 <= caller.uid < _NO_ID and 0 <= caller.gid < _NO_ID):
        raise failure(errno.EINVAL)


def fd_link(fd: int) -> bytes:
    """A path that leads to just the inode that ``fd`` is open on, O_PATH too, and no further.

    Following it resolves no name and no symbolic link (proc(5)).
    """
    return b"/proc/self/fd/%d" % fd


class Anchor(Closable):
    """The export's root directory, and the opening of nodes by their keys.

    ``mount_fd`` is open on the root (O_RDONLY|O_DIRECTORY), and owned from now
    on.  Every open goes through its mount, or one that was attached below it
    (``submounts``): nothing on another mount is reached, and marks on these mounts hear all
    that is done to content here.

    The first 8 bytes of a key name the mount.  They are the id by which the source reports
    its file system.
    """

    keeps_removed = True
    """Whether what the client has removed may be kept until the client has forgotten it."""

    def __init__(self, mount_fd: int) -> None:
        self._fd = mount_fd
        status = os.fstat(mount_fd)
        self._unhandled: frozenset[bytes] = frozenset()
        """The first bytes of the keys of mounts without handles."""
        handle, mount_id = self._handle_of(mount_fd)
        prefix = whole_fsid(mount_fd)
        self._prefixes = {mount_id: prefix}
        """The first bytes of the keys of each mount, by its id."""
        self._fds = {prefix: mount_fd}
        """A directory of each mount, by these bytes."""
        self._lone: dict[Key, int] = {}
        """What is mounted and no directory (O_PATH)."""
        self._covered: dict[Place, Key] = {}
        """What a mount lies over."""
        self._retired: list[int] = []
        """Numbers of descriptors that lead nowhere any more."""
        self.held: Callable[[Key], int | None] = lambda node: None
        """A descriptor of what the client has open, which may have no name any more: not every
        file system finds that by its handle (tmpfs)."""
        self.guise = Guise(status.st_dev)
        self._root_id = (status.st_dev, status.st_ino)
        self.root_key: Key = prefix + handle

    def close(self) -> None:
        """Close the root's descriptor, and the mounts'.  May be called twice."""
        for fd in (*self._fds.values(), *self._lone.values(), *self._retired):
            os.close(fd)
        self._fds.clear()
        self._lone.clear()
        self._retired.clear()
        self._fd = -1

    def _open_key(self, node: Key, flags: int) -> int:
        """Open a node.  ESTALE if it is gone or was never one of this export's."""
        mount_fd = self._fds.get(node[:_FSID])
        if mount_fd is None:
            return self._open_lone(node, flags)
        for _ in range(_ATTEMPTS):
            try:
                return open_by_handle(mount_fd, node[_FSID:], flags)
            except OSError as error:
                if error.errno == errno.EBADF:
                    # Its mount has just gone: the number stays, and leads nowhere.
                    raise failure(errno.ESTALE) from error
                if error.errno != errno.ENOMEM:
                    raise
                # What Linux also says of an inode number that is being used
                # again at this moment; in the next one the handle is stale.
                os.sched_yield()
        raise failure(errno.ENOMEM)

    def _open_lone(self, node: Key, flags: int) -> int:
        """Open what is mounted by itself, or ESTALE: its mount has no handles to open."""
        fd = self._lone.get(node)
        if fd is None:
            raise failure(errno.ESTALE)
        if flags & os.O_DIRECTORY:
            raise failure(errno.ENOTDIR)
        return os.open(fd_link(fd), flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)

    def _open_path(self, node: Key) -> int:
        """An O_PATH descriptor of a node of any type.

        To be closed within the operation: it keeps a deleted inode alive, and
        so delays the source's DELETE_SELF.
        """
        try:
            return self._open_key(node, PATH)
        except OSError as error:
            held = self.held(node) if error.errno == errno.ESTALE else None
            if held is None:
                raise
            return os.open(fd_link(held), os.O_PATH | os.O_CLOEXEC)

    def _open_as(self, node: Key, place: Place | None) -> int:
        """An O_PATH descriptor of a node, under this name if the node still has it.

        What is done by way of a descriptor is told to the watchers of the
        directory that it was opened in, under that name.  A handle leads to
        whichever name the kernel has cached, and to none at all when it has
        evicted them: then a directory's watchers hear nothing.
        """
        fd = self._open_path(node)
        if place is None or self._is_open_as(fd, place.name):
            return fd
        try:
            named = self._open_place(place, node)
        except OSError:
            return fd
        except BaseException:
            os.close(fd)
            raise
        if named is None:
            return fd
        os.close(fd)
        return named

    @staticmethod
    def _is_open_as(fd: int, name: bytes) -> bool:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return True  # the kernel reconnects these itself
        # The same name in two directories looks alike here, but means two links.
        return status.st_nlink == 1 and os.readlink(fd_link(fd)).endswith(b"/" + name)

    def _open_place(self, place: Place, node: Key) -> int | None:
        """An O_PATH descriptor of what is at a name, None if it is not this node."""
        check_name(place.name)
        directory_fd = self._open_directory(place.directory)
        try:
            fd = os.open(place.name, PATH, dir_fd=directory_fd)
        finally:
            self._leave(directory_fd)
        try:
            same = self._key_of(fd, os.fstat(fd).st_dev) == node
        except BaseException:
            os.close(fd)
            raise
        if same:
            return fd
        os.close(fd)
        return None

    def _open_directory(self, node: Key) -> int:
        """A descriptor for use as ``dir_fd`` only; ENOTDIR if it is no directory.

        Give it back to ``_leave``: it may be the root's own.
        """
        if node == self.root_key:
            return self._fd
        return self._open_key(node, DIRECTORY)

    def _leave(self, directory_fd: int) -> None:
        if directory_fd != self._fd:
            os.close(directory_fd)

    def _handle_of(self, fd: int) -> tuple[bytes, int]:
        """The handle of what ``fd`` is open on, and the id of the mount."""
        return name_to_handle(fd, b"", empty_path=True)

    def _key_of(self, fd: int, device: int) -> Key:
        """The key of what ``fd`` is open on; ``device`` is its st_dev."""
        handle, mount_id = self._handle_of(fd)
        prefix = self._prefixes.get(mount_id)
        if prefix is None:
            raise failure(errno.EXDEV)
        if not self.guise.knows(device):
            # A subvolume of btrfs: another device on the same mount.
            self.guise.learn(device, fsid(fd))
        return prefix + handle

    def _entry(self, directory_fd: int, name: bytes) -> tuple[Key, os.stat_result]:
        """Key and attributes of one inode, even while the name is being replaced."""
        fd = os.open(name, PATH, dir_fd=directory_fd)
        try:
            return self._told(fd)
        finally:
            os.close(fd)

    def _told(self, fd: int) -> tuple[Key, os.stat_result]:
        """Key and attributes of what ``fd`` (O_PATH) is open on, for the client."""
        status = os.fstat(fd)
        return self._key_of(fd, status.st_dev), status
