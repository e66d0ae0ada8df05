"""An export for a process that may not open nodes by their handles (CAP_DAC_READ_SEARCH).

Keys are file handles all the same, for to ask for a handle takes no privilege; what they
lead to is a descriptor (``pins``) that is held while the client knows the node.  Where the
file system has no handles, its numbers stand for one (``numbers``).

What is otherwise than with handles:

    a node is known      only after it was looked up here, or by ``look``; else ESTALE
    no name is left      the pin is closed at once (``let_die``), so that who watches the
                         inode hears of its end on time; what the client itself has open
                         is found by that
    descriptors          one for each node that the client knows; ENFILE when there are no
                         more, which is said once
    mounts below         are part of the tree, as for any program
    SRC's file system    cannot be unmounted meanwhile
    who may do what      is the backing file system's to say, of this process: an ordinary
                         user serves nobody else's callers
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections.abc import Collection

from farwatch.events import Key, Place
from farwatch.export.anchor import PATH, Caller, check_name, fd_link
from farwatch.export.numbers import WITHOUT_HANDLES, handle_or_numbers
from farwatch.export.pins import Follower, Pins
from farwatch.export.tree import Export
from farwatch.linux.files import (
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    linkat,
)
from farwatch.linux.handles import fsid, name_to_handle

__all__ = ["Follower", "PinnedExport"]

_HELD = os.O_PATH | os.O_CLOEXEC


class PinnedExport(Export):
    """An export by pins.

    Threads: as Export; ``look``, ``open_node`` and ``let_die`` may be called by any.
    """

    keeps_removed = False

    def __init__(self, mount_fd: int, follower: Follower | None = None) -> None:
        """``mount_fd`` as for Export.  ``follower`` is told of each node that is pinned.

        The process's limit of open files is raised as far as it may be.
        """
        super().__init__(mount_fd)
        self._pins = Pins(follower)
        self._learning = threading.Lock()
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._pins.keep(self.root_key)
        self._hold(self.root_key, self._fd)

    def close(self) -> None:
        """Close everything.  May be called twice."""
        super().close()
        self._pins.close()

    # Who knows what ----------------------------------------------------------------------

    def keep(self, node: Key) -> None:
        """The client knows the node from now on (``nodes.Holder``)."""
        self._pins.keep(node)

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """The client does not know the node any more (``nodes.Holder``)."""
        if node != self.root_key:
            self._pins.let_go(node, inside)

    def look(self, place: Place) -> Key | None:
        """The key of what is at a name, which is pinned; None if there is nothing.

        Raises OSError: ESTALE if the directory is not known, ENFILE.
        """
        check_name(place.name)
        directory_fd = self._open_directory(place.directory)
        try:
            return self._entry(directory_fd, place.name)[0]
        except FileNotFoundError:
            return None
        finally:
            self._leave(directory_fd)

    def open_node(self, node: Key) -> int:
        """An O_PATH descriptor of a node, the caller's.  OSError(ESTALE) if it is not known."""
        return self._pins.take(node)

    def let_die(self, node: Key) -> bool:
        """Close the pin of a node that has no name left; whether that was so."""
        return self._pins.let_die(node)

    def _hold(self, node: Key, fd: int) -> None:
        """Pin a node that ``fd`` is open on, in whatever way."""
        pin = os.open(fd_link(fd), _HELD)
        try:
            self._pins.hold(node, pin)
        finally:
            os.close(pin)

    # From descriptors to keys ------------------------------------------------------------

    def _handle_of(self, fd: int) -> tuple[bytes, int]:
        return handle_or_numbers(fd)

    def _key_of(self, fd: int, device: int) -> Key:
        handle, mount_id = self._handle_of(fd)
        prefix = self._prefixes.get(mount_id)
        if prefix is None or not self.guise.knows(device):
            prefix = self._learn(mount_id, fd, device)
        return prefix + handle

    def _learn(self, mount_id: int, fd: int, device: int) -> bytes:
        """The first bytes of the keys of a mount that was not seen before."""
        with self._learning:
            if not self.guise.knows(device):
                self.guise.learn(device, fsid(fd))
            prefix = self._prefixes.get(mount_id)
            if prefix is None:
                prefix = fsid(fd)
                while prefix in self._prefixes.values():
                    # One file system that is seen at two places: the same directory there
                    # and here is two nodes, because a client has one place for each.
                    prefix = struct.pack("=II", zlib.crc32(prefix), mount_id)
                self._prefixes[mount_id] = prefix
            return prefix

    def _told(self, fd: int) -> tuple[Key, os.stat_result]:
        key = self._key_of(fd, os.fstat(fd).st_dev)
        self._pins.hold(key, fd)
        # After it is followed: what is changed from now on is heard.
        status = os.fstat(fd)
        if not status.st_nlink:
            self._pins.let_die(key)
        return key, status

    def _described(self, fd: int) -> tuple[Key, os.stat_result, int]:
        """Of a file that the client has just opened or made."""
        try:
            status = os.fstat(fd)
            key = self._key_of(fd, status.st_dev)
            if status.st_nlink:
                self._hold(key, fd)
            return key, os.fstat(fd), fd
        except BaseException:
            os.close(fd)
            raise

    def node_at(self, directory: Key, name: bytes) -> Key | None:
        """As Export's."""
        check_name(name)
        try:
            directory_fd = self._open_directory(directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None
        try:
            return self._key_at(directory_fd, name)
        except FileNotFoundError:
            return None
        finally:
            self._leave(directory_fd)

    def _child_key(self, fd: int, name: bytes) -> Key | None:
        try:
            return self._key_at(fd, b"../" + name)
        except OSError:
            return None

    def _key_at(self, directory_fd: int, path: bytes) -> Key:
        try:
            handle, mount_id = name_to_handle(directory_fd, path)
            prefix = self._prefixes.get(mount_id)
            if prefix is not None:
                return prefix + handle
        except OSError as error:
            if error.errno not in WITHOUT_HANDLES:
                raise
        fd = os.open(path, PATH, dir_fd=directory_fd)
        try:
            return self._key_of(fd, os.fstat(fd).st_dev)
        finally:
            os.close(fd)

    # From keys to descriptors ------------------------------------------------------------

    def _open_key(self, node: Key, flags: int) -> int:
        pin = self._pins.take(node, directory=bool(flags & os.O_DIRECTORY))
        if flags & os.O_PATH:
            return pin
        try:
            return os.open(fd_link(pin), flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        finally:
            os.close(pin)

    # In whose name -----------------------------------------------------------------------

    def _give_name(self, node: Key, fd: int, directory_fd: int, name: bytes) -> None:
        """As Export's, without the capability that linkat(2) wants for AT_EMPTY_PATH."""
        linkat(AT_FDCWD, fd_link(fd), directory_fd, name, AT_SYMLINK_FOLLOW)
        self._hold(node, fd)

    def mknod(
        self, directory: Key, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As Export's."""
        return super().mknod(directory, name, mode, rdev, self._as_ourselves(caller))

    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As Export's."""
        return super().mkdir(directory, name, mode, self._as_ourselves(caller))

    def symlink(
        self, directory: Key, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As Export's."""
        return super().symlink(directory, name, target, self._as_ourselves(caller))

    def create(
        self,
        directory: Key,
        name: bytes,
        mode: int,
        flags: int,
        caller: Caller,
        *,
        kill_suidgid: bool = False,
    ) -> tuple[Key, os.stat_result, int]:
        """As Export's."""
        caller = self._as_ourselves(caller)
        return super().create(directory, name, mode, flags, caller, kill_suidgid=kill_suidgid)

    def tmpfile(
        self, directory: Key, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        """As Export's."""
        return super().tmpfile(directory, mode, flags, self._as_ourselves(caller))

    def _as_ourselves(self, caller: Caller) -> Caller:
        """Ids that need no change, for a caller who is this process's own user.

        An ordinary user's process can take no others: then the kernel says EPERM.
        """
        if not self._uid or (caller.uid, caller.gid) != (self._uid, self._gid):
            return caller
        return caller._replace(uid=0, gid=0, groups=())
