"""A detached clone of a mount, for who may not make one: an ordinary user.

To clone a mount takes CAP_SYS_ADMIN over its mount namespace.  A process has that over the
copy of its namespace that it takes along into a user namespace of its own: there a short-lived
child makes the clone, and hands it over.  This process stays in the user's own namespace, where
it may look at the user's other processes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from farwatch.linux import mounts
from farwatch.linux.files import AT_FDCWD

if TYPE_CHECKING:
    import socket


def clone_as_user(path: bytes, attributes: int) -> int:
    """An O_PATH descriptor of the clone, the caller's.

    ``attributes`` (MOUNT_ATTR_… bits) are set on it.  For a process with one thread.  Raises
    OSError where user namespaces are not to be had, and where something is mounted below.
    """
    # Here and not above: a guest's agent starts faster without.
    import socket

    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with childs:
            pid = os.fork()
            if pid == 0:
                _send_clone(childs, path, attributes)
        try:
            answer, fds, _, _ = socket.recv_fds(ours, 16, 1)
        finally:
            os.waitpid(pid, 0)
    if fds:
        return fds[0]
    number = int(answer or b"1")
    raise OSError(number, os.strerror(number))


def _send_clone(childs: socket.socket, path: bytes, attributes: int) -> None:
    """In the child, which does not return."""
    import socket

    try:
        try:
            mounts.unshare(mounts.CLONE_NEWUSER | mounts.CLONE_NEWNS)
            clone = mounts.open_tree(AT_FDCWD, path, mounts.OPEN_TREE_CLONE)
            # What the user's mount has already may be all that can be had.
            with suppress(OSError):
                mounts.mount_setattr(clone, attributes, 0, recursive=False)
            socket.send_fds(childs, [b"0"], [clone])
        except OSError as error:
            childs.send(b"%d" % (error.errno or 1))
    finally:
        os._exit(0)
