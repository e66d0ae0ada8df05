"""How the facts of a file system reach a core."""

from __future__ import annotations

from farwatch.abi.fsnotify import (
    Ended,
    Event,
    Reason,
    decode_ended,
    decode_event,
    encode_ended,
    encode_event,
)
from farwatch.client.fsnotify import Fsnotify, NodeId
from farwatch.events import Mask


class Wire:
    """At once, as what this client does itself."""

    def __init__(self, core: Fsnotify) -> None:
        self._core = core
        self.sequence = 0
        """Of the last fact that was told."""

    def fsnotify(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        self._core.fsnotify(fact, through_unlinked=through_unlinked)

    def next_cookie(self) -> int:
        return self._core.next_cookie()

    def deliver(self) -> None:
        """What is under way arrives."""


class Remote(Wire):
    """As bytes, with sequences, and each a second time, as from a server."""

    def __init__(self, core: Fsnotify) -> None:
        super().__init__(core)
        self._pending: list[bytes] = []

    def fsnotify(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        self._send(fact)
        self.deliver()

    def deliver(self) -> None:
        pending, self._pending = self._pending, []
        for data in pending:
            self._core.fsnotify(decode_event(data))
            self._core.fsnotify(decode_event(data))

    def _send(self, fact: Event) -> None:
        self.sequence += 1
        self._pending.append(encode_event(fact._replace(sequence=self.sequence)))


class Late(Remote):
    """Behind the answers: what the client removes is in limbo before it is told so.

    Nothing arrives until it is asked for.  The last that is said of an inode is ENDED.
    """

    def __init__(self, core: Fsnotify) -> None:
        super().__init__(core)
        self._endings: dict[int, bytes] = {}

    def fsnotify(self, fact: Event, *, through_unlinked: bool | None = None) -> None:
        self._send(fact)
        if fact.mask & Mask.DELETE_SELF:
            node = NodeId(fact.node, fact.generation)
            self._core.enter_limbo(node)
            self.sequence += 1
            ended = Ended(fact.node, fact.generation, Reason.GONE, self.sequence)
            self._endings[len(self._pending)] = encode_ended(ended)

    def deliver(self) -> None:
        pending, self._pending = self._pending, []
        for index, data in enumerate(pending, start=1):
            self._core.fsnotify(decode_event(data))
            self._core.fsnotify(decode_event(data))
            if index in self._endings:
                self._core.ended(decode_ended(self._endings.pop(index)))
