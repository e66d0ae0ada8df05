"""Back ends that come and go: what was taken and not answered is answered by the next one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.abi.vhost_user import Inflight
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.inflight import InflightBuffer, QueueLog, region_size
from farwatch.transports.vhost.memory import map_file
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, eventually, open_descriptors, whole
from tests.transports.vhost.test_fuse import Reply, echo, number_of, ok, opcode_of

OPTIONS = Options(max_request=1 << 16)


class Sleepy:
    """Answers nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, data: memoryview) -> Reply | None:
        if opcode_of(data) == k.INTERRUPT:
            return None
        self.seen.append(number_of(data))
        return None if opcode_of(data) == k.IOCTL else echo(data)


@pytest.fixture
def servers() -> Iterator[Callable[[Callable[[memoryview], Reply | None]], Server]]:
    before = open_descriptors()
    made: list[Server] = []

    def make(answer: Callable[[memoryview], Reply | None]) -> Server:
        made.append(Server(whole(answer), lambda: None, OPTIONS))
        return made[-1]

    yield make
    for server in made:
        server.close()
    assert open_descriptors() == before


Servers = Callable[[Callable[[memoryview], Reply | None]], Server]


@pytest.mark.parametrize("features", [0, FEATURES])
def test_another_daemon_goes_on(servers: Servers, features: int) -> None:
    """Its answers are the only ones; the order is that of the requests."""
    first, second = Sleepy(), Sleepy()
    one, two = servers(first), servers(second)
    with Frontend(one.connect()) as frontend:
        frontend.negotiate(features)
        frontend.start(SharedMemory([1 << 20]))
        asked = {}
        for number in range(1, 8):
            opcode = k.IOCTL if number % 2 else k.READ
            asked[number] = frontend.submit(k.request(opcode, 1, unique=number), 100)
        assert eventually(lambda: len(first.seen) == 7)
        one.backend.stop()
        one.join()
        # Too late: nobody is there any more to write into the guest's memory.
        one.backend.send(ok(1, b"old"))
        frontend.reconnect(two.connect())
        assert eventually(lambda: len(second.seen) == 4)
        assert second.seen == [1, 3, 5, 7]
        for number in (5, 1, 7, 3):
            two.backend.send(ok(number, b"new"))
        for number, pending in asked.items():
            expected = b"new" if number % 2 else b""
            assert k.checked([frontend.wait(pending)], number) == (0, expected)
        assert frontend.ask(k.request(k.READ, 1, unique=99), 100)
        assert frontend.rings[1].used_index == 8


def test_the_same_daemon_goes_on(servers: Servers) -> None:
    """The front end was gone for a while."""
    sleepy = Sleepy()
    server = servers(sleepy)
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        pending = frontend.submit(k.request(k.IOCTL, 1, unique=1), 100)
        assert eventually(lambda: sleepy.seen == [1])
        for rounds in range(2, 5):
            frontend.channel.close()
            server.join()
            frontend.reconnect(server.connect())
            assert eventually(lambda: sleepy.seen == [1] * rounds)  # noqa: B023
        server.backend.send(ok(1, b"at last"))
        assert k.checked([frontend.wait(pending)], 1) == (0, b"at last")


