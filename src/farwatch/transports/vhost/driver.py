"""The driver's side of a split virtqueue: what a guest's kernel does.

Well behaved unless told otherwise: ``descriptor``, ``expose`` and the ``areas`` let a test
write anything into the ring.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import NamedTuple

from farwatch.abi import virtio
from farwatch.abi.virtio import Descriptor, Feature, needs_event
from farwatch.transports.vhost import barriers
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.vring import Areas

_MASK = virtio.INDEX_MASK


class Buffer(NamedTuple):
    """A piece of guest memory, as a descriptor names it."""

    address: int
    size: int
    is_writable: bool


class Used(NamedTuple):
    """A chain that the device has given back."""

    head: int
    written: int


class DriverRing:
    """A ring, and the three eventfds that go with it.  Owns them."""

    def __init__(self, memory: SharedMemory, size: int, features: int) -> None:
        self.size = size
        self.memory = memory
        self.event_idx = bool(features & Feature.EVENT_IDX)
        self.is_indirect = bool(features & Feature.INDIRECT_DESC)
        sizes = (
            virtio.descriptors_size(size),
            virtio.available_size(size, event_idx=self.event_idx),
            virtio.used_size(size, event_idx=self.event_idx),
        )
        self.addresses = [memory.user(memory.allocate_ring(length)) for length in sizes]
        self.areas = Areas(
            *(
                memory.memory.user(at, length)
                for at, length in zip(self.addresses, sizes, strict=True)
            )
        )
        for area in self.areas:
            area[: len(area)] = bytes(len(area))
        self._available = self.areas.available.cast("H")
        self._used = self.areas.used[:4].cast("H")
        self._avail_event = self.areas.used[4 + 8 * size :].cast("H")
        self._free = list(range(size))
        self._chains: dict[int, list[int]] = {}
        self._tables: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._told = 0
        self.seen = 0
        """Entries of the used ring that were taken."""
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
        self.kick_fd, self.call_fd, self.error_fd = (os.eventfd(0, flags) for _ in range(3))

    @property
    def used_index(self) -> int:
        """How far the device says it is."""
        return self._used[1]

    def add(self, buffers: Sequence[Buffer], *, indirect: bool | None = None) -> int:
        """Exposes a chain; its head.  Raises MemoryError if the queue is full."""
        head, indices, table = self._put(buffers, indirect)
        self._chains[head] = indices
        if table is not None:
            self._tables[head] = table
        self.expose(head)
        return head

    def reserve(self, buffers: Sequence[Buffer]) -> int:
        """A chain to be exposed time and again, which ``take`` leaves as it is; its head."""
        return self._put(buffers, None)[0]

    def _put(
        self, buffers: Sequence[Buffer], indirect: bool | None
    ) -> tuple[int, list[int], tuple[int, int] | None]:
        table = None
        if indirect is None:
            indirect = self.is_indirect and len(buffers) > 1
        count = 1 if indirect else len(buffers)
        if count > len(self._free):
            raise MemoryError("the queue is full")
        indices = [self._free.pop() for _ in range(count)]
        if indirect:
            size = virtio.DESCRIPTOR.size * len(buffers)
            address = self.memory.allocate(size)
            table = (address, size)
            self.memory.write(address, _table(buffers, range(len(buffers))))
            self.descriptor(indices[0], address, size, Descriptor.INDIRECT)
        else:
            packed = _table(buffers, indices)
            for place, index in enumerate(indices):
                self.areas.descriptors[16 * index : 16 * index + 16] = packed[
                    16 * place : 16 * place + 16
                ]
        return indices[0], indices, table

    def descriptor(
        self, index: int, address: int, size: int, flags: int, following: int = 0
    ) -> None:
        """Writes one descriptor."""
        virtio.DESCRIPTOR.pack_into(
            self.areas.descriptors, 16 * index, address, size, flags, following
        )

    def expose(self, head: int) -> None:
        """Puts a head into the available ring."""
        self._available[2 + self._next % self.size] = head
        self._next = (self._next + 1) & _MASK
        if barriers.WEAK:
            barriers.full()
        self._available[1] = self._next

    def set_available_index(self, index: int) -> None:
        """Claims that the available ring goes on to here."""
        self._available[1] = self._next = index & _MASK

    def kick(self, *, force: bool = False) -> bool:
        """Wakes the device, unless it has said that it need not be; whether it did."""
        barriers.full()
        if self.event_idx:
            wanted = needs_event(self._avail_event[0], self._next, self._told)
        else:
            wanted = not self._used[0] & virtio.USED_NO_NOTIFY
        self._told = self._next
        if wanted or force:
            os.eventfd_write(self.kick_fd, 1)
        return wanted

    def take(self) -> list[Used]:
        """What was given back since the last time."""
        found = []
        while self.seen != self._used[1]:
            if barriers.WEAK:
                barriers.full()
            head, written = virtio.USED_ELEMENT.unpack_from(
                self.areas.used, 4 + 8 * (self.seen % self.size)
            )
            self.seen = (self.seen + 1) & _MASK
            self._free += self._chains.pop(head, [])
            table = self._tables.pop(head, None)
            if table is not None:
                self.memory.free(*table)
            found.append(Used(head, written))
        return found

    def rest(self) -> bool:
        """Nothing was there: asks for a call.  False if there is something after all."""
        if self.event_idx:
            self._available[2 + self.size] = self.seen
            barriers.full()
        return self._used[1] == self.seen

    def wait(self, seconds: float) -> bool:
        """Waits for the device's call; whether it came."""
        poll = select.poll()
        poll.register(self.call_fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        os.eventfd_read(self.call_fd)
        return True

    def is_broken(self, seconds: float = 0) -> bool:
        """Whether the device says that it has given the ring up."""
        poll = select.poll()
        poll.register(self.error_fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def no_interrupt(self, flag: bool) -> None:
        """Sets the flag by which a driver without event indices does without calls."""
        self._available[0] = virtio.AVAILABLE_NO_INTERRUPT if flag else 0

    def close(self) -> None:
        """Close the eventfds."""
        for fd in (self.kick_fd, self.call_fd, self.error_fd):
            os.close(fd)


def _table(buffers: Sequence[Buffer], indices: Sequence[int]) -> bytes:
    packed = []
    for place, (address, size, is_writable) in enumerate(buffers):
        flags = Descriptor.WRITE if is_writable else Descriptor(0)
        following = 0
        if place + 1 < len(buffers):
            flags |= Descriptor.NEXT
            following = indices[place + 1]
        packed.append(virtio.DESCRIPTOR.pack(address, size, flags, following))
    return b"".join(packed)
