"""Which files others have open for writing: those may change without any event.

    unknown --started--> known --opened, and not closed--> held --closed by all--> known
                               --closed in the client----> looked at until it is not mapped there

A file is held by the processes that were seen to open it.  One that was opened and closed
between two readings is held if the process has it open still; of such only files that the
client knows are asked for, a few of them at a time, and the others taken to be.  A process may
have handed the file on: so what was opened and not closed is held until somebody closes it.

What the client writes by itself (passthrough) makes no records: while it has the file open the
session knows, and after that its process may have it mapped.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from farwatch.events import Key, Record
from farwatch.linux.writers import Held
from farwatch.sources.openings import CLOSED, OPENED, Openings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.8
"""How long opens are left to pile up: the kernel makes one record of what a process does to a
file meanwhile, and a busy host does not wake us for each."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether the client has mapped still what it has closed."""
_STOP, _LOOK = b"x", b"."
_MOST_ASKED = 4
"""Processes that are asked for what they have open, at each reading: each takes about 1 ms."""
_MOST_HELD = 1 << 16


class Writers:
    """Files that others have open for writing.  ``holds`` may be asked by any thread."""

    def __init__(
        self,
        held_by: Callable[[int, Key], Held],
        is_known: Callable[[Key], bool],
        on_held: Callable[[list[Key]], None],
    ) -> None:
        """``held_by`` tells how a process has a file open, ``is_known`` whether a client knows it.

        ``on_held`` is called with files that may change without any event from now on.
        """
        self._held_by = held_by
        self._is_known = is_known
        self._on_held = on_held
        self._held: dict[Key, set[int]] = {}
        self._has_started = False
        self._asked = 0
        self._lock = threading.Lock()
        """Of what follows: it is added to by whoever serves the client."""
        self._left: dict[Key, set[int]] = {}

    def start(self, held: Iterable[tuple[int, Key]]) -> None:
        """What processes had open before the first record: from now on this is complete."""
        for process, key in held:
            self._held.setdefault(key, set()).add(process)
        self._has_started = True

    def forget(self) -> None:
        """Nothing is known any more."""
        self._has_started = False
        self._held.clear()

    def holds(self, key: Key) -> bool:
        """Whether somebody may have a file open for writing."""
        return not self._has_started or key in self._held or key in self._left

    def leave(self, process: int, key: Key) -> bool:
        """The client has closed a file that it could write; whether it is the only one."""
        with self._lock:
            is_first = not self._left
            self._left.setdefault(key, set()).add(process)
        return is_first

    def look_at_left(self) -> bool:
        """Forgets what is not mapped any more; whether there is something left."""
        with self._lock:
            left = {key: tuple(processes) for key, processes in self._left.items()}
        for key, processes in left.items():
            over = {process for process in processes if not self._writes(process, key)}
            with self._lock:
                self._left[key] -= over
                if not self._left[key]:
                    del self._left[key]
        return bool(self._left)

    def learn(self, records: Iterable[Record]) -> None:
        """Takes in what was opened and closed."""
        held: list[Key] = []
        self._asked = 0
        for record in records:
            key, process = record.node, record.thread
            if key is None:
                continue
            if not record.mask & OPENED:
                self._closed(key, process)
            elif not record.mask & CLOSED:
                if self._opened(key, process):
                    held.append(key)
            elif self._is_known(key) and self._is_open_still(key, process):
                if self._hold(key, process):
                    held.append(key)
            else:
                self._closed(key, process)
        if len(self._held) > _MOST_HELD:
            log.warning("more than %d files are open at a time: files are not cached", _MOST_HELD)
            self.forget()
        if held:
            self._on_held(held)

    def _is_open_still(self, key: Key, process: int) -> bool:
        """Whether what was opened and closed is open still, or may be: too many were asked."""
        self._asked += 1
        return self._asked > _MOST_ASKED or self._writes(process, key)

    def _opened(self, key: Key, process: int) -> bool:
        if self._is_known(key) and self._held_by(process, key) is Held.READING:
            return False
        return self._hold(key, process)

    def _hold(self, key: Key, process: int) -> bool:
        """Whether this is new."""
        processes = self._held.get(key)
        if processes is not None:
            processes.add(process)
            return False
        self._held[key] = {process}
        return True

    def _closed(self, key: Key, process: int) -> None:
        processes = self._held.get(key)
        if processes is None:
            return
        left = {one for one in processes | {process} if self._writes(one, key)}
        if left:
            self._held[key] = left
        else:
            del self._held[key]

    def _writes(self, process: int, key: Key) -> bool:
        return self._held_by(process, key) is Held.WRITING


class Following:
    """Keeps Writers right, in a thread of its own."""

    def __init__(
        self,
        openings: Openings,
        writers: Writers,
        processes: Callable[[], Iterable[int]],
        written_by: Callable[[int], Iterable[Key]],
    ) -> None:
        """``written_by`` gives what one of the ``processes`` has open for writing.

        ``openings`` has begun by then, so that nothing is missed.
        """
        self._openings = openings
        self._writers = writers
        self._processes = processes
        self._written_by = written_by
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def leave(self, process: int, key: Key) -> None:
        """As of Writers, from another thread."""
        if self._writers.leave(process, key):
            self._wake(_LOOK)

    def _wake(self, why: bytes) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._wake_write, why)

    def run(self) -> None:
        """Until ``stop`` is called."""
        writers = self._writers
        try:
            held: list[tuple[int, Key]] = []
            for process in self._processes():
                if self._is_stopped(seconds=0):
                    return
                held += ((process, key) for key in self._written_by(process))
            writers.start(held)
            is_any_left = False
            while not self._is_stopped(
                self._openings.fileno(), seconds=_LOOK_SECONDS if is_any_left else None
            ):
                if self._is_stopped(seconds=_PAUSE_SECONDS):
                    return
                writers.learn(self._openings.read())
                is_any_left = writers.look_at_left()
        except Exception:
            log.exception("who writes files is not known any more")
            writers.forget()

    def stop(self) -> None:
        """Ends ``run``, from another thread."""
        self._wake(_STOP)

    def close(self) -> None:
        """Close the pipe; ``run`` has returned."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _is_stopped(self, *others: int, seconds: float | None = None) -> bool:
        """Whether ``stop`` was called; waits for that, for one of the others, or so long."""
        poll = select.poll()
        for fd in (self._wake_read, *others):
            poll.register(fd, select.POLLIN)
        ready = poll.poll(seconds * 1000 if seconds is not None else None)
        is_woken = any(fd == self._wake_read for fd, _ in ready)
        return is_woken and _STOP in os.read(self._wake_read, 4096)
