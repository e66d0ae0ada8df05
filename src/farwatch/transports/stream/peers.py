"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import errno
import socket
import struct

from farwatch.linux.identity import Who

_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13."""
_CRED = struct.Struct("=iII")
"""``struct ucred``: pid, uid, gid (unix(7))."""
_GROUP = struct.Struct("=I")
_MOST_ASKED = 1024
"""Bytes that Python's ``getsockopt`` takes."""


def peer(connection: socket.socket) -> Who:
    """The credentials with which the peer connected, as the kernel knows them.

    Of somebody in more than 256 groups the supplementary ones are left out.
    """
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CRED.size)
    _, uid, gid = _CRED.unpack(answer)
    return Who(uid, gid, _groups(connection))


def _groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        answer = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_ASKED)
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT, errno.ENODATA):
            raise
        return ()
    return tuple(group for (group,) in _GROUP.iter_unpack(answer))
