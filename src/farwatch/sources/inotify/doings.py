"""What the server does itself, so that its own events are known."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from farwatch.events import Key, Mask, Place

STRUCTURE = int(Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)
"""The kinds that an operation makes at most once of each name."""


_NONE: Mapping[Place, int] = {}


class Doing:
    """One operation of one thread: whatever it is told to concern, and nothing else, is its.

    Events that come between its beginning and its end are compared with it.
    """

    __slots__ = ("_names", "_nodes", "is_over", "made", "thread")

    def __init__(self, nodes: Iterable[Key] = (), names: Mapping[Place, int] = _NONE) -> None:
        """``nodes``: of these everything but names is its own doing.

        ``names``: for each the kinds (Mask bits of STRUCTURE) that it is about to see.
        """
        self.thread = threading.get_native_id()
        self.is_over = False
        self.made: dict[Place, Key] = {}
        """What the operation has put at names, as far as it is known."""
        self._nodes = set(nodes)
        self._names = dict(names)

    def concern(self, node: Key, place: Place | None = None) -> None:
        """The operation has turned out to be about this node, which it has put at ``place``."""
        self._nodes.add(node)
        if place is not None:
            self.made[place] = node

    def concerns(self, node: Key) -> bool:
        """Whether what happens to the node meanwhile is its doing."""
        return node in self._nodes

    def claims(self, place: Place, kind: int) -> bool:
        """Whether this event of a name is its doing; each only once."""
        left = self._names.get(place, 0)
        if not left & kind:
            return False
        self._names[place] = left & ~kind
        return True
