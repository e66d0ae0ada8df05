"""What is to be sent on one connection and could not be yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from farwatch.transports.stream.channel import AT_ONCE, Channel

Part = bytes | bytearray | memoryview
_PARTS = 16
"""Buffers given to the kernel in one call."""


class Outgoing:
    """Bytes in their order; ``size`` of them wait."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[memoryview] = deque()
        self.size = 0

    def add(self, parts: Sequence[Part]) -> None:
        """Send these behind what waits.  They may change afterwards.  Raises Ended."""
        sent = 0
        views = [memoryview(part) for part in parts if len(part)]
        if self._channel.is_tls and sum(map(len, views)) <= AT_ONCE:
            views = [memoryview(b"".join(views))]
        if not self._waiting and views:
            sent = self._channel.send(views)
        for view in views:
            if sent >= len(view):
                sent -= len(view)
                continue
            rest = view[sent:].tobytes()
            sent = 0
            self._waiting.append(memoryview(rest))
            self.size += len(rest)

    def flush(self) -> bool:
        """Send what can be sent; whether anything was.  Raises Ended."""
        before = self.size
        while self._waiting:
            sent = self._channel.send(list(islice(self._waiting, _PARTS)))
            if not sent:
                break
            self._drop(sent)
        return self.size < before

    def _drop(self, sent: int) -> None:
        self.size -= sent
        while sent:
            first = self._waiting[0]
            if sent < len(first):
                self._waiting[0] = first[sent:]
                return
            sent -= len(first)
            self._waiting.popleft()
