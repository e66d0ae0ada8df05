"""What was planned and then dropped was never told: the client is where it was before.

Replays are taken back from the last to the first, in the tree as told and in what the
watchers know, so that a comparison with the disk finds what is still to be told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from farwatch.abi.steps import Op, Times
from farwatch.events import Place
from farwatch.export.nodes import Node
from farwatch.session.replay import CREATES, REMOVES, Replay, Where
from farwatch.session.stamps import CONTENT, METADATA, Entry
from farwatch.session.view import View


def untell(view: View, dropped: Sequence[Replay]) -> None:
    """Takes these back, which were planned in this order.  With the view's lock held."""
    back = _Back(view)
    for replay in reversed(dropped):
        if not (replay.done or replay.cancelled):
            back.take(replay)


class _Back:
    def __init__(self, view: View) -> None:
        self._view = view
        self._nodes = view.nodes

    def take(self, replay: Replay) -> None:
        op, node = replay.op, replay.node
        if op in CREATES:
            self._holds(replay.at, None)
        elif op == Op.LINK:
            self._holds(replay.to, None)
        elif op in REMOVES:
            self._holds(replay.at, node)
        elif op == Op.RENAME:
            self._holds(replay.to, replay.other)
            self._holds(replay.at, node)
        elif op == Op.TOUCH and replay.step.argument != Times.ACCESS:
            is_content = replay.step.argument == Times.MODIFY
            self._differs(replay.at, node, CONTENT if is_content else METADATA)
        elif op == Op.WRITE or (op in (Op.OPEN, Op.OPEN_CLOSE) and _writes(replay)):
            self._differs(replay.at, node, CONTENT)

    def _place(self, where: Where | None) -> Place | None:
        if where is None or where[0] is self._view.hidden or not where[1]:
            return None
        return Place(where[0].key, where[1])

    def _holds(self, where: Where | None, node: Node | None) -> None:
        place = self._place(where)
        if where is None or place is None:
            return
        if node is None:
            self._nodes.untell(*where)
            self._view.known.restore(place, None)
        else:
            self._nodes.tell(*where, node)
            self._view.known.restore(place, Entry(node.key, node.is_dir))

    def _differs(self, where: Where | None, node: Node, how: bytes) -> None:
        self._view.known.differs(self._place(where), node.key, how)


def _writes(replay: Replay) -> bool:
    return replay.step.argument & os.O_ACCMODE != os.O_RDONLY
