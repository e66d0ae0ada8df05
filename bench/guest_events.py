"""How long an event takes into a guest: from the change on the host to the read in the guest.

From just before the one to the return from the other.  The watcher is the benchmark's own, an
unmodified program with plain inotify, which notes the guest's time when read returns;
`bench.guest_clock` makes the host's of it.  Nothing is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import guest_host
from bench.figures import Latency, latency
from bench.guest_clock import Clock
from bench.guest_machine import PYTHON, WATCHER, Guest
from bench.latency import SUBJECTS, Hearing, Subject, once, until_heard
from bench.watching import Deaf, Read, take_read, watching
from farwatch.events import READING
from tests.guest.machine import Machine
from tests.guest.programs import Program

START_SECONDS = 30.0
TARGET, HOST_TARGET = 3000.0, 250.0
"""Microseconds: of the whole under emulation, and of the host's part."""
KINDS = {name: subject for name, subject in SUBJECTS.items() if not subject.kind & READING}
"""Those that reading does not make, which come only while somebody is known to want them."""


class Row(NamedTuple):
    """One event type: natively, the host's part, and the whole."""

    kind: str
    native: Latency
    host: Latency
    guest: Latency
    clock_error: float
    """Microseconds: how far the clocks' comparison was off at the worst."""


class GuestWatching:
    """A watcher in the guest."""

    def __init__(self, program: Program, clock: Clock) -> None:
        self._program = program
        self._clock = clock
        self._data = bytearray()

    def placed(self) -> None:
        """Return when the watch is placed."""
        if self._program.line(START_SECONDS) != b"\n":
            raise Deaf(f"the watcher in the guest did not start: {self._program.errors()}")

    def next(self, seconds: float) -> Read | None:
        """The next read, at the host's time; None if there is none in time."""
        deadline = time.monotonic() + seconds
        while (read := take_read(self._data)) is None:
            data = self._program.read(max(0.0, deadline - time.monotonic()))
            if not data:
                return None
            self._data += data
        return Read(self._clock.host(read.at), read.events)


@contextmanager
def _watching(machine: Machine, clock: Clock, mask: int, path: str) -> Iterator[GuestWatching]:
    with machine.start([PYTHON, "-I", WATCHER, "each", str(mask), path]) as program:
        watcher = GuestWatching(program, clock)
        watcher.placed()
        yield watcher


def measure(guest: Guest, native: Path, samples: int, rounds: int) -> Iterator[Row]:
    """Each event type; ``native`` is an empty directory.  Raises Deaf or Failure."""
    top, path = guest.outside[1] / "events", f"{guest.inside[1]}/events"
    top.mkdir()
    host = guest_host.measure(KINDS, native / "host", samples, rounds)
    (native / "watched").mkdir()
    with closing(Clock(guest)) as clock:
        for name, subject in KINDS.items():
            mask = int(subject.kind)
            with _watching(guest.machine, clock, mask, path) as watcher:
                until_heard(subject, "the guest", top, watcher)
                inside = _rounds(subject, top, watcher, samples, rounds, clock.compare)
            with watching("each", mask, native / "watched") as beside:
                until_heard(subject, "native", native / "watched", beside)
                natively = _rounds(subject, native / "watched", beside, samples, rounds)
            error = clock.largest_error / 1000
            yield Row(name, natively, host[name], inside, error)


def _rounds(
    subject: Subject,
    top: Path,
    watcher: Hearing,
    samples: int,
    rounds: int,
    before: Callable[[], None] = lambda: None,
) -> Latency:
    times = []
    for number in range(rounds):
        before()
        first, behind = number * samples // rounds, (number + 1) * samples // rounds
        times.append([once(subject, top, watcher, str(index)) for index in range(first, behind)])
    return latency(times)
