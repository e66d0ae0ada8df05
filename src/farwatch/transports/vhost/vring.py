"""The device's side of a split virtqueue.

The driver is hostile: it may write anything anywhere in its memory, at any moment.  So
each field is read once; whatever follows from it is checked; and a walk ends after as
many descriptors as a queue can have.
"""

from __future__ import annotations

from typing import NamedTuple

from farwatch.abi import virtio
from farwatch.abi.virtio import Descriptor, Feature, needs_event
from farwatch.transports.vhost import barriers
from farwatch.transports.vhost.chain import Chain
from farwatch.transports.vhost.descriptors import (
    BULK,
    LENGTH,
    MOST,
    SIZE,
    are_pages,
    follow,
)
from farwatch.transports.vhost.errors import BrokenRing
from farwatch.transports.vhost.inflight import QueueLog
from farwatch.transports.vhost.memory import Memory

_NEXT = int(Descriptor.NEXT)
_WRITE = int(Descriptor.WRITE)
_INDIRECT = int(Descriptor.INDIRECT)
_entry = virtio.DESCRIPTOR.unpack_from
_entries = virtio.DESCRIPTOR.iter_unpack
_MASK = virtio.INDEX_MASK


class Areas(NamedTuple):
    """The three areas of a ring, each exactly as large as it has to be."""

    descriptors: memoryview
    available: memoryview
    used: memoryview


class Vring:
    """A ring from its start to its stop.

    ``pop`` and ``rest`` are for one thread, ``push`` and ``wants_call`` for another one at
    most: whoever calls them sees to that.
    """

    def __init__(
        self, size: int, features: int, areas: Areas, memory: Memory, max_request: int
    ) -> None:
        self.size = size
        self._mask = size - 1
        self._event_idx = bool(features & Feature.EVENT_IDX)
        self._indirect = bool(features & Feature.INDIRECT_DESC)
        self._max_request = max_request
        self._log: QueueLog | None = None
        self._again: list[int] = []
        self.move(areas, memory)
        self.next = self._used_index = self._seen = self._told = self._used[1]
        self._has_told = False
        if not self._event_idx:
            self._used[0] = 0
        else:
            self._avail_event[0] = self.next

    def move(self, areas: Areas, memory: Memory) -> None:
        """The same ring, at other places or in another memory."""
        size, used = self.size, areas.used
        self._memory = memory
        self._likely = memory.largest
        self._table = areas.descriptors
        self._available = areas.available.cast("H")
        self._used = used[:4].cast("H")
        self._elements = used[4 : 4 + 8 * size].cast("Q")
        self._avail_event = used[4 + 8 * size :].cast("H")

    def start(self, base: int, log: QueueLog | None) -> None:
        """Begins at entry ``base``; or, with a log, behind what is to be taken again.

        Raises ProtocolError.
        """
        self.next = base & _MASK
        self._log = log
        if log is not None:
            self._again = log.recover(self._used_index)
            self._again.reverse()
            if self._again:
                self.next = (self._used_index + len(self._again)) & _MASK
        self._seen = self.next

    def finish(self) -> int:
        """Stopped in order, with nothing left to answer; the base to go on from."""
        if self._log is not None:
            self._log.clear()
        return self.next

    @property
    def is_recovering(self) -> bool:
        """Whether ``pop`` gives what was taken before, by a device that has died."""
        return bool(self._again)

    def pop(self) -> Chain | None:
        """The next request, if there is one.  Raises BrokenRing or BadAddress."""
        if self._again:
            return self._walk(self._again.pop())
        at = self.next
        if at == self._seen:
            seen = self._available[1]
            if seen == at:
                return None
            if (seen - at) & _MASK > self.size:
                raise BrokenRing(f"the available index goes from {at} to {seen}")
            self._seen = seen
            if barriers.WEAK:
                barriers.full()
        head = self._available[2 + (at & self._mask)]
        if head >= self.size:
            raise BrokenRing(f"descriptor {head} in a queue of {self.size}")
        self.next = (at + 1) & _MASK
        if self._log is not None:
            self._log.taken(head)
        return self._walk(head)

    @property
    def has_more(self) -> bool:
        """Whether ``pop`` would find something."""
        return self._available[1] != self.next or bool(self._again)

    def rest(self) -> bool:
        """The ring seemed empty: asks for a kick.  False if there is something after all."""
        if not self._event_idx:
            return True
        self._avail_event[0] = self.next
        barriers.full()
        return self._available[1] == self.next

    def push(self, head: int, written: int) -> None:
        """Gives a chain back, with so many bytes written into it."""
        index = self._used_index
        self._elements[index & self._mask] = head | written << 32
        index = (index + 1) & _MASK
        log = self._log
        if log is not None:
            log.returning(head)
        if barriers.WEAK:
            barriers.full()
        self._used[1] = self._used_index = index
        if log is not None:
            log.returned(head, index)

    def wants_call(self) -> bool:
        """Whether the driver is to be told of what was pushed since this was last asked."""
        barriers.full()
        if not self._event_idx:
            return not self._available[0] & virtio.AVAILABLE_NO_INTERRUPT
        new, old = self._used_index, self._told
        self._told = new
        if not self._has_told:
            self._has_told = True
            return True
        return needs_event(self._available[2 + self.size], new, old)

    def _walk(self, head: int) -> Chain:
        readable: list[tuple[int, int]] = []
        writable: list[tuple[int, int]] = []
        address, size, flags, _ = _entry(self._table, SIZE * head)
        if flags == _INDIRECT:
            # What drivers mostly do: the first descriptor stands for a table with all of them.
            table = self._indirect_table(address, size, flags)
            sight = self._content if len(table) >= BULK * SIZE else self._few
            chain = sight(head, table)
            if chain is not None:
                return chain
            found = follow(readable, writable, table, len(table) // SIZE, 0)
        else:
            found = follow(readable, writable, self._table, self.size, head)
            if found is not None:
                table = self._indirect_table(*found)
                found = follow(readable, writable, table, len(table) // SIZE, 0)
        if found is not None:
            raise BrokenRing("an indirect table in another one")
        request = self._views(readable)
        length = sum(map(len, request))
        self._must_be_bounded(length)
        room = self._views(writable)
        return Chain(head, request, room, length, sum(map(len, room)))

    def _few(self, head: int, table: bytes) -> Chain | None:
        """The chain of a few pieces, as Linux makes most; None if it is anything else.

        All in the largest region, and each descriptor followed by the next in the table.
        """
        area = self._likely
        low, high, view = area.start, area.end, area.view
        request: list[memoryview] = []
        room: list[memoryview] = []
        length = size = 0
        for behind, (address, count, flags, following) in enumerate(_entries(table), 1):
            if address < low or address + count > high or not count:
                return None
            piece = view[address - low : address - low + count]
            if flags & _WRITE:
                room.append(piece)
                size += count
            elif room:
                return None
            else:
                request.append(piece)
                length += count
            if flags & ~_WRITE != _NEXT or following != behind:
                break
        if flags & ~_WRITE or length > self._max_request:
            return None
        return Chain(head, request, room, length, size)

    def _content(self, head: int, table: bytes) -> Chain | None:
        """The chain of a large READ or WRITE as Linux makes it; None if it is anything else.

            header, arguments | header, page, page … page
            header, arguments, page, page … page | header, arguments

        A list of pages is compared, and not walked; of the last one there may be a part only.
        Raises BrokenRing or BadAddress.
        """
        words = memoryview(table).cast("Q")
        kinds = words[1::2].tolist()
        count, is_read = len(kinds), bool(kinds[2] >> 32 & _WRITE)
        start, end = (3, count) if is_read else (2, count - 2)
        if not are_pages(kinds, start, end, is_read):
            return None
        pages = self._likely.pages(words[2 * start : 2 * end : 2].tolist(), kinds[end - 1] & LENGTH)
        if pages is None:
            return None
        others = (0, 1, 2) if is_read else (0, 1, count - 2, count - 1)
        pieces = [
            (words[2 * index], words[2 * index] + (kinds[index] & LENGTH)) for index in others
        ]
        if not all(at < behind for at, behind in pieces):
            return None
        request, room = self._views(pieces[:2]), self._views(pieces[2:])
        length, size = sum(map(len, request)), sum(map(len, room))
        if is_read:
            self._must_be_bounded(length)
            return Chain(head, request, room, length, size + pages.size, space=pages)
        self._must_be_bounded(length + pages.size)
        return Chain(head, request, room, length + pages.size, size, sent=pages)

    def _must_be_bounded(self, length: int) -> None:
        if length > self._max_request:
            raise BrokenRing(f"a request of more than {self._max_request} bytes")

    def _views(self, pieces: list[tuple[int, int]]) -> list[memoryview]:
        area = self._likely
        low, high, view = area.start, area.end, area.view
        found = [
            view[start - low : end - low] for start, end in pieces if low <= start and end <= high
        ]
        if len(found) < len(pieces):
            guest = self._memory.guest
            found = [part for start, end in pieces for part in guest(start, end - start)]
        return found

    def _indirect_table(self, address: int, length: int, flags: int) -> bytes:
        """A copy, so that it stays what it was while it is walked."""
        if flags & ~_WRITE != _INDIRECT or not self._indirect:
            raise BrokenRing(f"a descriptor with flags {flags:#x}")
        if not length or length % SIZE or length > MOST * SIZE:
            raise BrokenRing(f"an indirect table of {length} bytes")
        area = self._likely
        if area.start <= address and address + length <= area.end:
            return area.view[address - area.start : address - area.start + length].tobytes()
        return b"".join(self._memory.guest(address, length))
