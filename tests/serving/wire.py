"""A client of ``farwatch serve`` with nothing but a socket.

Layouts are written down a second time, by hand (see tests/session/kernel.py); of fsnotify
those that its tests compare with a C program.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from farwatch.abi.fsnotify import Ended, Event, decode_ended, decode_event
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from tests.mounting.mounted import SECONDS
from tests.session.kernel import FLAGS2_6_18, FLAGS_6_18, WITHOUT_REPLY, Kernel, checked
from tests.session.memory import MemoryDisk

HELLO = b"FARWATCH/1\n"
OK = b"FARWATCH/1 ok\n"
HAVE_FSNOTIFY_2 = 1 << 29
BEGIN, MARK, TAKE = 0x46570001, 0x46570002, 0x46570003
EVENT, ENDED = 0x4657, 0x4658
REMOTE, MERGED = 1, 2


class Gone(Exception):
    """The server has closed the connection."""


class Wire:
    """Messages on a socket, in the place of a session."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.notices: list[tuple[int, bytes]] = []
        self.late: dict[int, bytes] = {}
        self._data = b""

    def receive(self, data: memoryview) -> Reply | None:
        """One request, and its answer."""
        opcode, unique = struct.unpack_from("<IQ", data, 4)
        self.socket.sendall(data)
        if opcode in WITHOUT_REPLY:
            return None
        while unique not in self.late:
            self.read_one()
        return (self.late.pop(unique),)

    def read_one(self, seconds: float = SECONDS) -> None:
        """Waits for the next message; TimeoutError, Gone."""
        data = self.message(time.monotonic() + seconds)
        length, error, unique = struct.unpack_from("<IiQ", data)
        assert length == len(data)
        if unique:
            self.late[unique] = data
        else:
            self.notices.append((error, data[16:]))

    def message(self, deadline: float) -> bytes:
        while len(self._data) < 4 or len(self._data) < int.from_bytes(self._data[:4], "little"):
            self._fill(deadline)
        length = int.from_bytes(self._data[:4], "little")
        assert length >= 16
        data, self._data = self._data[:length], self._data[length:]
        return data

    def line(self) -> bytes:
        deadline = time.monotonic() + SECONDS
        while b"\n" not in self._data:
            self._fill(deadline)
        line, _, self._data = self._data.partition(b"\n")
        return line + b"\n"

    def _fill(self, deadline: float) -> None:
        self.socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            raise Gone from None
        if not data:
            raise Gone
        self._data += data

    def is_gone(self) -> bool:
        """Whether the server closes the connection, whatever it says before."""
        with contextlib.suppress(Gone):
            while True:
                self._fill(time.monotonic() + SECONDS)
        return True


class Client(Kernel):
    """A client that keeps its own marks."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(MemoryDisk(), cast("Session", wire))
        self.wire = wire
        self.number = 0

    def begin(self, mode: int = MERGED) -> Client:
        """INIT and BEGIN."""
        answer = self.init(flags=FLAGS_6_18, flags2=FLAGS2_6_18 | HAVE_FSNOTIFY_2)
        assert answer[10] & HAVE_FSNOTIFY_2
        begun = self.ask(BEGIN, 1, struct.pack("<III4x", 1, mode, 0))
        _, said, _, _, number = struct.unpack("<IIIIQ", begun)
        assert said == mode
        self.number = number
        return self

    def mark(self, node: int, mask: int, generation: int = 0, **who: int) -> int:
        """Watches a node; the sequence of the last event before."""
        answer = self.ask(MARK, node, struct.pack("<QII", generation, mask, 0), **who)
        told, _, sequence = struct.unpack("<IIQ", answer)
        assert told == mask
        return cast("int", sequence)

    def told(self, until: bytes) -> list[Event]:
        """The events until one has this name, that one included."""
        found: list[Event] = []
        while until not in [name for event in found for name in (event.name, event.new_name)]:
            found += [each for each in self._next() if isinstance(each, Event)]
        return found

    def _next(self) -> Iterator[Event | Ended]:
        while not self.wire.notices:
            self.wire.read_one()
        code, payload = self.wire.notices.pop(0)
        assert code in (EVENT, ENDED)
        yield decode_event(payload) if code == EVENT else decode_ended(payload)

    def send(self, opcode: int, node: int, body: bytes = b"") -> int:
        """A request whose answer nobody waits for; its number."""
        self._unique += 2
        header = struct.pack("<IIQQIIII", 40 + len(body), opcode, self._unique, node, 0, 0, 1, 0)
        self.wire.socket.sendall(header + body)
        return self._unique

    def answer(self, unique: int) -> tuple[int, bytes]:
        """Errno and payload."""
        while unique not in self.wire.late:
            self.wire.read_one()
        return checked((self.wire.late.pop(unique),), unique)


def dial(address: str, context: ssl.SSLContext | None = None) -> socket.socket:
    """A connection to what a server says that it listens on."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(rest)
        return connection
    host, _, port = rest.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS)
    return context.wrap_socket(connection, server_hostname="localhost") if context else connection


@contextmanager
def wired(
    address: str, hello: bytes = HELLO, context: ssl.SSLContext | None = None
) -> Iterator[Wire]:
    """A connection on which the first line was sent."""
    with dial(address, context) as connection:
        wire = Wire(connection)
        wire.socket.sendall(hello)
        yield wire


@contextmanager
def connected(
    address: str, hello: bytes = HELLO, context: ssl.SSLContext | None = None
) -> Iterator[Client]:
    """A client that was greeted; it has not said INIT."""
    with wired(address, hello, context) as wire:
        assert wire.line() == OK
        yield Client(wire)
