"""A thread for opens that somebody may hold up.

A fanotify permission listener in the client decides when an open goes on.  While there is
one, the steps that open, and those that use what was opened, are done by a thread of
their own: the others wait for each of them, but not for long.

    queued --> done within WAIT_SECONDS: as if the replaying thread had done it
           `-> later: reported as EINPROGRESS, and again when it is done
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable

from farwatch.abi.steps import Op, Step

WAIT_SECONDS = 0.05
OPENING = frozenset((Op.OPEN, Op.OPEN_CLOSE, Op.CLOSE, Op.WRITE, Op.READ))

Perform = Callable[[Step, int], int]


class _Job:
    """One step, and how it went."""

    __slots__ = ("done", "is_late", "result", "sequence", "step")

    def __init__(self, step: Step, sequence: int) -> None:
        self.step = step
        self.sequence = sequence
        self.result = 0
        self.is_late = False
        self.done = threading.Event()


class Opener:
    """Does steps in a thread; ``prepare`` runs there first and says how to."""

    def __init__(self, prepare: Callable[[], Perform]) -> None:
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._at_end: Callable[[], None] = lambda: None
        self._late: list[_Job] = []
        self._thread = threading.Thread(target=self._run, name="opener", daemon=True)

    def start(self) -> None:
        """Start the thread; before the caller takes its mark, which would be inherited."""
        self._thread.start()

    def perform(self, step: Step, sequence: int) -> int:
        """0, an errno, or EINPROGRESS for what will be in ``finished`` some time."""
        job = _Job(step, sequence)
        self._jobs.put(job)
        if not self._late and job.done.wait(WAIT_SECONDS):
            return job.result
        self._late.append(job)
        return errno.EINPROGRESS

    @property
    def is_busy(self) -> bool:
        """Whether a step is held up: those that follow must not overtake it."""
        return bool(self._late)

    def finished(self) -> list[tuple[int, int]]:
        """(sequence, errno) of the late steps that are done by now."""
        done = [job for job in self._late if job.done.is_set()]
        self._late = [job for job in self._late if not job.done.is_set()]
        return [(job.sequence, job.result) for job in done]

    def end(self, then: Callable[[], None]) -> None:
        """End the thread, which calls ``then`` once nothing is under way any more."""
        self._at_end = then
        self._jobs.put(None)

    def _run(self) -> None:
        perform: Perform | None = None
        while (job := self._jobs.get()) is not None:
            try:
                # Only when it is needed: most clients have no such listener.
                perform = perform or self._prepare()
                job.result = perform(job.step, job.sequence)
            except OSError as error:
                job.result = error.errno or errno.EIO
            job.done.set()
        self._at_end()
