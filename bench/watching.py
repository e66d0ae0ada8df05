"""The benchmark's end of the pipe from ``watcher.py``."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from bench.watcher import HEADER
from farwatch.abi.inotify import InotifyEvent, parse

PROGRAM = Path(__file__).with_name("watcher.py")
START_SECONDS = 10.0


class Deaf(Exception):
    """An event that had to come has not come in time."""


class Read(NamedTuple):
    """One read(2) of the watcher."""

    at: int
    """CLOCK_MONOTONIC when it returned, nanoseconds."""
    events: list[InotifyEvent]


def take_read(data: bytearray) -> Read | None:
    """Takes a read off what the watcher has written, if all of it is there."""
    if len(data) < HEADER.size:
        return None
    at, length = HEADER.unpack_from(data)
    end = HEADER.size + length
    if len(data) < end:
        return None
    events = parse(bytes(data[HEADER.size : end]))
    del data[:end]
    return Read(at, events)


class Watching:
    """A running watcher, one read after the other."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process = process
        self._output = output
        self._data = bytearray()

    def next(self, seconds: float) -> Read | None:
        """The next read, or None if there is none within ``seconds`` or at the end."""
        deadline = time.monotonic() + seconds
        while (read := take_read(self._data)) is None:
            if not self._more(deadline):
                return None
        return read

    def rest(self, seconds: float) -> list[Read]:
        """Every read until the watcher ends; it is told to after ``seconds``."""
        deadline = time.monotonic() + seconds
        reads = []
        while True:
            read = self.next(max(0.0, deadline - time.monotonic()))
            if read is not None:
                reads.append(read)
            elif self._process.poll() is not None or not self._terminated():
                return reads
            else:
                deadline = time.monotonic() + START_SECONDS

    def placed(self) -> None:
        """Return when the watch is placed; Deaf if it cannot be."""
        if not self._more(time.monotonic() + START_SECONDS):
            raise Deaf("the watcher did not start")
        del self._data[:1]

    def _terminated(self) -> bool:
        self._process.terminate()
        return bool(select.select([self._output], [], [], START_SECONDS)[0])

    def _more(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._output], [], [], left)[0]:
            return False
        data = os.read(self._output.fileno(), 1 << 20)
        self._data += data
        return bool(data)


@contextmanager
def watching(mode: str, mask: int, path: Path) -> Iterator[Watching]:
    """A watcher of ``path`` in a process of its own, which ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-I", PROGRAM, mode, str(mask), path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            watcher = Watching(process, process.stdout)
            watcher.placed()
            yield watcher
        finally:
            process.kill()
