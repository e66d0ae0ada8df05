"""What the device has taken and not answered, in memory that outlives it.

The front end keeps the buffer and hands it to the next back end, which then takes these
requests again, in the order in which they came.  Layout (*Inflight I/O tracking* in the
specification, split virtqueues), one region a queue:

    features u64, version u16, descriptors u16, last batch's head u16, used index u16
    for each descriptor: inflight u8, 5 bytes, next u16, counter u64

Behind the regions, in a buffer that is made here, stands what else the next back end has
to know, since the driver will not say it again: the INIT that was agreed on.

    magic 8 bytes, instance u64, length u32, 4 bytes, the request
"""

from __future__ import annotations

import os
from struct import Struct

from farwatch.abi.vhost_user import Inflight
from farwatch.abi.virtio import INDEX_MASK, LARGEST_QUEUE
from farwatch.transports.vhost import barriers
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.memory import map_file

_HEAD = Struct("<QHHHH")
_ENTRY = Struct("<B5xHQ")
_VERSION = 1
_ALIGN = 64
_BATCH, _USED = 12, 14
"""Offsets of the last batch's head and of the used index."""
_NOTE = Struct("<8sQI4x")
_MAGIC = b"farwatch"
_NOTE_SIZE = 256
_LENGTH = Struct("<I")
_LENGTH_OFFSET = 16


def region_size(queue_size: int) -> int:
    """Bytes for one queue."""
    return (_HEAD.size + _ENTRY.size * queue_size + _ALIGN - 1) & -_ALIGN


class InflightBuffer:
    """The buffer of a device: a region a queue."""

    def __init__(self, view: memoryview, place: Inflight) -> None:
        self._view = view
        self._place = place

    @classmethod
    def create(cls, queues: int, queue_size: int) -> tuple[InflightBuffer, int, Inflight]:
        """A new one, its descriptor (the caller's), and how to describe it."""
        size = queues * region_size(queue_size) + _NOTE_SIZE
        place = _checked(Inflight(size, 0, queues, queue_size))
        fd = os.memfd_create("inflight", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, place.mmap_size)
            return cls(map_file(fd, 0, place.mmap_size), place), fd, place
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def of(cls, fd: int, place: Inflight) -> InflightBuffer:
        """One that a front end has kept.  ``fd`` stays the caller's.  Raises ProtocolError."""
        return cls(map_file(fd, place.mmap_offset, _checked(place).mmap_size), place)

    def queue(self, index: int, queue_size: int) -> QueueLog:
        """The region of a queue.  Raises ProtocolError."""
        if index >= self._place.queues or queue_size > self._place.queue_size:
            raise ProtocolError(f"inflight: no room for queue {index} of size {queue_size}")
        start = index * region_size(self._place.queue_size)
        return QueueLog(self._view[start : start + region_size(queue_size)], queue_size)

    def note(self, instance: int, request: bytes) -> None:
        """Keeps an INIT for the next back end; an empty one takes it back.

        ``instance`` says who has agreed to it.  A request that is too long is not kept.
        """
        view = self._note_view()
        if view is None or len(request) > _NOTE_SIZE - _NOTE.size:
            return
        # Without a length it is none, until all of it is there.
        _NOTE.pack_into(view, 0, _MAGIC, instance, 0)
        view[_NOTE.size : _NOTE.size + len(request)] = request
        if barriers.WEAK:
            barriers.full()
        _LENGTH.pack_into(view, _LENGTH_OFFSET, len(request))

    def noted(self) -> tuple[int, bytes] | None:
        """The instance and the INIT that were kept, if any were."""
        view = self._note_view()
        if view is None:
            return None
        magic, instance, length = _NOTE.unpack_from(view)
        if magic != _MAGIC or not 0 < length <= _NOTE_SIZE - _NOTE.size:
            return None
        return instance, bytes(view[_NOTE.size : _NOTE.size + length])

    def _note_view(self) -> memoryview | None:
        start = self._place.queues * region_size(self._place.queue_size)
        view = self._view[start : start + _NOTE_SIZE]
        return view if len(view) == _NOTE_SIZE else None


def _checked(place: Inflight) -> Inflight:
    if not (0 < place.queues <= 256 and 0 < place.queue_size <= LARGEST_QUEUE):
        raise ProtocolError(f"inflight: {place.queues} queues of size {place.queue_size}")
    least = place.queues * region_size(place.queue_size)
    if place.mmap_size < least:
        raise ProtocolError(f"inflight: {place.mmap_size} bytes where {least} are needed")
    return place


class QueueLog:
    """The region of one queue."""

    def __init__(self, view: memoryview, queue_size: int) -> None:
        self._view = view
        self._size = queue_size
        self._counter = 0

    def recover(self, used: int) -> list[int]:
        """Heads that were taken and not answered, oldest first.

        ``used`` is the used ring's index.  Raises ProtocolError for a buffer that cannot be.
        """
        view = self._view
        _, version, size, batch, noted = _HEAD.unpack_from(view)
        if version == 0:
            view[: len(view)] = bytes(len(view))
            _HEAD.pack_into(view, 0, 0, _VERSION, self._size, 0, used)
            return []
        if version != _VERSION or size != self._size:
            raise ProtocolError(f"inflight: version {version}, {size} descriptors")
        # The last batch was given back, but that was not noted any more.
        for _ in range(min((used - noted) & INDEX_MASK, self._size)):
            if batch >= self._size:
                raise ProtocolError(f"inflight: descriptor {batch}")
            view[_HEAD.size + _ENTRY.size * batch] = 0
            batch = self._entry(batch)[1]
        self._note(_USED, used)
        found = []
        for head in range(self._size):
            taken, _, counter = self._entry(head)
            if taken:
                found.append((counter, head))
        found.sort()
        self._counter = (found[-1][0] + 1) & (1 << 64) - 1 if found else 0
        return [head for _, head in found]

    def taken(self, head: int) -> None:
        """The device is about to take a request."""
        start = _HEAD.size + _ENTRY.size * head
        self._view[start + 8 : start + 16] = self._counter.to_bytes(8, "little")
        self._counter = (self._counter + 1) & (1 << 64) - 1
        if barriers.WEAK:
            barriers.full()
        self._view[start] = 1

    def returning(self, head: int) -> None:
        """The used index is about to say that this one is answered."""
        start = _HEAD.size + _ENTRY.size * head
        self._view[start + 6 : start + 8] = self._view[_BATCH : _BATCH + 2]
        self._note(_BATCH, head)

    def returned(self, head: int, used: int) -> None:
        """The used index says so now."""
        self._view[_HEAD.size + _ENTRY.size * head] = 0
        if barriers.WEAK:
            barriers.full()
        self._note(_USED, used)

    def clear(self) -> None:
        """The queue was stopped in order: what is not answered by now never will be."""
        for head in range(self._size):
            self._view[_HEAD.size + _ENTRY.size * head] = 0

    def _note(self, offset: int, number: int) -> None:
        self._view[offset : offset + 2] = number.to_bytes(2, "little")

    def _entry(self, head: int) -> tuple[int, int, int]:
        taken, following, counter = _ENTRY.unpack_from(self._view, _HEAD.size + _ENTRY.size * head)
        return taken, following, counter
