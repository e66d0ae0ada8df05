"""The Planner: which change is whose, and what is planned once more.

cancelled   a replay that the client has overtaken: what it has not made untrue is told
otherwise   a replay that the client's kernel would not do: it is told in another way
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from farwatch.abi.steps import Op, Times
from farwatch.events import Change, Key, Kind, Place
from farwatch.session.interest import Interest
from farwatch.session.planning.batch import Batch
from farwatch.session.planning.contents import Contents
from farwatch.session.planning.ground import Disk, Ground, touch_step
from farwatch.session.planning.lifetimes import Lifetimes
from farwatch.session.planning.names import Names
from farwatch.session.planning.opens import Opens
from farwatch.session.planning.targets import Targets
from farwatch.session.replay import Replay
from farwatch.session.view import Name, View

_HALVED = frozenset((errno.ESTALE, errno.ELOOP, errno.EXDEV, errno.EBUSY))
"""Why a rename can fail in the client although it has happened on the server: the
client has seen the new place already, or has the tree the other way round."""


class Planner:
    """Plans for one client."""

    def __init__(
        self,
        view: View,
        interest: Interest,
        disk: Disk,
        access_mode: Callable[[int, Key], int | None],
    ) -> None:
        self._interest = interest
        self._ground = ground = Ground(view, interest, disk)
        self._opens = Opens(ground)
        self._lifetimes = Lifetimes(ground, self._opens)
        self._names = names = Names(ground, self._lifetimes)
        targets = Targets(ground, self._lifetimes)
        self._contents = contents = Contents(ground, targets, self._opens, access_mode)
        self._plans: dict[Kind, Callable[[Change], None]] = {
            Kind.CREATE: names.create,
            Kind.DELETE: names.delete,
            Kind.RENAME: names.rename,
            Kind.EXCHANGE: names.exchange,
            Kind.MODIFY: contents.touch,
            Kind.ACCESS: contents.touch,
            Kind.ATTRIB: contents.touch,
            Kind.OPEN: contents.open,
            Kind.CLOSE_WRITE: contents.close,
            Kind.CLOSE_NOWRITE: contents.close,
            Kind.DEATH: self._lifetimes.death,
        }

    def plan(
        self,
        changes: list[Change],
        own: frozenset[Place],
        places: Mapping[Key, Place | None],
    ) -> list[Replay]:
        """What is to be replayed for one batch; ``View.expect`` has been told of it.

        ``own`` are the names that the batch has seen the server change: of those the
        batch itself says what came before and what after.  ``places`` is where directories
        are that the client does not know.
        """
        self._ground.batch = batch = Batch(changes, own, places)
        for change in batch:
            planner = self._plans.get(change.kind)
            if planner is not None:
                planner(change)
        return self._ground.take()

    def cancel(self, replay: Replay, at: Name) -> None:
        """The client has changed a name that a replay is about: its own comes after that."""
        if replay.done or replay.cancelled:
            return
        replay.cancelled = True
        replay.instead = self._after_cancel(replay, at)

    def _after_cancel(self, replay: Replay, at: Name) -> list[Replay]:
        """What is left to be told of a replay when the client changed the name ``at``."""
        node = replay.node
        if replay.op in (Op.UNLINK, Op.RMDIR):
            self._lifetimes.remove_nameless(node)
        elif replay.op == Op.RENAME and replay.at is not None and replay.to is not None:
            if at == (replay.at[0].id, replay.at[1]):
                self._names.half_in(node, replay.to, replay.other)
            else:
                self._names.half_out(replay.at, node)
        elif replay.op == Op.TOUCH and not node.is_dir and node.lookups:
            times = Times(replay.step.argument)
            self._ground.add(touch_step(self._ground.hide(node), times))
        return self._ground.take()

    def otherwise(self, replay: Replay, error: int) -> list[Replay]:
        """What to do in place of a replay that the client's kernel would not do.

        A rename can go in two halves; a removal be told to the node's own watches, which
        is all that are left if its directory is gone.  Nothing is tried a third time.
        """
        at, to, is_hidden = replay.at, replay.to, self._ground.is_hidden
        if replay.op == Op.LINK and to is not None and error == errno.ENOENT:
            # The client has seen its last link go before this one came.
            self._names.make(replay.node, to)
            return self._ground.take()
        other = replay.other if replay.exchanges else None
        if other is not None and at is not None and to is not None and error in _HALVED:
            # With a name where nobody looks: what leaves the other one, then what comes there.
            here, leaving, coming = (
                (to, other, replay.node) if is_hidden(at) else (at, replay.node, other)
            )
            if is_hidden(at) or is_hidden(to):
                self._names.half_out(here, leaving)
                self._names.half_in(coming, here, None)
                return self._ground.take()
        if at is None or is_hidden(at) or (to is not None and is_hidden(to)):
            return []
        if replay.op in (Op.UNLINK, Op.RMDIR):
            if self._interest.live(replay.node.key) is not None:
                self._lifetimes.remove_nameless(replay.node)
        elif replay.op == Op.RENAME and to is not None and error in _HALVED:
            self._names.half_out(at, replay.node)
            self._names.half_in(replay.node, to, replay.other)
        return self._ground.take()

    def release(self) -> None:
        """Descriptors kept for an OPEN are closed by the agent itself (RELEASE)."""
        self._opens.forget()

    def let_go(self) -> list[Replay]:
        """The agent's descriptors are to be closed: what they were for was dropped."""
        self._opens.close_everything()
        self._lifetimes.unpin_everything()
        return self._ground.take()

    def agent_left(self) -> None:
        """Nothing is kept or pinned any more: its descriptors are closed."""
        self._opens.forget()
        self._lifetimes.agent_left()
