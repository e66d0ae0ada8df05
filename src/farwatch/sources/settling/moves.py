"""The renames that were read, and the names that they touch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from farwatch.events import Key, Place, Record


def ends(records: Iterable[Record]) -> Iterator[Place]:
    """The names that records touch: a rename touches two."""
    for _, _, place, _, new_place in records:
        if place is not None:
            yield place
        if new_place is not None:
            yield new_place


class Moves:
    """The renames that the walk has come to, after those that are suspected from before."""

    def __init__(self) -> None:
        self.seen: list[Record] = []
        self._by_end: dict[tuple[Place | None, Key | None], list[Record]] = {}
        self._by_start: dict[tuple[Place | None, Key | None], list[Record]] = {}

    def note(self, move: Record) -> None:
        """A rename was read."""
        self.seen.append(move)
        self._by_end.setdefault((move.new_place, move.node), []).append(move)
        self._by_start.setdefault((move.place, move.node), []).append(move)

    def bringing(self, node: Key, place: Place) -> Sequence[Record]:
        """Those that bring the node to the name."""
        return self._by_end.get((place, node), ())

    def taking(self, node: Key, place: Place) -> Sequence[Record]:
        """Those that take the node away from the name."""
        return self._by_start.get((place, node), ())

    def touching(self, place: Place) -> list[Record]:
        """Those that touch the name."""
        return [move for move in self.seen if place in (move.place, move.new_place)]
