"""How an agent ends: its exit statuses, and the reasons other than the end of its mount."""

from __future__ import annotations

import errno
from enum import IntEnum


class Status(IntEnum):
    """The exit status of ``farwatch agent``."""

    GONE = 0
    """The mount is gone, and with it the agent's work."""
    FAILED = 1
    """Something that another try may overcome."""
    USAGE = 2
    REPLACED = 3
    """Another agent serves the mount."""
    NOT_SERVED = 4
    """There is nothing here that an agent could serve; another try would find the same."""


class NotServed(Exception):
    """The mount cannot have an agent, or not this one; one line says why."""

    status = Status.NOT_SERVED


class Replaced(NotServed):
    """Another agent is registered."""

    status = Status.REPLACED

    def __init__(self) -> None:
        super().__init__("another agent serves it")


SERVER_GONE = frozenset((errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EBADF))
"""What an ioctl answers when the connection to the server has ended for good
(``fuse_abort_conn``, fs/fuse/dev.c).  A server that comes back gives other errors."""
