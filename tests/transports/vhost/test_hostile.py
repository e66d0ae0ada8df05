"""A guest that means harm: its rings stop, and nothing else happens.

First each thing that a descriptor, a chain or a ring may not be, through the whole back
end; then anything at all: never an exception, never a hang, never a byte outside of the
shared memory.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.abi import virtio
from farwatch.abi.vhost_user import MemoryRegion
from farwatch.abi.virtio import Descriptor, Feature
from farwatch.transports.vhost.chain import Chain
from farwatch.transports.vhost.driver import Buffer, DriverRing
from farwatch.transports.vhost.errors import BadAddress, BrokenRing
from farwatch.transports.vhost.memory import Memory, Region, map_region
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.vring import Areas, Vring
from tests.session import kernel as k
from tests.transports.vhost.scene import eventually
from tests.transports.vhost.test_fuse import Pair, echo

NEXT, WRITE, INDIRECT = 1, 2, 4
SIZE = 8


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(echo, queue_size=SIZE)
    yield made
    made.close()


def good_memory(pair: Pair) -> int:
    assert pair.frontend.memory is not None
    return pair.frontend.memory.allocate(8192)


Break = Callable[[DriverRing, int], None]


def chain_of(*descriptors: tuple[int, int, int, int]) -> Break:
    """Addresses are relative to good memory."""

    def put(ring: DriverRing, good: int) -> None:
        for index, (address, size, flags, following) in enumerate(descriptors):
            ring.descriptor(index, (good + address) % (1 << 64), size, flags, following)
        ring.expose(0)

    return put


def absolute(address: int, size: int, flags: int = 0) -> Break:
    def put(ring: DriverRing, good: int) -> None:
        ring.descriptor(0, address, size, flags)
        ring.expose(0)

    return put


def indirect(size: int, *entries: tuple[int, int, int, int], flags: int = INDIRECT) -> Break:
    """A table in good memory, whose addresses are relative to good memory."""

    def put(ring: DriverRing, good: int) -> None:
        table = b"".join(
            virtio.DESCRIPTOR.pack(good + address, length, kind, following)
            for address, length, kind, following in entries
        )
        ring.memory.write(good, table)
        ring.descriptor(0, good, size, flags)
        ring.expose(0)

    return put


def table_behind_room(ring: DriverRing, good: int) -> None:
    """What is to be read stands in a table, behind what is to be written, which does not."""
    ring.memory.write(good, virtio.DESCRIPTOR.pack(good, 40, 0, 0))
    ring.descriptor(0, good, 40, NEXT | WRITE, 1)
    ring.descriptor(1, good, 16, INDIRECT)
    ring.expose(0)


def index(number: int) -> Break:
    def put(ring: DriverRing, good: int) -> None:
        ring.set_available_index(number)

    return put


def head(number: int) -> Break:
    def put(ring: DriverRing, good: int) -> None:
        ring.expose(number)

    return put


BREAKS: dict[str, Break] = {
    "head-beyond": head(SIZE),
    "head-65535": head(65535),
    "index-jumps": index(SIZE + 1),
    "index-back": index(65535),
    "index-half": index(1 << 15),
    "loop-self": chain_of((0, 40, NEXT, 0)),
    "loop-two": chain_of((0, 40, NEXT, 1), (0, 40, NEXT, 0)),
    "loop-writable": chain_of((0, 40, NEXT, 1), (0, 40, NEXT | WRITE, 1)),
    "loop-of-nothing": chain_of((0, 0, NEXT, 0)),
    "next-beyond": chain_of((0, 40, NEXT, SIZE)),
    "next-65535": chain_of((0, 40, NEXT, 65535)),
    "unknown-flag": chain_of((0, 40, 8, 0)),
    "all-flags": chain_of((0, 40, 0xFFFF, 0)),
    "read-behind-write": chain_of((0, 40, NEXT | WRITE, 1), (0, 40, 0, 0)),
    "address-0": absolute(0, 40),
    "address-largest": absolute((1 << 64) - 1, 1),
    "address-wraps": absolute((1 << 64) - 16, 64),
    "address-huge-length": absolute(1 << 32, 0xFFFF_FFFF),
    "address-writable": absolute(0x1234_5678_9ABC, 16, WRITE),
    "address-user": absolute(0x7F00_0000_0000 + (7 << 32), 40),
    "one-byte-before": absolute((1 << 32) - 1, 40),
    "one-byte-behind": absolute((1 << 32) + (1 << 20) - 39, 40),
    "request-too-large": chain_of(
        (0, 8192, NEXT, 1), *[(0, 8192, NEXT, n) for n in range(2, 8)], (0, 8192 + 4097, 0, 0)
    ),
    "table-empty": indirect(0),
    "table-odd": indirect(15, (0, 40, 0, 0)),
    "table-too-long": indirect(16 * 1025),
    "table-huge": indirect(0xFFFF_FFF0),
    "table-nested": indirect(16, (0, 16, INDIRECT, 0)),
    "table-and-next": indirect(16, (0, 40, 0, 0), flags=INDIRECT | NEXT),
    "table-loop": indirect(32, (0, 40, NEXT, 1), (0, 40, NEXT, 0)),
    "table-next-beyond": indirect(16, (0, 40, NEXT, 1)),
    "table-bad-address": indirect(16, (1 << 50, 40, 0, 0)),
    "table-outside": absolute(0, 16, INDIRECT),
    "table-half-outside": absolute((1 << 32) + (1 << 20) - 8, 16, INDIRECT),
    "table-behind-room": table_behind_room,
    "table-in-the-middle": chain_of((0, 40, NEXT, 1), (0, 16, INDIRECT | NEXT, 2)),
}


@pytest.mark.parametrize("do", BREAKS.values(), ids=BREAKS)
def test_breaks_its_ring(pair: Pair, do: Break) -> None:
    """That ring stops, and says so; the other one goes on; it can be set up anew."""
    frontend = pair.frontend
    ring = frontend.rings[1]
    do(ring, good_memory(pair))
    ring.kick(force=True)
    assert ring.is_broken(5)
    assert ring.used_index == 0
    assert pair.seen == []
    assert frontend.ask(k.request(k.READ, 1, unique=2), 100, queue=0)
    frontend.stop_queue(1)
    fresh = frontend.rings[1] = DriverRing(ring.memory, SIZE, frontend.features)
    ring.close()
    frontend.start_queue(1)
    assert frontend.ask(k.request(k.READ, 1, unique=2), 100)
    assert not fresh.is_broken()
    assert pair.server.is_serving


@pytest.mark.parametrize("do", ["table-nested", "table-and-next"])
def test_indirect_was_not_agreed_on(do: str) -> None:
    pair = Pair(echo, queue_size=SIZE, features=0)
    try:
        ring = pair.frontend.rings[1]
        good = good_memory(pair)
        ring.memory.write(good, virtio.DESCRIPTOR.pack(good, 40, 0, 0))
        ring.descriptor(0, good, 16, INDIRECT)
        ring.expose(0)
        ring.kick()
        assert ring.is_broken(5)
    finally:
        pair.close()


def test_two_requests_with_one_number() -> None:
    pair = Pair(lambda data: None)
    try:
        for _ in range(2):
            pair.frontend.submit(k.request(k.IOCTL, 1, unique=5), 100)
        assert pair.frontend.rings[1].is_broken(5)
        assert len(pair.seen) == 1
    finally:
        pair.close()


def test_one_head_twice() -> None:
    """It is with the device already."""
    pair = Pair(lambda data: None)
    try:
        pending = pair.frontend.submit(k.request(k.IOCTL, 1, unique=5), 100)
        assert eventually(lambda: len(pair.seen) == 1)
        ring = pair.frontend.rings[1]
        ring.expose(pending.head)
        ring.kick(force=True)
        assert ring.is_broken(5)
    finally:
        pair.close()


def test_parked_when_the_ring_breaks() -> None:
    """Its reply goes nowhere, and the queue's stop does not wait for it."""
    pair = Pair(lambda data: None)
    try:
        pair.frontend.submit(k.request(k.IOCTL, 1, unique=5), 100)
        assert eventually(lambda: len(pair.seen) == 1)
        ring = pair.frontend.rings[1]
        ring.expose(60_000)
        ring.kick(force=True)
        assert ring.is_broken(5)
        pair.server.backend.send((struct.pack("<IiQ", 16, 0, 5),))
        assert ring.used_index == 0
        pair.frontend.stop_queue(1)
        assert ring.used_index == 0
    finally:
        pair.close()


