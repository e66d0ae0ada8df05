"""The eventfds by which driver and device wake each other."""

from __future__ import annotations

import os

from farwatch.transports.vhost.errors import ProtocolError

_LINK = "anon_inode:[eventfd]"


class EventFd:
    """An eventfd of the other side's.  Owns the descriptor; never blocks."""

    def __init__(self, fd: int) -> None:
        """Takes ``fd`` over, and closes it if it is no eventfd (ProtocolError).

        Writing to anything else might block, or do harm.
        """
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
            if link != _LINK:
                raise ProtocolError(f"not an eventfd: {link}")
            os.set_blocking(fd, False)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd

    def signal(self) -> None:
        """Wake the other side.  A counter that is full has woken it already."""
        try:
            os.eventfd_write(self.fd, 1)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
