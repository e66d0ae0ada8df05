"""From a settled change to what the agent is to do: the table of replays, as code.

Where a change is replayed:

    its directory is live      there, by name: watches on directory and node are served
    only the node is live      under a name of the node's own in the hidden directory:
                               only watches on the node are served, as they would be
    the node is pinned         through the descriptor that the agent has kept since the
                               name was removed: the remote side still holds it open
    nothing is live            not at all

The tree as told (export/nodes.py) moves on when a replay is planned, so that the next
change is planned against what the client will have been told by then.

Called with the view's lock held.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from stat import S_IFDIR, S_IFLNK, S_IFREG, S_ISDIR, S_ISREG
from typing import NamedTuple, Protocol

from farwatch.abi.control import KNOWN, Op, Step, Times
from farwatch.events import Change, Key, Kind, Mask, Place
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.interest import Interest
from farwatch.session.replay import AT, RENAME_EXCHANGE, TO, Replay, Where
from farwatch.session.view import Name, View

_GONE_KEYS = 4096
"""Nodes whose death has been planned that are remembered, so that what is still told of
them (a last close by name) does not bring the name back."""

_LIGHT = 256
"""Changes of the kinds that reading makes, in one batch, that are replayed for every live
node if any node is watched for them.  If there are more, only for the nodes that are: the
scan that says so may not have seen the newest watches."""

_HALVED = frozenset((errno.ESTALE, errno.ELOOP, errno.EXDEV, errno.EBUSY))
"""Why a rename can fail in the client although it has happened on the server: the
client has seen the new place already, or has the tree the other way round."""

_TIMES = {Kind.MODIFY: Times.MODIFY, Kind.ACCESS: Times.ACCESS, Kind.ATTRIB: Times.ATTRIB}
_OF_CONTENT = frozenset((Kind.MODIFY, Kind.ACCESS, Kind.CLOSE_WRITE, Kind.CLOSE_NOWRITE))
"""Kinds that only something that has the file open can make."""
_READING = {
    Kind.OPEN: int(Mask.OPEN),
    Kind.ACCESS: int(Mask.ACCESS),
    Kind.CLOSE_NOWRITE: int(Mask.CLOSE_NOWRITE),
}


class Disk(Protocol):
    """What the planner asks of the export, from another thread than the server's."""

    def getattr(self, node: Key) -> os.stat_result:
        """The inode's status.  Raises OSError ESTALE if it is gone."""

    def place_of(self, node: Key) -> Place | None:
        """Where a directory is, by the disk."""

    def inside(self, node: Key) -> bool:
        """Whether a directory is in the export."""


class Target(NamedTuple):
    """Where a change of a node itself is replayed: at a name, or through a pin."""

    node: Node
    where: Where | None
    pin: int = 0


class Batch:
    """What one batch of changes says as a whole; worked out when it is asked for."""

    def __init__(self, changes: list[Change], own: frozenset[Place]) -> None:
        self._changes = changes
        self.own = own

    @cached_property
    def deaths(self) -> frozenset[Key | None]:
        """The nodes whose death is in the batch."""
        return frozenset(c.node for c in self._changes if c.kind is Kind.DEATH)

    @cached_property
    def last_use(self) -> dict[Key | None, int]:
        """For each node the index of the last change that needs it to be open."""
        return {
            change.node: index
            for index, change in enumerate(self._changes)
            if change.kind in _OF_CONTENT
        }

    @cached_property
    def is_heavy(self) -> bool:
        """Whether there is too much reading to tell all of it on the off chance."""
        return sum(change.kind in _READING for change in self._changes) > _LIGHT

    @cached_property
    def closes(self) -> dict[Key, list[int]]:
        """The access modes that the closes tell, for each node in order."""
        modes: dict[Key, list[int]] = {}
        for change in self._changes:
            if change.node is not None:
                if change.kind is Kind.CLOSE_WRITE:
                    modes.setdefault(change.node, []).append(os.O_RDWR)
                elif change.kind is Kind.CLOSE_NOWRITE:
                    modes.setdefault(change.node, []).append(os.O_RDONLY)
        return modes


