"""What one client watches: a mask for each node, kept until it is known to have ended.

In the dialect that tells whose watch it is, a node's mask is the union of what its groups
ask for, and the mark goes with the last of them.
"""

from __future__ import annotations

from collections import OrderedDict

from farwatch.events import READING
from farwatch.export.nodes import Node, NodeTable
from farwatch.session.known import Known

_READING = int(READING)
_MOST_GROUPS = 256
"""Of one node: each change looks at all of them."""


class Mark:
    """The mark of one node.

    ``mask``    the kinds that are told, as in inotify(7)
    ``node``    kept, although the client may forget it
    ``groups``  what each of them asks for; None where there are none
    """

    __slots__ = ("groups", "mask", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.mask = 0
        self.groups: dict[int, int] | None = None


class Marks:
    """The marks of one client, by the ids of their nodes.

    At most ``most`` of them, and of what their groups ask for; and at most
    ``most_in_limbo`` that the client has given up with the node.
    """

    def __init__(
        self, nodes: NodeTable, most: int, most_in_limbo: int, known: Known | None = None
    ) -> None:
        """``known`` hears what is watched."""
        self._known = known if known is not None else Known()
        self._nodes = nodes
        self._most = most
        self._most_in_limbo = most_in_limbo
        self._limbo: OrderedDict[int, Mark] = OrderedDict()
        self._counts: dict[int, int] = {}
        self._more_groups = 0
        """Than one of each mark."""
        self.by_id: dict[int, Mark] = {}
        self.reading = 0
        """The kinds that reading makes which some mark asks for."""

    def __len__(self) -> int:
        return len(self.by_id)

    def of(self, node: Node | None) -> int:
        """The mask of a node, 0 if it is not marked."""
        if node is None:
            return 0
        mark = self.by_id.get(node.id)
        return mark.mask if mark is not None else 0

    def has_room(self, node: Node, group: int | None, waiting: int) -> bool:
        """Whether a mark may be placed, with so many endings that nobody has taken."""
        mark = self.by_id.get(node.id)
        if mark is not None:
            if group is None or mark.groups is None or group in mark.groups:
                return True
            if len(mark.groups) >= _MOST_GROUPS:
                return False
        return len(self.by_id) + self._more_groups + waiting < self._most

    def place(self, node: Node, mask: int, group: int | None = None) -> None:
        """From now on the node is watched for just these kinds, by a group if there is one."""
        mark = self.by_id.get(node.id)
        if mark is None:
            mark = self.by_id[node.id] = Mark(node)
            self._nodes.pin(node)
            self._known.watch_also(node.key, node.is_dir)
        self._limbo.pop(node.id, None)
        if group is None:
            self._set(mark, mask)
            return
        if mark.groups is None:
            mark.groups = {}
        elif group not in mark.groups:
            self._more_groups += 1
        mark.groups[group] = mask
        self._set(mark, _union(mark.groups))

    def leave(self, node: Node, group: int) -> bool:
        """A group does not watch the node any more; whether nobody does then, but one did."""
        mark = self.by_id.get(node.id)
        if mark is None or not mark.groups or group not in mark.groups:
            return False
        if len(mark.groups) == 1:
            return True
        del mark.groups[group]
        self._more_groups -= 1
        self._set(mark, _union(mark.groups))
        return False

    def _set(self, mark: Mark, mask: int) -> None:
        self._count(mark.mask, -1)
        self._count(mask, 1)
        mark.mask = mask

    def remove(self, node: Node) -> bool:
        """The node is not watched any more; whether it was."""
        mark = self.by_id.pop(node.id, None)
        if mark is None:
            return False
        self._limbo.pop(node.id, None)
        self._known.unwatch(node.key)
        self._count(mark.mask, -1)
        if mark.groups:
            self._more_groups -= len(mark.groups) - 1
        self._nodes.unpin(node)
        return True

    def to_limbo(self, node: Node) -> Node | None:
        """The client has removed the node; its mark stays.  Returns which must go for it."""
        mark = self.by_id.get(node.id)
        if mark is None:
            return None
        self._limbo[node.id] = mark
        self._limbo.move_to_end(node.id)
        if len(self._limbo) <= self._most_in_limbo:
            return None
        return next(iter(self._limbo.values())).node

    def nodes(self) -> list[Node]:
        """Those that are marked."""
        return [mark.node for mark in self.by_id.values()]

    def clear(self) -> None:
        """None is watched any more."""
        for node in self.nodes():
            self.remove(node)

    def _count(self, mask: int, difference: int) -> None:
        bits = mask & _READING
        while bits:
            bit = bits & -bits
            bits ^= bit
            count = self._counts[bit] = self._counts.get(bit, 0) + difference
            if count:
                self.reading |= bit
            else:
                self.reading &= ~bit


def _union(groups: dict[int, int]) -> int:
    union = 0
    for mask in groups.values():
        union |= mask
    return union
