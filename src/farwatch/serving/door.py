"""Where clients come in: every listening socket, and everybody who has not said the first line.

    listeners ──accept──> greetings ──accepted──> Clients
                              └──refused, too slow, too many──> closed

One thread, which waits for nobody.  What a stranger costs is bounded: so many greetings
are under way at most, and the oldest gives way to one that is new.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from farwatch.linux.identity import Who
from farwatch.serving.clients import Clients, Full
from farwatch.transports.stream.channel import Channel, Ended
from farwatch.transports.stream.connection import Connection
from farwatch.transports.stream.greeting import Greeting, State

log = logging.getLogger(__name__)

MOST_GREETINGS = 512
_ACCEPTED_AT_ONCE = 64
_PAUSE_SECONDS = 0.1
"""After an accept(2) that failed for want of descriptors."""


class Listens(Protocol):
    """A socket that listens."""

    def fileno(self) -> int:
        """For poll."""

    def accept(self) -> socket.socket:
        """The next connection.  Raises OSError."""


class Listener(NamedTuple):
    """One of the sockets, and how who comes by it is treated.

    ``name``     the address
    ``context``  TLS, or None
    ``who``      tells whom a connection acts as; None for whom it says
    """

    socket: Listens
    name: str
    context: ssl.SSLContext | None
    who: Callable[[socket.socket], Who | None]


class _Guest(NamedTuple):
    greeting: Greeting
    who: Who | None
    name: str


class Door:
    """Admits clients until it is told to stop."""

    def __init__(self, listeners: list[Listener], clients: Clients, token: str | None) -> None:
        self._listeners = {each.socket.fileno(): each for each in listeners}
        self._clients = clients
        self._token = token
        self._guests: dict[int, _Guest] = {}
        self._poll = select.poll()
        self._closed_until = 0.0

    def run(self, stop: int) -> None:
        """Until ``stop`` is readable."""
        self._poll.register(stop, select.POLLIN)
        self._open(is_open=True)
        try:
            while True:
                ready = self._poll.poll(self._timeout())
                for fd, _ in ready:
                    if fd == stop:
                        return
                    if fd in self._listeners:
                        self._accept(self._listeners[fd])
                    elif fd in self._guests:
                        self._advance(fd)
                self._dismiss_the_slow()
                if self._closed_until and time.monotonic() >= self._closed_until:
                    self._open(is_open=True)
        finally:
            for fd in list(self._guests):
                self._dismiss(fd)

    def _open(self, *, is_open: bool) -> None:
        self._closed_until = 0.0 if is_open else time.monotonic() + _PAUSE_SECONDS
        for fd in self._listeners:
            self._poll.register(fd, select.POLLIN if is_open else 0)

    def _timeout(self) -> int | None:
        whens = [guest.greeting.deadline for guest in self._guests.values()]
        if self._closed_until:
            whens.append(self._closed_until)
        if not whens:
            return None
        return max(0, int((min(whens) - time.monotonic()) * 1000) + 1)

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection = listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                log.error("%s: nobody can connect: %s", listener.name, error.strerror)
                self._open(is_open=False)
                return
            try:
                self._welcome(connection, listener)
            except (OSError, ValueError) as error:
                log.info("%s: a connection failed: %s", listener.name, error)
                connection.close()

    def _welcome(self, connection: socket.socket, listener: Listener) -> None:
        who = listener.who(connection)
        name = f"{_user(who)} at {listener.name}"
        _prepare(connection)
        if listener.context is not None:
            connection = listener.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        if len(self._guests) >= MOST_GREETINGS:
            self._dismiss(next(iter(self._guests)))
        fd = connection.fileno()
        self._guests[fd] = _Guest(Greeting(Channel(connection), self._token), who, name)
        self._poll.register(fd, select.POLLIN)
        self._advance(fd)

    def _advance(self, fd: int) -> None:
        guest = self._guests[fd]
        greeting = guest.greeting
        try:
            state = greeting.advance()
            if state is State.ACCEPTED:
                state = self._admit(fd)
            if state is State.REFUSED and not greeting.is_told:
                log.info("%s is refused: %s", guest.name, greeting.reason)
                greeting.is_told = True
            if state is not State.ACCEPTED:
                self._poll.modify(fd, greeting.wants)
        except Ended:
            self._dismiss(fd)

    def _admit(self, fd: int) -> State:
        greeting, who, name = self._guests[fd]
        try:
            # It is polled here no more before another thread has it.
            self._poll.unregister(fd)
            self._clients.admit(Connection(greeting.channel, greeting.incoming), who, name)
        except Full:
            self._poll.register(fd, select.POLLIN)
            greeting.refuse("there are too many clients")
            return State.REFUSED
        del self._guests[fd]
        return State.ACCEPTED

    def _dismiss_the_slow(self) -> None:
        now = time.monotonic()
        for fd in [fd for fd, guest in self._guests.items() if guest.greeting.deadline <= now]:
            self._dismiss(fd)

    def _dismiss(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._guests.pop(fd).greeting.channel.close()


def _user(who: Who | None) -> str:
    return "root" if who is None else f"user {who.uid}"


def _prepare(connection: socket.socket) -> None:
    """A peer that is there no more is noticed, and small messages go at once."""
    connection.setblocking(False)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
