"""A device that looks for what comes next, for a while, before it sleeps."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from farwatch.abi.vhost_user import Request
from farwatch.session.request import Payload
from farwatch.transports.vhost.driver import Buffer, DriverRing
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from farwatch.transports.vhost.vring import Vring
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, eventually, whole

LONG = 60.0
SHORT = 0.0002
SIZE = 512
Reply = Sequence[Payload]


def number_of(data: memoryview) -> int:
    return int(struct.unpack_from("<Q", data, 8)[0])


def answered(data: memoryview) -> Reply:
    return (struct.pack("<IiQ", 16, 0, number_of(data)),)


@contextmanager
def looking(seconds: float, answer: Callable[[memoryview], Reply] = answered) -> Iterator[Frontend]:
    server = Server(whole(answer), lambda: None, Options(look_seconds=seconds))
    try:
        with Frontend(server.connect()) as frontend:
            frontend.negotiate()
            frontend.start(SharedMemory([1 << 20]), size=SIZE)
            yield frontend
    finally:
        server.close()


def ask(frontend: Frontend, queue: int, number: int) -> None:
    assert frontend.ask(k.request(k.READ, 1, unique=number), 16, queue=queue)


def put(frontend: Frontend, queue: int, number: int) -> None:
    """Into the ring, with no kick."""
    memory = frontend.memory
    assert memory is not None
    area = memory.allocate(64)
    memory.write(area, k.request(k.FORGET, 1, unique=number))
    frontend.rings[queue].add([Buffer(area, 40, is_writable=False)])


def avail_event(ring: DriverRing) -> int:
    """The entry for which the device asks to be kicked."""
    return int.from_bytes(ring.areas.used[-2:], "little")


def test_what_comes_is_seen_without_a_kick() -> None:
    with looking(LONG) as frontend:
        for queue in (0, 1):
            ask(frontend, queue, 1)
        for number in range(2, 20):
            for queue in (0, 1):
                ring = frontend.rings[queue]
                put(frontend, queue, number)
                assert eventually(lambda: ring.used_index == number)  # noqa: B023
                assert not ring.kick(), "it asks for no kick either"


def test_an_emptied_queue_is_seen_while_another_is_full() -> None:
    seen: list[int] = []
    entered, go = threading.Event(), threading.Event()

    def answer(data: memoryview) -> Reply:
        seen.append(number_of(data))
        if number_of(data) == 2:
            entered.set()
            assert go.wait(5)
        return answered(data)

    with looking(LONG, answer) as frontend:
        ask(frontend, 0, 1)
        pending = frontend.submit(k.request(k.READ, 1, unique=2), 16)
        assert entered.wait(5)
        for number in range(300):
            put(frontend, 1, 1000 + number)
        put(frontend, 0, 3)
        go.set()
        assert frontend.wait(pending)
        assert eventually(lambda: len(seen) == 303)
        assert seen.index(3) < 200


@pytest.mark.parametrize("seconds", [0.0, SHORT])
def test_a_queue_is_not_left_without_a_kick(seconds: float) -> None:
    """Whatever comes at the very moment at which the looking ends."""
    with looking(seconds) as frontend:
        for number in range(1, 2000):
            ask(frontend, number % 2, number)


def test_after_it_a_kick_is_asked_for() -> None:
    with looking(SHORT) as frontend:
        ring = frontend.rings[1]
        ask(frontend, 1, 1)
        for number in range(2, 5):
            assert eventually(lambda: avail_event(ring) == number - 1)  # noqa: B023
            put(frontend, 1, number)
            assert ring.kick()
            assert eventually(lambda: ring.used_index == number)  # noqa: B023


@pytest.mark.parametrize("seconds", [0.0, SHORT])
def test_requests_without_end_hold_nothing_up(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """One comes whenever the device is about to sleep; the front end is answered all the same."""
    rest, coming = Vring.rest, list[DriverRing]()

    def racing(self: Vring) -> bool:
        for ring in coming:
            ring.expose(0)
        return rest(self)

    monkeypatch.setattr(Vring, "rest", racing)
    with looking(seconds) as frontend:
        ring, memory = frontend.rings[1], frontend.memory
        assert memory is not None
        area = memory.allocate(64)
        memory.write(area, k.request(k.FORGET, 1, unique=1))
        head = ring.reserve([Buffer(area, 40, is_writable=False)])
        ring.descriptor(0, area, 40, 0)
        ring.expose(head)
        coming.append(ring)
        ring.kick()
        assert eventually(lambda: ring.used_index > 1000)
        assert frontend.get_number(Request.GET_FEATURES)
        coming.clear()
