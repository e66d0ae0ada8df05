"""What one client kernel believes, and what it may be told.

The client's VFS makes its events by comparing what it believes with what it is
told, so the two must only meet when a replay says so:

    a name       while a replay of it is on its way (``pending``), every answer about
                 it is good for this once (entry_valid 0), so that the kernel asks
                 again when the replay comes; READDIRPLUS does not tell it at all.
    link counts  are answered as told, not as the disk says (links.py).
    a stray      a name that the client has looked up and found to differ from what
    name         its events have said: a change is on its way, or was lost.  It is
                 answered truly and for this once; if no event comes to explain it
                 for ``STRAY_SECONDS`` it is taken for true.
    a local      when the client changes a name itself, what is still to be replayed
    change       of that name is out of date: its events are cancelled, but for the
                 death of the inode that it held.

For how long it believes what it is told: belief.py.  What it did or saw itself while the source
was read: drains.py.

Every method is called with ``lock`` held.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from stat import S_IFDIR

from farwatch.abi import fuse
from farwatch.abi.control import HIDDEN_ID
from farwatch.events import Place
from farwatch.export.guise import Guise
from farwatch.export.nodes import Node, NodeTable
from farwatch.session.belief import Belief
from farwatch.session.doubts import Name
from farwatch.session.drains import Drains
from farwatch.session.inodes import ghost_attributes, pack_attributes, with_links
from farwatch.session.known import Known
from farwatch.session.links import Links
from farwatch.session.replay import Replay
from farwatch.session.settings import Caching
from farwatch.session.stamps import Entry

__all__ = ["STRAY_SECONDS", "Name", "View"]

STRAY_SECONDS = 2.0


class View:
    """What the client kernel has been told; see the top of the file."""

    def __init__(
        self, nodes: NodeTable, caching: Caching, wake: Callable[[], None] = lambda: None
    ) -> None:
        """``wake`` is called when there is something to doubt, or may soon be."""
        self.lock = threading.Lock()
        self.nodes = nodes
        self.guise = Guise(0)
        """How nodes are shown; the export's, if it has one."""
        self.belief = Belief(caching, wake)
        self.links = Links()
        self.drains = Drains()
        self.hidden = Node(HIDDEN_ID, b"", S_IFDIR)
        self.pending: dict[Name, list[Replay]] = {}
        self.moving: dict[int, list[Replay]] = {}
        """For ids of directories the replays on their way that move or remove them, in order."""
        self.cancel: Callable[[Replay, Name], None] | None = None
        """Called for each replay that a local change has put out of date."""
        self.known = Known()
        """What the watchers were told; what the client does itself, too, if it hears that."""
        self.raises_own = True
        """Whether the client's kernel raises the events of what the client does."""
        self.is_truthful = False
        """Whether names and links are told as they are on the disk: nothing is replayed."""
        self.replayed: dict[int, None] = {}
        """Ids of nodes that only the agent has looked up, so far."""
        self._strays: dict[Name, tuple[Node | None, float]] = {}

    # What the client may be told -------------------------------------------------

    def attr_seconds(self, node: Node) -> int:
        """For how many seconds the client may believe what it is told of a node."""
        if node.unsure or node in self.links.undigested.values():
            return 0
        return self.belief.attr_seconds(node)

    def attributes(self, node: Node, status: os.stat_result) -> bytes:
        """``fuse_attr`` to tell of a node, remembered."""
        on_disk = status.st_nlink
        nlink = on_disk if self.is_truthful else self.links.told(node, on_disk)
        node.nlink = nlink
        seen = self.guise.of(node.key, status)
        node.attr = attributes = pack_attributes(status, nlink, seen)
        return attributes

    def last_attributes(self, node: Node) -> bytes:
        """``fuse_attr`` to tell of a node whose inode is gone."""
        nlink = 0 if self.is_truthful else self.links.of_gone(node)
        node.nlink = nlink
        if not node.attr:
            node.attr = ghost_attributes(node, nlink)
        return with_links(node.attr, nlink)

    def entry(
        self,
        node: Node,
        attributes: bytes,
        seconds: int | None = None,
        by_replay: bool = False,
    ) -> bytes:
        """``fuse_entry_out``: counts as a look-up that the client will forget again.

        ``seconds`` is 0 for what is good for one use.
        """
        if seconds is None:
            seconds = self.belief.name_seconds(node)
        node.lookups += 1
        if by_replay:
            if node.lookups == 1:
                self.replayed[node.id] = None
        elif self.replayed:
            self.replayed.pop(node.id, None)
        return (
            fuse.ENTRY_OUT_HEAD.pack(
                node.id,
                self.nodes.generation_of(node),
                seconds,
                self.attr_seconds(node) if seconds else 0,
                0,
                0,
            )
            + attributes
        )

    def found(self, directory: Node, name: bytes, node: Node) -> int:
        """The client has asked for a name and will be told this node.

        Returns for how many seconds it may believe it.
        """
        at = (directory.id, name)
        if self.is_truthful:
            self.nodes.tell(directory, name, node)
            if len(node.names) > 1:
                self._reached_by((directory, name), node)
            return self.belief.name_seconds(node)
        if at in self.pending:
            self._stray(at, node)
            return 0
        told = self.nodes.child(directory, name)
        if told is node:
            if self._strays:
                self._strays.pop(at, None)
            return self.belief.name_seconds(node)
        if self._is_news(told, node) or self._stray(at, node):
            self.nodes.tell(directory, name, node)
            self.drains.see(at)
            self._strays.pop(at, None)
            return self.belief.name_seconds(node)
        return 0

    def distrust(self) -> None:
        """There was a gap in what is heard: all that the client believes is doubtful."""
        self.belief.distrust(list(self.nodes.by_id.values()))

    def remounted(self, directory: Node, name: bytes) -> None:
        """Something was mounted at a name, or is not any more: no event says so."""
        self._strays.pop((directory.id, name), None)
        self.belief.took_for_absent(directory, name)
        self.nodes.untell(directory, name)
        self.belief.doubts.name(directory, name)

    @staticmethod
    def _reached_by(at: tuple[Node, bytes], node: Node) -> None:
        """The name by which the client has just reached a node becomes its last."""
        if node.names[-1] != at:
            node.names = (*(other for other in node.names if other != at), at)

    def not_found(self, directory: Node, name: bytes) -> int:
        """The client has asked for a name and will be told that there is none.

        Returns for how many seconds it may believe it.
        """
        at = (directory.id, name)
        if self.is_truthful:
            self.nodes.untell(directory, name)
            return 0
        if at in self.pending:
            self._stray(at, None)
            return 0
        if self.nodes.child(directory, name) is not None:
            if self._stray(at, None):
                self.nodes.untell(directory, name)
                self._strays.pop(at, None)
            return 0
        return self.belief.absent_seconds(directory, name)

    def tellable(self, directory: Node, name: bytes, node: Node | None) -> bool:
        """Whether a listing may tell the client this name along the way."""
        if self.is_truthful:
            return True
        if (directory.id, name) in self.pending:
            return False
        told = self.nodes.child(directory, name)
        return told is node or self._is_news(told, node)

    @staticmethod
    def _is_news(told: Node | None, node: Node | None) -> bool:
        """Whether a name that was not told yet can be taken for what it shows.

        What is known under another name may have been renamed or linked just now: that
        is told by its event.
        """
        return told is None and (node is None or not node.names)

    def is_settled(self, directory: Node, name: bytes, node: Node) -> bool:
        """Whether a name holds this node and nothing on its way will change that."""
        replays = self.pending.get((directory.id, name), ())
        return self.nodes.child(directory, name) is node and all(
            replay.done or replay.keeps_names for replay in replays
        )

    def believed(self, directory: Node, name: bytes) -> Node | None:
        """What the client kernel holds under a name, as far as it was told."""
        stray = self._strays.get((directory.id, name))
        return stray[0] if stray is not None else self.nodes.child(directory, name)

    def place_of(self, node: Node) -> Place | None:
        """A name of the node, so that what is done to it is heard under that name.

        What is done by handle alone may be heard by no watch on the directory, or under
        another link's name.  A client that hears of its own doing has just looked up the
        name by which it does it.
        """
        if not node.names:
            return None
        directory, name = node.names[-1 if self.is_truthful else 0]
        return Place(directory.key, name) if directory.key else None

    def is_stray(self, directory: Node, name: bytes) -> bool:
        """Whether the client has found a name to differ from what events have said."""
        return (directory.id, name) in self._strays

    def _stray(self, at: Name, node: Node | None) -> bool:
        """Notes a stray name; True if it has been so for long enough to be true."""
        now = time.monotonic()
        since = self._strays.setdefault(at, (node, now))[1]
        self._strays[at] = (node, since)
        return now - since > STRAY_SECONDS and at not in self.pending

    # What the client does itself -------------------------------------------------

    def created(self, directory: Node, name: bytes, node: Node) -> None:
        """The client has made a name."""
        self.local_change(directory, name)
        if self._is_told_itself:
            self.known.created(Place(directory.key, name), node.key, node.is_dir)
        self.nodes.tell(directory, name, node)
        self.belief.outdated(directory)

    def removed(self, directory: Node, name: bytes) -> None:
        """The client has removed a name; its kernel has counted the link itself."""
        believed = self.believed(directory, name)
        self.local_change(directory, name)
        if self._is_told_itself:
            self.known.freed(Place(directory.key, name))
        self.nodes.untell(directory, name)
        if believed is not None:
            self.links.unlinked(believed)
        self.belief.outdated(directory)

    def moved(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """The client has renamed a name, perhaps over another."""
        node = self.believed(old, old_name)
        replaced = self.believed(new, new_name)
        self.local_change(old, old_name)
        self.local_change(new, new_name)
        if self._is_told_itself:
            entry = Entry(node.key, node.is_dir) if node is not None else None
            self.known.moved(Place(old.key, old_name), Place(new.key, new_name), entry)
        self.nodes.untell(old, old_name)
        self.nodes.untell(new, new_name)
        if node is not None:
            self.nodes.tell(new, new_name, node)
            self.belief.outdated(node)
        if replaced is not None and replaced is not node:
            self.links.unlinked(replaced)
        self.belief.outdated(old, new)

    def exchanged(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """The client has exchanged two names."""
        self.local_change(old, old_name)
        self.local_change(new, new_name)
        if self._is_told_itself:
            self.known.exchanged(Place(old.key, old_name), Place(new.key, new_name))
        moved = (self.believed(old, old_name), self.believed(new, new_name))
        self.nodes.exchange(old, old_name, new, new_name)
        self.belief.outdated(old, new, *filter(None, moved))

    @property
    def _is_told_itself(self) -> bool:
        """Whether the watchers are told by the client's own kernel what it has done."""
        return self.raises_own and self.known.is_used

    def local_change(self, directory: Node, name: bytes) -> None:
        """Cancels what is still to be replayed of a name that the client changes."""
        at = (directory.id, name)
        self._strays.pop(at, None)
        self.drains.change(at)
        replays = self.pending.get(at)
        if replays and self.cancel is not None:
            for replay in list(replays):
                self.cancel(replay, at)

    def changed_places(self) -> list[Place]:
        """The names that the client changed since the source's reading began."""
        by_id = self.nodes.by_id
        return [
            Place(by_id[directory].key, name)
            for directory, name in self.drains.changed()
            if directory in by_id
        ]

    # What is on its way ----------------------------------------------------------

    def expect(self, replay: Replay) -> None:
        """A replay is on its way: its names are pending, its nodes are kept."""
        self.belief.expect(replay)
        for directory, name in replay.names():
            at = (directory.id, name)
            self._strays.pop(at, None)
            self.pending.setdefault(at, []).append(replay)
        for node in replay.moves():
            self.moving.setdefault(node.id, []).append(replay)
        for node in replay.nodes():
            self.nodes.pin(node)

    def arrived(self, replay: Replay) -> None:
        """A replay is over, done or not."""
        self.belief.arrived(replay)
        for directory, name in replay.names():
            at = (directory.id, name)
            replays = self.pending.get(at)
            if replays is not None:
                replays.remove(replay)
                if not replays:
                    del self.pending[at]
        for node in replay.moves():
            moves = self.moving[node.id]
            moves.remove(replay)
            if not moves:
                del self.moving[node.id]
        for node in replay.nodes():
            self.nodes.unpin(node)
