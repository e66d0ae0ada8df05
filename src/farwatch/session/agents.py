"""Threads that are an agent's without a mark: an ordinary user cannot change the fsuid.

    unknown --HELLO--> known --its process ends--> unknown
                         |  ^
    another agent's HELLO, the descriptor closed: known, and no step is armed for it

A replay that was taken for a request would really remove files, so what a known thread asks
for is never a real operation, whatever has become of its registration; and a request that was
taken for a replay would not be done, so the thread id alone says nothing: the kernel gives it
to somebody else once the process is reaped.  Each known thread is the only one of its process
that asks for changes, and its process is held by a descriptor that says whether it lives.  A
process cannot end while a request of its is unanswered (fs/fuse/dev.c, ``request_wait_answer``),
so while a request is looked at, its thread id is that of the process that lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Held(Protocol):
    """A process that is held: ``linux.processes.Process``."""

    def is_alive(self) -> bool:
        """Whether it has not ended."""

    def close(self) -> None:
        """Let go of it."""


class KnownThreads:
    """First threads of agents' processes.  Owns what ``hold`` gives."""

    def __init__(self, hold: Callable[[int], Held]) -> None:
        """``hold`` takes a thread id; it raises OSError for one that is no process's first."""
        self._hold = hold
        self._held: dict[int, Held] = {}

    def add(self, thread: int) -> None:
        """Know a thread, which is waiting for an answer.  Raises OSError as ``hold`` does."""
        if not self.knows(thread):
            self._held[thread] = self._hold(thread)
        for other in list(self._held):
            self.knows(other)

    def knows(self, thread: int) -> bool:
        """Whether a request of this thread's, made and not answered, is an agent's."""
        held = self._held.get(thread)
        if held is None:
            return False
        if held.is_alive():
            return True
        held.close()
        del self._held[thread]
        return False

    def close(self) -> None:
        """Let go of all of them."""
        for held in self._held.values():
            held.close()
        self._held.clear()
