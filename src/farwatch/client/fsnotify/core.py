"""What is told to whom: fs/notify/fsnotify.c and fs/notify/inotify/inotify_fsnotify.c.

    CREATE, DELETE, MOVED_FROM, MOVED_TO   the directory's marks, with the name
    RENAME                                 MOVED_FROM to the old directory and MOVED_TO to the
                                           new one, with one cookie; MOVE_SELF to the node
    DELETE_SELF, MOVE_SELF                 the node's marks; DELETE_SELF ends them
    the others                             the directory's marks, with the name, if the fact
                                           has one; then the node's marks, without

ISDIR is not shown with DELETE_SELF and MOVE_SELF.  A mark with IN_ONESHOT ends with the
first event that it hears.  IN_EXCL_UNLINK keeps out what is done through an open file whose
name is gone, on the directory's mark and on the file's own; not what is done by path or by
descriptor to the inode (ftruncate, fchmod), which is how the kernel has it.

A fact can be of another client (it has a sequence) or of this one (0).  Nothing here does
I/O, knows the time, or waits.
"""

from __future__ import annotations

from collections.abc import Mapping

from farwatch.abi.fsnotify import Ended, Event, Source
from farwatch.client.fsnotify.group import Group
from farwatch.client.fsnotify.inodes import Inodes, needed
from farwatch.client.fsnotify.lifetime import Happening, State
from farwatch.client.fsnotify.mark import NodeId
from farwatch.client.fsnotify.masks import (
    ARRIVES,
    DELETE_SELF,
    DIRENT,
    ISDIR,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    Q_OVERFLOW,
    SELF,
    THROUGH_OPEN,
    TOLD,
    UNMOUNT,
    Route,
    asked,
    route,
)
from farwatch.client.fsnotify.names import Names
from farwatch.client.fsnotify.queue import InotifyEvent

LIMIT = 16384
"""Events that a group queues: the kernel's default of fs.inotify.max_queued_events."""
LIMBO_LIMIT = 1024
"""Inodes that may wait for the events of their removal."""


class _Telling:
    """One fact on its way to marks."""

    __slots__ = ("client", "cookie", "sequence", "source", "through_unlinked")

    def __init__(self, fact: Event, *, cookie: int = 0, through_unlinked: bool = False) -> None:
        self.sequence = fact.sequence
        self.source = fact.source
        self.client = fact.client
        self.cookie = cookie
        self.through_unlinked = through_unlinked


