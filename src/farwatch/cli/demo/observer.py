"""A watcher in a process of its own, and what it has heard."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from farwatch.cli.failure import Failure

PROGRAM = Path(__file__).with_name("watcher.py")
START_SECONDS = 10.0
"""How long a watcher may take to place its watches.  Only a failure takes that long."""


class Heard(NamedTuple):
    """One event, as the watcher read it."""

    at: int
    """CLOCK_MONOTONIC when read(2) returned it, nanoseconds."""
    watch: str
    mask: int
    cookie: int
    name: str


class Observer:
    """Reads what one running watcher prints."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._rest = b""
        self._lines: list[bytes] = []

    def wait_until_placed(self) -> None:
        """Return when all watches are placed; Failure if they cannot be."""
        if self._line(time.monotonic() + START_SECONDS) != b"":
            raise Failure("the watcher did not start")

    def until_mark(self, name: str, seconds: float, heard: Callable[[Heard], None]) -> bool:
        """Hand each event to ``heard``; True at the event of the mark ``name``.

        False if it has not come within ``seconds``.  Marks themselves are not
        handed on.
        """
        deadline = time.monotonic() + seconds
        while (line := self._line(deadline)) is not None:
            event = Heard(*json.loads(line))
            if event.watch != "marker":
                heard(event)
            elif event.name == name:
                return True
        return False

    def _line(self, deadline: float) -> bytes | None:
        """The next line without its end, or None when there is none by ``deadline``."""
        while not self._lines:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                return None
            data = os.read(self._output.fileno(), 1 << 16)
            if not data:
                raise Failure("the watcher ended")
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        return self._lines.pop(0)


@contextmanager
def observing(top: Path, watched: tuple[str, ...]) -> Iterator[Observer]:
    """A watcher on these paths below ``top``; its process ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-I", PROGRAM, *(top / path for path in watched)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # A terminal's Ctrl-C is for the demo, which then ends its watchers.
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            observer = Observer(process.stdout)
            observer.wait_until_placed()
            yield observer
        finally:
            process.kill()
