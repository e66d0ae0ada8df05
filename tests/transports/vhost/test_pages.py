"""Large requests, page by page: taken for what they are, whatever is wrong with one of the pages.

Beside the ring stands a walk that looks at one descriptor after the other.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from farwatch.abi.virtio import Feature
from farwatch.transports.vhost.driver import DriverRing
from farwatch.transports.vhost.errors import BadAddress, BrokenRing
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.vring import Vring

PAGE = 4096
PAGES = 40
NEXT, WRITE, INDIRECT = 1, 2, 4
SIZE = 8
ROUNDS = 400
MOST = (PAGES + 2) * PAGE
SMALL = (40, 40, 16)
"""Bytes of header and arguments, and of a reply's header."""

Table = list[tuple[int, int, int, int]]


class Broken(Exception):
    """The walk has found a fault."""


class Guest:
    """Memory of two regions, and a ring of which both ends are here."""

    def __init__(self) -> None:
        self.memory = SharedMemory([1 << 20, 1 << 16])
        self.driver = DriverRing(self.memory, SIZE, FEATURES)
        features = int(Feature.VERSION_1 | Feature.INDIRECT_DESC | Feature.EVENT_IDX)
        self.device = Vring(SIZE, features, self.driver.areas, self.memory.memory, MOST)
        self.device.start(0, None)
        self.table = self.memory.allocate(PAGE)
        self.small = [self.memory.allocate(PAGE) for _ in range(4)]
        start = self.memory.allocate((PAGES + 1) * PAGE)
        start += -start % PAGE
        self.pages = [start + number * PAGE for number in range(PAGES)]
        source = random.Random(0)
        for at in (*self.pages, *self.small):
            self.memory.write(at, source.randbytes(PAGE))

    def request(self, pages: list[int], *, is_read: bool) -> Table:
        """As Linux makes it: the room of a READ, or the content of a WRITE."""
        head, arguments, answer, more = self.small
        around = [(head, SMALL[0], 0), (arguments, SMALL[1], 0)]
        behind = [(answer, SMALL[2], WRITE)]
        if is_read:
            pieces = [*around, *behind, *((at, PAGE, WRITE) for at in pages)]
        else:
            pieces = [*around, *((at, PAGE, 0) for at in pages), *behind, (more, 8, WRITE)]
        last = len(pieces) - 1
        return [
            (at, size, kind | (NEXT if index < last else 0), index + 1 if index < last else 0)
            for index, (at, size, kind) in enumerate(pieces)
        ]

    def taken(self, table: Table) -> tuple[bytes, bytes]:
        """What the device finds to be read, and what is where it is to write."""
        self.memory.write(self.table, b"".join(struct.pack("<QIHH", *entry) for entry in table))
        self.driver.descriptor(0, self.table, 16 * len(table), INDIRECT)
        self.driver.expose(0)
        try:
            chain = self.device.pop()
        except (BrokenRing, BadAddress):
            raise Broken from None
        assert chain is not None
        request = b"".join((*chain.readable, *(chain.sent or ())))
        room = b"".join((*chain.writable, *(chain.space or ())))
        assert (chain.length, chain.room) == (len(request), len(room))
        return request, room

    def walked(self, table: Table) -> tuple[bytes, bytes]:
        """The same by the walk."""
        found: dict[int, bytes] = {0: b"", WRITE: b""}
        index = 0
        for _ in table:
            address, size, flags, following = table[index]
            kind = flags & WRITE
            if flags & ~(NEXT | WRITE) or (not kind and found[WRITE]):
                raise Broken
            found[kind] += self._at(address, size)
            if not flags & NEXT:
                if len(found[0]) > MOST:
                    raise Broken
                return found[0], found[WRITE]
            if following >= len(table):
                raise Broken
            index = following
        raise Broken

    def _at(self, address: int, size: int) -> bytes:
        try:
            return self.memory.read(address, size) if size else b""
        except BadAddress:
            raise Broken from None

    def close(self) -> None:
        self.driver.close()
        self.memory.close()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("order", ["in order", "scattered", "backwards"])
def test_pages_are_taken_in_their_order(guest: Guest, order: str, is_read: bool) -> None:
    pages = list(guest.pages)
    if order == "scattered":
        random.Random(1).shuffle(pages)
    elif order == "backwards":
        pages.reverse()
    content = b"".join(guest.memory.read(at, PAGE) for at in pages)
    request, room = guest.taken(guest.request(pages, is_read=is_read))
    assert (room if is_read else request).endswith(content if is_read else content[-PAGE:])
    assert (request, room) == guest.walked(guest.request(pages, is_read=is_read))


@pytest.mark.parametrize("is_read", [True, False])
def test_whatever_is_wrong_with_one_is_found(guest: Guest, is_read: bool) -> None:
    chance = random.Random(2)
    outcomes = set()
    for _ in range(ROUNDS):
        pages = list(guest.pages)
        chance.shuffle(pages)
        table = guest.request(pages, is_read=is_read)
        place = chance.choice((0, 1, 2, 3, len(table) - 3, len(table) - 2, len(table) - 1))
        address, size, flags, following = table[place]
        match chance.randrange(4):
            case 0:
                address = chance.choice(
                    (0, 8, address + 1, (1 << 64) - 1, guest.memory.regions[1][0][0])
                )
            case 1:
                size = chance.choice((0, 1, PAGE - 1, PAGE + 1, (1 << 32) - 1))
            case 2:
                flags = chance.choice((0, NEXT, WRITE, NEXT | WRITE, INDIRECT, 8, 0x8003))
            case 3:
                following = chance.choice((0, place, place + 2, len(table), 0xFFFF))
        table[place] = address, size, flags, following
        try:
            expected = guest.walked(table)
        except Broken:
            outcomes.add("broken")
            with pytest.raises(Broken):
                guest.taken(table)
        else:
            outcomes.add("sound")
            assert guest.taken(table) == expected
    assert outcomes == {"broken", "sound"}
