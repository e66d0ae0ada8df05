"""A thread that waits for the source, and has the pipeline deliver what there is.

    waiting ──the source has something, or woken──> deliver ─────────────────┐
      ^  ├──the pipeline is due───────────────────> deliver, and flush ──────┤
      │  ├──the session, or the upkeep, is due────> answer ──────────────────┤
      │  └──stopped──> ended                                                 │
      └──────────────── a little of what is not in a hurry <─────────────────┘

Whoever answers requests wakes it for what only this thread may do, which is to notify.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress

from farwatch.session.intake import Source
from farwatch.session.pipeline import Pipeline
from farwatch.session.session import Session

_STOP, _LOOK = b"x", b"."


class SourceThread:
    """From ``start`` to ``end``.  Owns nothing but a pipe to be woken by."""

    def __init__(self, source: Source, session: Session, pipeline: Pipeline) -> None:
        self._source = source
        self._session = session
        self._pipeline = pipeline
        self._sleeps_until: float | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Deliver from now on."""
        self._thread.start()

    def end(self) -> None:
        """Returns when the thread has ended."""
        os.write(self._wake_write, _STOP)
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def wake(self) -> None:
        """Has it notify if the session has a notification, from another thread."""
        with suppress(BlockingIOError):
            os.write(self._wake_write, _LOOK)

    def wake_at(self, when: float) -> None:
        """Has it ask the session for answers then (``time.monotonic``), from another thread."""
        until = self._sleeps_until
        if until is None or when < until:
            self.wake()

    def _run(self) -> None:
        pipeline = self._pipeline
        poll = select.poll()
        poll.register(self._source.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = poll.poll(self._pause())
            for fd, _ in ready:
                if fd == self._wake_read and _STOP in os.read(fd, 4096):
                    return
            if ready or pipeline.is_due:
                pipeline.deliver(flush=not ready)
            else:
                pipeline.answer()
            pipeline.keep_up()

    def _pause(self) -> float | None:
        """Milliseconds until something is to be done though nothing happens."""
        # Before it is asked: whoever has something earlier meanwhile wakes in any case.
        self._sleeps_until = None
        dues = (self._pipeline.due, self._session.due, self._pipeline.keep_up_due)
        whens = [when for when in dues if when is not None]
        if not whens:
            return None
        self._sleeps_until = min(whens)
        return max(self._sleeps_until - time.monotonic(), 0) * 1000