class Kept(NamedTuple):
    """A descriptor that the agent keeps for an OPEN."""

    token: int
    writes: bool


class Planner:
    """Plans for one client."""

    def __init__(
        self,
        view: View,
        interest: Interest,
        disk: Disk,
        access_mode: Callable[[int, Key], int | None],
    ) -> None:
        self._view = view
        self._nodes = view.nodes
        self._interest = interest
        self._disk = disk
        self._access_mode = access_mode
        self._next_token = 1
        self._pins: dict[Key, tuple[int, Node]] = {}
        self._kept: dict[Key, list[Kept]] = {}
        self._gone: OrderedDict[Key, None] = OrderedDict()
        self._planned: list[Replay] = []
        self._batch = Batch([], frozenset())
        self._index = 0
        self._plans: dict[Kind, Callable[[Change], None]] = {
            Kind.CREATE: self._create,
            Kind.DELETE: self._delete,
            Kind.RENAME: self._rename,
            Kind.EXCHANGE: self._exchange,
            Kind.MODIFY: self._touch,
            Kind.ACCESS: self._touch,
            Kind.ATTRIB: self._touch,
            Kind.OPEN: self._open,
            Kind.CLOSE_WRITE: self._close,
            Kind.CLOSE_NOWRITE: self._close,
            Kind.DEATH: self._death,
        }

    def plan(self, changes: list[Change], own: frozenset[Place]) -> list[Replay]:
        """What is to be replayed for one batch; ``View.expect`` has been told of it.

        ``own`` are the names that the batch has seen the server change: of those the
        batch itself says what came before and what after.
        """
        if len(changes) > 1:
            changes = _with_deaths_in_place(changes)
        self._batch = Batch(changes, own)
        for self._index, change in enumerate(changes):
            planner = self._plans.get(change.kind)
            if planner is not None:
                planner(change)
        return self._take()

    def after_cancel(self, replay: Replay, at: Name) -> list[Replay]:
        """What is left to be told of a replay when the client changed the name ``at``."""
        node = replay.node
        if replay.op in (Op.UNLINK, Op.RMDIR):
            self._remove_nameless(node)
        elif replay.op == Op.RENAME and replay.at is not None and replay.to is not None:
            if at == (replay.at[0].id, replay.at[1]):
                self._half_in(node, replay.to, replay.other)
            else:
                self._half_out(replay.at, node)
        elif replay.op == Op.TOUCH and not node.is_dir and node.lookups:
            self._add(self._touch_step(self._hide(node), Times(replay.step.argument)))
        return self._take()

    def otherwise(self, replay: Replay, error: int) -> list[Replay]:
        """What to do in place of a replay that the client's kernel would not do.

        A rename can go in two halves; a removal be told to the node's own watches, which
        is all that are left if its directory is gone.  Nothing is tried a third time.
        """
        at, to, hidden = replay.at, replay.to, self._view.hidden
        if at is None or at[0] is hidden or (to is not None and to[0] is hidden):
            return []
        if replay.op in (Op.UNLINK, Op.RMDIR):
            if self._interest.live(replay.node.key) is not None:
                self._remove_nameless(replay.node)
        elif replay.op == Op.RENAME and to is not None and error in _HALVED:
            self._half_out(at, replay.node)
            self._half_in(replay.node, to, replay.other)
        return self._take()

    def release(self) -> None:
        """Descriptors kept for an OPEN are closed by the agent itself (RELEASE)."""
        self._kept.clear()

    def agent_left(self) -> None:
        """Nothing is kept or pinned any more: its descriptors are closed."""
        self._kept.clear()
        for _, node in self._pins.values():
            self._nodes.unpin(node)
        self._pins.clear()

    # Names -----------------------------------------------------------------------

    def _create(self, change: Change) -> None:
        if change.place is None:
            return
        directory = self._directory(change.place)
        if directory is None or self._is_outdated(change.place):
            node = self._interest.live(change.node)
            if change.linked and node is not None and not node.is_dir:
                self._add(self._touch_step(self._hide(node), Times.ATTRIB))
            return
        known = self._interest.live(change.node)
        node = self._obtain(change.node, change.is_dir)
        at = (directory, change.place.name)
        if change.linked and known is not None and not node.is_dir:
            hidden = self._hide(node).where
            assert hidden is not None
            step = Step(Op.LINK, hidden[0].id, hidden[1], directory.id, at[1])
            self._add(Replay(step, node, at=hidden, to=at))
        else:
            op = {S_IFDIR: Op.MKDIR, S_IFLNK: Op.SYMLINK}.get(node.kind, Op.MKNOD)
            step = Step(op, directory.id, at[1], argument=node.kind | 0o600)
            self._add(Replay(step, node, at=at))
        self._nodes.tell(directory, at[1], node)

    def _delete(self, change: Change) -> None:
        place = change.place
        directory = self._directory(place) if place is not None else None
        known = self._interest.live(change.node)
        if place is None or directory is None or self._is_outdated(place):
            if known is not None:
                self._remove_nameless(known)
            return
        node = self._obtain(change.node, change.is_dir)
        at = (directory, place.name)
        trusted = self._trust(at, node)
        self._pin_if_held(node, at)
        op = Op.RMDIR if node.is_dir else Op.UNLINK
        self._add(Replay(Step(op, directory.id, place.name), node, at=at, trusted=trusted))
        # The client may have seen already what came after it: that is told next.
        if self._nodes.child(directory, place.name) is node:
            self._nodes.untell(directory, place.name)

    def _rename(self, change: Change) -> None:
        at = self._where(change.place)
        to = self._where(change.new_place)
        if at is None and to is None and self._interest.live(change.node) is None:
            return
        node = self._obtain(change.node, change.is_dir)
        if at is not None and to is not None:
            self._whole_rename(node, at, to)
        elif at is not None:
            self._half_out(at, node)
        elif to is not None:
            self._half_in(node, to, self._nodes.child(*to))
        else:
            self._move_unseen(node)

    def _whole_rename(self, node: Node, at: Where, to: Where) -> None:
        other = self._nodes.child(*to)
        if other is node:
            other = None
        trusted = self._trust(at, node, to, other)
        if node.is_dir:
            self._look_along(at, node)
        if other is not None:
            self._pin_if_held(other, to)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._add(Replay(step, node, at=at, to=to, other=other, trusted=trusted))
        self._nodes.move(*at, *to)
        self._nodes.tell(*to, node)

    def _exchange(self, change: Change) -> None:
        at, to = self._where(change.place), self._where(change.new_place)
        if at is None or to is None:
            self._rename(change._replace(kind=Kind.RENAME))
            self._rename(Change(Kind.RENAME, change.new_place, change.other, False, change.place))
            return
        node = self._obtain(change.node, change.is_dir)
        other = self._obtain(change.other, False)
        for directory, where in ((node, at), (other, to)):
            if directory.is_dir:
                self._look_along(where, directory)
        trusted = self._trust(at, node, to, other)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1], argument=RENAME_EXCHANGE)
        self._add(Replay(step, node, at=at, to=to, other=other, trusted=trusted))
        for where in (at, to):
            self._nodes.untell(*where)
        self._nodes.tell(*to, node)
        self._nodes.tell(*at, other)

    def _half_out(self, at: Where, node: Node) -> None:
        """MOVED_FROM alone: into the hidden directory."""
        to = self._hidden_name(node)
        trusted = self._trust(at, node)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._add(Replay(step, node, at=at, to=to, trusted=trusted))
        self._nodes.untell(*at)

    def _half_in(self, node: Node, to: Where, other: Node | None) -> None:
        """MOVED_TO alone: out of the hidden directory."""
        if other is node:
            other = None
        if other is not None:
            self._pin_if_held(other, to)
        at = self._hidden_name(node)
        if node.is_dir:
            self._look(at, node)
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._add(Replay(step, node, at=at, to=to, other=other))
        self._nodes.untell(*to)
        self._nodes.tell(*to, node)

    def _move_unseen(self, node: Node) -> None:
        """MOVE_SELF alone: from one name in the hidden directory to another."""
        at = self._hidden_name(node)
        to = (at[0], b"m" + at[1])
        step = Step(Op.RENAME, at[0].id, at[1], to[0].id, to[1])
        self._add(Replay(step, node, at=at, to=to))

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

    def _look(self, where: Where, node: Node) -> None:
        self._add(Replay(Step(Op.LOOK, where[0].id, where[1]), node, at=where))

    # The end of an inode ---------------------------------------------------------

    def _pin_if_held(self, node: Node, at: Where) -> None:
        """Keeps the inode in the client while the remote side holds it open.

        Until its death is reported, and if this is its last name.
        """
        key = node.key
        if node.is_dir or key in self._pins or node.nlink - node.unlinks > 1:
            return
        if key in self._batch.deaths and self._batch.last_use.get(key, -1) < self._index:
            return
        if self._links_on_disk(key):
            return
        token = self._token()
        self._pins[node.key] = (token, node)
        self._nodes.pin(node)
        self._add(Replay(Step(Op.PIN, at[0].id, at[1], token=token), node, at=at))

    def _links_on_disk(self, key: Key) -> int:
        """The link count; 0 also if the inode is gone."""
        try:
            return self._disk.getattr(key).st_nlink
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return 0

    def _note_gone(self, key: Key) -> None:
        self._gone[key] = None
        if len(self._gone) > _GONE_KEYS:
            self._gone.popitem(last=False)

    def _remove_nameless(self, node: Node, final: bool = False) -> None:
        """One link less, told to the inode's own watches only."""
        if node.dead:
            return
        at = self._hidden_name(node)
        op = Op.RMDIR if node.is_dir else Op.UNLINK
        self._add(Replay(Step(op, at[0].id, at[1]), node, at=at, final=final))

    def _death(self, change: Change) -> None:
        key = change.node
        if key is None:
            return
        for file in self._kept.pop(key, ()):
            self._close_file(key, file)
        node = self._interest.live(key)
        self._note_gone(key)
        if node is None:
            return
        on_its_way = node.unlinks > 0 if node.is_dir else node.unlinks >= max(node.nlink, 1)
        if not node.dead and not on_its_way:
            self._remove_nameless(node, final=True)
        pinned = self._pins.pop(key, None)
        if pinned is not None:
            self._add(Replay(Step(Op.UNPIN, token=pinned[0]), node))
            self._nodes.unpin(node)

    # Inodes ----------------------------------------------------------------------

    def _touch(self, change: Change) -> None:
        target = self._target(change)
        if target is None:
            return
        kind = _READING.get(change.kind)
        if kind is not None and not self._is_watched(kind, target):
            return
        if (
            change.kind is not Kind.ATTRIB
            and not change.is_dir
            and (target.pin or self._interest.by_path)
        ):
            file = self._file_for(target, change)
            if file is not None:
                op = Op.WRITE if change.kind is Kind.MODIFY else Op.READ
                self._add(Replay(Step(op, token=file.token), target.node))
                return
        self._add(self._touch_step(target, _TIMES[change.kind]))

    def _file_for(self, target: Target, change: Change) -> Kept | None:
        """A file to write or read through: whoever is told of paths sees no touch.

        That are fanotify groups that want descriptors, and IN_EXCL_UNLINK once the name
        is gone.  A removed file that the remote side writes is open there: it is opened
        here as well, until the remote side closes it.
        """
        writes = change.kind is Kind.MODIFY
        for file in self._kept.get(target.node.key, ()):
            if file.writes or not writes:
                return file
        if not target.pin or not S_ISREG(target.node.kind):
            return None
        return self._keep_open(target, os.O_RDWR if writes else os.O_RDONLY)

    def _touch_step(self, target: Target, times: Times) -> Replay:
        node, where, pin = target
        directory, name = (where[0].id, where[1]) if where is not None else (0, b"")
        return Replay(Step(Op.TOUCH, directory, name, 0, b"", times, 0, pin), node, at=where)

    def _open(self, change: Change) -> None:
        target = self._target(change)
        if target is None or change.node is None:
            return
        kept_for_path = self._interest.by_path
        if not kept_for_path and not self._is_watched(_READING[Kind.OPEN], target):
            return
        if not (S_ISREG(target.node.kind) or S_ISDIR(target.node.kind)):
            return
        self._keep_open(target, self._mode_of(change))

    def _keep_open(self, target: Target, mode: int) -> Kept:
        file = Kept(self._token(), mode != os.O_RDONLY)
        self._kept.setdefault(target.node.key, []).append(file)
        self._add(self._open_step(Op.OPEN, target, mode, file.token))
        return file

    def _mode_of(self, change: Change) -> int:
        """The access mode of an open: the event does not say it."""
        if change.node is None or change.is_dir:
            return os.O_RDONLY
        closes = self._batch.closes.get(change.node)
        if closes:
            return closes.pop(0)
        mode = self._access_mode(change.thread, change.node)
        return os.O_RDONLY if mode is None else mode

    def _close(self, change: Change) -> None:
        writes = change.kind is Kind.CLOSE_WRITE
        if change.node is None:
            return
        for file in self._kept.get(change.node, ()):
            if file.writes == writes:
                self._close_kept(change.node, file)
                return
        target = self._target(change)
        if target is None or not (S_ISREG(target.node.kind) or S_ISDIR(target.node.kind)):
            return
        if not writes and not self._is_watched(_READING[Kind.CLOSE_NOWRITE], target):
            return
        mode = os.O_WRONLY if writes else os.O_RDONLY
        self._add(self._open_step(Op.OPEN_CLOSE, target, mode))

    def _close_kept(self, key: Key, file: Kept) -> None:
        files = self._kept[key]
        files.remove(file)
        if not files:
            del self._kept[key]
        self._close_file(key, file)

    def _close_file(self, key: Key, file: Kept) -> None:
        node = self._nodes.by_key.get(key)
        if node is not None:
            self._add(Replay(Step(Op.CLOSE, token=file.token), node))

    def _open_step(self, op: Op, target: Target, mode: int, token: int = 0) -> Replay:
        node, where, pin = target
        directory, name = (where[0].id, where[1]) if where is not None else (0, b"")
        if where is not None and name and self._is_trusted(where, node):
            mode |= KNOWN
        return Replay(Step(op, directory, name, 0, b"", mode, token, pin), node, at=where)

    def _target(self, change: Change) -> Target | None:
        key, place = change.node, change.place
        if key is None:
            return None
        pinned = self._pins.get(key)
        if pinned is not None:
            return Target(pinned[1], None, pinned[0])
        if key in self._gone:
            return None
        if change.is_dir:
            return self._target_directory(key)
        directory = self._directory(place) if place is not None else None
        known = self._interest.live(key)
        if place is not None and directory is not None and not self._is_outdated(place):
            held = self._nodes.child(directory, place.name)
            if held is None or held.key == key:
                node = self._obtain(key, change.is_dir)
                self._nodes.tell(directory, place.name, node)
                return Target(node, (directory, place.name))
        if known is None or known.dead:
            return None
        return Target(known, (known, b"")) if known.is_dir else self._hide(known)

    def _target_directory(self, key: Key) -> Target | None:
        """A directory's own change is told by its handle: its name is looked for."""
        node = self._interest.live(key)
        if node is not None and node.id == ROOT_ID:
            return Target(node, (node, b""))
        if node is not None and node.names:
            return Target(node, node.names[0])
        place = self._disk.place_of(key)
        directory = self._directory(place) if place is not None else None
        if place is not None and directory is not None:
            held = self._nodes.child(directory, place.name)
            if held is None or held.key == key:
                found = self._obtain(key, True)
                self._nodes.tell(directory, place.name, found)
                return Target(found, (directory, place.name))
        return Target(node, (node, b"")) if node is not None else None

    # Common ground ---------------------------------------------------------------

    def _add(self, replay: Replay) -> None:
        for node, count in replay.links_gained():
            node.unlinks += count
        self._view.expect(replay)
        self._planned.append(replay)

    def _take(self) -> list[Replay]:
        planned, self._planned = self._planned, []
        return planned

    def _token(self) -> int:
        self._next_token += 1
        return self._next_token

    def _hidden_name(self, node: Node) -> Where:
        return self._view.hidden, b"n%d" % node.id

    def _hide(self, node: Node) -> Target:
        return Target(node, self._hidden_name(node))

    def _directory(self, place: Place) -> Node | None:
        """The live directory of a place."""
        node = self._interest.live(place.directory)
        if node is None and self._interest.everything and self._disk.inside(place.directory):
            node = self._nodes.obtain(place.directory, S_IFDIR)
        return node if node is not None and node.is_dir else None

    def _where(self, place: Place | None) -> Where | None:
        """A name that is to be told; None if nobody looks there, or it is outdated."""
        directory = self._directory(place) if place is not None else None
        if place is None or directory is None or self._is_outdated(place):
            return None
        return directory, place.name

    def _obtain(self, key: Key | None, is_dir: bool) -> Node:
        """The node with this key; one that is gone is taken by what the event said."""
        if key is None:
            key = b"unknown %d" % self._token()
        node = self._nodes.by_key.get(key)
        if node is not None:
            return node
        mode = S_IFDIR if is_dir else S_IFREG
        try:
            mode = self._disk.getattr(key).st_mode
        except (OSError, ValueError):
            pass
        return self._nodes.obtain(key, mode)

    def _is_outdated(self, place: Place) -> bool:
        """Whether the client itself has changed the name since."""
        if place in self._batch.own:
            return False
        directory = self._nodes.by_key.get(place.directory)
        return directory is not None and self._view.changed_since(directory, place.name)

    def _is_trusted(self, where: Where, node: Node) -> bool:
        """Whether the client believes, and was told so for good, that a name holds this."""
        directory, name = where
        return (
            self._nodes.child(directory, name) is node
            and not self._view.is_stray(directory, name)
            and all(
                replay.keeps_names for replay in self._view.pending.get((directory.id, name), ())
            )
        )

    def _trust(
        self, at: Where, node: Node, to: Where | None = None, other: Node | None = None
    ) -> int:
        """``Replay.trusted`` of a step about these names."""
        trusted = AT if self._is_trusted(at, node) else 0
        if to is not None and other is not None and self._is_trusted(to, other):
            trusted |= TO
        return trusted

    def _is_watched(self, kind: int, target: Target) -> bool:
        if not self._batch.is_heavy:
            return bool(self._interest.reading & kind)
        directory = target.where[0] if target.where is not None else None
        return self._interest.watches(kind, target.node, directory)


def _with_deaths_in_place(changes: list[Change]) -> list[Change]:
    """Each death right after the last that is told of its node, not after the batch.

    Otherwise a watcher would hear of later changes elsewhere before it.
    """
    deaths = {change.node: change for change in changes if change.kind is Kind.DEATH}
    if not deaths:
        return changes
    others = [change for change in changes if change.kind is not Kind.DEATH]
    last = {change.node: index for index, change in enumerate(others)}
    placed: list[Change] = []
    for index, change in enumerate(others):
        placed.append(change)
        if last[change.node] == index and change.node in deaths:
            placed.append(deaths.pop(change.node))
    return placed + list(deaths.values())
