"""The first line of a connection, and what is answered: see ``abi.stream``.

    shaking hands (TLS) ──> listening ──right──> accepted: whoever has it goes on
           │                    └─────wrong───> refused: the reason is sent, the rest is
           └──────────── Ended                  read and thrown away until the peer closes

For a loop that has many of them: ``advance`` whenever the socket is ready, and an end at
``deadline``.
"""

from __future__ import annotations

import hmac
import select
import time
from enum import Enum

from farwatch.abi import stream
from farwatch.transports.stream.channel import Channel, Ended

SECONDS = 10.0
"""For the whole greeting; more than slow links need."""
_LINGER_SECONDS = 1.0
"""For the peer to read why it was refused: what it has sent and nobody has read would
have the kernel drop the answer (TCP resets)."""
_MOST_THROWN_AWAY = 1 << 20


class State(Enum):
    """Where a greeting stands."""

    SHAKING_HANDS = 1
    LISTENING = 2
    ACCEPTED = 3
    REFUSED = 4


class Greeting:
    """One connection that has not said yet who it is.  Owns its channel until accepted."""

    def __init__(self, channel: Channel, token: str | None) -> None:
        """``token`` is what the peer must know; None if nothing."""
        self.channel = channel
        self.incoming = stream.Incoming(stream.SHORTEST_REQUEST)
        self.deadline = time.monotonic() + SECONDS
        self.state = State.SHAKING_HANDS
        self._token = token
        self._thrown_away = 0
        self.reason = ""
        """Why it is refused."""
        self.is_told = False
        """Whether somebody has said so in a log."""

    @property
    def wants(self) -> int:
        """What to poll the channel for."""
        return self.channel.wants or select.POLLIN

    def advance(self) -> State:
        """Goes on as far as it can without waiting.  Raises Ended."""
        if self.state is State.SHAKING_HANDS and self.channel.handshake():
            self.state = State.LISTENING
        if self.state is State.LISTENING:
            self._listen()
        if self.state is State.REFUSED:
            self._throw_away()
        return self.state

    def _listen(self) -> None:
        try:
            line = self.incoming.next_line()
            while line is None:
                size = self.channel.receive(self.incoming.room())
                if not size:
                    return
                self.incoming.received(size)
                line = self.incoming.next_line()
            token = stream.decode_hello(line)
        except stream.Malformed as error:
            self.refuse(str(error))
            return
        if self._token is None or hmac.compare_digest(token.encode(), self._token.encode()):
            self.state = State.ACCEPTED
        else:
            self.refuse("a token is needed" if not token else "wrong token")

    def refuse(self, reason: str) -> None:
        """Say no.  Raises Ended."""
        self.reason = reason
        self.state = State.REFUSED
        self.deadline = time.monotonic() + _LINGER_SECONDS
        self.channel.send([stream.encode_no(reason)])
        self.channel.finish()

    def _throw_away(self) -> None:
        while size := self.channel.receive(self.incoming.room()):
            self._thrown_away += size
            if self._thrown_away > _MOST_THROWN_AWAY:
                raise Ended
