"""What is done to names: CREATE, DELETE, RENAME and EXCHANGE.

What becomes of it where a name is not told, because nobody looks there or it is outdated:

    CREATE                      nothing; ATTRIB of the inode, if it is a further name
    DELETE                      one link less, told to the inode's own watches
    RENAME, not the old name    MOVED_TO alone: out of the hidden directory
    RENAME, not the new name    MOVED_FROM alone: into the hidden directory
    RENAME, neither             MOVE_SELF alone: from hidden name to hidden name
    what a RENAME replaces      where nobody looks: one link less, as by DELETE
    EXCHANGE, one of them       one with a name in the hidden directory
"""

from __future__ import annotations

from stat import S_IFDIR, S_IFLNK

from farwatch.abi.steps import AGAIN, Op, Step, Times
from farwatch.events import Change, Kind
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.planning.ground import Ground, touch_step
from farwatch.session.planning.lifetimes import Lifetimes
from farwatch.session.replay import AT, RENAME_EXCHANGE, TO, Replay, Where


class Names:
    """Plans what is done to names."""

    def __init__(self, ground: Ground, lifetimes: Lifetimes) -> None:
        self._ground = ground
        self._nodes = ground.nodes
        self._interest = ground.interest
        self._lifetimes = lifetimes

    def create(self, change: Change) -> None:
        """A name appeared."""
        if change.place is None:
            return
        directory = self._ground.directory(change.place)
        if directory is None or self._ground.is_outdated(change.place):
            node = self._interest.live(change.node)
            if change.linked and node is not None and not node.is_dir:
                self._ground.add(touch_step(self._ground.hide(node), Times.ATTRIB))
            return
        known = self._interest.live(change.node)
        node = self._ground.obtain(change.node, change.is_dir, change.place)
        at = (directory, change.place.name)
        if change.linked and known is not None and not node.is_dir:
            hidden = self._ground.hide(node).where
            assert hidden is not None
            step = Step(Op.LINK, hidden[0].id, hidden[1], directory.id, at[1])
            self._ground.add(Replay(step, node, at=hidden, to=at))
        else:
            self.make(node, at)
        self._nodes.tell(directory, at[1], node)

    def make(self, node: Node, at: Where) -> None:
        """The name appears as that of something new."""
        op = {S_IFDIR: Op.MKDIR, S_IFLNK: Op.SYMLINK}.get(node.kind, Op.MKNOD)
        step = Step(op, at[0].id, at[1], argument=node.kind | 0o600)
        self._ground.add(Replay(step, node, at=at))

    def delete(self, change: Change) -> None:
        """A name is gone."""
        place = change.place
        directory = self._ground.directory(place) if place is not None else None
        known = self._interest.live(change.node)
        if place is None or directory is None or self._ground.is_outdated(place):
            if known is not None and not (change.linked and self._is_counted(known)):
                self._lifetimes.remove_nameless(known)
            return
        node = self._ground.obtain(change.node, change.is_dir)
        at = (directory, place.name)
        trusted = self._ground.trust(at, node)
        pin = self._lifetimes.pin_if_held(node, at)
        op = Op.RMDIR if node.is_dir else Op.UNLINK
        step = Step(op, directory.id, place.name, pin=pin)
        self._ground.add(Replay(step, node, at=at, trusted=trusted))
        # The client may have seen already what came after it: that is told next.
        if self._nodes.child(directory, place.name) is node:
            self._nodes.untell(directory, place.name)
        self._nodes.leave(directory, place.name, node)

    def _is_counted(self, node: Node) -> bool:
        """Whether the client has been told of no more links than there are, or is about to be."""
        try:
            on_disk = self._ground.disk.getattr(node.key).st_nlink
        except OSError:
            on_disk = 0
        return node.nlink - node.unlinks <= on_disk

    def rename(self, change: Change) -> None:
        """A name has become another."""
        at = self._ground.where(change.place)
        to = self._ground.where(change.new_place)
        if to is None:
            self._rename_out(change, at)
            return
        node = self._ground.obtain(change.node, change.is_dir, change.new_place)
        if at is not None:
            self._whole_rename(node, at, to, self._replaced(change, to))
        else:
            self.half_in(node, to, self._replaced(change, to))

    def _rename_out(self, change: Change, at: Where | None) -> None:
        """To a name that is not told; what that held has one link less."""
        replaced = self._interest.live(change.other)
        if change.new_place is not None and self._ground.is_outdated(change.new_place):
            # By then the client held there what it has replaced itself, and counted.
            replaced = None
        if at is not None:
            node = self._ground.obtain(change.node, change.is_dir, change.new_place)
            self.half_out(at, node)
        elif (known := self._interest.live(change.node)) is not None:
            self._move_unseen(known)
        if replaced is not None and replaced.key != change.node:
            self._lifetimes.remove_nameless(replaced)

    def exchange(self, change: Change) -> None:
        """Two names have each become the other."""
        at, to = self._ground.where(change.place), self._ground.where(change.new_place)
        if at is None and to is None:
            self.rename(change._replace(kind=Kind.RENAME))
            self.rename(Change(Kind.RENAME, change.new_place, change.other, False, change.place))
            return
        node = self._ground.obtain(change.node, change.is_dir, change.new_place)
        other = self._ground.obtain(change.other, False, change.place)
        if at is None or to is None:
            self._exchange_unseen(node, at, to, other)
            return
        for directory, where in ((node, at), (other, to)):
            if directory.is_dir:
                self._look_along(where, directory)
        trusted = self._ground.trust(at, node, to, other)
        # Who looked early believes that both names hold the same, and of such a rename the
        # kernel makes nothing, without asking.
        if not trusted & AT:
            self._look(at, node, AGAIN)
        if not trusted & TO:
            self._look(to, other, AGAIN)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1], argument=RENAME_EXCHANGE)
        self._ground.add(Replay(step, node, at=at, to=to, other=other, trusted=trusted))
        for where in (at, to):
            self._nodes.untell(*where)
        self._nodes.tell(*to, node)
        self._nodes.tell(*at, other)

    def _exchange_unseen(self, node: Node, at: Where | None, to: Where | None, other: Node) -> None:
        """With a name where nobody looks: one in the hidden directory stands for it.

        Two renames would have the one that comes in replace the one that goes out.
        """
        here, leaving, coming = (at, node, other) if at is not None else (to, other, node)
        assert here is not None
        there = self._ground.hidden_name(coming)
        if leaving.is_dir:
            self._look_along(here, leaving)
        if coming.is_dir:
            self._look(there, coming)
        old, new = (here, there) if at is not None else (there, here)
        trusted = self._ground.trust(old, node, new, other)
        if not trusted & (AT if at is not None else TO):
            self._look(here, leaving, AGAIN)
        step = Step(Op.RENAME, old[0].id, old[1], new[0].id, new[1], argument=RENAME_EXCHANGE)
        self._ground.add(Replay(step, node, at=old, to=new, other=other, trusted=trusted))
        self._nodes.untell(*here)
        self._nodes.leave(*here, leaving)
        self._nodes.tell(*here, coming)

    def half_out(self, at: Where, node: Node) -> None:
        """MOVED_FROM alone: into the hidden directory."""
        to = self._ground.hidden_name(node)
        trusted = self._ground.trust(at, node)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._ground.add(Replay(step, node, at=at, to=to, trusted=trusted))
        self._nodes.untell(*at)
        self._nodes.leave(*at, node)

    def half_in(self, node: Node, to: Where, other: Node | None) -> None:
        """MOVED_TO alone: out of the hidden directory."""
        if other is node:
            other = None
        pin = self._lifetimes.pin_if_held(other, to) if other is not None else 0
        at = self._ground.hidden_name(node)
        if node.is_dir:
            self._look(at, node)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1], pin=pin)
        self._ground.add(Replay(step, node, at=at, to=to, other=other))
        self._nodes.untell(*to)
        self._nodes.tell(*to, node)

    def _replaced(self, change: Change, to: Where) -> Node | None:
        """What the rename replaces: what the client was told of the name.

        If that is nothing, then what it has looked up there, and was not told because it
        knows it by another name; but only if a link count speaks for it.  That alone could
        be of what the same thread removed next.
        """
        told = self._nodes.child(*to)
        if told is not None or change.other is None:
            return told
        believed = self._ground.believed(to)
        return believed if believed is not None and believed.key == change.other else None

    def _whole_rename(self, node: Node, at: Where, to: Where, other: Node | None) -> None:
        if other is node:
            other = None
        trusted = self._ground.trust(at, node, to, other)
        if node.is_dir:
            self._look_along(at, node)
        pin = self._lifetimes.pin_if_held(other, to) if other is not None else 0
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1], pin=pin)
        self._ground.add(Replay(step, node, at=at, to=to, other=other, trusted=trusted))
        self._nodes.move(*at, *to)
        self._nodes.leave(*at, node)
        self._nodes.tell(*to, node)

    def _move_unseen(self, node: Node) -> None:
        """MOVE_SELF alone: from one name in the hidden directory to another."""
        at = self._ground.hidden_name(node)
        to = (at[0], b"m" + at[1])
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._ground.add(Replay(step, node, at=at, to=to))

    def _look_along(self, at: Where, node: Node) -> None:
        """Has the old names looked up, outermost first.

        A directory that the client has already seen in its new place is moved back to
        where it was told to be; the kernel can only do so outside of the rename.
        """
        chain = [(at, node)]
        directory = at[0]
        while directory.id != ROOT_ID and directory.names and len(chain) < 64:
            where = directory.names[0]
            chain.append((where, directory))
            directory = where[0]
        for where, found in reversed(chain):
            self._look(where, found)

    def _look(self, where: Where, node: Node, how: int = 0) -> None:
        step = Step(Op.LOOK, where[0].id, where[1], argument=how)
        self._ground.add(Replay(step, node, at=where))
