"""The device's side of a split virtqueue.

The driver is hostile: it may write anything anywhere in its memory, at any moment.  So
each word is read once, a descriptor's in two of 64 bits; whatever follows from it is
checked; and a walk ends after as many descriptors as a queue can have.
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
_KNOWN = _NEXT | _WRITE | _INDIRECT
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
        self._table = areas.descriptors.cast("Q")
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
        chain = Chain(head)
        table, size, left = self._table, self.size, self.size
        index = head
        is_direct = True
        while True:
            address = table[2 * index]
            word = table[2 * index + 1]
            flags = word >> 32 & 0xFFFF
            length = word & 0xFFFF_FFFF
            if flags & ~_KNOWN:
                raise BrokenRing(f"unknown flags {flags:#x} in descriptor {index}")
            if flags & _INDIRECT:
                if not (is_direct and self._indirect) or flags & _NEXT:
                    raise BrokenRing(f"an indirect table out of place, descriptor {index}")
                table = self._indirect_table(address, length)
                size = left = len(table) // 2
                is_direct = False
                index = 0
                continue
            if length:
                self._add(chain, address, length, flags & _WRITE)
            if not flags & _NEXT:
                return chain
            index = word >> 48
            left -= 1
            if index >= size or not left:
                raise BrokenRing(f"a chain goes on to {index}, and should have ended")

    def _add(self, chain: Chain, address: int, length: int, is_writable: int) -> None:
        if is_writable:
            views = chain.writable
            chain.room += length
        elif chain.room:
            raise BrokenRing("something to read behind what is to be written")
        else:
            views = chain.readable
            chain.length += length
            if chain.length > self._max_request:
                raise BrokenRing(f"a request of more than {self._max_request} bytes")
        found = self._memory.guest(address, length)
        if type(found) is list:
            views += found
        else:
            views.append(found)  # type: ignore[arg-type]

    def _indirect_table(self, address: int, length: int) -> memoryview:
        """A copy, so that it stays what it was while it is walked."""
        if not length or length % virtio.DESCRIPTOR.size:
            raise BrokenRing(f"an indirect table of {length} bytes")
        if length > LONGEST_INDIRECT * virtio.DESCRIPTOR.size:
            raise BrokenRing(f"an indirect table of {length} bytes")
        found = self._memory.guest(address, length)
        return memoryview(b"".join(found) if type(found) is list else bytes(found)).cast("Q")  # type: ignore[arg-type]
