r"""A lock is granted when the client has been told what was done before.

Whoever gets a lock expects to find what others did before they gave it up: SQLite looks whether
there is a log beside its database.  Of that the events may still be on their way, and until
they are replayed the client's kernel believes what was so before.

    locked --what had happened is read--> planned --its last replay is over--> granted
       \                                                                     /
        `------------------ after LATE_SECONDS, in any case ----------------'

Called with the view's lock held.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farwatch.session.belief import LATE_SECONDS
from farwatch.session.replay import Replay
from farwatch.session.request import Payload
from farwatch.session.view import View
from farwatch.session.waiting import Attempt, Blocked

_GRANTED = 0


class CatchingUp:
    """Whether one client has been told what had happened."""

    def __init__(self, view: View, is_behind: Callable[[], bool]) -> None:
        """``is_behind`` says whether something waits to be read or planned."""
        self._view = view
        self._is_behind = is_behind

    @property
    def is_due(self) -> bool:
        """Whether the client believes something for long that may not be so any more."""
        belief = self._view.belief
        if not belief.is_kept_right or not belief.seconds:
            return False
        return belief.last_expected is not None or self._is_behind()

    def after(self, lock: Attempt, interrupted: int) -> Granting:
        """The attempt that is done when ``lock`` is, and the client has caught up.

        ``interrupted`` is the errno of one whose ``lock`` is not done.
        """
        return Granting(self, lock, interrupted)

    def begin(self) -> Callable[[], bool]:
        """What says, asked again and again, when all is told that had happened by now."""
        view, belief = self._view, self._view.belief
        latest, drain = time.monotonic() + LATE_SECONDS, view.drains.begun
        awaited: list[Replay | None] = []

        def is_done() -> bool:
            if time.monotonic() >= latest:
                return True
            if not awaited:
                # A reading that began before may have missed what came meanwhile.
                if view.drains.ended <= drain and self._is_behind():
                    return False
                awaited.append(belief.last_expected)
            return not belief.is_expected(awaited[0])

        return is_done


class Granting:
    """A lock that is wanted, and the wait until it may be granted: an ``Attempt``."""

    def __init__(self, catching_up: CatchingUp, lock: Attempt, interrupted: int) -> None:
        self._catching_up = catching_up
        self._lock = lock
        self._interrupted = interrupted
        self._payload: Payload | None = None
        self._is_done: Callable[[], bool] = lambda: True

    def __call__(self) -> Payload | Blocked:
        """Raises OSError as ``lock``."""
        if self._payload is None:
            outcome = self._lock()
            if isinstance(outcome, Blocked):
                return outcome
            self._payload = outcome
            if self._catching_up.is_due:
                self._is_done = self._catching_up.begin()
        return self._payload if self._is_done() else Blocked.BY_OTHERS

    def interrupted(self) -> int:
        """The errno if a signal comes now: what is locked cannot be taken back."""
        return self._interrupted if self._payload is None else _GRANTED
