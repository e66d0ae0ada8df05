"""The inodes that have marks: fs/notify/mark.c."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from farwatch.abi.fsnotify import KINDS
from farwatch.client.fsnotify.lifetime import Happening, State, after
from farwatch.client.fsnotify.mark import Mark, NodeId, Owner
from farwatch.client.fsnotify.masks import DELETE_SELF, DIRENT, Asked

_KINDS = int(KINDS)


class Inode:
    """One inode's marks, at most one a group, in the order in which they were placed."""

    __slots__ = ("is_dir", "marks", "placed", "state")

    def __init__(self, *, is_dir: bool) -> None:
        self.is_dir = is_dir
        self.marks: dict[Owner, Mark] = {}
        self.state = State.UNMARKED
        self.placed = 0
        """The greatest ``after`` of its marks: what the server said until then is of older
        marks."""

    def union(self) -> int:
        """What the server must tell for all these marks together."""
        union = 0
        for mark in self.marks.values():
            union |= needed(mark.events, exclude_unlinked=mark.exclude_unlinked)
        return union


def needed(events: int, *, exclude_unlinked: bool) -> int:
    """What a server must tell for one mark; never empty.

    More than it asks for: IN_EXCL_UNLINK needs to know which names go, and a mark for no
    event at all still has to end with its inode.
    """
    kinds = events & _KINDS
    if exclude_unlinked:
        kinds |= DIRENT
    return kinds or DELETE_SELF


class Inodes:
    """All inodes that have marks.  They go with their last mark.

    ``changed`` are the nodes whose server mark may have to be another one since it was last
    emptied, in order; nodes in limbo are not among them, their server mark is left alone.
    """

    def __init__(self, limbo_limit: int) -> None:
        if limbo_limit < 0:
            raise ValueError(f"a limbo of {limbo_limit} inodes")
        self.changed: dict[NodeId, None] = {}
        self._limbo_limit = limbo_limit
        self._inodes: dict[NodeId, Inode] = {}
        self._limbo: OrderedDict[NodeId, None] = OrderedDict()

    def __iter__(self) -> Iterator[NodeId]:
        return iter(tuple(self._inodes))

    def get(self, node: NodeId) -> Inode | None:
        """The inode, if it has marks."""
        return self._inodes.get(node)

    def mark(
        self, owner: Owner, wd: int, node: NodeId, asked: Asked, *, is_dir: bool, placed: int
    ) -> Mark:
        """Place a mark, with this watch descriptor, or change the one that the owner has there."""
        inode = self._inodes.get(node)
        if inode is None:
            inode = self._inodes[node] = Inode(is_dir=is_dir)
        found = inode.marks.get(owner)
        if found is None:
            found = inode.marks[owner] = Mark(owner, wd, node)
        found.change(asked, after=placed)
        inode.placed = max(inode.placed, placed)
        self.happened(node, Happening.ADDED)
        self.changed[node] = None
        return found

    def unmark(self, mark: Mark, *, tell: bool = True) -> None:
        """End one mark; its group hears IGNORED, unless told not to."""
        inode = self._inodes.get(mark.node)
        if inode is None or inode.marks.pop(mark.owner, None) is None:
            return
        mark.owner.lose(mark, tell=tell)
        if not inode.marks:
            self.happened(mark.node, Happening.EMPTIED)
        elif inode.state is not State.LIMBO:
            self.changed[mark.node] = None

    def happened(self, node: NodeId, happening: Happening) -> tuple[NodeId, ...]:
        """Bring an inode to its next state; whom that has pushed out of limbo.

        Nothing happens to an inode without marks.
        """
        inode = self._inodes.get(node)
        if inode is None:
            return ()
        inode.state = after(inode.state, happening)
        if inode.state is State.LIMBO:
            self._limbo[node] = None
            return self._push_out()
        self._limbo.pop(node, None)
        if inode.state is State.UNMARKED:
            self._end(node)
        return ()

    def renumber(self, nodes: Mapping[NodeId, NodeId], placed: Mapping[NodeId, int]) -> None:
        """Give inodes the ids that another server session has for them.

        ``placed`` is the sequence, by new id, up to which its facts are not for them.
        Those without one end; those with one are there, and so in limbo no more.  Raises
        ValueError if two would become one.
        """
        if len(set(nodes.values())) != len(nodes):
            raise ValueError("two nodes cannot become one")
        for node in self:
            self.happened(node, Happening.ADDED if node in nodes else Happening.ENDED)
        inodes = {nodes[node]: inode for node, inode in self._inodes.items()}
        self._inodes = inodes
        self.changed = dict.fromkeys(inodes)
        for node, inode in inodes.items():
            inode.placed = placed.get(node, 0)
            for mark in inode.marks.values():
                mark.node = node
                mark.renumbered(inode.placed)

    def _push_out(self) -> tuple[NodeId, ...]:
        pushed = []
        while len(self._limbo) > self._limbo_limit:
            node = next(iter(self._limbo))
            self.happened(node, Happening.PUSHED_OUT)
            pushed.append(node)
        return tuple(pushed)

    def _end(self, node: NodeId) -> None:
        self.changed[node] = None
        inode = self._inodes.pop(node)
        for mark in tuple(inode.marks.values()):
            mark.owner.lose(mark, tell=True)
