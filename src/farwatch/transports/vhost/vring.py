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
from farwatch.transports.vhost.errors import BrokenRing
from farwatch.transports.vhost.inflight import QueueLog
from farwatch.transports.vhost.memory import Memory

LONGEST_INDIRECT = 1024
"""Descriptors in an indirect table, whatever the queue's size: what other devices take."""
_NEXT = int(Descriptor.NEXT)
_WRITE = int(Descriptor.WRITE)
_INDIRECT = int(Descriptor.INDIRECT)
_ORDINARY = _NEXT | _WRITE
_UNUSUAL = 0xFFFF & ~_NEXT
"""What changes if not only one more piece follows: the flags but for NEXT."""
_SIZE = virtio.DESCRIPTOR.size
_entry = virtio.DESCRIPTOR.unpack_from
_entries = virtio.DESCRIPTOR.iter_unpack
_MASK = virtio.INDEX_MASK


_PAGE = 4096
_BULK = 16
"""Descriptors from which on it is worth a look whether they are pages."""
_PAGES = {
    flags: [_PAGE | flags << 32 | index + 1 << 48 for index in range(LONGEST_INDIRECT)]
    for flags in (_NEXT, _NEXT | _WRITE)
}
"""The second halves of descriptors of whole pages, each followed by the next in the table."""

_Special = tuple[int, int, int]
"""Address, length and flags of a descriptor that is not for a piece of memory."""


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
        address, size, flags, _ = _entry(self._table, _SIZE * head)
        # What drivers mostly do: the first descriptor stands for a table with all of them.
        found: _Special | None = (address, size, flags)
        if flags != _INDIRECT:
            found = _follow(readable, writable, self._table, self.size, head)
        if found is not None:
            table = self._indirect_table(*found)
            if len(table) >= _BULK * _SIZE:
                chain = self._content(head, table)
                if chain is not None:
                    return chain
            if _follow(readable, writable, table, len(table) // _SIZE, 0) is not None:
                raise BrokenRing("an indirect table in another one")
        request = self._views(readable)
        length = sum(map(len, request))
        if length > self._max_request:
            raise BrokenRing(f"a request of more than {self._max_request} bytes")
        room = self._views(writable)
        return Chain(head, request, room, length, sum(map(len, room)))

    def _content(self, head: int, table: bytes) -> Chain | None:
        """The chain of a large READ or WRITE as Linux makes it; None if it is anything else.

            header, arguments | header, page, page … page
            header, arguments, page, page … page | header, arguments

        A list of pages is compared, and not walked.  Raises BrokenRing or BadAddress.
        """
        words = memoryview(table).cast("Q")
        addresses, kinds = words[::2].tolist(), words[1::2].tolist()
        count = len(kinds)
        is_read = bool(kinds[2] >> 32 & _WRITE)
        start, end, flags = (3, count - 1, _NEXT | _WRITE) if is_read else (2, count - 2, _NEXT)
        others = (0, 1, 2) if is_read else (0, 1, count - 2)
        if kinds[start:end] != _PAGES[flags][start:end] or kinds[-1] >> 32 & 0xFFFF != _WRITE:
            return None
        for index in others:
            wanted = _NEXT if index < 2 else _NEXT | _WRITE
            if kinds[index] >> 32 != wanted | index + 1 << 16:
                return None
        low, high, view = self._likely
        pages = addresses[start:end]
        if min(pages) < low or max(pages) + _PAGE > high:
            return None
        first, behind = pages[0], pages[0] + _PAGE * len(pages)
        if pages == list(range(first, behind, _PAGE)):
            content = [view[first - low : behind - low]]
        else:
            content = [view[at - low : at - low + _PAGE] for at in pages]
        pieces = [
            (addresses[index], addresses[index] + (kinds[index] & 0xFFFF_FFFF))
            for index in (*others, count - 1)
        ]
        if not all(at < end for at, end in pieces):
            return None
        request, room = self._views(pieces[:2]), self._views(pieces[2:3])
        last = self._views(pieces[3:])
        length, size = sum(map(len, request)), sum(map(len, room)) + sum(map(len, last))
        if is_read:
            return Chain(head, request, [*room, *content, *last], length, size + _PAGE * len(pages))
        length += _PAGE * len(pages)
        if length > self._max_request:
            raise BrokenRing(f"a request of more than {self._max_request} bytes")
        return Chain(head, [*request, *content], [*room, *last], length, size)

    def _views(self, pieces: list[tuple[int, int]]) -> list[memoryview]:
        low, high, view = self._likely
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
        if not length or length % _SIZE or length > LONGEST_INDIRECT * _SIZE:
            raise BrokenRing(f"an indirect table of {length} bytes")
        return b"".join(self._views([(address, address + length)]))


def _follow(
    readable: list[tuple[int, int]],
    writable: list[tuple[int, int]],
    table: memoryview | bytes,
    size: int,
    index: int,
) -> _Special | None:
    """Adds what a chain names that begins at ``index`` in a table of ``size`` descriptors.

    Each piece of memory is a pair of guest addresses: the first, and the one behind.
    Returns the descriptor that ends the chain if that is not for a piece of memory.
    Raises BrokenRing.
    """
    walked = start = end = 0
    some, is_writable = (writable, _WRITE) if writable else (readable, 0)
    while True:
        first = index
        # They mostly follow each other in the table; and what lies one behind the other in
        # memory becomes one piece.
        for address, length, flags, following in _entries(table[_SIZE * index :]):
            index += 1
            if address != end or flags & _UNUSUAL != is_writable:
                if start != end:
                    some.append((start, end))
                start = end = address
                if flags & ~_ORDINARY:
                    return address, length, flags
                if flags & _WRITE != is_writable:
                    if is_writable:
                        raise BrokenRing("something to read behind what is to be written")
                    some, is_writable = writable, _WRITE
            end += length
            if following != index or not flags & _NEXT:
                break
        if not flags & _NEXT:
            if start != end:
                some.append((start, end))
            return None
        walked += index - first
        if following >= size or walked >= size:
            raise BrokenRing(f"a chain goes on to {following}, and should have ended")
        index = following
