"""Locks on descriptors that ``files`` has opened: flock(2), and fcntl(2)'s of an open file.

fcntl's locks of a process (F_SETLK) would all be one owner's here, the server's.  So each
owner among the clients' has an open file description, and the locks are that one's
(F_OFD_SETLK); with locks of either sort that others hold they conflict as any do.
Nothing here waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

from farwatch.export.anchor import failure, fd_link

__all__ = ["LAST", "Conflict", "access_of", "another", "conflict", "set_flock", "set_lock"]

LAST = (1 << 63) - 1
"""The last byte that a lock can be on: ``OFFSET_MAX``."""
_FLOCK = struct.Struct("@hhqqi0q")
"""``struct flock`` of fcntl(2): l_type, l_whence, l_start, l_len, l_pid."""
_OPERATIONS = {
    fcntl.F_RDLCK: fcntl.LOCK_SH,
    fcntl.F_WRLCK: fcntl.LOCK_EX,
    fcntl.F_UNLCK: fcntl.LOCK_UN,
}
_HELD = frozenset((errno.EAGAIN, errno.EACCES))


class Conflict(NamedTuple):
    """A lock that is in the way: F_RDLCK or F_WRLCK, from its first byte to its last.

    ``pid`` is the process that holds it; -1 if no process does, but an open file.
    """

    kind: int
    start: int
    end: int
    pid: int


def set_lock(fd: int, kind: int, start: int, end: int) -> bool:
    """F_RDLCK, F_WRLCK or F_UNLCK from byte ``start`` to ``end``, both included.

    Returns False if somebody else's lock is in the way.  Raises OSError: EBADF if the
    descriptor is not open for what the lock is for, ENOLCK.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(kind, start, end))
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def conflict(fd: int, kind: int, start: int, end: int) -> Conflict | None:
    """The first lock that would be in the way of this one, None if there is none."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _request(kind, start, end))
    found, _, first, length, pid = _FLOCK.unpack(answer)
    if found == fcntl.F_UNLCK:
        return None
    return Conflict(found, first, first + length - 1 if length else LAST, pid)


def set_flock(fd: int, kind: int) -> bool:
    """The file's whole lock, flock(2)'s: F_RDLCK is shared, F_WRLCK exclusive.

    Returns False if somebody else's is in the way; one of another kind is lost then.
    """
    try:
        fcntl.flock(fd, _OPERATIONS[kind] | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def another(fd: int, access: int) -> int:
    """Another open file description of the same file, which the caller owns.

    ``access`` is O_RDONLY, O_WRONLY or O_RDWR.
    """
    return os.open(fd_link(fd), access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def access_of(fd: int) -> int:
    """How a descriptor is open: O_RDONLY, O_WRONLY or O_RDWR."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _request(kind: int, start: int, end: int) -> bytes:
    if kind not in _OPERATIONS or not 0 <= start <= end <= LAST:
        raise failure(errno.EINVAL)
    # A length of 0 is to the end, however large the file becomes.
    return _FLOCK.pack(kind, os.SEEK_SET, start, 0 if end == LAST else end - start + 1, 0)
