"""Many files made as fast as possible: how long until the last is heard of, and is any lost?"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.figures import Spread, spread
from bench.sides import Side, Sides
from bench.watching import Read, watching
from farwatch.events import Mask

PATIENCE_SECONDS = 60.0
LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
"""Left as it is: the watcher reads while events arrive, in a process of its own,
and an overflow (16,384 unread events by default) is reported as what it is."""


class Burst(NamedTuple):
    """One burst, as its watcher heard it."""

    made_in: float
    """Seconds that making the files took."""
    heard_in: float
    """Seconds from just before the first file to the last event."""
    lost: int
    doubled: int
    overflows: int


class Row(NamedTuple):
    """One side's bursts."""

    side: str
    files: int
    made_per_second: Spread
    heard_per_second: Spread
    lost: int
    doubled: int
    overflows: int

    @property
    def exact(self) -> bool:
        """Whether every name was heard exactly once."""
        return not (self.lost or self.doubled or self.overflows)


def measure(sides: Sides, files: int, rounds: int) -> list[Row]:
    """Bursts of ``files`` creations, ``rounds`` a side, alternating."""
    bursts: dict[str, list[Burst]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides.alternating(number):
            bursts[side.name].append(_one(side, f"burst-{number}", files))
    return [_row(side.name, files, bursts[side.name]) for side in sides]


def _one(side: Side, name: str, files: int) -> Burst:
    outside, inside = side.directory(name)
    names = [f"{index:06}" for index in range(files)]
    directory = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with watching("end", int(Mask.CREATE), inside) as watcher:
            started = time.monotonic_ns()
            for file in names:
                os.mknod(file, dir_fd=directory)
            made = time.monotonic_ns()
            os.mknod("end", dir_fd=directory)
            reads = watcher.rest(PATIENCE_SECONDS)
    finally:
        os.close(directory)
    return judge(names, reads, started, made)


def judge(names: Iterable[str], reads: Sequence[Read], started: int, made: int) -> Burst:
    """What ``reads`` say of a burst that made ``names``; times are CLOCK_MONOTONIC ns."""
    heard = Counter(event.name for read in reads for event in read.events)
    expected = {name.encode() for name in names} | {b"end"}
    overflows = sum(bool(event.mask & Mask.Q_OVERFLOW) for read in reads for event in read.events)
    last = reads[-1].at if reads else started
    return Burst(
        (made - started) / 1e9,
        (last - started) / 1e9,
        len(expected - heard.keys()),
        sum(count - 1 for name, count in heard.items() if name in expected),
        overflows,
    )


def _row(side: str, files: int, bursts: Sequence[Burst]) -> Row:
    return Row(
        side,
        files,
        spread([files / burst.made_in for burst in bursts]),
        spread([files / burst.heard_in if burst.heard_in else 0.0 for burst in bursts]),
        sum(burst.lost for burst in bursts),
        sum(burst.doubled for burst in bursts),
        sum(burst.overflows for burst in bursts),
    )