def test_others_have_their_turn() -> None:
    """One queue that never runs dry starves neither the other one nor the socket."""
    pair = Pair(echo, queue_size=128)
    frontend, ring = pair.frontend, pair.frontend.rings[1]
    over = threading.Event()
    memory = frontend.memory
    assert memory is not None
    area = memory.allocate(64)
    memory.write(area, k.request(k.FORGET, 1))
    for each in range(128):
        ring.descriptor(each, area, 40, 0)

    def flood() -> None:
        while not over.is_set():
            done = ring.used_index
            for _ in range(100 - (ring._next - done) % 65536):
                ring.expose(ring._next % 128)
            ring.kick(force=True)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(5):
            assert frontend.ask(k.request(k.READ, 1, unique=1 << 60), 100, queue=0)
            assert frontend.get_number(17) == 2
    finally:
        over.set()
        thread.join()
        pair.close()


# Anything at all ---------------------------------------------------------------

PAGE = 4096


class Exposed:
    """A ring over shared memory that lies between pages which nobody may touch."""

    def __init__(self, features: int) -> None:
        self.fds, regions = [], []
        for number, guest in enumerate((0x1000, 0x5000, 0x6000)):
            fd = os.memfd_create("test")
            os.ftruncate(fd, PAGE)
            self.fds.append(fd)
            regions.append(map_region(fd, MemoryRegion(guest, PAGE, 0x10000 + (number << 16), 0)))
        self.regions: list[Region] = regions
        self.memory = Memory(regions)
        event_idx = bool(features & Feature.EVENT_IDX)
        self.areas = Areas(
            self.memory.user(0x10000, virtio.descriptors_size(SIZE)),
            self.memory.user(0x10100, virtio.available_size(SIZE, event_idx=event_idx)),
            self.memory.user(0x10200, virtio.used_size(SIZE, event_idx=event_idx)),
        )
        self.vring = Vring(SIZE, features, self.areas, self.memory, 3 * PAGE)
        self.vring.start(0, None)
        self.spans = [
            (address_of(region.view), address_of(region.view) + PAGE) for region in regions
        ]

    def check(self, chain: Chain) -> None:
        for views, size in ((chain.readable, chain.length), (chain.writable, chain.room)):
            assert sum(map(len, views)) == size
            for view in views:
                start = address_of(view)
                assert any(low <= start and start + len(view) <= high for low, high in self.spans)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


