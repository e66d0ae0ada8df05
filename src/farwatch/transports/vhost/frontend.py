"""A front end without a virtual machine: drives any vhost-user-fs device.

    with Frontend.connect(path) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([16 << 20]))
        reply = frontend.ask(request, 4096)

``negotiate`` and ``start`` say what a virtual machine's monitor says; each message can also
be sent singly, wrong ones through ``channel``.  After the device's end ``reconnect`` goes
on with the same memory, rings and requests under way, by the inflight buffer.
"""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Self

from farwatch.abi import fuse, vhost_user, virtio
from farwatch.abi.vhost_user import (
    Inflight,
    Protocol,
    Request,
    VringAddress,
    VringDescriptor,
    VringState,
)
from farwatch.abi.virtio import Feature
from farwatch.linux.descriptors import Closable
from farwatch.transports.vhost.channel import Channel
from farwatch.transports.vhost.driver import Buffer, DriverRing
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.peer import Peer
from farwatch.transports.vhost.shared import SharedMemory

_HEADER = fuse.IN_HEADER.size


class Pending(NamedTuple):
    """A request under way: its queue and head, its memory, and where its reply comes."""

    queue: int
    head: int
    pieces: tuple[tuple[int, int], ...]
    reply: tuple[int, int] | None


class Frontend(Peer, Closable):
    """One connection to a device, and its queues.  Owns them."""

    def __init__(self, connection: socket.socket, *, timeout: float = 10.0) -> None:
        super().__init__(connection, timeout=timeout)
        self.memory: SharedMemory | None = None
        self.rings: list[DriverRing] = []
        self._inflight: tuple[int, Inflight] | None = None
        self._under_way: dict[tuple[int, int], Pending] = {}
        """By queue and head; a head is used again as soon as the device has given it back."""
        self._replies: defaultdict[int, dict[Pending, int]] = defaultdict(dict)
        """By queue: the bytes that were written, in the order in which they came."""

    @classmethod
    def connect(cls, path: str, *, timeout: float = 10.0) -> Self:
        """By the device's socket.  Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, timeout=timeout)

    # Memory and queues ---------------------------------------------------------

    def share(self, memory: SharedMemory) -> None:
        """Gives the device this memory, in slots if it takes those, else as a table."""
        self.memory = memory
        if self.protocol & Protocol.CONFIGURE_MEM_SLOTS:
            for place, fd in memory.regions:
                self.tell(Request.ADD_MEM_REG, place.encode(), [fd])
            return
        payload = vhost_user.encode_regions([place for place, _ in memory.regions])
        self.tell(Request.SET_MEM_TABLE, payload, [fd for _, fd in memory.regions])

    def start(self, memory: SharedMemory, *, queues: int = 2, size: int = 64) -> None:
        """Shares the memory and sets all queues going."""
        self.share(memory)
        self.rings = [DriverRing(memory, size, self.features) for _ in range(queues)]
        if self.protocol & Protocol.INFLIGHT_SHMFD:
            asked = Inflight(0, 0, queues, size).encode()
            with self.get(Request.GET_INFLIGHT_FD, asked) as reply:
                place = Inflight.decode(reply.payload, reply.name)
                self._inflight = (reply.take_all(1)[0], place)
            self._give_inflight()
        for index in range(queues):
            self.start_queue(index)

    def reconnect(self, connection: socket.socket) -> None:
        """Goes on with another device: same memory, same rings, same requests."""
        self.channel.close()
        self.channel = Channel(connection)
        features = self.features
        self.protocol = 0
        self.negotiate(features)
        if self.memory is not None:
            self.share(self.memory)
        self._give_inflight()
        for index, ring in enumerate(self.rings):
            self.start_queue(index, ring.used_index)

    def start_queue(self, index: int, base: int = 0) -> None:
        """Size, base, addresses and eventfds of one queue; enables it."""
        ring = self.rings[index]
        descriptors, available, used = ring.addresses
        self.tell(Request.SET_VRING_NUM, VringState(index, ring.size).encode())
        self.tell(Request.SET_VRING_BASE, VringState(index, base).encode())
        address = VringAddress(index, 0, descriptors, used, available)
        self.tell(Request.SET_VRING_ADDR, address.encode())
        which = VringDescriptor(index, has_descriptor=True).encode()
        self.tell(Request.SET_VRING_ERR, which, [ring.error_fd])
        self.tell(Request.SET_VRING_CALL, which, [ring.call_fd])
        self.tell(Request.SET_VRING_KICK, which, [ring.kick_fd])
        if self.features & vhost_user.F_PROTOCOL_FEATURES:
            self.tell(Request.SET_VRING_ENABLE, VringState(index, 1).encode())

    def stop_queue(self, index: int) -> int:
        """Stops one; its base."""
        if self.features & vhost_user.F_PROTOCOL_FEATURES:
            self.tell(Request.SET_VRING_ENABLE, VringState(index, 0).encode())
        with self.get(Request.GET_VRING_BASE, VringState(index, 0).encode()) as reply:
            return VringState.decode(reply.payload, reply.name).num

    def _give_inflight(self) -> None:
        if self._inflight is not None:
            fd, place = self._inflight
            self.tell(Request.SET_INFLIGHT_FD, place.encode(), [fd])

    # Requests --------------------------------------------------------------------

    @property
    def notifies(self) -> bool:
        """Whether there is a queue for notifications; its number is a request queue's if not."""
        return bool(self.features & Feature.FS_NOTIFICATION)

    @property
    def request_queue(self) -> int:
        """The first queue for requests."""
        return 1 + self.notifies

    def submit(
        self,
        request: bytes,
        room: int,
        *,
        queue: int | None = None,
        pieces: Sequence[int] = (_HEADER,),
        room_pieces: Sequence[int] = (fuse.OUT_HEADER.size,),
    ) -> Pending:
        """Puts a request into a queue and kicks.

        It is cut after each of ``pieces``, the room for the reply after ``room_pieces``: as
        Linux does, header apart from the rest.
        """
        index = self.request_queue if queue is None else queue
        ring, memory = self.rings[index], self._memory()
        address = memory.allocate(len(request))
        memory.write(address, request)
        areas = [(address, len(request))]
        buffers = _cut(address, len(request), pieces, is_writable=False)
        reply = None
        if room:
            reply = (memory.allocate(room), room)
            areas.append(reply)
            buffers += _cut(reply[0], room, room_pieces, is_writable=True)
        head = ring.add(buffers)
        pending = self._under_way[index, head] = Pending(index, head, tuple(areas), reply)
        ring.kick()
        return pending

    def poll(self, pending: Pending) -> bytes | None:
        """The reply, if it is there: empty for a request that has none."""
        replies = self._replies[pending.queue]
        if pending not in replies:
            self._under_way.setdefault((pending.queue, pending.head), pending)
        self._take(pending.queue)
        return self._collect(pending) if pending in replies else None

    def _take(self, queue: int) -> None:
        for used in self.rings[queue].take():
            given_back = self._under_way.pop((queue, used.head), None)
            if given_back is not None:
                self._replies[queue][given_back] = used.written

    def _collect(self, pending: Pending) -> bytes:
        written, memory = self._replies[pending.queue].pop(pending), self._memory()
        data = b""
        if pending.reply is not None:
            data = memory.read(pending.reply[0], min(written, pending.reply[1]))
        for area in pending.pieces:
            memory.free(*area)
        return data

    def wait(self, pending: Pending, seconds: float | None = None) -> bytes:
        """The reply.  Raises TimeoutError."""
        ring = self.rings[pending.queue]
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while True:
            data = self.poll(pending)
            if data is not None:
                return data
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer on queue {pending.queue}")
            if ring.rest():
                ring.wait(left)

    def ask(self, request: bytes, room: int, *, queue: int | None = None) -> bytes:
        """Sends a request and waits for its reply.  Raises TimeoutError."""
        return self.wait(self.submit(request, room, queue=queue))

    # Notifications ---------------------------------------------------------------

    def offer(self, size: int, count: int) -> list[Pending]:
        """Gives the device buffers for notifications.

        ``poll`` and ``wait`` take each of them back, ``notifications`` all that were used.
        Raises ProtocolError if no queue for them was agreed on.
        """
        if not self.notifies:
            raise ProtocolError("no queue for notifications was agreed on")
        memory, index = self._memory(), virtio.NOTIFICATION_QUEUE
        ring = self.rings[index]
        offered = []
        for _ in range(count):
            area = (memory.allocate(size), size)
            head = ring.add([Buffer(*area, is_writable=True)])
            pending = self._under_way[index, head] = Pending(index, head, (area,), area)
            offered.append(pending)
        ring.kick()
        return offered

    def notifications(self) -> list[bytes]:
        """What the device has put into such buffers since, in the order in which it did.

        To ask for one buffer after the other would miss that: one that was empty a moment ago
        may be used before one that is asked for next.
        """
        if not self.notifies:
            return []
        self._take(virtio.NOTIFICATION_QUEUE)
        return [self._collect(used) for used in list(self._replies[virtio.NOTIFICATION_QUEUE])]

    def _memory(self) -> SharedMemory:
        if self.memory is None:
            raise ProtocolError("no memory was shared yet")
        return self.memory

    # The end ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection, the rings' eventfds and the memory."""
        self.channel.close()
        for ring in self.rings:
            ring.close()
        self.rings.clear()
        if self.memory is not None:
            self.memory.close()
            self.memory = None
        if self._inflight is not None:
            os.close(self._inflight[0])
            self._inflight = None


def _cut(address: int, size: int, pieces: Sequence[int], *, is_writable: bool) -> list[Buffer]:
    buffers = []
    for piece in pieces:
        if piece >= size:
            break
        buffers.append(Buffer(address, piece, is_writable))
        address += piece
        size -= piece
    buffers.append(Buffer(address, size, is_writable))
    return buffers
