"""Further mounts below an export's root: attached when the host has them, and taken away.

    cloned (detached) ──attach──> reached by its mount point, its nodes have keys
                                       │ detach
                                       v
                                  its nodes are gone (ESTALE); files that are open stay so

Each mount has its own first 8 bytes of keys: the id of its file system, by which the source
reports it, or where another mount of the export has these already an *alias*.  Two mounts of
one file system show two trees, and a directory that is in both must be two nodes, since a
client's kernel has one place for each.

Where a file system has no handles (9p, overlayfs by default), or may forget what they stood
for (FUSE), its nodes are held by descriptors for as long as the client knows them.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Collection
from typing import NamedTuple

from farwatch.events import Key, Place
from farwatch.export.anchor import PATH, Anchor, check_name, fd_link
from farwatch.export.numbers import handle_or_numbers, is_unhandled, numbers
from farwatch.export.pins import Pins
from farwatch.linux import mounts
from farwatch.linux.files import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from farwatch.linux.handles import fsid
from farwatch.linux.superblocks import whole_fsid

_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_NO_ID = bytes(8)
_PREFIX = 8
_SHOWN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Submount(NamedTuple):
    """One mount below the root.

    ``place`` is its mount point, ``root`` the key of what is seen there.  ``prefix`` begins
    the keys of its nodes, ``fsid`` is the id by which the source reports its file system.
    ``fd`` is open on its root (O_PATH if that is no directory), and the export's.
    """

    place: Place
    root: Key
    prefix: bytes
    fsid: bytes
    mount_id: int
    fd: int


class Submounts(Anchor):
    """Attaching and detaching.

    For a process whose mount namespace is its own.  One thread at a time does it; others may
    use the export meanwhile.
    """

    _aliases = itertools.count(1)
    _descriptors: Pins | None = None
    """Of the nodes on mounts without handles."""

    def keep(self, node: Key) -> None:
        """The client knows the node from now on (``nodes.Holder``)."""
        if self._descriptors is not None and node[:_PREFIX] in self._unhandled:
            self._descriptors.keep(node)

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """The client does not know the node any more (``nodes.Holder``)."""
        if self._descriptors is not None and node[:_PREFIX] in self._unhandled:
            self._descriptors.let_go(node, inside)

    def close(self) -> None:
        """Close everything.  May be called twice."""
        super().close()
        if self._descriptors is not None:
            self._descriptors.close()

    def attach(self, tree: int, path: bytes) -> Submount:
        """Attach a detached mount at a path below the root.

        ``tree`` stays the caller's, and may be closed.  Raises OSError: ENOENT, ENOTDIR or
        ELOOP where the path leads to nothing below the root that it could be mounted on,
        EACCES where its file system lets nobody in (FUSE without allow_other).
        """
        parent, name = os.path.split(path)
        check_name(name)
        parent_fd = self._reach(parent, os.O_DIRECTORY)
        try:
            place = Place(self._key_of(parent_fd, os.fstat(parent_fd).st_dev), name)
            point_fd = openat2(parent_fd, name, PATH, 0, _BENEATH)
        finally:
            os.close(parent_fd)
        try:
            covered = self._key_of(point_fd, os.fstat(point_fd).st_dev)
            submount = self._register(tree, place)
            self._covered[place] = covered
            try:
                mounts.move_mount(tree, b"", point_fd)
            except BaseException:
                self._unregister(submount)
                raise
        finally:
            os.close(point_fd)
        return submount

    def mount_at(self, path: bytes) -> int:
        """The id of the mount that is reached by a path below the root; 0 if nothing is."""
        try:
            fd = self._reach(path, 0)
        except OSError:
            return 0
        try:
            return mounts.statx_mount_id(fd)
        finally:
            os.close(fd)

    def detach(self, submount: Submount) -> None:
        """Take a mount away: nothing of it is held any more but what is open."""
        try:
            mounts.umount(b"/proc/self/fd/%d" % submount.fd, mounts.MNT_DETACH)
        finally:
            self._unregister(submount)

    # Without handles -------------------------------------------------------------

    def _key_of(self, fd: int, device: int) -> Key:
        if not self._unhandled:
            return super()._key_of(fd, device)
        prefix = self._prefixes.get(mounts.statx_mount_id(fd))
        if prefix not in self._unhandled:
            return super()._key_of(fd, device)
        if not self.guise.knows(device):
            self.guise.learn(device, fsid(fd))
        key = prefix + numbers(fd)[0]
        assert self._descriptors is not None
        pin = os.open(fd_link(fd), os.O_PATH | os.O_CLOEXEC)
        try:
            self._descriptors.hold(key, pin)
        finally:
            os.close(pin)
        return key

    def _open_lone(self, node: Key, flags: int) -> int:
        if self._descriptors is None or node[:_PREFIX] not in self._unhandled:
            return super()._open_lone(node, flags)
        is_directory = bool(flags & os.O_DIRECTORY)
        lone, held = self._lone.get(node), self._descriptors
        pin = held.take(node, directory=is_directory) if lone is None else os.dup(lone)
        try:
            return os.open(fd_link(pin), flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        finally:
            os.close(pin)

    # Coming and going ------------------------------------------------------------

    def _reach(self, path: bytes, flags: int) -> int:
        return openat2(self._fd, path or b".", PATH | flags, 0, _BENEATH)

    def _register(self, tree: int, place: Place) -> Submount:
        """Give its nodes their keys, before any of them can be reached."""
        handle, mount_id = handle_or_numbers(tree)
        status = os.fstat(tree)
        is_directory = stat.S_ISDIR(status.st_mode)
        fd = self._numbered(os.open(b".", _SHOWN, dir_fd=tree) if is_directory else os.dup(tree))
        try:
            reported = whole_fsid(fd)
            if reported == _NO_ID:
                handle = numbers(tree)[0]
            is_taken = reported in self._fds or reported == _NO_ID or not is_directory
            # Never one that was in use before, since the client may know nodes of that.
            prefix = b"a%07x" % next(self._aliases) if is_taken else reported
            if not self.guise.knows(status.st_dev):
                self.guise.learn(status.st_dev, fsid(fd))
            self.guise.forbid(prefix, mounts.attributes_of(fd))
        except BaseException:
            os.close(fd)
            raise
        root = prefix + handle
        if not is_directory or is_unhandled(root):
            self._lone[root] = fd
        else:
            self._fds[prefix] = fd
        if is_unhandled(root):
            self._unhandled |= {prefix}
            if self._descriptors is None:
                self._descriptors = Pins()
        self._prefixes[mount_id] = prefix
        return Submount(place, root, prefix, reported, mount_id, fd)

    def _unregister(self, submount: Submount) -> None:
        self._covered.pop(submount.place, None)
        self._prefixes.pop(submount.mount_id, None)
        self._fds.pop(submount.prefix, None)
        self._lone.pop(submount.root, None)
        self._unhandled -= {submount.prefix}
        if self._descriptors is not None:
            self._descriptors.let_go_of(submount.prefix)
        self.guise.forbid(submount.prefix, 0)
        self._retire(submount.fd)

    def _numbered(self, fd: int) -> int:
        """The descriptor under a number that was retired, if there is one."""
        if not self._retired:
            return fd
        number = self._retired.pop()
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
        return number

    def _retire(self, fd: int) -> None:
        """Let the mount go although another thread may be about to use the descriptor.

        Its number stays taken, by what leads nowhere, until another mount needs one.
        """
        nowhere = os.open(b"/proc/self/fd/%d" % self._fd, os.O_PATH | os.O_CLOEXEC)
        os.dup2(nowhere, fd, inheritable=False)
        os.close(nowhere)
        self._retired.append(fd)
