"""The source's thread between batches, for tests of a session without one."""

from __future__ import annotations

from collections.abc import Sequence

from farwatch.events import Change, Kind, Record
from farwatch.session.session import Session
from farwatch.session.upkeep import Upkeep
from tests.session.memory import MemoryDisk


class QuietSource:
    """A source that says what it was given, once."""

    def __init__(self) -> None:
        self.waiting: list[list[Record]] = []

    def read(self, limit: int = 0) -> list[Record]:
        return self.waiting.pop(0) if self.waiting else []

    def queued(self) -> int:
        return sum(map(len, self.waiting))


class Keeper:
    """Does what is due, until nothing is."""

    def __init__(self, session: Session, disk: MemoryDisk) -> None:
        self.source = QuietSource()
        self.upkeep = Upkeep(session, self.source, disk, lambda: 0)

    def finish(self) -> int:
        """How many slices it took."""
        slices = 0
        while (due := self.upkeep.due) is not None:
            self.upkeep._stale_since = min(self.upkeep._stale_since, due - 1)
            self.upkeep.step()
            slices += 1
            assert slices < 100_000
        return slices

    def lose(self) -> None:
        """The source has lost something, and that is made good."""
        self.upkeep.lose("a test")
        self.finish()


def words(changes: Sequence[Change]) -> list[str]:
    """Each change as its kind and names."""
    return [
        " ".join(
            [
                change.kind.name,
                *(place.name.decode() for place in (change.place, change.new_place) if place),
            ]
        )
        for change in changes
    ]


def structure(changes: Sequence[Change]) -> list[Change]:
    """Those of names."""
    names = (Kind.CREATE, Kind.DELETE, Kind.RENAME, Kind.EXCHANGE)
    return [change for change in changes if change.kind in names]
