"""Files that the agent opens in the client, so that an open and a close are heard there.

An OPEN is kept as long as the remote side has it open: until the CLOSE is replayed, or
the agent closes all of them itself (RELEASE), or is gone.  OPEN_CLOSE is both at once:
the close of what was not kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from farwatch.abi.steps import KNOWN, Op, Step
from farwatch.events import Key
from farwatch.session.planning.ground import Ground, Target
from farwatch.session.replay import Replay


class Kept(NamedTuple):
    """A descriptor that the agent keeps for an OPEN, which ``thread`` did."""

    token: int
    writes: bool
    thread: int


class Opens:
    """The descriptors that the agent keeps for one client."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._kept: dict[Key, list[Kept]] = {}

    def of(self, key: Key) -> Sequence[Kept]:
        """Those of one node, the oldest first."""
        return self._kept.get(key, ())

    def keep(self, target: Target, mode: int, thread: int) -> Kept:
        """One more, until it is closed."""
        file = Kept(self._ground.token(), mode != os.O_RDONLY, thread)
        self._kept.setdefault(target.node.key, []).append(file)
        self._ground.add(self._step(Op.OPEN, target, mode, file.token))
        return file

    def open_and_close(self, target: Target, mode: int) -> None:
        """An open that nothing keeps."""
        self._ground.add(self._step(Op.OPEN_CLOSE, target, mode))

    def close(self, key: Key, file: Kept) -> None:
        """One of a node's is closed."""
        files = self._kept[key]
        files.remove(file)
        if not files:
            del self._kept[key]
        self._close_file(key, file)

    def close_those_of(self, key: Key, thread: int) -> None:
        """Those of a node's that a thread has opened are closed."""
        for file in [file for file in self.of(key) if file.thread == thread]:
            self.close(key, file)

    def close_all(self, key: Key) -> None:
        """All of a node's are closed."""
        for file in self._kept.pop(key, ()):
            self._close_file(key, file)

    def close_everything(self) -> None:
        """All of all nodes are closed."""
        for key in list(self._kept):
            self.close_all(key)

    def forget(self) -> None:
        """None is kept any more: the agent has closed them itself, or is gone."""
        self._kept.clear()

    def _close_file(self, key: Key, file: Kept) -> None:
        node = self._ground.nodes.by_key.get(key)
        if node is not None:
            self._ground.add(Replay(Step(Op.CLOSE, token=file.token), node))

    def _step(self, op: Op, target: Target, mode: int, token: int = 0) -> Replay:
        node, where, pin = target
        directory, name = target.address
        if where is not None and name and self._ground.is_trusted(where, node):
            mode |= KNOWN
        return Replay(Step(op, directory, name, 0, b"", mode, token, pin), node, at=where)
