"""What one back end leaves to the next: the INIT that was agreed on, and what it had taken."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from farwatch.abi.vhost_user import Inflight
from farwatch.session.request import Payload
from farwatch.transports.vhost.backend import Backend
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.inflight import InflightBuffer, region_size
from farwatch.transports.vhost.memory import map_file
from farwatch.transports.vhost.recovery import REPEATABLE
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, eventually, whole
from tests.transports.vhost.test_fuse import number_of, ok, opcode_of

OPTIONS = Options(max_request=1 << 16)
INIT = k.request(k.INIT, 0, struct.pack("<5I44x", 7, 41, 0, k.FLAGS_6_18, 0), unique=2, pid=0)


class Session:
    """Answers all but what is in ``parked``, and remembers the opcodes."""

    def __init__(self, parked: tuple[int, ...] = (), error: int = 0) -> None:
        self.seen: list[int] = []
        self.requests: list[bytes] = []
        self._parked = parked
        self._error = error

    def answer(self, data: memoryview) -> list[Payload] | None:
        opcode = opcode_of(data)
        if opcode in (k.INTERRUPT, *self._parked):
            self.seen.append(opcode)
            return None
        self.seen.append(opcode)
        self.requests.append(bytes(data))
        if self._error:
            return [struct.pack("<IiQ", 16, -self._error, number_of(data))]
        return list(ok(number_of(data)))


class Instance(Server):
    """A back end that is one session's."""

    def __init__(self, session: Session, instance: int) -> None:
        self.session = session
        self._number = instance
        super().__init__(whole(session.answer), lambda: None, OPTIONS)

    def _serve(self, connection: object) -> None:
        self.backend.serve(
            connection,  # type: ignore[arg-type]
            self._receive,
            self._after,
            instance=self._number,
        )


Make = Callable[[Session, int], Instance]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Instance] = []

    def instance(session: Session, number: int) -> Instance:
        made.append(Instance(session, number))
        return made[-1]

    yield instance
    for server in made:
        server.close()


def ask(frontend: Frontend, opcode: int, unique: int) -> int:
    """The errno of a reply."""
    data = INIT if opcode == k.INIT else k.request(opcode, 1, unique=unique)
    return k.checked([frontend.ask(data, 100)])[0]


