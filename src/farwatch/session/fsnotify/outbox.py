"""Notifications that wait for the client to take them.

    open ──full──> overflowing: one Q_OVERFLOW is queued, and no event after it
      ^                 │
      └── all taken ────┘

An ending is never left out: there are no more of them than there can be marks.

What is queued from ``stop`` to ``go_on`` is not there yet for whoever takes.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fsnotify import (
    EVENT,
    NAME_MAX,
    NOTIFY_ENDED,
    NOTIFY_EVENT,
    Dialect,
    Ended,
    Event,
    encode_ended,
    encode_event,
)
from farwatch.abi.fsnotify_posted import POSTED_NOTIFY, encode_posted
from farwatch.events import Mask

_OVERFLOW = int(Mask.Q_OVERFLOW)
_HEADER = fuse.OUT_HEADER.size
_SEQUENCE = Struct("<Q")
"""What an EVENT begins with."""
LARGEST = _HEADER + EVENT.size + 2 * NAME_MAX
"""Bytes of the largest notification: a rename's."""


class Notice(NamedTuple):
    """One notification: its code, and what follows the header."""

    code: int
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes, with the header."""
        return _HEADER + len(self.payload)

    @property
    def header(self) -> bytes:
        """``fuse_out_header``."""
        return fuse.OUT_HEADER.pack(self.size, self.code, 0)


class Outbox:
    """The notifications of one client, in the order in which they are to be taken.

    ``dialect`` may be changed until the first event.  ``most`` events wait at most.
    """

    def __init__(self, dialect: Dialect, most: int) -> None:
        self.dialect = dialect
        self._most = most
        self._queue: deque[Notice] = deque()
        self._is_overflowing = False
        self._until_stop: int | None = None
        self.sequence = 0
        """Of the last event or ending that was queued."""
        self.endings = 0
        """Endings that wait."""

    def __len__(self) -> int:
        """How many can be taken."""
        return len(self._queue) if self._until_stop is None else self._until_stop

    @property
    def has_lost(self) -> bool:
        """Whether events are left out until all that waits has been taken."""
        return self._is_overflowing

    def event(self, event: Event, *, to_parent: bool, to_node: bool) -> None:
        """Queues an event, which has no sequence yet, for the directory's mark or the node's."""
        if self._is_overflowing:
            return
        if len(self._queue) - self.endings >= self._most:
            self.overflow()
            return
        if self.dialect is Dialect.CURRENT:
            self._queue.append(self._numbered(event))
            return
        if to_parent:
            self._posted(event, to_parent=True)
        if to_node and not (to_parent and self.dialect is Dialect.PARENTED):
            self._posted(event, to_parent=False)

    def overflow(self) -> None:
        """Something is lost, and everything that follows until all has been taken."""
        if self._is_overflowing:
            return
        self._is_overflowing = True
        self._queue.append(self._overflow())

    def ended(self, ended: Ended) -> None:
        """Queues an ending, which has no sequence yet; the posted dialects have none."""
        if self.dialect is not Dialect.CURRENT:
            return
        self.sequence += 1
        self.endings += 1
        self._queue.append(
            Notice(NOTIFY_ENDED, encode_ended(ended._replace(sequence=self.sequence)))
        )

    def stop(self) -> None:
        """What is queued from now on is not to be taken before ``go_on``."""
        self._until_stop = len(self._queue)

    def go_on(self) -> None:
        """The reverse."""
        self._until_stop = None

    def take(self, room: int | None = None) -> Notice | None:
        """The next one; None if there is none.

        ``room`` is how many bytes can be taken.  An event that needs more becomes a
        Q_OVERFLOW, and nothing is taken, or lost, that is no event or has no room even then.
        """
        if not self:
            return None
        notice = self._queue[0]
        if room is not None and notice.size > room:
            lost = self._overflow_like(notice)
            if notice.code == NOTIFY_ENDED or lost.size > room:
                return None
            notice = lost
        self._queue.popleft()
        if self._until_stop is not None:
            self._until_stop -= 1
        if notice.code == NOTIFY_ENDED:
            self.endings -= 1
        if not self._queue:
            self._is_overflowing = False
        return notice

    def take_many(self, room: int) -> bytes:
        """As many as fit, whole, one behind the other."""
        parts: list[bytes] = []
        while self and self._queue[0].size <= room:
            notice = self.take()
            assert notice is not None
            room -= notice.size
            parts += (notice.header, notice.payload)
        return b"".join(parts)

    def _numbered(self, event: Event) -> Notice:
        self.sequence += 1
        return Notice(NOTIFY_EVENT, encode_event(event._replace(sequence=self.sequence)))

    def _posted(self, event: Event, *, to_parent: bool) -> None:
        payload = encode_posted(self.dialect, event, to_parent=to_parent)
        self._queue.append(Notice(POSTED_NOTIFY, payload))

    def _overflow(self) -> Notice:
        event = Event(_OVERFLOW)
        if self.dialect is Dialect.CURRENT:
            return self._numbered(event)
        return Notice(POSTED_NOTIFY, encode_posted(self.dialect, event, to_parent=False))

    def _overflow_like(self, notice: Notice) -> Notice:
        """A Q_OVERFLOW in the place of an event, with its number."""
        event = Event(_OVERFLOW)
        if self.dialect is not Dialect.CURRENT:
            return Notice(POSTED_NOTIFY, encode_posted(self.dialect, event, to_parent=False))
        (sequence,) = _SEQUENCE.unpack_from(notice.payload)
        return Notice(NOTIFY_EVENT, encode_event(event._replace(sequence=sequence)))
