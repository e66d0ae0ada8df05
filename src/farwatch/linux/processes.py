"""Processes by descriptor: pidfd_open(2)."""

from __future__ import annotations

import errno
import os
import select


class Process:
    """A process, by its id.  Owns a descriptor, which tells it from a later one of that id."""

    def __init__(self, pid: int) -> None:
        """Raises OSError: ESRCH if there is none, EINVAL for a thread that is no process's first.

        For pid 0, the id of whoever is in another pid namespace, ESRCH.
        """
        if pid <= 0:
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        self._fd = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether it has not ended; as long as that is so its id is nobody else's."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
