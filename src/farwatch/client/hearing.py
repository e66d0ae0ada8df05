"""What the server tells of its marks, and when it is heard.

At once; but while a watch is being placed all of it is held back, for it may already be for
that watch, and while this client is removing an inode the word that it has ended is.

By DELETE_SELF and ENDED the server's mark is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from farwatch.abi import fsnotify
from farwatch.abi.fsnotify import KINDS, Event
from farwatch.abi.fuse import Notify
from farwatch.client.asking import Asking
from farwatch.client.errors import ProtocolError, theirs
from farwatch.client.fsnotify import NodeId
from farwatch.client.inodes import Inode
from farwatch.events import Mask

_MOST_HELD = 1 << 16
"""Notifications that are held back while a watch is being placed."""
_TOLD = KINDS | Mask.RENAME | Mask.Q_OVERFLOW | Mask.ISDIR
_IGNORED = frozenset(Notify)
"""Notifications about caches, which this client has not."""


class Hearing(Asking):
    """See the top of the file."""

    on_work: Callable[[], None] | None = None
    """Called when ``catch_up`` has something to do."""

    _watched: dict[NodeId, Inode]
    _unsettled: dict[NodeId, None]
    _held: list[tuple[int, bytes]]
    _placing: int
    _is_late: bool
    """More was held back than can be: who is being placed will be told Q_OVERFLOW."""

    def _start_watches(self) -> None:
        self._watched = {}
        self._unsettled = {}
        self._held = []
        self._placing = 0
        self._is_late = False

    @property
    def has_work(self) -> bool:
        """Whether ``catch_up`` has something to do."""
        return bool(self._unsettled)

    def _note_marks(self) -> None:
        if self.is_over:
            return
        for node in self.core.take_changed():
            self._unsettled[node] = None
        if self._unsettled and self.on_work is not None:
            self.on_work()

    # Not yet -----------------------------------------------------------------------------

    def hold_back(self) -> None:
        """What the server tells is held back until ``hear_again``, called as often."""
        self._placing += 1

    def hear_again(self) -> None:
        """The reverse of ``hold_back``: now what was held back is heard."""
        self._placing -= 1
        if not self._placing:
            self._is_late = False
            self._let_go()

    @contextmanager
    def leaving(self, inode: Inode | None) -> Iterator[None]:
        """While a request of this client's is under way that may be the end of the inode.

        In merged mode the server's word that it has ended can be here before the answer, which
        this client raises its own events at: it is heard after those.
        """
        if inode is None:
            yield
            return
        inode.leaving += 1
        try:
            yield
        finally:
            inode.leaving -= 1
            if inode.has_ended and not inode.leaving:
                inode.has_ended, inode.mark = False, 0
                self.core.forget_inode(inode.id)
                self._unsettled[inode.id] = None
                self._note_marks()

    # What the server tells -----------------------------------------------------------------

    def notified(self, code: int, payload: bytes | memoryview) -> None:
        """A notification of the server's.  Raises ProtocolError.

        Afterwards there may be work for ``catch_up``.
        """
        if code in (fsnotify.NOTIFY_EVENT, fsnotify.NOTIFY_ENDED) and self.mode is not None:
            if self._placing and len(self._held) == _MOST_HELD:
                self._is_late = True
                self._let_go()
            if self._placing and not self._is_late:
                self._held.append((code, bytes(payload)))
            else:
                self._hear(code, payload)
        elif code not in _IGNORED:
            raise ProtocolError(f"a notification with code {code:#x}")

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for code, payload in held:
            self._hear(code, payload)

    def _hear(self, code: int, payload: bytes | memoryview) -> None:
        if code == fsnotify.NOTIFY_EVENT:
            with theirs("EVENT"):
                fact = fsnotify.decode_event(payload)
            if fact.mask & ~_TOLD or not fact.sequence:
                raise ProtocolError(f"EVENT {fact.sequence} with mask {fact.mask:#x}")
            self._hear_fact(fact)
        else:
            with theirs("ENDED"):
                ended = fsnotify.decode_ended(payload)
            inode = self._watched.get(NodeId(ended.node, ended.generation))
            if inode is not None and inode.leaving and self.raises:
                inode.has_ended = True
                return
            self.core.ended(ended)
            if inode is not None and not self.core.is_marked(inode.id):
                inode.mark = 0
                self._unsettled[inode.id] = None
        self._note_marks()

    def _hear_fact(self, fact: Event) -> None:
        if self.on_fact is not None:
            self.on_fact(fact)
        self._follow_names(fact)
        self.core.fsnotify(fact)
        if fact.mask & Mask.DELETE_SELF:
            inode = self._watched.get(NodeId(fact.node, fact.generation))
            if inode is not None and not inode.asking:
                inode.nlink, inode.is_gone, inode.mark = 0, True, 0
                self._unsettled[inode.id] = None

    def _follow_names(self, fact: Event) -> None:
        """Names in use go along with what others do to them."""
        parent = NodeId(fact.parent, fact.parent_generation)
        if not self.inodes.holds_name(parent, fact.name, NodeId(fact.node, fact.generation)):
            return
        if fact.mask & (Mask.DELETE | Mask.MOVED_FROM):
            self.inodes.unlinked(parent, fact.name)
        elif fact.mask & Mask.RENAME:
            new = self.inodes.get(NodeId(fact.new_parent, fact.new_parent_generation))
            if new is not None:
                self.inodes.moved(parent, fact.name, new, fact.new_name)
            else:
                self.inodes.unlinked(parent, fact.name)
