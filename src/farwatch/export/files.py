"""Opening and making regular files.  Nothing else is ever opened here.

Opening a device runs its driver, a FIFO waits for its other end, and a
symbolic link leads anywhere.  So a node is pinned (O_PATH), its type is
looked at, and the pinned inode is opened: no name is resolved in between.
"""

from __future__ import annotations

import errno
import os
import stat

from farwatch.events import Key, Place
from farwatch.export.acting import acting_for
from farwatch.export.anchor import (
    PATH,
    Anchor,
    Caller,
    check_caller,
    check_name,
    failure,
    fd_link,
)
from farwatch.export.setid import killing_set_id

__all__ = ["Files"]

_CLIENTS = os.O_ACCMODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC | os.O_TRUNC | os.O_NOATIME
"""The flags that a client may choose.

Not O_DIRECT: with it the client's kernel goes past its own cache, which is what it asks
for.  Past the cache here as well, a request would fail (EINVAL) that does not happen to
lie in memory, and in the file, as the disk wants it.
"""
_OURS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: an open against somebody's lease fails with EAGAIN and the lease
is being broken, where it would else stop the thread for up to 45 s (fcntl(2))."""
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_PERMISSIONS = 0o7777
_ATTEMPTS = 32
"""How often a name may appear and vanish again while ``create`` looks at it."""
_CANNOT_OPEN = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}


def _open_pinned(pin: int, flags: int, *, kill_suidgid: bool) -> int:
    """Open what an O_PATH descriptor is known to hold: a regular file."""
    allowed = flags & _CLIENTS | _OURS
    if kill_suidgid:
        with killing_set_id():
            return os.open(fd_link(pin), allowed)
    return os.open(fd_link(pin), allowed)


class Files(Anchor):
    """Descriptors of regular files.  The caller owns what is returned."""

    def open(
        self,
        node: Key,
        flags: int,
        *,
        place: Place | None = None,
        kill_suidgid: bool = False,
    ) -> int:
        """Open a regular file.

        Of ``flags`` (open(2)) the access mode and O_APPEND, O_SYNC, O_DSYNC,
        O_TRUNC and O_NOATIME count; O_NONBLOCK is always set.
        ``kill_suidgid``: O_TRUNC takes set-id bits away.  ``place`` is where the
        node is thought to be: what is done by this descriptor is told to the
        watchers of that directory, under that name.
        Raises OSError: ENXIO for devices, FIFOs and sockets, EISDIR, ELOOP for
        a symbolic link, EAGAIN if a lease has to be given up first, ESTALE.
        """
        pin = self._open_as(node, place)
        try:
            kind = stat.S_IFMT(os.fstat(pin).st_mode)
            if kind != stat.S_IFREG:
                raise failure(_CANNOT_OPEN.get(kind, errno.ENXIO))
            return _open_pinned(pin, flags, kill_suidgid=kill_suidgid)
        finally:
            os.close(pin)

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
        """Make and open a file; without O_EXCL in ``flags``, open it if it is there.

        ``flags`` and ``kill_suidgid`` as in ``open``.  Raises OSError: EEXIST
        with O_EXCL; ESTALE if the name is taken by something that is no regular
        file, which the client cannot have known: Linux then looks again.
        """
        check_name(name)
        check_caller(caller)
        exclusive = bool(flags & os.O_EXCL)
        fd = self._open_directory(directory)
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return self._create(fd, name, mode, flags, caller)
                except FileExistsError:
                    if exclusive:
                        raise
                try:
                    return self._open_existing(fd, name, flags, kill_suidgid=kill_suidgid)
                except FileNotFoundError:
                    continue
        finally:
            self._leave(fd)
        raise failure(errno.ESTALE)

    def _create(
        self, directory_fd: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        allowed = flags & _CLIENTS | _OURS | _CREATE
        with acting_for(caller):
            fd = os.open(name, allowed, mode & _PERMISSIONS, dir_fd=directory_fd)
        return self._described(fd)

    def _described(self, fd: int) -> tuple[Key, os.stat_result, int]:
        try:
            status = os.fstat(fd)
            return self._key_of(fd, status.st_dev), status, fd
        except BaseException:
            os.close(fd)
            raise

    def _open_existing(
        self, directory_fd: int, name: bytes, flags: int, *, kill_suidgid: bool
    ) -> tuple[Key, os.stat_result, int]:
        pin = os.open(name, PATH, dir_fd=directory_fd)
        try:
            status = os.fstat(pin)
            if not stat.S_ISREG(status.st_mode):
                raise failure(errno.ESTALE)
            fd = _open_pinned(pin, flags, kill_suidgid=kill_suidgid)
        finally:
            os.close(pin)
        return self._described(fd)

    def tmpfile(
        self, directory: Key, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        """Make a file without a name (O_TMPFILE).

        With O_EXCL in ``flags`` it can never be linked.  Raises OSError:
        EOPNOTSUPP where the file system cannot, EINVAL for reading only.
        """
        check_caller(caller)
        allowed = flags & (_CLIENTS | os.O_EXCL) & ~os.O_TRUNC | _OURS | os.O_TMPFILE
        directory_fd = self._open_directory(directory)
        try:
            with acting_for(caller):
                fd = os.open(b".", allowed, mode & _PERMISSIONS, dir_fd=directory_fd)
        finally:
            self._leave(directory_fd)
        return self._described(fd)