ADDRESS = st.one_of(
    st.integers(0xFF0, 0x2010),
    st.integers(0x4FF0, 0x7010),
    st.sampled_from([0, 0x10000, (1 << 64) - 1, (1 << 63), (1 << 32)]),
)
LENGTH = st.one_of(st.integers(0, 64), st.integers(0, 3 * PAGE), st.just(0xFFFF_FFFF))
FLAGS = st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF))
ENTRY = st.builds(
    virtio.DESCRIPTOR.pack,
    ADDRESS,
    LENGTH,
    FLAGS,
    st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
)
TABLE = st.lists(ENTRY, min_size=SIZE, max_size=SIZE).map(b"".join)
HEADS = st.lists(st.integers(0, SIZE), max_size=SIZE)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    features=st.sampled_from([0, FEATURES]),
    table=TABLE,
    tables=st.lists(TABLE, max_size=3),
    heads=HEADS,
    jump=st.one_of(st.none(), st.integers(0, 65535)),
)
def test_any_ring(
    features: int, table: bytes, tables: list[bytes], heads: list[int], jump: int | None
) -> None:
    exposed = Exposed(features)
    for place, other in enumerate(tables):
        exposed.memory.user(0x20000 + 0x100 * place, len(other))[:] = other
    exposed.areas.descriptors[:] = table
    struct.pack_into(f"<{len(heads)}H", exposed.areas.available, 4, *heads)
    struct.pack_into("<H", exposed.areas.available, 2, len(heads) if jump is None else jump)
    taken = 0
    try:
        while (chain := exposed.vring.pop()) is not None:
            taken += 1
            assert taken <= SIZE
            exposed.check(chain)
            request = chain.request()
            assert len(request) == chain.length
            for at in (0, 1, 40, 80, chain.length):
                before, behind = chain.split(at)
                assert b"".join((before, *behind)) == request
            if chain.room:
                room = chain.room_behind(min(chain.room, 16))
                assert sum(map(len, room)) == max(0, chain.room - 16)
            reply = bytes(min(chain.room, 100))
            if reply:
                chain.write([reply])
            exposed.vring.push(chain.head, len(reply))
            exposed.vring.wants_call()
        exposed.vring.rest()
    except (BrokenRing, BadAddress):
        pass
    exposed.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), data=st.binary(min_size=600, max_size=600))
