"""How long an inode lives in the client: until the death of the remote one is told.

last name removed, held open remotely    pinned: the agent keeps a descriptor of it
DEATH                                    its last link is taken, if no removal that is
                                         on its way does; its descriptors are closed
gone                                     remembered for a while
"""

from __future__ import annotations

import errno
from collections import OrderedDict

from farwatch.abi.steps import Op, Step
from farwatch.events import Change, Key
from farwatch.export.nodes import Node
from farwatch.session.planning.ground import Ground, Target
from farwatch.session.planning.opens import Opens
from farwatch.session.replay import Replay, Where

_GONE = frozenset((errno.ESTALE, errno.ENOMEM))
"""What opening a handle answers when the inode is gone; ENOMEM from ext4, while the inode's
number is being used again."""
_GONE_KEYS = 4096
"""Nodes whose death has been planned that are remembered, so that what is still told of
them (a last close by name) does not bring the name back."""


class Lifetimes:
    """Which inodes are pinned in one client, and which are gone."""

    def __init__(self, ground: Ground, opens: Opens) -> None:
        self._ground = ground
        self._opens = opens
        self._pins: dict[Key, tuple[int, Node]] = {}
        self._gone: OrderedDict[Key, None] = OrderedDict()

    def through_pin(self, key: Key) -> Target | None:
        """The node through its pin; None if it is not pinned."""
        pinned = self._pins.get(key)
        return Target(pinned[1], None, pinned[0]) if pinned is not None else None

    def is_gone(self, key: Key) -> bool:
        """Whether the death of the node has been planned, not too long ago."""
        return key in self._gone

    def pin_if_held(self, node: Node, at: Where) -> int:
        """Keeps the inode in the client while the remote side holds it open.

        Until its death is reported, and if this is its last name.  The pin's token, for
        the step that takes the name; 0 if the inode is not kept.
        """
        key = node.key
        if node.is_dir or node.nlink - node.unlinks > 1:
            return 0
        if key in self._pins:
            return self._pins[key][0]
        if self.is_gone(key) or self._ground.batch.is_over_for(key) or not self._is_held(key):
            return 0
        token = self._ground.token()
        self._pins[node.key] = (token, node)
        self._ground.nodes.pin(node)
        self._ground.add(Replay(Step(Op.PIN, at[0].id, at[1], token=token), node, at=at))
        return token

    def remove_nameless(self, node: Node, final: bool = False) -> None:
        """One link less, told to the inode's own watches only."""
        if node.dead:
            return
        at = self._ground.hidden_name(node)
        op = Op.RMDIR if node.is_dir else Op.UNLINK
        self._ground.add(Replay(Step(op, at[0].id, at[1]), node, at=at, final=final))

    def death(self, change: Change) -> None:
        """The remote inode is gone."""
        key = change.node
        if key is None:
            return
        self._opens.close_all(key)
        node = self._ground.interest.live(key)
        self._note_gone(key)
        if node is None:
            return
        on_its_way = node.unlinks > 0 if node.is_dir else node.unlinks >= max(node.nlink, 1)
        if not node.dead and not on_its_way:
            self.remove_nameless(node, final=True)
        pinned = self._pins.pop(key, None)
        if pinned is not None:
            self._ground.add(Replay(Step(Op.UNPIN, token=pinned[0]), node))
            self._ground.nodes.unpin(node)

    def unpin_everything(self) -> None:
        """Nothing is to be pinned any more."""
        for token, node in self._pins.values():
            self._ground.add(Replay(Step(Op.UNPIN, token=token), node))
            self._ground.nodes.unpin(node)
        self._pins.clear()

    def agent_left(self) -> None:
        """Nothing is pinned any more: the agent's descriptors are closed."""
        for _, node in self._pins.values():
            self._ground.nodes.unpin(node)
        self._pins.clear()

    def _is_held(self, key: Key) -> bool:
        """Whether the inode lives on without a name.

        If it is gone by now, what was done to it before is still to be read.
        """
        try:
            return self._ground.disk.getattr(key).st_nlink == 0
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return True

    def _note_gone(self, key: Key) -> None:
        self._gone[key] = None
        if len(self._gone) > _GONE_KEYS:
            self._gone.popitem(last=False)
