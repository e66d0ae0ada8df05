"""What names held, as far as the settled changes have said.

The answers that a client gets run ahead of its events: it may have looked up a name whose
making is still to be settled.  So the settler, which asks what a name held before its
batch, is told what earlier batches have said, and not what the client knows.
"""

from __future__ import annotations

from collections import OrderedDict

from farwatch.events import Change, Key, Kind, Place
from farwatch.export.nodes import NodeTable
from farwatch.sources.settling import UNKNOWN, Holder

_MOST = 1 << 16


class Told:
    """Follows the changes of names in the directories that the client knows.

    By the directory's node id: a directory that the client has forgotten, and hears of
    again, is another one, because what happened in between has not been followed.
    """

    def __init__(self, nodes: NodeTable, most: int = _MOST) -> None:
        self._nodes = nodes
        self._most = most
        self._holders: OrderedDict[tuple[int, bytes], Key | None] = OrderedDict()

    def holds(self, place: Place) -> Holder:
        """What a name holds; UNKNOWN if nothing was told of it, or too long ago."""
        directory = self._nodes.by_key.get(place.directory)
        if directory is None:
            return UNKNOWN
        return self._holders.get((directory.id, place.name), UNKNOWN)

    def follow(self, change: Change) -> None:
        """One change more."""
        kind = change.kind
        if kind is Kind.CREATE:
            self._set(change.place, change.node)
        elif kind is Kind.DELETE:
            self._free(change.place)
        elif kind is Kind.RENAME:
            self._free(change.place)
            self._set(change.new_place, change.node)
        elif kind is Kind.EXCHANGE:
            self._set(change.new_place, change.node)
            self._set(change.place, change.other)
        elif kind is Kind.OVERFLOW:
            self.clear()

    def clear(self) -> None:
        """Nothing is known any more."""
        self._holders.clear()

    def _free(self, place: Place | None) -> None:
        if place is not None:
            self._note(place, None)

    def _set(self, place: Place | None, node: Key | None) -> None:
        if place is None:
            return
        if node is not None:
            self._note(place, node)
            return
        directory = self._nodes.by_key.get(place.directory)
        if directory is not None:
            self._holders.pop((directory.id, place.name), None)

    def _note(self, place: Place, holder: Key | None) -> None:
        directory = self._nodes.by_key.get(place.directory)
        if directory is None:
            return
        at = (directory.id, place.name)
        self._holders[at] = holder
        self._holders.move_to_end(at)
        if len(self._holders) > self._most:
            self._holders.popitem(last=False)