def test_any_bytes_for_a_ring(seed: int, data: bytes) -> None:
    """Also while it is read: the guest goes on writing."""
    exposed = Exposed(FEATURES)
    chance = random.Random(seed)
    view = exposed.memory.user(0x10000, 600)
    view[:] = data
    try:
        for _ in range(50):
            chain = exposed.vring.pop()
            if chain is None:
                break
            exposed.check(chain)
            at = chance.randrange(600)
            view[at] = chance.randrange(256)
            exposed.vring.push(chain.head, 0)
    except (BrokenRing, BadAddress):
        pass
    exposed.close()


def test_any_guest() -> None:
    """A guest that writes at random into its memory, through the whole back end."""
    chance = random.Random(7)
    pair = Pair(echo, queue_size=SIZE, sizes=(1 << 16,))
    frontend = pair.frontend
    try:
        for _ in range(300):
            ring = frontend.rings[1]
            good = 1 << 32
            for index_ in range(SIZE):
                ring.descriptor(
                    index_,
                    good + chance.randrange(1 << 16),
                    chance.choice([0, 16, 40, 100, 1 << 15]),
                    chance.choice([0, NEXT, WRITE, NEXT | WRITE, INDIRECT]),
                    chance.randrange(SIZE),
                )
            for _ in range(chance.randrange(1, 4)):
                ring.expose(chance.randrange(SIZE))
            ring.kick(force=True)
            assert frontend.get_number(17) == 2
            base = frontend.stop_queue(1)
            struct.pack_into("<H", ring.areas.available, 2, base)
            ring.set_available_index(base)
            frontend.start_queue(1, base)
        assert pair.server.is_serving
    finally:
        pair.close()


def test_flags_are_the_headers() -> None:
    assert (NEXT, WRITE, INDIRECT) == (Descriptor.NEXT, Descriptor.WRITE, Descriptor.INDIRECT)


def test_put_there_while_the_device_lies_down() -> None:
    """The driver has seen no wish for a kick yet: the device must look once more."""
    exposed = Exposed(FEATURES)
    assert exposed.vring.pop() is None
    exposed.areas.descriptors[:16] = virtio.DESCRIPTOR.pack(0x1000, 40, 0, 0)
    struct.pack_into("<HHH", exposed.areas.available, 0, 0, 1, 0)
    assert not exposed.vring.rest()
    assert exposed.vring.pop() is not None
    assert exposed.vring.pop() is None
    assert exposed.vring.rest()
    exposed.close()


# Addresses ---------------------------------------------------------------------


@given(address=ADDRESS, length=st.integers(1, 4 * PAGE))
def test_guest_addresses(address: int, length: int) -> None:
    """Good exactly if every byte is in a region."""
    exposed = _shared()
    good = all(
        any(start <= byte < start + PAGE for start in (0x1000, 0x5000, 0x6000))
        for byte in (address, address + length - 1, *range(address, address + length, PAGE))
    )
    if not good:
        with pytest.raises(BadAddress):
            exposed.memory.guest(address, length)
        return
    assert sum(map(len, exposed.memory.guest(address, length))) == length


_SHARED: list[Exposed] = []


def _shared() -> Exposed:
    if not _SHARED:
        _SHARED.append(Exposed(0))
    return _SHARED[0]


@pytest.mark.parametrize("length", [1, PAGE, PAGE + 1, 2 * PAGE])
def test_across_regions(length: int) -> None:
    memory = SharedMemory([PAGE] * 3, adjacent=True)
    data = bytes(range(256)) * 40
    start = memory.allocate(3 * PAGE) + 100
    memory.write(start, data[:length])
    assert memory.read(start, length) == data[:length]
    with pytest.raises(BadAddress):
        memory.memory.user(memory.user(start), 3 * PAGE)
    memory.close()


def test_ring_is_in_one_region() -> None:
    memory = SharedMemory([PAGE] * 2, adjacent=True)
    memory.allocate(PAGE - 64)
    ring = DriverRing(memory, 16, FEATURES)
    ring.add([Buffer(memory.allocate(64), 64, is_writable=False)])
    assert ring.used_index == 0
    ring.close()
    memory.close()
