"""Attributes of nodes: reading them all, changing some."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from typing import NamedTuple

from farwatch.events import Key, Place
from farwatch.export.anchor import Anchor, Caller, failure, fd_link
from farwatch.export.setid import Groups, killing_set_id, no_groups
from farwatch.linux.files import (
    AT_EMPTY_PATH,
    NOW,
    OMIT,
    STATX_BTIME,
    check_access,
    statx,
    syncfs,
    utimensat,
)

__all__ = ["NOW", "OMIT", "Attributes", "SetAttr"]

_PERMISSIONS = 0o7777
_ID_LIMIT = 0xFFFFFFFF
_SIZE_LIMIT = 1 << 63
_NOTHING = (None, None, None, None)
_GONE = (errno.ESTALE, errno.ENOENT)


class SetAttr(NamedTuple):
    """What to change; None and OMIT leave a thing as it is.

    ``mode`` is permission bits (a type in it is ignored), ``size`` bytes, times
    ns since the epoch or NOW.  ``kill_suidgid``: a new size takes set-id bits
    away, as it does for a caller without CAP_FSETID.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int = OMIT
    mtime_ns: int = OMIT
    kill_suidgid: bool = False

    @property
    def is_nothing(self) -> bool:
        """What a client's kernel sends for chown(2) to nobody and no group.

        It changes the time of change, and takes set-id bits away.
        """
        return self[:4] == _NOTHING and self.atime_ns == self.mtime_ns == OMIT


class Attributes(Anchor):
    """stat and its changes, statvfs, and what a symbolic link says."""

    def root(self) -> os.stat_result:
        """The attributes of the root."""
        return os.fstat(self._fd)

    def getattr(self, node: Key) -> os.stat_result:
        """A node's attributes.  OSError(ESTALE) if it is gone.

        A file that is open but has no name left is found by its handle on ext4
        and not on tmpfs: ask ``getattr_open`` for what is open.
        """
        if node == self.root_key:
            return os.fstat(self._fd)
        fd = self._open_path(node)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    @staticmethod
    def getattr_open(fd: int) -> os.stat_result:
        """The attributes of an open file."""
        return os.fstat(fd)

    def birth_time(self, node: Key) -> int | None:
        """When a node was made, ns since the epoch; None where that is not known."""
        try:
            fd = self._fd if node == self.root_key else self._open_path(node)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None
        try:
            found = statx(fd, mask=STATX_BTIME)
        finally:
            self._leave(fd)
        return found.btime if found.mask & STATX_BTIME else None

    def exists(self, node: Key) -> bool:
        """Whether the handle still leads to the inode (with names or without)."""
        try:
            os.close(self._open_path(node))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False
        return True

    def must_be_readable(self, node: Key) -> None:
        """Raises OSError(EACCES) if this thread may not read a node; it is not opened."""
        self.must_allow(node, os.R_OK)

    def must_allow(self, node: Key, mode: int) -> None:
        """Raises OSError(EACCES) unless this thread may R_OK, W_OK, X_OK a node."""
        fd = self._open_path(node)
        try:
            check_access(fd_link(fd), mode)
        finally:
            os.close(fd)

    def setattr(
        self,
        node: Key,
        fd: int | None,
        changes: SetAttr,
        caller: Caller,
        *,
        place: Place | None = None,
        groups: Groups = no_groups,
    ) -> os.stat_result:
        """Change attributes; the attributes after it.

        ``fd`` is the caller's open file if it has one: then a size needs it to
        be open for writing, as ftruncate(2) does.  ``place`` is where the
        node is thought to be, so that the source tells it under that name.
        Never follows a symbolic
        link, and opens nothing: the source hears one event for each of owner,
        mode, size and times that is changed, in this order, and no more.
        Set-id bits go as they would for the caller, who is in these ``groups``.
        Truncating a file on which somebody holds a lease waits for it (fcntl(2)).
        Raises OSError as chown, chmod, truncate and utimensat do.
        """
        _check(changes)
        if fd is not None:
            _change(fd, fd, changes, caller, groups)
            return os.fstat(fd)
        path_fd = self._open_as(node, place)
        try:
            # chmod and truncate do not take an O_PATH descriptor.
            _change(path_fd, fd_link(path_fd), changes, caller, groups)
            return os.fstat(path_fd)
        finally:
            os.close(path_fd)

    def statfs(self, node: Key) -> os.statvfs_result:
        """The file system's sizes (statvfs(3))."""
        if node == self.root_key:
            return os.fstatvfs(self._fd)
        fd = self._open_path(node)
        try:
            return os.fstatvfs(fd)
        finally:
            os.close(fd)

    def syncfs(self) -> None:
        """Bring the export's file system to the disk (syncfs(2))."""
        syncfs(self._fd)

    def readlink(self, node: Key) -> bytes:
        """A symbolic link's target, as it stands.  OSError(EINVAL) for other nodes."""
        fd = self._open_path(node)
        try:
            return os.readlink(b"", dir_fd=fd)
        except FileNotFoundError:
            # readlinkat(2) with an empty path: not a symbolic link.
            raise failure(errno.EINVAL) from None
        finally:
            os.close(fd)


def _check(changes: SetAttr) -> None:
    for number in (changes.uid, changes.gid):
        if number is not None and not 0 <= number < _ID_LIMIT:
            raise failure(errno.EINVAL)
    if changes.size is not None and not 0 <= changes.size < _SIZE_LIMIT:
        raise failure(errno.EINVAL)


def _change(fd: int, where: int | bytes, changes: SetAttr, caller: Caller, groups: Groups) -> None:
    """``where`` is what chown, chmod and truncate take for ``fd``."""
    if changes.is_nothing and caller.uid not in (0, os.fstat(fd).st_uid):
        return  # A client's kernel refuses to let others change this, but not quite always.
    if changes.uid is not None or changes.gid is not None or changes.is_nothing:
        uid = -1 if changes.uid is None else changes.uid
        gid = -1 if changes.gid is None else changes.gid
        with killing_set_id(fd, groups) if caller.uid else nullcontext():
            os.chown(where, uid, gid)
    if changes.mode is not None:
        # After chown, which clears set-id bits.
        os.chmod(where, changes.mode & _PERMISSIONS)
    if changes.size is not None:
        with killing_set_id(fd, groups) if changes.kill_suidgid else nullcontext():
            os.truncate(where, changes.size)
    if changes.atime_ns != OMIT or changes.mtime_ns != OMIT:
        utimensat(fd, b"", changes.atime_ns, changes.mtime_ns, AT_EMPTY_PATH)
