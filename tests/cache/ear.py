"""A program in the client that waits for events of a tree."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from farwatch.linux.inotify import Inotify
from tests.cache.changes import DIRECTORIES, Heard
from tests.conformance.watcher import EVENT_HEADER

_ALL_CHANGES = 0xFFF & ~0x31
"""inotify(7): every kind but those that reading makes."""
_SECONDS = 10.0


class Ear:
    """Watches the directories of a tree in the client."""

    def __init__(self, top: Path) -> None:
        self._inotify = Inotify()
        self._directories = {
            self._inotify.add(top / directory, _ALL_CHANGES): directory for directory in DIRECTORIES
        }
        self._heard: list[Heard] = []

    def hush(self) -> None:
        """Forget what was heard so far."""
        self._read(0)
        self._heard.clear()

    def wait_for(self, wanted: Heard) -> None:
        """Return at once when an event of this kind and path has come since ``hush``."""
        deadline = time.monotonic() + _SECONDS
        while not any(
            heard.kind & wanted.kind and heard.path == wanted.path for heard in self._heard
        ):
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted} did not come; heard was {self._heard}"
            self._read(left)

    def _read(self, seconds: float) -> None:
        buffer = bytearray(1 << 16)
        select.select([self._inotify], [], [], seconds)
        while True:
            try:
                size = self._inotify.read(buffer)
            except BlockingIOError:
                return
            at = 0
            while at < size:
                watch, mask, _, length = EVENT_HEADER.unpack_from(buffer, at)
                at += EVENT_HEADER.size
                name = os.fsdecode(bytes(buffer[at : at + length]).rstrip(b"\0"))
                at += length
                self._heard.append(Heard(mask, os.path.join(self._directories[watch], name)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inotify.close()
