"""How long an event takes: from just before the change to the watcher's return from read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.figures import Latency, latency
from bench.sides import Sides
from bench.watching import Deaf, Read, Watching, watching
from farwatch.events import Mask

ARRIVAL_SECONDS = 5.0
PROBE_SECONDS = 0.05
PAUSE_SECONDS = 0.001
"""Between an event's arrival and the next change: events are measured one by one."""


class Subject(NamedTuple):
    """One event type and the one system call that makes it."""

    kind: Mask
    before: Callable[[Path, str], int]
    """What is prepared, outside the measured time; a descriptor or -1."""
    change: Callable[[Path, str, int], None]
    after: Callable[[Path, str, int], None]
    named: Callable[[str], str] = str
    """The name in the event."""


def _nothing(top: Path, name: str) -> int:
    return -1


def _done(top: Path, name: str, fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _opened(flags: int) -> Callable[[Path, str], int]:
    return lambda top, name: os.open(top / name, flags)


def _create(top: Path, name: str, _fd: int) -> None:
    os.mknod(top / name)


def _attrib(top: Path, name: str, _fd: int) -> None:
    os.chmod(top / name, 0o600)


def _modify(_top: Path, _name: str, fd: int) -> None:
    os.pwrite(fd, b"x", 0)


def _access(_top: Path, _name: str, fd: int) -> None:
    os.pread(fd, 1, 0)


def _close(_top: Path, _name: str, fd: int) -> None:
    os.close(fd)


def _open(top: Path, name: str, _fd: int) -> None:
    os.close(os.open(top / name, os.O_RDONLY))


def _rename(top: Path, name: str, _fd: int) -> None:
    os.rename(top / name, top / f"{name}.new")


def _delete(top: Path, name: str, _fd: int) -> None:
    os.unlink(top / f"{name}.new")


def _left(_top: Path, _name: str, _fd: int) -> None:
    pass


def _renamed(name: str) -> str:
    return f"{name}.new"


# In the order in which a file lives: each uses what the one before it has left.
SUBJECTS = {
    "CREATE": Subject(Mask.CREATE, _nothing, _create, _left),
    "ATTRIB": Subject(Mask.ATTRIB, _nothing, _attrib, _left),
    "MODIFY": Subject(Mask.MODIFY, _opened(os.O_WRONLY), _modify, _done),
    "CLOSE_WRITE": Subject(Mask.CLOSE_WRITE, _opened(os.O_WRONLY), _close, _left),
    "OPEN": Subject(Mask.OPEN, _nothing, _open, _left),
    "ACCESS": Subject(Mask.ACCESS, _opened(os.O_RDONLY), _access, _done),
    "RENAME": Subject(Mask.MOVED_TO, _nothing, _rename, _left, _renamed),
    "DELETE": Subject(Mask.DELETE, _nothing, _delete, _left, _renamed),
}


class Hearing(Protocol):
    """A watcher, wherever it is; the times of its reads are this machine's."""

    def next(self, seconds: float) -> Read | None:
        """The next read, or None if there is none in time."""


class Row(NamedTuple):
    """One event type on both sides."""

    kind: str
    native: Latency
    farwatch: Latency

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.farwatch.median / self.native.median


def measure(sides: Sides, samples: int, rounds: int) -> Iterator[Row]:
    """Each event type, ``samples`` times a side, in rounds that alternate between the sides.

    Raises Deaf when an event does not come.
    """
    places = {side.name: side.directory("latency") for side in sides}
    for kind, subject in SUBJECTS.items():
        times: dict[str, list[list[int]]] = {side.name: [] for side in sides}
        with _watchers(sides, places, subject) as watchers:
            for number in range(rounds):
                first, behind = number * samples // rounds, (number + 1) * samples // rounds
                names = [str(index) for index in range(first, behind)]
                for side in sides.alternating(number):
                    outside = places[side.name][0]
                    watcher = watchers[side.name]
                    times[side.name].append(
                        [once(subject, outside, watcher, name) for name in names]
                    )
        yield Row(kind, latency(times["native"]), latency(times["farwatch"]))


@contextmanager
def _watchers(
    sides: Sides, places: dict[str, tuple[Path, Path]], subject: Subject
) -> Iterator[dict[str, Watching]]:
    with ExitStack() as stack:
        watchers = {}
        for side in sides:
            outside, inside = places[side.name]
            watcher = stack.enter_context(watching("each", int(subject.kind), inside))
            until_heard(subject, side.name, outside, watcher)
            watchers[side.name] = watcher
        yield watchers


def until_heard(subject: Subject, who: str, outside: Path, watcher: Hearing) -> None:
    """Make the change on other files until the watcher hears one.

    What the server asks of its source follows what is watched, and for OPEN and
    ACCESS with a delay.  Raises Deaf.
    """
    if subject.kind & (Mask.MOVED_TO | Mask.DELETE):
        # They use up their file, of which there is one: what CREATE's probe left.
        attempts, patience = 1, ARRIVAL_SECONDS
    else:
        attempts, patience = int(ARRIVAL_SECONDS / PROBE_SECONDS), PROBE_SECONDS
    for number in range(attempts):
        _make(subject, outside, f"probe{number if subject.kind & Mask.CREATE else 0}")
        if watcher.next(patience):
            return
    raise Deaf(f"{who}: no {subject.kind.name} within {ARRIVAL_SECONDS:.0f} s")


def _make(subject: Subject, outside: Path, name: str) -> int:
    fd = subject.before(outside, name)
    started = time.monotonic_ns()
    subject.change(outside, name, fd)
    subject.after(outside, name, fd)
    return started


def once(subject: Subject, outside: Path, watcher: Hearing, name: str) -> int:
    """Nanoseconds for one change.  Raises Deaf."""
    started = _make(subject, outside, name)
    expected = subject.named(name).encode()
    while (read := watcher.next(ARRIVAL_SECONDS)) is not None:
        if any(event.name == expected and event.mask & subject.kind for event in read.events):
            time.sleep(PAUSE_SECONDS)
            return read.at - started
    raise Deaf(f"{outside}: no {subject.kind.name} of {name}")
