"""The common ground of planning: nodes and places, trust, hidden names, the plan so far.

live       the client's kernel may hold it: only what is live is told of anything
outdated   the client itself has changed the name since: it is not told of it any more
trusted    the client believes the right thing of a name, and was told so for good
hidden     the directory that only the agent sees, in which every node has a name
"""

from __future__ import annotations

import os
from contextlib import suppress
from stat import S_IFDIR, S_IFREG
from typing import NamedTuple, Protocol

from farwatch.abi.steps import AGAIN, Op, Step, Times
from farwatch.events import Key, Place
from farwatch.export.nodes import Node
from farwatch.session.inodes import differs
from farwatch.session.interest import Interest
from farwatch.session.planning.batch import Batch
from farwatch.session.replay import AT, TO, Replay, Where
from farwatch.session.view import View


class Disk(Protocol):
    """What the planner asks of the export, from another thread than the server's."""

    def getattr(self, node: Key) -> os.stat_result:
        """The inode's status.  Raises OSError ESTALE if it is gone."""

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        """What a name holds, which is then known by its key.  Raises OSError."""

    def place_of(self, node: Key) -> Place | None:
        """Where a directory is, by the disk."""

    def node_at(self, directory: Key, name: bytes) -> Key | None:
        """What a name holds; None if nothing."""

    def inside(self, node: Key) -> bool:
        """Whether a directory is in the export."""


class Target(NamedTuple):
    """Where a change of a node itself is replayed: at a name, or through a pin."""

    node: Node
    where: Where | None
    pin: int = 0

    @property
    def address(self) -> tuple[int, bytes]:
        """Directory and name as a step says them; nothing if it goes through a pin."""
        return (self.where[0].id, self.where[1]) if self.where is not None else (0, b"")


class Ground:
    """What all who plan for one client stand on.

    ``batch`` is the batch that is being planned, or was planned last.
    """

    def __init__(self, view: View, interest: Interest, disk: Disk) -> None:
        self._view = view
        self.nodes = view.nodes
        self.interest = interest
        self.disk = disk
        self.batch = Batch([], frozenset(), {})
        self._planned: list[Replay] = []
        self._next_token = 1

    # The plan so far -------------------------------------------------------------

    def add(self, replay: Replay) -> None:
        """One replay more: from now on it is expected.

        A name that the client takes for absent is made to be asked for before.
        """
        for where in replay.names():
            if (
                self._view.belief.took_for_absent(*where)
                and where == replay.at
                and replay.uses_name
            ):
                self._expect(_asked_again(where, replay.node))
        self._expect(replay)

    def _expect(self, replay: Replay) -> None:
        for node, count in replay.links_gained():
            node.unlinks += count
        self._view.expect(replay)
        self._planned.append(replay)

    def take(self) -> list[Replay]:
        """What has been planned since this was last asked."""
        planned, self._planned = self._planned, []
        return planned

    def token(self) -> int:
        """A number that no descriptor of the agent's has had."""
        self._next_token += 1
        return self._next_token

    def refresh(self, target: Target | None) -> None:
        """A file is closed that may have changed without an event: by a mapping, for one.

        If it is not what the client was told, and nothing on its way tells it, it is made to
        look again before it hears of the close.
        """
        if target is None or not self._view.belief.is_coherent:
            return
        node, where, _ = target
        try:
            if not differs(node.attr, self.disk.getattr(node.key)):
                return
        except OSError:
            return
        if where is None or self.is_hidden(where):
            self._view.belief.doubts.node(node)
            return
        pending = self._view.pending.get((where[0].id, where[1]), ())
        if not any(replay.op == Op.TOUCH and not replay.done for replay in pending):
            self.add(_asked_again(where, node))

    # Hidden names ----------------------------------------------------------------

    def hidden_name(self, node: Node) -> Where:
        """The node's own name in the hidden directory."""
        return self._view.hidden, b"n%d" % node.id

    def hide(self, node: Node) -> Target:
        """The node where only its own watches are served."""
        return Target(node, self.hidden_name(node))

    def is_hidden(self, where: Where) -> bool:
        """Whether a name is in the hidden directory."""
        return where[0] is self._view.hidden

    # Nodes and places ------------------------------------------------------------

    def directory(self, place: Place) -> Node | None:
        """The live directory of a place."""
        node = self.interest.live(place.directory)
        if node is None and self.interest.everything and self.disk.inside(place.directory):
            node = self.nodes.obtain(place.directory, S_IFDIR)
        return node if node is not None and node.is_dir else None

    def where(self, place: Place | None) -> Where | None:
        """A name that is to be told; None if nobody looks there, or it is outdated."""
        directory = self.directory(place) if place is not None else None
        if place is None or directory is None or self.is_outdated(place):
            return None
        return directory, place.name

    def obtain(self, key: Key | None, is_dir: bool, place: Place | None = None) -> Node:
        """The node with this key; one that is gone is taken by what the event said.

        ``place`` is where it may be found.  An export by pins knows a node for as long as
        the client does, and the client may have forgotten it since the change was read.
        """
        if key is None:
            key = b"unknown %d" % self.token()
        node = self.nodes.by_key.get(key)
        if node is not None:
            return node
        status = self._status(key, place)
        mode = S_IFDIR if is_dir else S_IFREG
        return self.nodes.obtain(key, mode if status is None else status.st_mode)

    def _status(self, key: Key, place: Place | None) -> os.stat_result | None:
        with suppress(OSError, ValueError):
            return self.disk.getattr(key)
        if place is not None:
            with suppress(OSError, ValueError):
                found, status = self.disk.lookup(place.directory, place.name)
                return status if found == key else None
        return None

    def is_there(self, place: Place, node: Node) -> bool:
        """Whether a name that an event says may be told for good.

        Whoever opens a file and removes it is still said to have it open under that name.
        """
        if not self._view.belief.is_coherent:
            return True
        try:
            return self.disk.node_at(place.directory, place.name) == node.key
        except OSError:
            return False

    def is_outdated(self, place: Place) -> bool:
        """Whether the client itself has changed the name since."""
        if place in self.batch.own:
            return False
        directory = self.nodes.by_key.get(place.directory)
        return directory is not None and self._view.drains.changed_since(directory, place.name)

    def believed(self, where: Where) -> Node | None:
        """What the client holds under a name, told or looked up."""
        return self._view.believed(*where)

    # Trust -----------------------------------------------------------------------

    def is_trusted(self, where: Where, node: Node) -> bool:
        """Whether the client believes, and was told so for good, that a name holds this."""
        directory, name = where
        return (
            self.nodes.child(directory, name) is node
            and not self._view.is_stray(directory, name)
            and all(
                replay.keeps_names for replay in self._view.pending.get((directory.id, name), ())
            )
        )

    def trust(
        self, at: Where, node: Node, to: Where | None = None, other: Node | None = None
    ) -> int:
        """``Replay.trusted`` of a step about these names."""
        trusted = AT if self.is_trusted(at, node) else 0
        if to is not None and other is not None and self.is_trusted(to, other):
            trusted |= TO
        return trusted


def _asked_again(where: Where, node: Node) -> Replay:
    """The client's kernel asks for a name, whatever it has cached."""
    return Replay(Step(Op.LOOK, where[0].id, where[1], argument=AGAIN), node, at=where)


def touch_step(target: Target, times: Times) -> Replay:
    """A TOUCH of these times."""
    directory, name = target.address
    step = Step(Op.TOUCH, directory, name, 0, b"", times, 0, target.pin)
    return Replay(step, target.node, at=target.where)
