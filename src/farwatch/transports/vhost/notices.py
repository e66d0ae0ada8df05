"""What the driver is told without having asked: FUSE notifications in its own queue.

Each needs a buffer that the driver has given before.  Until there is one, notifications wait
where they are made, and are taken from there one at a time: nothing is lost here, and their
order is kept.  A buffer that is too small for an event gets a Q_OVERFLOW in its place.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from farwatch.session.request import Payload
from farwatch.transports.vhost.queue import Queue

log = logging.getLogger(__name__)

_MOST = 4096
"""Notifications that were given to ``add`` and wait for the driver's buffers."""


class Speaker(Protocol):
    """Where notifications are made: a session."""

    @property
    def has_notice(self) -> bool:
        """Whether there is one."""

    @property
    def told_first(self) -> frozenset[int]:
        """Opcodes of requests that are answered after what happened before was told."""

    def answering(self) -> AbstractContextManager[None]:
        """To be entered for that: what is told then is what is to be told before."""

    def next_notice(self, room: int) -> Sequence[Payload] | None:
        """The next one, or what is told in its place where it has no room; None if nothing."""


class Nobody:
    """Says nothing."""

    has_notice = False
    told_first: frozenset[int] = frozenset()

    def answering(self) -> AbstractContextManager[None]:
        """Nothing is to be told."""
        return nullcontext()

    def next_notice(self, room: int) -> None:
        """Nothing."""


class Notices:
    """``lock`` is held by whoever adds one, or gives a buffer back."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._waiting: deque[Sequence[Payload]] = deque()
        self.speaker: Speaker = Nobody()

    def add(self, notice: Sequence[Payload]) -> None:
        """One more, from any thread."""
        with self._lock:
            if len(self._waiting) == _MOST:
                log.warning("the driver gives no buffers: a notification is lost")
                return
            self._waiting.append([bytes(part) for part in notice])

    def send(self, queue: Queue | None) -> None:
        """Puts what waits into buffers of the driver's, as far as there are any."""
        while queue is not None and (self._waiting or self.speaker.has_notice):
            chain = queue.pop()
            if chain is None:
                if queue.rest():
                    return
                continue
            notice = self._next(chain.room)
            with self._lock:
                queue.complete(chain, notice or ())

    def _next(self, room: int) -> Sequence[Payload] | None:
        if not self._waiting:
            notice = self.speaker.next_notice(room)
        else:
            notice = self._waiting.popleft()
            if sum(map(len, notice)) > room:
                notice = None
        if notice is None:
            log.debug("a buffer for notifications has room for %d bytes: too little", room)
        return notice

    def clear(self) -> None:
        """Nobody will take them any more."""
        self._waiting.clear()
        self.speaker = Nobody()
