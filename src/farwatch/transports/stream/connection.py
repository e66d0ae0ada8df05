"""One client's requests, replies and notifications on its socket, in one thread.

    socket ──> incoming ──> Served.receive ──reply──> outgoing ──> socket
    wake   ──> Served.woken                notices ──┘

Nobody waits for a peer that does not read: while more than ROOM bytes wait for it, no
request of it is looked at and no notification is taken from the session, which bounds
what it keeps.  Once it has lost some, and the peer has read nothing for PATIENCE
seconds, the connection ends.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Protocol

from farwatch.abi import stream
from farwatch.transports.stream.channel import Channel, Ended
from farwatch.transports.stream.outgoing import Outgoing, Part

ROOM = 1 << 18
"""Bytes that may wait to be sent before the next request is looked at."""
NOTICES_ROOM = 1 << 16
"""The same before the next notification is."""
PATIENCE = 30.0
_AT_ONCE = 64
"""Requests that are answered before anything else is looked at."""


class Served(Protocol):
    """What answers the requests."""

    def receive(self, message: memoryview) -> Sequence[Part] | None:
        """Answers one request, behind what is to be heard before the answer.

        None if it has no answer, or none yet.
        """

    def next_answer(self) -> Sequence[Part] | None:
        """The answer to a request that was parked, if there is one now."""

    def next_notice(self) -> Sequence[Part] | None:
        """The next notification, if there is one."""

    def woken(self) -> None:
        """The descriptor is readable, or ``due`` has come."""

    def fileno(self) -> int:
        """Readable when ``woken`` is to be called."""

    @property
    def due(self) -> float | None:
        """When it is to be called in any case (``time.monotonic``)."""

    @property
    def has_lost(self) -> bool:
        """Whether notifications were dropped because nobody takes them."""


class Connection:
    """A greeted client's connection.  Owns its channel."""

    def __init__(self, channel: Channel, incoming: stream.Incoming) -> None:
        """``incoming`` is what has read the first line."""
        self._channel = channel
        self._incoming = incoming
        self._outgoing = Outgoing(channel)
        self._progress = time.monotonic()

    def serve(self, served: Served, stop: int) -> str:
        """Serves until the peer is gone, or ``stop`` is readable; how it ended.

        Raises stream.Malformed for what no client sends.
        """
        poll = select.poll()
        poll.register(self._channel, 0)
        poll.register(served.fileno(), select.POLLIN)
        poll.register(stop, select.POLLIN)
        try:
            self._outgoing.add([stream.encode_ok()])
            while self._pass(poll, served, stop):
                pass
        except Ended as ended:
            return str(ended)
        return "the server ends"

    def _pass(self, poll: select.poll, served: Served, stop: int) -> bool:
        # First of all: what stops for what waits now goes on when the socket has room.
        if self._outgoing.flush() or not self._outgoing.size:
            self._progress = time.monotonic()
        is_dry = self._answer(served)
        is_dry = self._tell(served) and is_dry
        poll.modify(self._channel, self._wanted())
        for fd, events in poll.poll(self._timeout(served) if is_dry else 0):
            if fd == stop:
                return False
            if fd == served.fileno():
                served.woken()
            elif events & (select.POLLHUP | select.POLLERR) and not self._is_listening:
                raise Ended
        due = served.due
        if due is not None and time.monotonic() >= due:
            served.woken()
        self._lose_patience(served)
        return True

    @property
    def _is_listening(self) -> bool:
        return self._outgoing.size < ROOM

    def _answer(self, served: Served) -> bool:
        """Answers what has come; whether there is no more for now."""
        for _ in range(_AT_ONCE):
            if not self._is_listening:
                return True
            message = self._incoming.next_message()
            if message is None:
                size = self._channel.receive(self._incoming.room())
                if not size:
                    return True
                self._incoming.received(size)
                continue
            reply = served.receive(message)
            if reply is not None:
                self._outgoing.add(reply)
        return False

    def _tell(self, served: Served) -> bool:
        """Sends what there is to tell; whether nothing is left that could be sent now."""
        while (answer := served.next_answer()) is not None:
            self._outgoing.add(answer)
        room = NOTICES_ROOM - self._outgoing.size
        parts: list[Part] = []
        while room > 0:
            notice = served.next_notice()
            if notice is None:
                break
            parts += notice
            room -= sum(map(len, notice))
        if parts:
            self._outgoing.add([b"".join(parts)])
        return room > 0 or self._outgoing.size > 0

    def _wanted(self) -> int:
        return (
            (select.POLLIN if self._is_listening else 0)
            | (select.POLLOUT if self._outgoing.size else 0)
            | self._channel.wants
        )

    def _timeout(self, served: Served) -> int | None:
        """Milliseconds to wait at most."""
        whens = [] if served.due is None else [served.due]
        if self._outgoing.size and served.has_lost:
            whens.append(self._progress + PATIENCE)
        if not whens:
            return None
        return max(0, int((min(whens) - time.monotonic()) * 1000) + 1)

    def _lose_patience(self, served: Served) -> None:
        if self._outgoing.size and served.has_lost and time.monotonic() - self._progress > PATIENCE:
            raise Ended("it does not read")

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()
