"""What the driver is told without having asked: FUSE notifications in its own queue.

They wait here until it gives buffers for them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager

from farwatch.session.request import Payload
from farwatch.transports.vhost.queue import Queue

log = logging.getLogger(__name__)

_MOST = 4096
"""Notifications that wait for the driver's buffers."""


class Notices:
    """``lock`` is held by whoever adds one, or gives a buffer back."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._waiting: deque[Sequence[Payload]] = deque()

    def add(self, notice: Sequence[Payload]) -> None:
        """One more, from any thread."""
        with self._lock:
            if len(self._waiting) == _MOST:
                log.warning("the driver gives no buffers: a notification is lost")
                return
            self._waiting.append([bytes(part) for part in notice])

    def send(self, queue: Queue | None) -> None:
        """Puts what waits into buffers of the driver's, as far as there are any."""
        waiting = self._waiting
        while queue is not None and waiting:
            chain = queue.pop()
            if chain is None:
                if queue.rest():
                    return
                continue
            notice = waiting.popleft()
            size = sum(map(len, notice))
            with self._lock:
                if size > chain.room:
                    log.debug("a notification of %d bytes, room for %d", size, chain.room)
                    queue.complete(chain, ())
                else:
                    queue.complete(chain, notice)

    def clear(self) -> None:
        """Nobody will take them any more."""
        self._waiting.clear()
