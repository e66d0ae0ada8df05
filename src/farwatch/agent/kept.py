"""What the agent keeps open between steps, under the server's tokens."""

from __future__ import annotations

import errno
import os


class Kept:
    """Descriptors under tokens, owned here."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def put(self, token: int, fd: int) -> None:
        """Takes a descriptor over; what was kept under the token is closed."""
        before = self._fds.get(token)
        if before is not None:
            os.close(before)
        self._fds[token] = fd

    def get(self, token: int) -> int:
        """The descriptor.  Raises OSError EBADF."""
        try:
            return self._fds[token]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def drop(self, token: int) -> None:
        """Closes the descriptor.  Raises OSError EBADF."""
        fd = self.get(token)
        del self._fds[token]
        os.close(fd)

    def close(self) -> None:
        """Closes all of them."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
