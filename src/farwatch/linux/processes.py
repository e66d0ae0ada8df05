"""Processes by descriptor: pidfd_open(2); and how they end."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Iterable


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


def ends_within(pidfd: int, seconds: float) -> bool:
    """Whether a process has ended after this many seconds at most."""
    return any_within((pidfd,), seconds)


def any_within(fds: Iterable[int], seconds: float) -> bool:
    """Whether one of these is readable after this many seconds at most.

    A pidfd is when its process has ended.  Negative ones are passed over.
    """
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def ending(code: int) -> str:
    """How a process has ended, in words; ``code`` as subprocess gives it."""
    if code >= 0:
        return f"status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
