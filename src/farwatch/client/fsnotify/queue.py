"""What waits to be read from a group: fs/notify/notification.c.

An event that equals the last one in watch, mask and name is dropped; cookies are not
compared, and IGNORED equals nothing.  A queue that is full takes one Q_OVERFLOW beyond its
limit and nothing else; the next Q_OVERFLOW can come when that one has been read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from farwatch.abi.fsnotify import Source
from farwatch.client.fsnotify.masks import IGNORED, Q_OVERFLOW, READABLE


class InotifyEvent(NamedTuple):
    """``struct inotify_event``, and who made it.

    ``source`` and ``client`` are those of the fact; of identical events that were made one
    of, the first's.  UNKNOWN and 0 for IGNORED, UNMOUNT and Q_OVERFLOW, which nobody does.
    """

    wd: int
    mask: int
    cookie: int
    name: bytes
    source: Source = Source.UNKNOWN
    client: int = 0


OVERFLOW = InotifyEvent(-1, Q_OVERFLOW, 0, b"")


class EventQueue:
    """Events of one group, oldest first.

    ``limit`` is a number of events, as fs.inotify.max_queued_events is; ``on_event`` is
    called whenever one was put in.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"a queue of {limit} events")
        self.on_event: Callable[[], None] | None = None
        self._limit = limit
        self._events: deque[InotifyEvent] = deque()
        self._overflown = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: InotifyEvent) -> None:
        """Queue an event, if it is not the last one over again."""
        if len(self._events) >= self._limit:
            self.overflow()
        elif not (self._events and _equal(self._events[-1], event)):
            self._append(event)

    def overflow(self) -> None:
        """Queue Q_OVERFLOW, if none is waiting."""
        if not self._overflown:
            self._overflown = True
            self._append(OVERFLOW)

    def take(self, count: int | None = None) -> list[InotifyEvent]:
        """The oldest events, at most ``count`` (None: all), as they are to be read."""
        size = len(self._events) if count is None else min(count, len(self._events))
        events = [self._events.popleft() for _ in range(size)]
        if OVERFLOW in events:
            self._overflown = False
        return [event._replace(mask=event.mask & READABLE) for event in events]

    def clear(self) -> None:
        """Forget all events."""
        self._events.clear()
        self._overflown = False

    def _append(self, event: InotifyEvent) -> None:
        self._events.append(event)
        if self.on_event is not None:
            self.on_event()


def _equal(last: InotifyEvent, event: InotifyEvent) -> bool:
    """event_compare() of inotify_fsnotify.c."""
    if last.mask & IGNORED:
        return False
    return last.mask == event.mask and last.wd == event.wd and last.name == event.name