class Fsnotify:
    """The groups and marks of one client."""

    def __init__(self, *, limbo_limit: int = LIMBO_LIMIT) -> None:
        self._inodes = Inodes(limbo_limit)
        self._groups: dict[Group, None] = {}
        self._names = Names()
        self._heard = 0
        self._cookie = 0

    @property
    def heard(self) -> int:
        """The sequence of the last fact or ending that was heard."""
        return self._heard

    def group(self, *, limit: int = LIMIT) -> Group:
        """A new group, whose queue takes ``limit`` events."""
        group = Group(self._inodes, limit=limit, on_close=self._groups.pop)
        self._groups[group] = None
        return group

    def next_cookie(self) -> int:
        """A cookie for the two halves of a rename; u32, not 0."""
        self._cookie = self._cookie % 0xFFFF_FFFF + 1
        return self._cookie

    # Facts

    def fsnotify(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        """Tell a fact to the marks that it is for.

        ``through_unlinked``: whether it was done through an open file whose name is gone.
        None: that is found out from the kind, from the facts before, and from limbo; a name
        of which no fact told is taken to be there.

        A fact with a sequence that was heard already is ignored.
        """
        if not self._is_new(fact.sequence):
            return
        mask = int(fact.mask) & TOLD
        if fact.mask & Q_OVERFLOW:
            self.overflow()
            return
        match route(mask):
            case Route.RENAME:
                self._rename(fact, mask & ISDIR)
            case Route.DIRECTORY:
                self._dirent(fact, mask & (DIRENT | ISDIR))
            case Route.NODE:
                self._self(fact, mask & SELF)
            case Route.BOTH:
                self._both(fact, mask, through_unlinked)
            case Route.NOBODY:
                pass

    def ended(self, ended: Ended) -> None:
        """The server has ended its mark of a node: nothing more will come.

        The marks here end, unless they were placed after that.
        """
        if not self._is_new(ended.sequence):
            return
        node = NodeId(ended.node, ended.generation)
        inode = self._inodes.get(node)
        if inode is not None and (not ended.sequence or ended.sequence > inode.placed):
            self._inodes.happened(node, Happening.ENDED)

    def forget_inode(self, node: NodeId) -> None:
        """The inode is gone from here without a DELETE_SELF: its marks end."""
        self._inodes.happened(node, Happening.DELETED)

    def enter_limbo(self, node: NodeId) -> tuple[NodeId, ...]:
        """This client has removed the inode, and its events come from a server.

        Its marks stay until they have.  The nodes that this has pushed out of limbo: their
        marks have ended, and the server's are to be removed.
        """
        return self._inodes.happened(node, Happening.REMOVED_HERE)

    def overflow(self) -> None:
        """Facts were lost: every group hears Q_OVERFLOW."""
        for group in tuple(self._groups):
            group.overflow()

    def unmount(self) -> None:
        """The file system is gone: UNMOUNT and IGNORED to every mark."""
        for node in self._inodes:
            inode = self._inodes.get(node)
            mask = UNMOUNT | (ISDIR if inode is not None and inode.is_dir else 0)
            self._tell(node, mask, b"", _Telling(Event(0)))
            self._inodes.happened(node, Happening.UNMOUNTED)

    # What a server has to know

    def union(self, node: NodeId, *, adding: int = 0) -> int:
        """The kinds that the server's mark of a node must have; 0: none is needed.

        ``adding`` counts a watch in that is about to be placed with this mask.  Not 0 while
        there is a watch, whatever its mask; 0 for an inode in limbo.  Raises OSError(EINVAL)
        for what no watch can ask for.
        """
        union = 0
        if adding:
            wish = asked(adding)
            union = needed(wish.events, exclude_unlinked=wish.exclude_unlinked)
        inode = self._inodes.get(node)
        if inode is not None and (adding or inode.state is not State.LIMBO):
            union |= inode.union()
        return union

    def is_marked(self, node: NodeId) -> bool:
        """Whether the node has marks, in limbo or not: it must not be forgotten."""
        return self._inodes.get(node) is not None

    def in_limbo(self, node: NodeId) -> bool:
        """Whether the node's marks wait for the events of its removal."""
        inode = self._inodes.get(node)
        return inode is not None and inode.state is State.LIMBO

    def marked(self) -> list[NodeId]:
        """All nodes that have marks."""
        return list(self._inodes)

    def take_changed(self) -> list[NodeId]:
        """Nodes whose union, or having marks at all, may have changed since the last call.

        They are kept until they are taken.  Nodes in limbo are not among them: the server's
        mark of such a node is to be left alone.
        """
        changed = list(self._inodes.changed)
        self._inodes.changed.clear()
        return changed

    def reconnected(
        self, nodes: Mapping[NodeId, NodeId], placed: Mapping[NodeId, int] | None = None
    ) -> None:
        """Another session of the server: sequences begin at 1, and nodes have other ids.

        Marks of nodes that are not in ``nodes`` (old to new) end.  ``placed`` says, by new id,
        up to which sequence the others do not hear what is told.  Raises ValueError if two
        would become one.
        """
        self._inodes.renumber(nodes, placed or {})
        self._names.clear()
        self._heard = 0

    # Dispatch

    def _is_new(self, sequence: int) -> bool:
        if not sequence:
            return True
        if sequence <= self._heard:
            return False
        self._heard = sequence
        return True

    def _rename(self, fact: Event, is_dir: int) -> None:
        telling = _Telling(fact, cookie=self.next_cookie())
        node, parent, new_parent = _node(fact), _parent(fact), _new_parent(fact)
        if parent is not None:
            self._names.went(parent, fact.name, node)
            self._tell(parent, MOVED_FROM | is_dir, fact.name, telling)
        if new_parent is not None:
            self._names.came(new_parent, fact.new_name, node)
            self._tell(new_parent, MOVED_TO | is_dir, fact.new_name, telling)
        if node is not None:
            self._tell(node, MOVE_SELF, b"", _Telling(fact))

    def _dirent(self, fact: Event, mask: int) -> None:
        parent = _parent(fact)
        if parent is None:
            return
        if mask & ARRIVES:
            self._names.came(parent, fact.name, _node(fact))
        else:
            self._names.went(parent, fact.name, _node(fact))
        self._tell(parent, mask, fact.name, _Telling(fact, cookie=fact.cookie))

    def _self(self, fact: Event, mask: int) -> None:
        node = _node(fact)
        if node is None:
            return
        self._tell(node, mask, b"", _Telling(fact))
        if mask & DELETE_SELF:
            self._inodes.happened(node, Happening.DELETED)

    def _both(self, fact: Event, mask: int, through_unlinked: bool | None) -> None:
        node, parent = _node(fact), _parent(fact)
        if through_unlinked is None:
            through_unlinked = bool(mask & THROUGH_OPEN) and (
                (node is not None and self.in_limbo(node))
                or (parent is not None and self._names.is_unlinked(parent, fact.name, node))
            )
        telling = _Telling(fact, through_unlinked=through_unlinked)
        if parent is not None:
            self._tell(parent, mask, fact.name, telling)
        if node is not None:
            self._tell(node, mask, b"", telling)

    def _tell(self, node: NodeId, mask: int, name: bytes, telling: _Telling) -> None:
        inode = self._inodes.get(node)
        if inode is None:
            return
        for mark in tuple(inode.marks.values()):
            if not mark.hears(
                mask, sequence=telling.sequence, through_unlinked=telling.through_unlinked
            ):
                continue
            source = Source.UNKNOWN if mask & UNMOUNT else telling.source
            mark.owner.put(
                InotifyEvent(mark.wd, mask, telling.cookie, name, source, telling.client)
            )
            if mark.one_shot:
                self._inodes.unmark(mark)


def _node(fact: Event) -> NodeId | None:
    return NodeId(fact.node, fact.generation) if fact.node else None


def _parent(fact: Event) -> NodeId | None:
    return NodeId(fact.parent, fact.parent_generation) if fact.parent else None


def _new_parent(fact: Event) -> NodeId | None:
    return NodeId(fact.new_parent, fact.new_parent_generation) if fact.new_parent else None
