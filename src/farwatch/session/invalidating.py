"""Tells the client's kernel what to ask about again (doubts.py), and when that is so.

    idle --something is doubted, or is to be replayed--> at work, every second
      ^                                                     |
      +---- nothing doubted, and nothing on its way --------+

In a thread of its own, which holds no lock while it sends: a notification waits for locks of
the kernel's that are held by whoever waits for an answer of the server's.
"""

from __future__ import annotations

from collections.abc import Callable

from farwatch.session.reply import Reply
from farwatch.session.session import Session

_PERIOD_SECONDS = 1.0
"""How often it is looked whether replays get on."""


class Invalidator:
    """Sends a session's doubts until it is stopped."""

    def __init__(self, session: Session, send: Callable[[Reply], None]) -> None:
        self._session = session
        self._send = send
        self._stopped = False
        session.can_invalidate = True

    def run(self) -> None:
        """Until ``stop`` is called."""
        session = self._session
        is_busy = False
        while True:
            # Wakes nobody up while there is nothing to do.
            session.doubtful.wait(_PERIOD_SECONDS if is_busy else None)
            if self._stopped:
                return
            session.doubtful.clear()
            is_busy = session.look_at_progress()
            while notifications := session.take_doubts():
                for notification in notifications:
                    self._send(notification)

    def stop(self) -> None:
        """Ends ``run``, from another thread."""
        self._stopped = True
        self._session.doubtful.set()
