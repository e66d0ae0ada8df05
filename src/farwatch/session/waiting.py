"""Requests that wait until something outside the server lets them be done.

    parked --tried again--> answered
       |          |
       |          +--> parked: until something changes here, or for a moment
       +--interrupted--> EINTR

That is a lock (locks.py), or that somebody gives up a lease (leases.py).

What a request waits for may be held by another request's process: then it is tried again when
something has changed.  Or by somebody who is no client: the kernel would tell of that only a
thread that sleeps, so it is tried again after a moment, which doubles each time up to a bound.
Every method is called with the view's lock held, apart from what says otherwise.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from enum import Enum

from farwatch.session.reply import Reply, failed, replied
from farwatch.session.request import Payload

_SHORTEST = 0.001
_LONGEST = 0.016
"""Seconds between two tries: no more than a person notices, and 60 wake-ups a second."""


class Blocked(Enum):
    """Whom a request waits for."""

    BY_A_CLIENT = 1
    """Somebody whose requests come here: see ``Waiting.changed``."""
    BY_OTHERS = 2


Attempt = Callable[[], Payload | Blocked]
"""Does a request, or says that it is blocked.  Raises OSError if it can never be done."""


class _Parked:
    __slots__ = ("attempt", "due", "interrupted", "pause")

    def __init__(self, attempt: Attempt, interrupted: Callable[[], int]) -> None:
        self.attempt = attempt
        self.interrupted = interrupted
        self.pause = _SHORTEST
        self.due: float | None = None

    def blocked(self, by: Blocked) -> None:
        if by is Blocked.BY_A_CLIENT:
            self.due, self.pause = None, _SHORTEST
            return
        self.due = time.monotonic() + self.pause
        self.pause = min(self.pause * 2, _LONGEST)


class Waiting:
    """The requests of one client that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._parked: dict[int, _Parked] = {}
        self._late: list[Reply] = []
        self._has_changed = False
        self.due: float | None = None
        """When ``next_answer`` is to be asked though nothing happens (``time.monotonic``).
        May be read without the lock."""

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def may_have_answer(self) -> bool:
        """Whether ``next_answer`` is worth asking.  May be read without the lock."""
        if self._late or self._has_changed:
            return True
        due = self.due
        return due is not None and time.monotonic() >= due

    def answer(
        self,
        unique: int,
        attempt: Attempt,
        interrupted: Callable[[], int] = lambda: errno.EINTR,
    ) -> Payload | None:
        """Does a request, or parks it: then ``next_answer`` has the reply one day.

        ``interrupted`` gives its errno if it is interrupted, 0 if that is not to be told.
        Raises OSError as ``attempt``.
        """
        outcome = attempt()
        if not isinstance(outcome, Blocked):
            return outcome
        parked = self._parked[unique] = _Parked(attempt, interrupted)
        parked.blocked(outcome)
        self._plan()
        return None

    def changed(self) -> None:
        """Something that requests may wait for is free: ``next_answer`` tries all again."""
        if self._parked:
            self._has_changed = True

    def interrupt(self, unique: int) -> None:
        """A signal is to end a request."""
        parked = self._parked.pop(unique, None)
        if parked is not None:
            self._late.append(failed(unique, parked.interrupted()))
            self._plan()

    def next_answer(self) -> Reply | None:
        """The reply to a request that waits no more, if there is one."""
        if self._has_changed or (self.due is not None and time.monotonic() >= self.due):
            self._try()
        return self._late.pop(0) if self._late else None

    def forget(self) -> None:
        """There is nobody any more to be answered."""
        self._parked.clear()
        self._late.clear()
        self._has_changed = False
        self.due = None

    def _try(self) -> None:
        has_changed, self._has_changed = self._has_changed, False
        now = time.monotonic()
        for unique, parked in list(self._parked.items()):
            if not has_changed and (parked.due is None or parked.due > now):
                continue
            try:
                outcome = parked.attempt()
            except OSError as error:
                reply = failed(unique, error.errno or errno.EIO)
            else:
                if isinstance(outcome, Blocked):
                    parked.blocked(outcome)
                    continue
                reply = replied(unique, outcome)
            del self._parked[unique]
            self._late.append(reply)
        self._plan()

    def _plan(self) -> None:
        dues = (parked.due for parked in self._parked.values() if parked.due is not None)
        self.due = min(dues, default=None)
