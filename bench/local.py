"""Are local operations disturbed, by the mount as such and by what happens behind it?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.figures import Spread, spread
from bench.sides import Side, Sides
from bench.watching import watching
from farwatch.events import Mask

STORM = Path(__file__).with_name("storm.py")
CONTENT = b"x" * 4096


def _create(directory: int, name: str) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=directory))


def _stat(directory: int, name: str) -> None:
    os.stat(name, dir_fd=directory)


def _write(directory: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY, dir_fd=directory)
    os.pwrite(fd, CONTENT, 0)
    os.close(fd)


def _read(directory: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    os.pread(fd, len(CONTENT), 0)
    os.close(fd)


def _unlink(directory: int, name: str) -> None:
    os.unlink(name, dir_fd=directory)


class Operation(NamedTuple):
    """What is done to one file, and how often to all of them.

    Quick operations are repeated, so that a storm's bursts fall into their time.
    """

    act: Callable[[int, str], None]
    passes: int = 1


OPERATIONS = {
    "create, close": Operation(_create),
    "stat": Operation(_stat, passes=10),
    "open, write, close": Operation(_write, passes=3),
    "open, read, close": Operation(_read, passes=3),
    "unlink": Operation(_unlink),
}
"""In the order in which a file lives.  All rounds of one come before the first of the
next, so that no creation comes after a removal (see `bench.sides`)."""


class Row(NamedTuple):
    """One operation, in microseconds: on both sides, each quiet and with a storm outside."""

    operation: str
    native: Spread
    farwatch: Spread
    native_storm: Spread
    farwatch_storm: Spread

    @property
    def ratio(self) -> float:
        """farwatch to native, both quiet."""
        return self.farwatch.median / self.native.median

    @property
    def storm_ratio(self) -> float:
        """farwatch to native, both with a storm."""
        return self.farwatch_storm.median / self.native_storm.median


def measure(sides: Sides, files: int, rounds: int) -> Iterator[Row]:
    """Each operation on ``files`` files a round, ``rounds`` rounds a side and weather."""
    for side in sides:
        side.directory("storm")
        for number in range(rounds):
            for weather in ("quiet", "storm"):
                side.directory(f"{weather}-{number}")
    for name, operation in OPERATIONS.items():
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds):
            for side in sides.alternating(number):
                for weather in ("quiet", "storm"):
                    directory = side.inside / f"{weather}-{number}"
                    with _weather(weather, side, number):
                        taken = _timed(operation, directory, files)
                    times.setdefault((side.name, weather), []).append(taken)
        yield Row(
            name,
            *(
                spread(times[side, weather])
                for weather in ("quiet", "storm")
                for side in ("native", "farwatch")
            ),
        )


def _timed(operation: Operation, path: Path, files: int) -> float:
    """Microseconds for one operation, the mean over ``files`` and passes."""
    names = [str(index) for index in range(files)]
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        started = time.perf_counter_ns()
        for _ in range(operation.passes):
            for name in names:
                operation.act(directory, name)
        return (time.perf_counter_ns() - started) / (files * operation.passes) / 1000
    finally:
        os.close(directory)


@contextmanager
def _weather(weather: str, side: Side, number: int) -> Iterator[None]:
    """With ``storm`` files appear outside in a directory that is watched inside."""
    if weather == "quiet":
        yield
        return
    outside = side.outside / "storm" / str(time.monotonic_ns())
    outside.mkdir()
    inside = side.inside / outside.relative_to(side.outside)
    with (
        watching("end", int(Mask.CREATE), inside),
        subprocess.Popen(
            [sys.executable, "-I", STORM, outside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as storm,
    ):
        try:
            assert storm.stdout is not None
            storm.stdout.readline()
            yield
        finally:
            storm.kill()
