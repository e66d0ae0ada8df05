"""Whoever can connect: what they cannot do to the server, and to those who are served."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from farwatch.events import Mask
from farwatch.serving.door import MOST_GREETINGS
from tests.linux.threads import further_threads, signal_thread
from tests.mounting.mounted import SECONDS, wait_until
from tests.serving.area import Area, Running
from tests.serving.wire import BEGIN, HELLO, OK, Client, Gone, connected, dial, wired
from tests.session.kernel import FIRST_UID, GETATTR, INIT, IOCTL, LOOKUP, ROOT, Refused

pytestmark = pytest.mark.root

NAMES = int(Mask.CREATE | Mask.DELETE)
HEADER = struct.Struct("<IIQQIIII")


def assert_serves(server: Running, area: Area) -> None:
    """Somebody else is served as ever."""
    name = f"served{time.monotonic_ns()}"
    with connected(server.address) as client:
        client.begin().mark(ROOT, NAMES)
        (area.directory / name).mkdir()
        assert client.told(name.encode())


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"FARWATCH/2\n",
        b"FARWATCH/1 a b\n",
        b"FARWATCH/1 \x00\n",
        b"\n",
        b"\xff" * 5000,
        struct.pack("<I", 0x7FFFFFFF) * 2000,
    ],
)
def test_what_is_no_greeting_is_refused_with_a_reason(area: Area, line: bytes) -> None:
    with area.serving() as server:
        with wired(server.address, line) as wire:
            answer = wire.line()
            assert answer.startswith(b"FARWATCH/1 no ")
            assert len(answer) > len(b"FARWATCH/1 no \n")
            with pytest.raises(Gone):
                wire.message(time.monotonic() + SECONDS)
        assert_serves(server, area)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<I", 0x80000000) + bytes(36), id="2 GiB"),
        pytest.param(struct.pack("<I", (1 << 20) + 4097), id="more than is allowed"),
        pytest.param(struct.pack("<I", 39) + bytes(36), id="less than a header"),
        pytest.param(struct.pack("<I", 0) + bytes(36), id="nothing"),
    ],
)
def test_a_message_of_an_impossible_length_ends_the_connection(area: Area, data: bytes) -> None:
    with area.serving() as server:
        with connected(server.address) as client:
            client.begin()
            client.wire.socket.sendall(data)
            assert client.wire.is_gone()
        wait_until(lambda: "what it sends is not FUSE" in server.said(), "a line about it")
        assert_serves(server, area)


@pytest.mark.parametrize("size", [1, 3, 4, 39, 41, 5000])
def test_half_a_message_and_then_silence_holds_up_nobody(area: Area, size: int) -> None:
    with area.serving() as server:
        with connected(server.address) as client:
            client.begin()
            message = HEADER.pack(40 + (1 << 20), 16, 8, ROOT, 0, 0, 1, 0) + bytes(6000)
            client.wire.socket.sendall(message[:size])
            assert_serves(server, area)
        wait_until(lambda: "is gone" in server.said(), "its end")


def test_half_a_line_and_then_silence_ends_after_a_while(area: Area) -> None:
    with area.serving() as server, wired(server.address, b"FARW") as wire:
        assert_serves(server, area)
        assert wire.is_gone()


def test_a_message_may_come_byte_by_byte_and_many_at_once(area: Area) -> None:
    with area.serving() as server, wired(server.address, b"") as wire:
        for byte in HELLO:
            wire.socket.sendall(bytes([byte]))
        assert wire.line() == OK
        client = Client(wire)
        init = HEADER.pack(104, INIT, 2, 0, 0, 0, 0, 0) + struct.pack("<IIIII44x", 7, 45, 0, 0, 0)
        for byte in init:
            wire.socket.sendall(bytes([byte]))
        assert client.answer(2)[0] == 0
        wire.socket.sendall(
            b"".join(
                HEADER.pack(56, GETATTR, unique, ROOT, 0, 0, 1, 0) + bytes(16)
                for unique in range(4, 2004)
            )
        )
        for unique in range(4, 2004):
            assert client.answer(unique)[0] == 0


def test_the_first_request_may_come_with_the_line(area: Area) -> None:
    init = HEADER.pack(104, INIT, 2, 0, 0, 0, 0, 0) + struct.pack("<IIIII44x", 7, 45, 0, 0, 0)
    with area.serving() as server, wired(server.address, HELLO + init) as wire:
        assert wire.line() == OK
        assert Client(wire).answer(2)[0] == 0


def test_a_thousand_connections_that_say_nothing(area: Area) -> None:
    with area.serving() as server, ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(dial(server.address))
        assert_serves(server, area)
        assert server.threads() < 10
        wait_until(lambda: server.files() < MOST_GREETINGS + 50, "the oldest gave way")


def test_a_thousand_clients_and_no_more(area: Area) -> None:
    with area.serving() as server, ExitStack() as stack:
        wires = [stack.enter_context(wired(server.address)) for _ in range(1000)]
        for wire in wires:
            assert wire.line() == OK
        with wired(server.address) as wire:
            assert wire.line() == b"FARWATCH/1 no there are too many clients\n"
        wires[0].socket.close()
        wait_until(lambda: _is_admitted(server), "room for another")
        client = Client(wires[-1]).begin()
        client.mark(ROOT, NAMES)
        (area.directory / "d").mkdir()
        assert client.told(b"d")


def _is_admitted(server: Running) -> bool:
    with wired(server.address) as wire:
        return wire.line() == OK


def test_requests_of_every_opcode_with_no_body_and_with_nonsense(area: Area) -> None:
    with area.serving() as server:
        for body in (b"", b"\xff" * 16, b"\0" * 200):
            with connected(server.address) as client:
                client.begin()
                for opcode in [*range(1, 64), BEGIN, BEGIN + 1, 0xFFFFFFFF]:
                    if opcode in (INIT, 38):
                        continue
                    client.send(opcode, ROOT, body)
                assert client.answer(client.send(GETATTR, ROOT, bytes(16)))[0] == 0
        assert_serves(server, area)
        assert "fault" not in server.said()


def test_reserved_ids_never_pass_and_nobody_is_an_agent(area: Area) -> None:
    with area.serving() as server, connected(server.address) as client:
        client.begin()
        for uid in (FIRST_UID, FIRST_UID + 0xFFFF, 0xFFFFFFFF):
            with pytest.raises(Refused, match="EPERM"):
                client.mkdir("d", uid=uid)
        with pytest.raises(Refused, match="EPERM"):
            client.mkdir("d", gid=0xFFFFFFFF)
        fh = client.opendir(ROOT).fh
        hello = struct.pack("<QIIQII", fh, 1 << 4, 0xFFFF7701, 0, 8, 16383)
        with pytest.raises(Refused, match="ENOTTY"):
            client.ask(IOCTL, ROOT, hello + struct.pack("<II", 1, 0))
        assert os.listdir(area.directory) == []


def test_nothing_outside_is_reached(area: Area) -> None:
    (area.home / "other").write_text("secret")
    os.symlink("../other", area.directory / "link")
    with area.serving() as server, connected(server.address) as client:
        client.begin()
        for name in (b"../other", b"..", b"a/b", b""):
            if name == b"..":
                assert client.lookup("..").node == ROOT
                continue
            with pytest.raises(Refused):
                client.lookup(name)
        with pytest.raises(Refused):
            client.ask(LOOKUP, ROOT, b"no end")
        with pytest.raises(Refused):
            client.open(client.lookup("link").node)


def test_killed_it_is_noticed_by_all(area: Area) -> None:
    with area.serving() as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server.address)) for _ in range(5)]
        for client in clients:
            client.begin().mark(ROOT, NAMES)
        silent = stack.enter_context(wired(server.address, b""))
        server.process.kill()
        assert all(client.wire.is_gone() for client in clients)
        assert silent.is_gone()
    # What it left is no obstacle.
    assert area.socket.exists()
    with area.serving() as server:
        assert_serves(server, area)


def test_a_signal_ends_it_whichever_thread_it_came_to(area: Area) -> None:
    """As when it came to the first one a moment before that began to wait."""
    with area.serving() as server:
        (thread, *_) = further_threads(server.process.pid)
        signal_thread(server.process.pid, thread, signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_clients_connected(area: Area, number: signal.Signals) -> None:
    with area.serving(listen=(area.unix, "tcp:127.0.0.1:0")) as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server.address)) for _ in range(5)]
        for client in clients:
            client.begin().mark(ROOT, NAMES)
        silent = stack.enter_context(wired(server.addresses[1], b""))
        assert server.end(number) == 0
        assert all(client.wire.is_gone() for client in clients)
        assert silent.is_gone()
        assert sorted(os.listdir(area.home)) == ["dir", "err"]
        with pytest.raises(ConnectionError):
            dial(server.addresses[1])


def test_a_peer_that_resets_is_gone(area: Area) -> None:
    with area.serving(listen=("tcp:127.0.0.1:0",)) as server:
        with connected(server.address) as client:
            client.begin().mark(ROOT, NAMES)
            linger = struct.pack("ii", 1, 0)
            client.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_until(lambda: "client 1 is gone" in server.said(), "its end")
        assert_serves(server, area)
