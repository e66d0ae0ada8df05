"""The carrier through a vhost-user device's queues: a client in the place of a guest.

Requests go into the first request queue, FORGET into hiprio.  What finds no room in the
ring or the memory waits here, in order.  Notifications come in buffers of the notification
queue, if the device has that (VIRTIO_FS_F_NOTIFICATION), else TAKE fetches them.

These are two channels.  A device puts what happened before an answer there before it; so
answers are looked for first and handed over last: what was put before them is there by then.

The device shares this process's request memory, and no more of it than that.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.abi.vhost_user import Malformed
from farwatch.abi.virtio import Feature
from farwatch.client.errors import ProtocolError
from farwatch.client.link import Link
from farwatch.transports.vhost.errors import BadAddress, PeerGone
from farwatch.transports.vhost.errors import ProtocolError as DeviceError
from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.peer import FEATURES, Refused
from farwatch.transports.vhost.shared import SharedMemory

_MEMORY = 16 << 20
_RING = 128
_NOTICES = 64
_NOTICE = 1024
"""Bytes of a buffer: the largest EVENT has two names, and less than this."""
_HIPRIO = 0
_MOST_WAITING = 64
_FORGETTING = (Opcode.FORGET, Opcode.BATCH_FORGET)
_FAULTS = (DeviceError, PeerGone, Refused, Malformed, BadAddress)


class _Waiting(NamedTuple):
    data: bytes
    room: int


class VhostCarrier:
    """See the top of the file.  Owns the front end."""

    interrupts = False

    def __init__(self, link: Link, frontend: Frontend) -> None:
        self.notifies = frontend.notifies
        self._link = link
        self._frontend = frontend
        self._loop = asyncio.get_running_loop()
        self._pending: list[Pending] = []
        self._waiting: deque[_Waiting] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._is_closed = False
        self._watched = [frontend.channel.fileno()]
        self._loop.add_reader(self._watched[0], self._spoken)
        for ring in frontend.rings:
            self._watched += (ring.call_fd, ring.error_fd)
            self._loop.add_reader(ring.call_fd, self._called, ring.call_fd)
            self._loop.add_reader(ring.error_fd, self._broken)
        if self.notifies:
            frontend.offer(_NOTICE, _NOTICES)

    # What the link calls -------------------------------------------------------------

    def send(self, data: bytes, room: int) -> None:
        """Sends a request."""
        self._waiting.append(_Waiting(data, room))
        self._pump()

    async def writable(self) -> None:
        """Waits until not too much waits for room."""
        await self._room.wait()

    def close(self) -> None:
        """Gives the device up."""
        if not self._is_closed:
            self._is_closed = True
            self._room.set()
            for fd in self._watched:
                self._loop.remove_reader(fd)
            self._frontend.close()

    # What happens --------------------------------------------------------------------

    def _pump(self) -> None:
        """Puts into the queues what they have room for."""
        while self._waiting and not self._is_closed:
            data, room = self._waiting[0]
            opcode = fuse.IN_HEADER.unpack_from(data)[1]
            queue = _HIPRIO if opcode in _FORGETTING else None
            try:
                pending = self._frontend.submit(data, room, queue=queue)
            except MemoryError:
                break
            self._waiting.popleft()
            self._pending.append(pending)
        if len(self._waiting) < _MOST_WAITING:
            self._room.set()
        else:
            self._room.clear()
        # An answer can be there before the ring was asked to call.
        self._loop.call_soon(self._collect)

    def _called(self, fd: int) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            pass
        self._collect()

    def _collect(self) -> None:
        """Takes what has been answered, until the rings have promised to call."""
        if self._is_closed:
            return
        try:
            while True:
                answers = self._take_answers()
                found = self._take_notices() or bool(answers)
                for answer in answers:
                    if answer is not None and not self._is_closed:
                        self._link.received(answer, is_message=True)
                if self._is_closed:
                    return
                rested = [ring.rest() for ring in self._frontend.rings]
                if not found and all(rested):
                    break
        except _FAULTS as error:
            self._link.drop(ProtocolError(f"the device: {error}"))
            return
        if self._waiting:
            self._pump()

    def _take_answers(self) -> list[bytes | None]:
        """The answers that are there; None for each request done that has none."""
        left: list[Pending] = []
        answers: list[bytes | None] = []
        for pending in self._pending:
            data = self._frontend.poll(pending)
            if data is None:
                left.append(pending)
            else:
                answers.append(data if pending.reply is not None else None)
        self._pending = left
        return answers

    def _take_notices(self) -> bool:
        notices = self._frontend.notifications()
        for data in notices:
            if data:
                self._link.received(data, is_message=True)
                if self._is_closed:
                    return True
        if notices:
            self._frontend.offer(_NOTICE, len(notices))
        return bool(notices)

    def _broken(self) -> None:
        self._link.drop(ProtocolError("the device has given a queue up"))

    def _spoken(self) -> None:
        """The device's socket: nothing is asked there any more, so it is the end."""
        what = "the device has closed the connection"
        self._link.drop(ConnectionResetError(errno.ECONNRESET, what))


async def connect(path: str, link: Link, *, seconds: float) -> VhostCarrier:
    """Connects, and sets the queues going.  Raises OSError."""
    loop = asyncio.get_running_loop()
    frontend = await loop.run_in_executor(None, _start, path, seconds)
    return VhostCarrier(link, frontend)


def _start(path: str, seconds: float) -> Frontend:
    frontend = Frontend.connect(path, timeout=seconds)
    try:
        frontend.negotiate(FEATURES | Feature.FS_NOTIFICATION)
        memory = SharedMemory([_MEMORY])
        frontend.start(memory, queues=frontend.request_queue + 1, size=_RING)
    except _FAULTS as error:
        frontend.close()
        raise ProtocolError(f"the device: {error}") from None
    except BaseException:
        frontend.close()
        raise
    return frontend
