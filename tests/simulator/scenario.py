"""What there is in a world and what is done in it, as data."""

from __future__ import annotations

from typing import NamedTuple

from farwatch.abi.fsnotify import Mode


class Part(NamedTuple):
    """One client of a scenario: what it watches before it begins, and what it does."""

    mode: Mode | None
    watches: tuple[str, ...] = ()
    program: str = ""
    before: str = ""
    """What its program does in the set-up, after the watches are placed."""
    mask: str = "all"
    losses: int = 0
    """How often its connection is lost.  If at all, it connects again and resumes."""


class Scenario(NamedTuple):
    """What there is, and what is done."""

    setup: str
    parts: tuple[Part, ...]
    host: str = ""
    before: str = ""
    """What the host's program does in the set-up, after the clients have begun."""
    merges: bool = False
    """Whether the source folds what waits in it, as fanotify does."""
    one_way: bool = False
    room: int | None = None
    outbox: int | None = None
