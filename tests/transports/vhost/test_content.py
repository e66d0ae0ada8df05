"""Content goes straight between guest memory and file; what is looked at is a copy."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence

import pytest

from farwatch.abi.virtio import Feature
from farwatch.session.request import Payload, Views
from farwatch.session.session import Session
from farwatch.transports.vhost.driver import Buffer
from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.session.memory import MemoryDisk
from tests.transports.vhost.scene import MAX_WRITE, Scene, Server

IO = struct.Struct("<QQIIQII")
UNIQUE = 6


def io(fh: int, size: int, offset: int = 0) -> bytes:
    return IO.pack(fh, offset, size, 0, 0, 0, 0)


def submit(
    frontend: Frontend, readable: Sequence[tuple[int, int]], writable: Sequence[tuple[int, int]]
) -> Pending:
    """A chain of pieces of guest memory, each its address and size."""
    index = frontend.request_queue
    head = frontend.rings[index].add(
        [Buffer(*piece, is_writable=False) for piece in readable]
        + [Buffer(*piece, is_writable=True) for piece in writable]
    )
    pending = Pending(index, head, (), writable[0])
    frontend.rings[index].kick()
    return pending


# What the session is given -----------------------------------------------------


class Given:
    """Notes what it is given, and does with it what a test wants."""

    def __init__(self) -> None:
        self.data = b""
        self.lengths: list[int] = []
        self.memory: SharedMemory | None = None
        self.request = 0

    def __call__(
        self,
        data: memoryview,
        payload: Views | None,
        room: Views | None,
    ) -> Sequence[Payload]:
        assert self.memory is not None
        # The guest has second thoughts, of what was read by now.
        before = bytes(data)
        self.memory.write(self.request, b"\xff" * len(data))
        assert bytes(data) == before
        self.data = before
        if payload is not None:
            self.lengths = [len(view) for view in payload]
            self.data += b"".join(payload)
        placed = 0
        if room is not None:
            self.lengths = [len(view) for view in room]
            for view in room:
                view[:] = b"c" * len(view)
                placed += len(view)
        return (struct.pack("<IiQ", 16 + placed, 0, UNIQUE),)


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.fixture
def frontend(given: Given) -> Iterator[Frontend]:
    server = Server(given, lambda: None, Options(max_request=MAX_WRITE + 4096))
    with Frontend(server.connect()) as made:
        made.negotiate()
        given.memory = SharedMemory([1 << 20])
        made.start(given.memory)
        yield made
    server.close()


def test_write_is_copied_as_far_as_its_arguments(given: Given, frontend: Frontend) -> None:
    memory = given.memory
    assert memory is not None
    content = [(memory.allocate(4096), 4096), (memory.allocate(8192), 100)]
    request = k.request(k.WRITE, 1, io(1, 4196) + b"x" * 4196, unique=UNIQUE)
    given.request = memory.allocate(80)
    memory.allocate(64)
    reply = memory.allocate(64)
    memory.write(given.request, request[:80])
    for address, size in content:
        memory.write(address, b"x" * size)
    pending = submit(
        frontend, [(given.request, 40), (given.request + 40, 40), *content], [(reply, 24)]
    )
    assert frontend.wait(pending) == struct.pack("<IiQ", 16, 0, UNIQUE)
    assert given.data == request
    assert sum(given.lengths) == 4196


@pytest.mark.parametrize("opcode", [k.SETXATTR, k.GETATTR, k.READ])
def test_all_else_is_copied(given: Given, frontend: Frontend, opcode: int) -> None:
    memory = given.memory
    assert memory is not None
    request = k.request(opcode, 1, bytes(range(200)), unique=UNIQUE)
    given.request, reply = memory.allocate(len(request)), memory.allocate(64)
    memory.write(given.request, request)
    frontend.wait(submit(frontend, [(given.request, len(request))], [(reply, 16)]))
    assert given.data == request


@pytest.mark.parametrize("pieces", [[16, 5, 7], [1, 15, 12], [10, 10, 8], [28], [7] * 4])
def test_read_is_put_behind_the_header(
    given: Given, frontend: Frontend, pieces: Sequence[int]
) -> None:
    memory = given.memory
    assert memory is not None
    request = k.request(k.READ, 1, io(1, 12), unique=UNIQUE)
    given.request = memory.allocate(len(request))
    memory.write(given.request, request)
    room = [(memory.allocate(128), size) for size in pieces]
    pending = submit(frontend, [(given.request, len(request))], room)
    frontend.wait(pending)
    found = b"".join(memory.read(*piece) for piece in room)
    assert found == struct.pack("<IiQ", 28, 0, UNIQUE) + b"c" * 12


# What comes of it --------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[MemoryDisk]:
    with MemoryDisk() as made:
        yield made


@pytest.fixture
def session(disk: MemoryDisk) -> Iterator[Session]:
    made = Session(k.in_session(disk), k.settings(), disk, lambda thread, key: None)
    yield made
    made.close()


CREATE = struct.pack("<IIII", os.O_RDWR | os.O_CREAT, 0o100644, 0, 0) + b"file\0"


def created(scene: Scene) -> tuple[int, int]:
    data = scene.ask(k.CREATE, k.ROOT, CREATE)
    return k.entry_of(data[:128]).node, k.opened_of(data[128:]).fh


def test_byte_by_byte(session: Session) -> None:
    """More pieces than preadv(2) takes, each of one byte, last first in memory."""
    count = 1500
    options = Options(max_request=MAX_WRITE + 4096)
    features = int(Feature.VERSION_1)
    with Scene(session, options=options, features=features, queue_size=2048) as scene:
        scene.init()
        node, fh = created(scene)
        memory = scene.frontend.memory
        assert memory is not None
        content = bytes(number % 253 for number in range(count))
        area = memory.allocate(count)
        memory.write(area, content[::-1])
        pieces = [(area + count - 1 - number, 1) for number in range(count)]
        request, reply = memory.allocate(128), memory.allocate(128)
        memory.write(request, k.request(k.WRITE, node, io(fh, count) + content, unique=2)[:80])
        scene.frontend.wait(submit(scene.frontend, [(request, 80), *pieces], [(reply, 24)]))
        assert memory.read(reply, 24) == struct.pack("<IiQII", 24, 0, 2, count, 0)
        assert scene.ask(k.READ, node, io(fh, count)) == content
        memory.write(area, bytes(count))
        memory.write(request, k.request(k.READ, node, io(fh, count), unique=2))
        scene.frontend.wait(submit(scene.frontend, [(request, 80)], [(reply, 16), *pieces]))
        assert memory.read(reply, 16) == struct.pack("<IiQ", 16 + count, 0, 2)
        assert memory.read(area, count) == content[::-1]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, MAX_WRITE, MAX_WRITE + 1, (1 << 32) - 1])
@pytest.mark.parametrize("room", [0, 1, 99, 100, 101])
def test_read_is_bounded_by_its_room(session: Session, size: int, room: int) -> None:
    with Scene(session) as scene:
        scene.init()
        node, fh = created(scene)
        content = bytes(range(100))
        scene.ask(k.WRITE, node, io(fh, 100) + content)
        found = scene.ask(k.READ, node, io(fh, size), room=16 + room)
        assert found == content[: min(size, room)]


@pytest.mark.parametrize("size", [0, 99, 101, (1 << 32) - 1])
@pytest.mark.parametrize("told", [0, 1, 79, 80, 179, 181, (1 << 32) - 1])
def test_write_of_another_size(session: Session, disk: MemoryDisk, size: int, told: int) -> None:
    """By its arguments, or by its header: neither is believed."""
    with Scene(session) as scene:
        scene.init()
        node, fh = created(scene)
        data = bytearray(k.request(k.WRITE, node, io(fh, size) + bytes(100), unique=UNIQUE))
        struct.pack_into("<I", data, 0, told)
        number, _ = k.checked([scene.frontend.ask(bytes(data), 100)], UNIQUE)
        if size == min(max(told - 80, 0), 100) and told >= 80:
            assert number == 0
        else:
            assert number == errno.EINVAL
            assert scene.ask(k.READ, node, io(fh, 100)) == b""


def test_refused_read_leaves_only_its_errno(session: Session) -> None:
    with Scene(session) as scene:
        scene.init()
        node, _ = created(scene)
        with pytest.raises(k.Refused) as refused:
            scene.ask(k.READ, node, io(777, 100))
        assert refused.value.errno == errno.EBADF