@pytest.mark.parametrize(
    ("said", "error", "repeated"),
    [
        ([k.INIT], 0, 1),
        ([], 0, 0),
        ([k.INIT, k.DESTROY], 0, 0),
        ([k.INIT, k.DESTROY, k.INIT], 0, 1),
        ([k.INIT], 71, 0),
    ],
)
def test_what_was_agreed_on_is_said_to_the_next(
    make: Make, said: list[int], error: int, repeated: int
) -> None:
    first, second, third = Session(error=error), Session(), Session()
    one, two, three = (make(each, 10 + n) for n, each in enumerate((first, second, third)))
    with Frontend(one.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        for number, opcode in enumerate(said):
            ask(frontend, opcode, 2 + 2 * number)
        one.backend.stop()
        one.join()
        for server in (two, three):
            frontend.reconnect(server.connect())
            ask(frontend, k.GETATTR, 100)
            assert server.session.seen == [k.INIT] * repeated + [k.GETATTR]
            assert server.session.requests[:-1] == [INIT] * repeated
            server.backend.stop()
            server.join()


def test_the_same_session_is_not_told_again(make: Make) -> None:
    session = Session()
    server = make(session, 5)
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        ask(frontend, k.INIT, 2)
        frontend.channel.close()
        server.join()
        frontend.reconnect(server.connect())
        ask(frontend, k.GETATTR, 4)
        assert session.seen == [k.INIT, k.GETATTR]


@pytest.mark.parametrize("opcode", sorted({*range(1, 54)} - {k.INTERRUPT, k.FORGET, 42}))
def test_what_changes_something_is_not_done_again(make: Make, opcode: int) -> None:
    """The first has it for ever; the second answers."""
    first, second = Session(parked=(opcode,)), Session()
    one, two = make(first, 1), make(second, 2)
    with Frontend(one.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        pending = frontend.submit(k.request(opcode, 1, bytes(40), unique=2), 100)
        assert eventually(lambda: first.seen == [opcode])
        one.backend.stop()
        one.join()
        frontend.reconnect(two.connect())
        error, _ = k.checked([frontend.wait(pending)], 2)
        again = opcode in REPEATABLE
        assert error == (0 if again else 5)
        assert second.seen == ([opcode] if again else [])
        # What the guest asks now is asked for the first time.
        assert k.checked([frontend.ask(k.request(opcode, 1, bytes(40), unique=4), 100)])[0] == 0


def test_changing_opcodes_are_not_repeatable() -> None:
    changing = {
        k.SETATTR, k.SYMLINK, k.MKNOD, k.MKDIR, k.UNLINK, k.RMDIR, k.RENAME, k.RENAME2, k.LINK,
        k.WRITE, k.CREATE, k.TMPFILE, k.SETXATTR, k.REMOVEXATTR, k.FALLOCATE, k.COPY_FILE_RANGE,
    }  # fmt: skip
    assert not changing & REPEATABLE


# The buffer ----------------------------------------------------------------------------


def made() -> tuple[InflightBuffer, memoryview]:
    buffer, fd, place = InflightBuffer.create(2, 8)
    view = map_file(fd, 0, place.mmap_size)
    os.close(fd)
    return buffer, view


def test_note() -> None:
    buffer, view = made()
    assert buffer.noted() is None
    buffer.note(7, INIT)
    assert buffer.noted() == (7, INIT)
    start = 2 * region_size(8)
    assert view[start : start + 24] == struct.pack("<8sQI4x", b"farwatch", 7, len(INIT))
    buffer.note(8, b"")
    assert buffer.noted() is None


def test_a_note_that_is_too_long_is_not_kept() -> None:
    buffer, _ = made()
    buffer.note(7, INIT)
    buffer.note(7, bytes(1000))
    assert buffer.noted() == (7, INIT)


@pytest.mark.parametrize(
    "note",
    [
        bytes(256),
        struct.pack("<8sQI4x", b"farwatch", 7, 233),
        struct.pack("<8sQI4x", b"farwatch", 7, 0xFFFF_FFFF),
        struct.pack("<8sQI4x", b"somebody", 7, 100),
    ],
)
def test_a_note_that_is_none(note: bytes) -> None:
    buffer, view = made()
    start = 2 * region_size(8)
    view[start : start + len(note)] = note
    assert buffer.noted() is None


def test_a_buffer_that_others_made_has_no_note() -> None:
    size = region_size(8)
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    buffer = InflightBuffer.of(fd, Inflight(size, 0, 1, 8))
    os.close(fd)
    buffer.note(7, INIT)
    assert buffer.noted() is None


# The time ------------------------------------------------------------------------------


def test_after_is_called_when_it_is_due() -> None:
    """Only while a request is parked, and once each time."""
    calls: list[float | None] = []
    times: list[float | None] = []
    called = threading.Event()

    def after() -> None:
        calls.append(times[0] if times else None)
        if times:
            times.clear()
            called.set()

    class Timed(Server):
        def _serve(self, connection: object) -> None:
            self.backend.serve(
                connection,  # type: ignore[arg-type]
                self._receive,
                self._after,
                due=lambda: times[0] if times else None,
            )

    server = Timed(whole(Session(parked=(k.IOCTL,)).answer), after, OPTIONS)
    backend: Backend = server.backend
    try:
        with Frontend(server.connect()) as frontend:
            frontend.negotiate()
            frontend.start(SharedMemory([1 << 20]))
            times.append(0.0)
            assert ask(frontend, k.GETATTR, 2) == 0
            times.clear()
            called.clear()
            pending = frontend.submit(k.request(k.IOCTL, 1, unique=4), 100)
            assert eventually(lambda: len(calls) == 2)
            times.append(1.0)
            ask(frontend, k.GETATTR, 6)
            assert called.wait(5)
            backend.send(ok(4))
            assert frontend.wait(pending)
    finally:
        server.close()
