"""Which node a name has last been seen to be, as far as facts have told.

IN_EXCL_UNLINK needs it: an event of a file that is open by a name which has since been
removed, or belongs to another node, comes from an unlinked child.
"""

from __future__ import annotations

from collections import OrderedDict

from farwatch.client.fsnotify.mark import NodeId

LIMIT = 4096
"""Names that are remembered; of one that is not, nothing is known."""

Name = tuple[NodeId, bytes]
"""A directory and a name in it."""


class Names:
    """The last that was told of each name; the oldest are forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._holders: OrderedDict[Name, NodeId | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def came(self, directory: NodeId, name: bytes, node: NodeId | None) -> None:
        """The name is this node's now; None if it is not known which that is."""
        if node is None:
            self._holders.pop((directory, name), None)
        else:
            self._put((directory, name), node)

    def went(self, directory: NodeId, name: bytes, node: NodeId | None) -> None:
        """The node has this name no more; None if it is not known which node that is.

        What is told of one client may come later than what was done after it by another:
        the name can be another node's already.
        """
        holder = self._holders.get((directory, name))
        if holder is None or holder == node:
            self._put((directory, name), None)
        elif node is None:
            del self._holders[directory, name]

    def is_unlinked(self, directory: NodeId, name: bytes, node: NodeId | None) -> bool:
        """Whether the node is known not to have this name any more."""
        place = (directory, name)
        if place not in self._holders:
            return False
        holder = self._holders[place]
        return holder is None or (node is not None and holder != node)

    def clear(self) -> None:
        """Know nothing."""
        self._holders.clear()

    def _put(self, place: Name, holder: NodeId | None) -> None:
        self._holders[place] = holder
        self._holders.move_to_end(place)
        if len(self._holders) > self._limit:
            self._holders.popitem(last=False)
