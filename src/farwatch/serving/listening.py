"""A Unix socket at which clients or front ends connect: made by path, or inherited.

    PATH.pid   locked while a daemon lives, so that a second one on PATH is refused
    PATH       the socket; one that nobody listens on any more is replaced

Both are removed at the end.  A socket's life cannot be tried out by connecting: virtiofsd
serves the first who does.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from contextlib import suppress
from typing import Self

from farwatch.linux.descriptors import Closable
from farwatch.serving.refused import Refused

_LONGEST_PATH = 107
"""Bytes of a path in ``struct sockaddr_un``, without its NUL (unix(7))."""
_LISTENS = 1 << 16
"""``__SO_ACCEPTCON`` in the flags of /proc/net/unix."""
_OWNER_ONLY, _WITH_GROUP = 0o700, 0o770
_PERMISSIONS = 0o777
_PARENT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class ListeningSocket(Closable):
    """Owns the socket and, where it made it, what stands for it in the file system.

    Removing that needs no path, so it works after the process has left its mounts.
    """

    def __init__(self, listening: socket.socket, made: _Made | None = None) -> None:
        self._socket = listening
        self._made = made

    @classmethod
    def inherited(cls, fd: int) -> Self:
        """What somebody else has made.  Raises Refused."""
        name = f"--fd={fd}"
        try:
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
        except (OSError, OverflowError):
            raise Refused("no such file descriptor is open", name) from None
        if kind != stat.S_IFSOCK:
            raise Refused("not a socket", name)
        listening = socket.socket(fileno=fd)
        is_right = (
            listening.family == socket.AF_UNIX
            and listening.type == socket.SOCK_STREAM
            and listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
        if not is_right:
            listening.detach()
            raise Refused("not a Unix stream socket that listens", name)
        listening.set_inheritable(False)
        return cls(listening)

    @classmethod
    def create(
        cls, path: str, group: str | None = None, *, mode: int | None = None, backlog: int = 1
    ) -> Self:
        """A new one, for its owner alone, or also for a group, or as ``mode`` says.

        Raises Refused.
        """
        gid = _group(group) if group is not None else None
        if mode is None:
            mode = _OWNER_ONLY if gid is None else _WITH_GROUP
        made = _Made(path)
        try:
            listening = made.listen(gid, mode, backlog)
        except BaseException:
            made.close()
            raise
        return cls(listening, made)

    def fileno(self) -> int:
        """For poll: readable when somebody connects."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """The next front end.  Raises OSError."""
        return self._socket.accept()[0]

    def write_pid(self) -> None:
        """Note which process it is now."""
        if self._made is not None:
            self._made.write_pid()

    def close(self) -> None:
        """Listens no more; what was made is removed."""
        self._socket.close()
        made, self._made = self._made, None
        if made is not None:
            made.close()


class _Made:
    """The socket's directory entry, and the lock beside it.  Owns both."""

    def __init__(self, path: str) -> None:
        """Takes the lock.  Raises Refused."""
        self._path = path
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise Refused(f"the socket's path is longer than {_LONGEST_PATH} bytes", path)
        parent, self._name = os.path.split(path)
        if not self._name:
            raise Refused("the socket's path ends with a slash", path)
        self._lock_name = self._name + ".pid"
        self._inode: tuple[int, int] | None = None
        try:
            self._parent = os.open(parent or ".", _PARENT)
        except OSError as error:
            raise Refused(f"no directory for the socket: {error.strerror}", parent) from None
        try:
            self._lock = self._take_lock()
        except BaseException:
            os.close(self._parent)
            raise

    def _take_lock(self) -> int:
        path = f"{self._path}.pid"
        while True:
            try:
                fd = os.open(self._lock_name, _LOCK, 0o600, dir_fd=self._parent)
            except OSError as error:
                raise Refused(f"cannot be made: {error.strerror}", path) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise Refused("another daemon listens there", self._path) from None
            # Its last owner may have removed it meanwhile: then it locks nobody out.
            if self._identify(self._lock_name) == _identity(os.fstat(fd)):
                return fd
            os.close(fd)

    def write_pid(self) -> None:
        """The process that holds the lock, for whoever looks; a fork holds it as well."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def listen(self, gid: int | None, mode: int, backlog: int) -> socket.socket:
        """The socket.  Raises Refused."""
        self._remove_stale()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            umask = os.umask(_PERMISSIONS & ~mode)
            try:
                listening.bind(self._path)
            finally:
                os.umask(umask)
            # At once: whoever has waited for the name to be there connects now.
            listening.listen(backlog)
            self._inode = self._identify(self._name)
            if gid is not None:
                os.chown(self._name, -1, gid, dir_fd=self._parent, follow_symlinks=False)
        except OSError as error:
            listening.close()
            raise Refused(f"cannot listen: {error.strerror}", self._path) from None
        return listening

    def _remove_stale(self) -> None:
        try:
            mode = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise Refused("it exists, and is no socket", self._path, "remove it, or use another")
        if _is_listened_on(self._path):
            raise Refused("somebody listens there", self._path)
        os.unlink(self._name, dir_fd=self._parent)

    def _identify(self, name: str) -> tuple[int, int] | None:
        with suppress(OSError):
            return _identity(os.stat(name, dir_fd=self._parent, follow_symlinks=False))
        return None

    def close(self) -> None:
        """Remove both; the socket only if it is the one that was made."""
        if self._inode is not None and self._identify(self._name) == self._inode:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._parent)
        with suppress(OSError):
            os.unlink(self._lock_name, dir_fd=self._parent)
        os.close(self._lock)
        os.close(self._parent)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_listened_on(path: str) -> bool:
    """Whether a socket that was bound to this path, as it is written, listens."""
    wanted = {os.fsencode(path), os.fsencode(os.path.abspath(path))}
    with open("/proc/net/unix", "rb") as file:
        for line in file:
            # Num RefCount Protocol Flags Type St Inode Path
            fields = line.rstrip(b"\n").split(None, 7)
            if len(fields) == 8 and fields[7] in wanted and int(fields[3], 16) & _LISTENS:
                return True
    return False


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Refused("no such group", name) from None
