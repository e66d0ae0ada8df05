"""One inotify group with a great many watches."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from farwatch.abi.inotify import parse
from farwatch.events import Mask
from farwatch.linux.inotify import Inotify

QUIET_SECONDS = 20.0
"""Without any event for so long, whatever is missing will not come."""

Heard = tuple[Mask, str, bytes]
"""What happened, in which watched directory, to which name."""


class Ears:
    """Watches by names of the test's own; a context manager."""

    def __init__(self, mask: int) -> None:
        self._inotify = Inotify()
        self._mask = mask
        self._buffer = bytearray(1 << 20)
        self._names: dict[int, str] = {}
        self.heard: list[Heard] = []

    def add(self, path: str | Path, name: str) -> None:
        """Watches ``path``, which is called ``name`` in what is heard."""
        self._names[self._inotify.add(path, self._mask)] = name

    def until(self, holds: Callable[[set[Heard]], bool]) -> None:
        """Returns when what has been heard is as it should be; AssertionError if nothing comes."""
        found = set(self.heard)
        while not holds(found):
            ready = select.select([self._inotify.fileno()], [], [], QUIET_SECONDS)[0]
            assert ready, f"heard {len(found)} things, nothing more; the last {self.heard[-20:]}"
            size = self._inotify.read(self._buffer)
            for event in parse(bytes(self._buffer[:size])):
                assert not event.mask & Mask.Q_OVERFLOW, "the watcher's own queue ran over"
                heard = Mask(event.mask), self._names.get(event.wd, "?"), event.name
                self.heard.append(heard)
                found.add(heard)

    def hear(self, wanted: Iterable[Heard]) -> None:
        """Returns when each of these has been heard."""
        missing = set(wanted)
        self.until(lambda found: missing <= found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inotify.close()


def descend(root: str | Path, names: Iterable[bytes]) -> int:
    """A descriptor of a directory that may be too deep for a path; the caller's."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd
