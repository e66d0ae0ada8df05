"""What the queue loop does with requests of every kind; behind it a function, no session."""

from __future__ import annotations

import errno
import gc
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from farwatch.abi.virtio import Feature
from farwatch.session.request import Payload
from farwatch.transports.vhost.driver import Buffer
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, eventually, joined, whole

Reply = Sequence[Payload]


def ok(unique: int, *parts: bytes) -> Reply:
    size = 16 + sum(map(len, parts))
    return (struct.pack("<IiQ", size, 0, unique), *parts)


def number_of(data: memoryview | bytes) -> int:
    return int(struct.unpack_from("<Q", data, 8)[0])


def opcode_of(data: memoryview | bytes) -> int:
    return int(struct.unpack_from("<I", data, 4)[0])


class Pair:
    """A front end, and a back end whose requests are answered by ``answer``."""

    def __init__(
        self,
        answer: Callable[[memoryview], Reply | None],
        *,
        features: int = FEATURES,
        sizes: Sequence[int] = (1 << 20,),
        queue_size: int = 64,
        options: Options | None = None,
    ) -> None:
        self.seen: list[bytes] = []
        self._answer = answer
        self.server = Server(
            whole(self.receive), lambda: None, options or Options(max_request=1 << 16)
        )
        self.frontend = Frontend(self.server.connect())
        self.frontend.negotiate(features)
        queues = self.server.backend.options.queues
        self.frontend.start(SharedMemory(sizes), queues=queues, size=queue_size)

    def receive(self, data: memoryview) -> Reply | None:
        self.seen.append(bytes(data))
        if opcode_of(data) == k.INTERRUPT:
            return None
        return self._answer(data)

    def close(self) -> None:
        self.frontend.close()
        self.server.close()


@pytest.fixture
def pairs() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(*arguments: object, **options: object) -> Pair:
        pair = Pair(*arguments, **options)  # type: ignore[arg-type]
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.close()


Pairs = Callable[..., Pair]


def echo(data: memoryview) -> Reply:
    return ok(number_of(data), bytes(data[40:]))


CUTS = [(), (1,), (40,), (39, 2), (16, 24, 1), (7,) * 20, (40, 4096)]


@pytest.mark.parametrize("features", [0, Feature.INDIRECT_DESC])
@pytest.mark.parametrize("room_pieces", CUTS)
@pytest.mark.parametrize("pieces", CUTS)
def test_however_it_is_cut(
    pairs: Pairs, features: int, pieces: Sequence[int], room_pieces: Sequence[int]
) -> None:
    frontend = pairs(echo, features=features).frontend
    body = bytes(range(251)) * 40
    pending = frontend.submit(
        k.request(k.WRITE, 1, body, unique=6),
        16 + len(body),
        pieces=pieces,
        room_pieces=room_pieces,
    )
    assert k.checked([frontend.wait(pending)], 6) == (0, body)


@pytest.mark.parametrize("size", [16, 17, 100, 4000, 60_000])
def test_as_much_as_there_is(pairs: Pairs, size: int) -> None:
    frontend = pairs(lambda data: ok(number_of(data), bytes(size - 16))).frontend
    assert len(frontend.ask(k.request(k.READ, 1), size)) == size
    assert len(frontend.ask(k.request(k.READ, 1), size + 1)) == size


def test_the_memory_goes_at_the_end() -> None:
    gc.collect()
    gc.disable()
    try:
        before = _mapped()
        pair = Pair(echo)
        frontend = pair.frontend
        frontend.ask(k.request(k.READ, 1, b"data"), 100)
        assert _mapped() > before
        pair.close()
        assert _mapped() == before, "left to the garbage collector"
    finally:
        gc.enable()


def _mapped() -> int:
    """How often front ends' memory is mapped in this process."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("/memfd:guest-")


def test_too_little_room(pairs: Pairs) -> None:
    frontend = pairs(lambda data: ok(number_of(data), bytes(100))).frontend
    assert k.checked([frontend.ask(k.request(k.READ, 1, unique=4), 115)], 4) == (errno.EIO, b"")
    assert k.checked([frontend.ask(k.request(k.READ, 1, unique=4), 116)], 4) == (0, bytes(100))


@pytest.mark.parametrize("room", [0, 1, 15])
def test_no_room_for_a_header(pairs: Pairs, room: int) -> None:
    pair = pairs(echo)
    assert pair.frontend.ask(k.request(k.CREATE, 1), room) == b""
    assert pair.seen == [], "nothing is done for which there can be no answer"


@pytest.mark.parametrize("opcode", [k.FORGET, k.BATCH_FORGET])
@pytest.mark.parametrize("queue", [0, 1])
@pytest.mark.parametrize("room", [0, 100])
def test_forget(pairs: Pairs, opcode: int, queue: int, room: int) -> None:
    pair = pairs(lambda data: None)
    data = k.request(opcode, 1, bytes(16))
    assert pair.frontend.ask(data, room, queue=queue) == b""
    assert pair.seen == [data]


@pytest.mark.parametrize("size", [1, 4, 16, 39])
def test_no_header(pairs: Pairs, size: int) -> None:
    pair = pairs(echo)
    assert pair.frontend.ask(bytes(size), 100) == b""
    assert pair.seen == []
    assert pair.frontend.ask(k.request(k.READ, 1), 100)


def test_number_0(pairs: Pairs) -> None:
    """A reply to it would be a notification."""
    pair = pairs(echo)
    assert pair.frontend.ask(k.request(k.READ, 1, unique=0), 100) == b""
    assert pair.seen == []


def test_several_in_flight(pairs: Pairs) -> None:
    frontend = pairs(echo).frontend
    asked = {
        number: frontend.submit(k.request(k.READ, 1, bytes([number]), unique=number), 100)
        for number in range(1, 20)
    }
    for number, pending in reversed(asked.items()):
        assert k.checked([frontend.wait(pending)], number) == (0, bytes([number]))


@pytest.mark.parametrize("features", [0, FEATURES])
@pytest.mark.parametrize("size", [1, 2, 4, 128])
def test_indices_wrap(pairs: Pairs, features: int, size: int) -> None:
    pair = pairs(echo, features=features, queue_size=size)
    ring = pair.frontend.rings[1]
    for number in range(1, 600):
        pieces = () if size == 1 else (40,)
        if size == 1 and not features:
            # One descriptor cannot be both: what is asked has no answer.
            pending = pair.frontend.submit(k.request(k.FORGET, 1, unique=number), 0, pieces=())
            assert pair.frontend.wait(pending) == b""
            continue
        pending = pair.frontend.submit(
            k.request(k.READ, 1, unique=number), 16, pieces=pieces, room_pieces=()
        )
        assert k.checked([pair.frontend.wait(pending)], number) == (0, b"")
    assert ring.used_index == 599


def test_index_wraps_at_65536(pairs: Pairs) -> None:
    pair = pairs(echo)
    frontend, ring = pair.frontend, pair.frontend.rings[1]
    assert frontend.stop_queue(1) == 0
    # As after 65,530 requests.
    struct.pack_into("<H", ring.areas.used, 2, 65530)
    ring.set_available_index(65530)
    ring.seen = 65530
    frontend.start_queue(1, 65530)
    for number in range(1, 20):
        assert frontend.ask(k.request(k.READ, 1, unique=number), 100)
    assert ring.used_index == 13
    assert frontend.stop_queue(1) == 13


# Parked requests -------------------------------------------------------------


def test_parked_and_answered_later(pairs: Pairs) -> None:
    """From another thread, in another order."""
    pair = pairs(lambda data: None)
    asked = {
        number: pair.frontend.submit(k.request(k.IOCTL, 1, unique=number), 100)
        for number in (2, 4, 6, 8)
    }
    assert eventually(lambda: len(pair.seen) == 4)

    def answer() -> None:
        for number in (6, 2, 8, 4):
            pair.server.backend.send(ok(number, b"n%d" % number))

    thread = threading.Thread(target=answer)
    thread.start()
    for number, pending in asked.items():
        assert k.checked([pair.frontend.wait(pending)], number) == (0, b"n%d" % number)
    thread.join()


def test_others_go_on_meanwhile(pairs: Pairs) -> None:
    pair = pairs(lambda data: None if opcode_of(data) == k.IOCTL else echo(data))
    parked = pair.frontend.submit(k.request(k.IOCTL, 1, unique=2), 100)
    for number in range(3, 300):
        assert pair.frontend.ask(k.request(k.READ, 1, unique=number), 100)
    pair.server.backend.send(ok(2))
    assert k.checked([pair.frontend.wait(parked)], 2) == (0, b"")


def test_an_answer_waits_for_who_has_asked(pairs: Pairs) -> None:
    """Its descriptor is used again at once, by others who ask."""
    pair = pairs(lambda data: None if opcode_of(data) == k.IOCTL else echo(data), queue_size=2)
    parked = pair.frontend.submit(k.request(k.IOCTL, 1, unique=2), 100)
    assert eventually(lambda: bool(pair.seen))
    pair.server.backend.send(ok(2, b"late"))
    assert pair.frontend.ask(k.request(k.GETATTR, 1, unique=4), 100)
    asked = {
        unique: pair.frontend.submit(k.request(k.GETATTR, 1, b"%d" % unique, unique=unique), 100)
        for unique in (6, 8)
    }
    for unique, pending in asked.items():
        assert k.checked([pair.frontend.wait(pending)], unique) == (0, b"%d" % unique)
    assert k.checked([pair.frontend.wait(parked)], 2) == (0, b"late")


def test_answered_before_it_is_parked(pairs: Pairs) -> None:
    """The other thread may be quicker than ``receive`` returns."""
    held: list[Pair] = []

    def answer(data: memoryview) -> None:
        thread = threading.Thread(target=held[0].server.backend.send, args=(ok(number_of(data)),))
        thread.start()
        thread.join()

    held.append(pairs(answer))
    for number in range(1, 30):
        data = held[0].frontend.ask(k.request(k.IOCTL, 1, unique=number), 100)
        assert k.checked([data], number) == (0, b"")


def test_two_threads_answer(pairs: Pairs) -> None:
    """Replies of the loop's and of another thread's into the same ring, none lost."""
    parked: list[int] = []

    def answer(data: memoryview) -> Reply | None:
        if number_of(data) % 3:
            return echo(data)
        parked.append(number_of(data))
        return None

    pair = pairs(answer, queue_size=128)
    over = threading.Event()

    def later() -> None:
        while not over.is_set() or parked:
            if parked:
                pair.server.backend.send(ok(parked.pop()))

    thread = threading.Thread(target=later)
    thread.start()
    asked = {}
    for number in range(1, 400):
        asked[number] = pair.frontend.submit(k.request(k.READ, 1, unique=number), 100)
        if len(asked) == 30:
            for unique, pending in asked.items():
                assert k.checked([pair.frontend.wait(pending)], unique) == (0, b"")
            asked.clear()
    for unique, pending in asked.items():
        assert k.checked([pair.frontend.wait(pending)], unique) == (0, b"")
    over.set()
    thread.join()


@pytest.mark.parametrize("unique", [1, 99, (1 << 64) - 1])
def test_reply_to_nothing(pairs: Pairs, unique: int) -> None:
    pair = pairs(echo)
    pair.server.backend.send(ok(unique))
    assert pair.frontend.ask(k.request(k.READ, 1), 100)


def test_stop_answers_what_is_parked(pairs: Pairs) -> None:
    """Before GET_VRING_BASE is answered; the session hears of it as of a signal."""
    pair = pairs(lambda data: None)
    pending = pair.frontend.submit(k.request(k.IOCTL, 1, unique=6), 100)
    assert eventually(lambda: len(pair.seen) == 1)
    assert pair.frontend.stop_queue(1) == 1
    assert k.checked([pair.frontend.poll(pending) or b""], 6) == (errno.EINTR, b"")
    assert struct.unpack_from("<Q", pair.seen[1], 40)[0] == 6
    pair.server.backend.send(ok(6))
    pair.frontend.start_queue(1, 1)
    again = pair.frontend.submit(k.request(k.IOCTL, 1, unique=6), 100)
    assert eventually(lambda: len(pair.seen) == 3)
    pair.server.backend.send(ok(6, b"x"))
    assert k.checked([pair.frontend.wait(again)], 6) == (0, b"x")


def test_stop_leaves_other_queues_alone(pairs: Pairs) -> None:
    pair = pairs(lambda data: None, options=Options(request_queues=2, max_request=1 << 16))
    one = pair.frontend.submit(k.request(k.IOCTL, 1, unique=2), 100, queue=1)
    two = pair.frontend.submit(k.request(k.IOCTL, 1, unique=4), 100, queue=2)
    assert eventually(lambda: len(pair.seen) == 2)
    pair.frontend.stop_queue(1)
    assert pair.frontend.poll(one) is not None
    assert pair.frontend.poll(two) is None
    pair.server.backend.send(ok(4))
    assert k.checked([pair.frontend.wait(two)], 4) == (0, b"")


def test_interrupt(pairs: Pairs) -> None:
    pair = pairs(echo)
    assert pair.frontend.ask(k.request(k.INTERRUPT, 0, bytes(8)), 16, queue=0) == b""


def test_disabled_queue_waits(pairs: Pairs) -> None:
    pair = pairs(echo)
    frontend = pair.frontend
    frontend.tell(18, struct.pack("<II", 1, 0))
    pending = frontend.submit(k.request(k.READ, 1, unique=2), 100)
    with pytest.raises(TimeoutError):
        frontend.wait(pending, 0.05)
    frontend.tell(18, struct.pack("<II", 1, 1))
    assert frontend.wait(pending)


# Who is to be woken ----------------------------------------------------------


def test_event_index_spares_kicks(pairs: Pairs) -> None:
    """While the device is at it, it does not ask for kicks."""
    entered, go = threading.Event(), threading.Event()

    def answer(data: memoryview) -> Reply:
        entered.set()
        assert go.wait(5)
        return echo(data)

    pair = pairs(answer)
    frontend, ring = pair.frontend, pair.frontend.rings[1]
    asked = [frontend.submit(k.request(k.READ, 1, unique=1), 16)]
    assert entered.wait(5)
    kicks = []
    for number in range(2, 10):
        area = frontend.memory.allocate(64)  # type: ignore[union-attr]
        frontend.memory.write(area, k.request(k.FORGET, 1, unique=number))  # type: ignore[union-attr]
        ring.add([Buffer(area, 40, is_writable=False)])
        kicks.append(ring.kick())
    assert kicks == [False] * 8
    go.set()
    assert frontend.wait(asked[0])
    assert eventually(lambda: ring.used_index == 9), "found without a kick"


def test_event_index_spares_calls(pairs: Pairs) -> None:
    pair = pairs(echo)
    frontend, ring = pair.frontend, pair.frontend.rings[1]
    assert frontend.ask(k.request(k.READ, 1, unique=1), 16)
    assert ring.rest()
    # Called at the next one, and at no other before the driver asks again.
    for number in range(2, 8):
        frontend.submit(k.request(k.READ, 1, unique=number), 16)
        assert eventually(lambda: ring.used_index == number)  # noqa: B023
        assert ring.wait(0.5 if number == 2 else 0.02) == (number == 2)


@pytest.mark.parametrize("features", [0, FEATURES])
def test_one_kick_for_many(pairs: Pairs, features: int) -> None:
    """More than are taken in one turn."""
    pair = pairs(echo, features=features, queue_size=256)
    ring, memory = pair.frontend.rings[1], pair.frontend.memory
    assert memory is not None
    area = memory.allocate(64)
    memory.write(area, k.request(k.FORGET, 1))
    for _ in range(200):
        ring.add([Buffer(area, 40, is_writable=False)])
    ring.kick()
    assert eventually(lambda: ring.used_index == 200)


def test_no_interrupt_flag(pairs: Pairs) -> None:
    pair = pairs(echo, features=0)
    frontend, ring = pair.frontend, pair.frontend.rings[1]
    ring.no_interrupt(True)
    frontend.submit(k.request(k.READ, 1, unique=1), 16)
    assert eventually(lambda: ring.used_index == 1)
    assert not ring.wait(0.05)
    ring.no_interrupt(False)
    frontend.submit(k.request(k.READ, 1, unique=2), 16)
    assert ring.wait(5)


# Notifications ---------------------------------------------------------------


NOTIFYING = Options(notify_buf_size=4096, max_request=1 << 16)


def notice(code: int, payload: bytes) -> Reply:
    return (struct.pack("<IiQ", 16 + len(payload), code, 0), payload)


def test_notifications(pairs: Pairs) -> None:
    pair = pairs(echo, options=NOTIFYING, features=FEATURES | Feature.FS_NOTIFICATION)
    frontend, backend = pair.frontend, pair.server.backend
    assert frontend.request_queue == 2
    offered = frontend.offer(4096, 2)
    for number in range(5):
        backend.send(notice(3, b"%d" % number))
    got = [frontend.wait(pending) for pending in offered]
    assert [data[16:] for data in got] == [b"0", b"1"]
    assert struct.unpack_from("<IiQ", got[0]) == (17, 3, 0)
    # The others wait for buffers, in order; requests go on.
    assert frontend.ask(k.request(k.READ, 1), 100)
    assert [frontend.wait(each)[16:] for each in frontend.offer(4096, 3)] == [b"2", b"3", b"4"]


def test_notification_that_does_not_fit(pairs: Pairs) -> None:
    pair = pairs(echo, options=NOTIFYING, features=FEATURES | Feature.FS_NOTIFICATION)
    backend = pair.server.backend
    small, large = pair.frontend.offer(64, 2)
    backend.send(notice(3, bytes(100)))
    backend.send(notice(3, b"fits"))
    assert pair.frontend.wait(small) == b""
    assert pair.frontend.wait(large)[16:] == b"fits"


@pytest.mark.parametrize("options", [None, NOTIFYING])
def test_nobody_takes_notifications(pairs: Pairs, options: Options | None) -> None:
    """Not agreed on: dropped; and queue 1 is for requests, as in a stock kernel."""
    pair = pairs(echo, options=options, features=FEATURES)
    pair.server.backend.send(notice(3, b"x"))
    assert pair.frontend.request_queue == 1
    assert k.checked([pair.frontend.ask(k.request(k.READ, 1), 100)]) == (0, b"")


def test_replies_are_joined() -> None:
    assert joined(ok(1, b"a", b"b"))[16:] == b"ab"
    assert joined(None) == b""
