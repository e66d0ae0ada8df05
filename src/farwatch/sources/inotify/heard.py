"""One event as it was read from the queue, and what the server was doing then."""

from __future__ import annotations

from typing import NamedTuple

from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.marks import Mark


class Heard(NamedTuple):
    """``mark`` is None for an overflow; ``name`` is empty for the node's own events.

    ``doings`` are what the server's threads were about, which may have made it.
    """

    mark: Mark | None
    mask: int
    cookie: int
    name: bytes
    doings: tuple[Doing, ...]
