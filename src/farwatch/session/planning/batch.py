"""What one batch of changes says as a whole, besides each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property

from farwatch.events import Change, Key, Kind, Mask, Place

READING_KINDS = {
    Kind.OPEN: int(Mask.OPEN),
    Kind.ACCESS: int(Mask.ACCESS),
    Kind.CLOSE_NOWRITE: int(Mask.CLOSE_NOWRITE),
}
"""The kinds that reading makes, and what they are watched as."""

_CLOSES = {Kind.CLOSE_WRITE: os.O_RDWR, Kind.CLOSE_NOWRITE: os.O_RDONLY}
"""What a close tells of how the file was open."""

_LIGHT = 256
"""Changes of the kinds that reading makes, in one batch, that are replayed for every live
node if any node is watched for them.  If there are more, only for the nodes that are: the
scan that says so may not have seen the newest watches."""

_LEAVING = frozenset((Kind.DELETE, Kind.RENAME, Kind.EXCHANGE))

_OF_CONTENT = frozenset((Kind.MODIFY, Kind.ACCESS, Kind.CLOSE_WRITE, Kind.CLOSE_NOWRITE))
"""Kinds that only something that has the file open can make."""


class Batch:
    """One batch, walked through once; what it says is worked out when it is asked for.

    ``own`` are the names that the batch has seen the server change, ``places`` where directories
    are that the client does not know, as of its end.
    """

    def __init__(
        self, changes: list[Change], own: frozenset[Place], places: Mapping[Key, Place | None]
    ) -> None:
        self._changes = _with_deaths_in_place(changes) if len(changes) > 1 else changes
        self._index = 0
        self._last_closes: dict[Key, int] = {}
        self.own = own
        self._places = places

    def __iter__(self) -> Iterator[Change]:
        for index, change in enumerate(self._changes):
            self._index = index
            yield change

    def is_over_for(self, key: Key) -> bool:
        """Whether the node dies in the batch, and nothing before that needs it open.

        As seen from the change that the walk has come to.
        """
        return key in self._deaths and self._last_use.get(key, -1) < self._index

    @cached_property
    def is_heavy(self) -> bool:
        """Whether there is too much reading to tell all of it on the off chance."""
        return sum(change.kind in READING_KINDS for change in self._changes) > _LIGHT

    @cached_property
    def opened(self) -> frozenset[tuple[int, Key | None]]:
        """Who opens what: thread and node."""
        return frozenset((c.thread, c.node) for c in self._changes if c.kind is Kind.OPEN)

    def next_close(self, key: Key) -> int | None:
        """The access mode that the next close of the node tells, of those not asked for."""
        modes = self._closes.get(key)
        return modes.pop(0) if modes else None

    def last_close(self, key: Key) -> int | None:
        """The access mode that the last close of the node tells."""
        return self._last_closes.get(key)

    @cached_property
    def _closes(self) -> dict[Key, list[int]]:
        """The access modes that the closes tell, for each node in order."""
        modes: dict[Key, list[int]] = {}
        for change in self._changes:
            if change.node is not None and change.kind in _CLOSES:
                modes.setdefault(change.node, []).append(_CLOSES[change.kind])
        self._last_closes = {key: found[-1] for key, found in modes.items()}
        return modes

    def place_of(self, key: Key) -> Place | None:
        """The name of a directory: that which it leaves next, or has when the batch ends."""
        for index, place in self._departures.get(key, ()):
            if index > self._index:
                return place
        return self._places.get(key)

    @cached_property
    def _departures(self) -> dict[Key, list[tuple[int, Place]]]:
        """For each node the changes by which it leaves a name, and which that is."""
        found: dict[Key, list[tuple[int, Place]]] = {}
        for index, change in enumerate(self._changes):
            if change.kind not in _LEAVING:
                continue
            if change.node is not None and change.place is not None:
                found.setdefault(change.node, []).append((index, change.place))
            if change.other is not None and change.new_place is not None:
                found.setdefault(change.other, []).append((index, change.new_place))
        return found

    @cached_property
    def _deaths(self) -> frozenset[Key | None]:
        """The nodes whose death is in the batch."""
        return frozenset(c.node for c in self._changes if c.kind is Kind.DEATH)

    @cached_property
    def _last_use(self) -> dict[Key | None, int]:
        """For each node the index of the last change that needs it to be open."""
        return {
            change.node: index
            for index, change in enumerate(self._changes)
            if change.kind in _OF_CONTENT
        }


def _with_deaths_in_place(changes: list[Change]) -> list[Change]:
    """Each death right after the last that is told of its node, not after the batch.

    Otherwise a watcher would hear of later changes elsewhere before it.
    """
    deaths = {change.node: change for change in changes if change.kind is Kind.DEATH}
    if not deaths:
        return changes
    others = [change for change in changes if change.kind is not Kind.DEATH]
    last = {change.node: index for index, change in enumerate(others)}
    placed: list[Change] = []
    for index, change in enumerate(others):
        placed.append(change)
        if last[change.node] == index and change.node in deaths:
            placed.append(deaths.pop(change.node))
    return placed + list(deaths.values())
