"""A source that never reports anything: for a mount whose remote changes raise no events."""

from __future__ import annotations

import os

from farwatch.events import READING, Record
from farwatch.linux.descriptors import Closable


class NoEvents(Closable):
    """Owns a descriptor that never becomes readable, to be polled as any source's."""

    is_silent = False

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wanted = 0

    @property
    def wanted(self) -> int:
        """What ``want`` was given (Mask bits)."""
        return self._wanted

    def want(self, mask: int) -> None:
        """Notes what would be asked for."""
        self._wanted = int(mask) & int(READING)

    def silence(self, mount_fd: int) -> None:
        """There is nothing to be silenced."""

    def be_silent(self, *, is_silent: bool) -> None:
        """There is nothing to be silenced."""

    def read(self, limit: int = 0) -> list[Record]:
        """Nothing."""
        return []

    def queued(self) -> int:
        """None."""
        return 0

    def fileno(self) -> int:
        """Never readable."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor.  Closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
