"""One connection on a pair of sockets, with something simple behind it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from farwatch.abi import stream
from farwatch.transports.stream.channel import Channel
from farwatch.transports.stream.connection import ROOM, Connection
from tests.mounting.mounted import SECONDS, wait_until

HEADER = struct.Struct("<IiQ")
OK = b"FARWATCH/1 ok\n"


class Echo:
    """Answers each request with as many bytes as it asks for; has notices in store."""

    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.requests = 0
        self.notices: deque[bytes] = deque()
        self.has_lost = False
        self.due: float | None = None

    def receive(self, message: memoryview) -> Sequence[bytes]:
        self.requests += 1
        (unique,) = struct.unpack_from("<Q", message, 8)
        (size,) = struct.unpack_from("<I", message, 40)
        return HEADER.pack(16 + size, 0, unique), bytes(size)

    def next_answer(self) -> None:
        return None

    def next_notice(self) -> Sequence[bytes] | None:
        return (self.notices.popleft(),) if self.notices else None

    def woken(self) -> None:
        os.eventfd_read(self.wake)

    def fileno(self) -> int:
        return self.wake


class Scene:
    def __init__(self) -> None:
        self.echo = Echo()
        self.peer, mine = socket.socketpair()
        self.peer.settimeout(SECONDS)
        self.connection = Connection(Channel(mine), stream.Incoming(stream.SHORTEST_REQUEST))
        self.stop = os.eventfd(0)
        self.end: str | BaseException = ""
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.end = self.connection.serve(self.echo, self.stop)
        except stream.Malformed as error:
            self.end = error

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.peer.recv(size - len(data))
            assert more
            data += more
        return data


@contextmanager
def serving() -> Iterator[Scene]:
    scene = Scene()
    scene.thread.start()
    try:
        assert scene.exactly(len(OK)) == OK
        yield scene
    finally:
        os.eventfd_write(scene.stop, 1)
        scene.thread.join(SECONDS)
        assert not scene.thread.is_alive()
        scene.connection.close()
        scene.peer.close()
        os.close(scene.stop)
        os.close(scene.echo.wake)


def request(unique: int, size: int) -> bytes:
    return struct.pack("<IIQQIIIII", 44, 1, unique, 1, 0, 0, 0, 0, size)


def test_large_replies_to_many_requests_at_once_all_come() -> None:
    with serving() as scene:
        size, count = 1 << 20, 40
        scene.peer.sendall(b"".join(request(unique, size) for unique in range(1, count + 1)))
        for unique in range(1, count + 1):
            assert HEADER.unpack(scene.exactly(16)) == (16 + size, 0, unique)
            assert scene.exactly(size) == bytes(size)


def test_who_does_not_read_is_answered_no_more() -> None:
    with serving() as scene:
        scene.peer.sendall(b"".join(request(unique, ROOM) for unique in range(1, 101)))
        wait_until(lambda: scene.echo.requests > 0, "the first")
        # Nothing but the peer's reading changes this number any more.
        seen = -1
        while seen != scene.echo.requests:
            seen = scene.echo.requests
            scene.peer.sendall(request(200, 0))
        assert scene.echo.requests < 10
        for unique in range(1, 101):
            assert HEADER.unpack(scene.exactly(16))[2] == unique
            scene.exactly(ROOM)
        assert HEADER.unpack(scene.exactly(16)) == (16, 0, 200)


def test_all_notices_come_however_many_there_are() -> None:
    with serving() as scene:
        notices = [HEADER.pack(116, 7, 0) + bytes([number % 256]) * 100 for number in range(50_000)]
        scene.echo.notices.extend(notices)
        os.eventfd_write(scene.echo.wake, 1)
        for notice in notices:
            assert scene.exactly(116) == notice


def test_it_ends_when_the_peer_does_although_much_waits_for_it() -> None:
    with serving() as scene:
        scene.peer.sendall(request(1, 1 << 20) * 3)
        wait_until(lambda: scene.echo.requests > 0, "the first")
        scene.peer.close()
        scene.thread.join(SECONDS)
        assert not scene.thread.is_alive()
        assert scene.end != "the server ends"


def test_it_ends_when_told_to() -> None:
    with serving() as scene:
        os.eventfd_write(scene.stop, 1)
        scene.thread.join(SECONDS)
        assert scene.end == "the server ends"


def test_nonsense_is_told() -> None:
    with serving() as scene:
        scene.peer.sendall(b"\xff" * 8)
        scene.thread.join(SECONDS)
        assert isinstance(scene.end, stream.Malformed)


def test_who_has_lost_notices_and_reads_nothing_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("farwatch.transports.stream.connection.PATIENCE", 0.2)
    with serving() as scene:
        scene.echo.has_lost = True
        scene.echo.notices.extend(HEADER.pack(65552, 7, 0) + bytes(65536) for _ in range(100))
        os.eventfd_write(scene.echo.wake, 1)
        scene.thread.join(SECONDS)
        assert scene.end == "it does not read"