def test_put_into_the_ring_while_nobody_was_there(servers: Servers) -> None:
    sleepy = Sleepy()
    one, two = servers(sleepy), servers(echo)
    with Frontend(one.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        assert frontend.ask(k.request(k.READ, 1, unique=2), 100)
        one.backend.stop()
        one.join()
        pending = frontend.submit(k.request(k.READ, 1, unique=3), 100)
        frontend.reconnect(two.connect())
        assert k.checked([frontend.wait(pending)], 3) == (0, b"")


def test_nothing_is_left_after_a_stop_in_order(servers: Servers) -> None:
    sleepy = Sleepy()
    server = servers(sleepy)
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        frontend.submit(k.request(k.IOCTL, 1, unique=1), 100)
        assert eventually(lambda: sleepy.seen == [1])
        base = frontend.stop_queue(1)
        frontend.start_queue(1, base)
        assert frontend.ask(k.request(k.READ, 1, unique=3), 100)
        assert sleepy.seen == [1, 3]


# The buffer itself -----------------------------------------------------------------


def made(size: int, queues: int = 1) -> tuple[InflightBuffer, memoryview]:
    buffer, fd, place = InflightBuffer.create(queues, size)
    view = map_file(fd, 0, place.mmap_size)
    os.close(fd)
    return buffer, view


def fresh(size: int = 8) -> tuple[QueueLog, memoryview]:
    buffer, view = made(size)
    log = buffer.queue(0, size)
    assert log.recover(0) == []
    return log, view


def test_layout() -> None:
    """*Inflight I/O tracking*: QueueRegionSplit and DescStateSplit, by hand."""
    log, view = fresh()
    log.taken(3)
    log.taken(5)
    assert struct.unpack_from("<QHHHH", view) == (0, 1, 8, 0, 0)
    assert struct.unpack_from("<B5xHQ", view, 16 + 16 * 3) == (1, 0, 0)
    assert struct.unpack_from("<B5xHQ", view, 16 + 16 * 5) == (1, 0, 1)
    log.returning(3)
    assert struct.unpack_from("<QHHHH", view) == (0, 1, 8, 3, 0)
    log.returned(3, 1)
    assert struct.unpack_from("<QHHHH", view) == (0, 1, 8, 3, 1)
    assert view[16 + 16 * 3] == 0
    log.returning(5)
    assert struct.unpack_from("<B5xHQ", view, 16 + 16 * 5) == (1, 3, 1)


@pytest.mark.parametrize(
    ("step", "used", "left"),
    [("returning", 0, [2, 4]), ("used", 1, [4]), ("returned", 1, [4])],
)
def test_cut_off_while_giving_back(step: str, used: int, left: list[int]) -> None:
    """Whether the used index says so decides."""
    log, view = fresh()
    log.taken(2)
    log.taken(4)
    log.returning(2)
    if step == "returned":
        log.returned(2, 1)
    assert QueueLog(view, 8).recover(used) == left
    assert QueueLog(view, 8).recover(used) == left


def test_used_index_wraps() -> None:
    buffer, view = made(8)
    log = buffer.queue(0, 8)
    log.recover(65535)
    log.taken(1)
    log.returning(1)
    assert QueueLog(view, 8).recover(0) == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60))
def test_any_history(history: list[tuple[bool, int]]) -> None:
    log, view = fresh()
    held: list[int] = []
    used = 0
    for takes, head in history:
        if takes and head not in held:
            log.taken(head)
            held.append(head)
        elif not takes and held:
            gone = held.pop(head % len(held))
            log.returning(gone)
            used = (used + 1) & 0xFFFF
            log.returned(gone, used)
    again = QueueLog(view, 8)
    assert again.recover(used) == held
    again.clear()
    assert QueueLog(view, 8).recover(used) == []


@given(st.binary(min_size=192, max_size=192), st.integers(0, 65535))
def test_any_bytes(data: bytes, used: int) -> None:
    """The front end kept it: it may hold anything."""
    log = QueueLog(memoryview(bytearray(data)), 8)
    try:
        found = log.recover(used)
    except ProtocolError:
        return
    assert len(set(found)) == len(found) <= 8
    assert all(head < 8 for head in found)


@pytest.mark.parametrize(
    "place",
    [
        Inflight(region_size(64) - 1, 0, 1, 64),
        Inflight(region_size(64), 0, 2, 64),
        Inflight(region_size(64), 0, 0, 64),
        Inflight(region_size(64), 0, 1, 0),
        Inflight(region_size(64), 0, 257, 64),
        Inflight(region_size(64), 0, 1, 65535),
        Inflight(region_size(64), 4096, 1, 64),
        Inflight((1 << 64) - 1, 0, 1, 64),
        Inflight(region_size(64), (1 << 64) - 1, 1, 64),
    ],
)
def test_a_buffer_that_cannot_be(place: Inflight) -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, region_size(64))
    try:
        with pytest.raises(ProtocolError):
            InflightBuffer.of(fd, place)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("index", "size"), [(2, 8), (0, 16), (200, 8)])
def test_a_queue_that_has_no_room(index: int, size: int) -> None:
    buffer, _ = made(8, 2)
    with pytest.raises(ProtocolError):
        buffer.queue(index, size)


def test_another_version() -> None:
    _, view = fresh()
    struct.pack_into("<H", view, 8, 2)
    with pytest.raises(ProtocolError, match="version 2"):
        QueueLog(view, 8).recover(0)
