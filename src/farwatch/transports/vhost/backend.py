"""The back end: takes requests from virtqueues to a session, and replies back.

One thread serves everything: the socket, and every queue in turn.  It waits for nobody:
the socket is read as messages come in, and eventfds never block.  A request that the
session parks keeps its chain until ``send`` brings the reply, from any thread.

The session's side is that of /dev/fuse: ``receive`` answers one request or None, ``after``
is called after each, and ``send`` takes a reply, or a notification, whenever there is one.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.abi.vhost_user import Malformed
from farwatch.session.request import Payload
from farwatch.transports.vhost.chain import Chain
from farwatch.transports.vhost.channel import Channel
from farwatch.transports.vhost.device import Device
from farwatch.transports.vhost.errors import PeerGone, ProtocolError
from farwatch.transports.vhost.poller import Poller
from farwatch.transports.vhost.queue import Queue
from farwatch.transports.vhost.state import Options

log = logging.getLogger(__name__)

Receive = Callable[[memoryview], Sequence[Payload] | None]

_AT_ONCE = 64
"""Requests of one queue, before the others and the socket have their turn."""
_MOST_NOTICES = 4096
"""Notifications that wait for the driver's buffers."""
_HEADER = fuse.OUT_HEADER.size
_ABOUT = struct.Struct("<4xIQ")
"""Of a request's header: opcode and unique."""
_UNIQUE = struct.Struct("<8xQ")
_SILENT = frozenset((int(Opcode.FORGET), int(Opcode.BATCH_FORGET)))
_INTERRUPT = int(Opcode.INTERRUPT)
"""Has an answer only if it is refused."""
_INTERRUPT_BIT = 1


class _Parked(NamedTuple):
    """A request that the session has not answered yet."""

    queue: Queue
    chain: Chain


class Backend:
    """Serves one front end at a time; see the top of the file."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._poller = Poller()
        self._lock = threading.RLock()
        """For the used rings, and what ``send`` meets of them."""
        self._parked: dict[int, _Parked] = {}
        self._notices: deque[Sequence[Payload]] = deque()
        self._busy: dict[Queue, None] = {}
        self._device: Device | None = None
        self._channel: Channel | None = None
        self._receive: Receive = _refuse
        self._after: Callable[[], None] = _nothing
        self._buffer = memoryview(bytearray(self.options.max_request))
        self._is_stopped = False
        self._is_over = False

    def serve(self, connection: socket.socket, receive: Receive, after: Callable[[], None]) -> None:
        """Serves until the front end is gone or ``stop`` is called; closes the connection.

        A front end that breaks the protocol is let go as well, with a line in the log.
        """
        self._receive, self._after = receive, after
        channel = self._channel = Channel(connection)
        device = self._device = Device(
            self.options, self._poller, self._lock, self._kicked, self._drain
        )
        self._is_over = False
        self._poller.add(channel.fileno(), self._on_message)
        try:
            while not (self._is_stopped or self._is_over):
                self._poller.wait(block=not self._busy)
                if self._notices:
                    self._send_notices()
                busy, self._busy = self._busy, {}
                for queue in busy:
                    self._take(queue)
        finally:
            self._poller.remove(channel.fileno())
            self._busy.clear()
            device.close()
            self._abandon()
            channel.close()

    def stop(self) -> None:
        """Have ``serve`` return.  From any thread."""
        self._is_stopped = True
        self._poller.wake()

    def close(self) -> None:
        """Close what the back end itself holds; ``serve`` has returned."""
        self._poller.close()

    def send(self, reply: Sequence[Payload]) -> None:
        """Sends a reply that was parked, or a notification.  From any thread.

        A reply that nobody waits for any more is dropped, and a notification if the driver
        has agreed on no queue for them.
        """
        (unique,) = _UNIQUE.unpack_from(reply[0])
        if not unique:
            self._notify(reply)
            return
        with self._lock:
            parked = self._parked.pop(unique, None)
            if parked is not None:
                parked.queue.complete(parked.chain, _fitting(reply, unique, parked.chain))

    # The front end ---------------------------------------------------------------

    def _on_message(self) -> None:
        channel, device = self._channel, self._device
        if channel is None or device is None:
            return
        try:
            message = channel.receive()
            if message is None:
                return
            with message:
                device.handle(message, channel)
        except PeerGone:
            self._is_over = True
            return
        except (Malformed, ProtocolError) as error:
            log.warning("the front end is let go: %s", error)
            self._is_over = True
            return
        # A queue may have been started or enabled, and kicked long before.
        self._busy.update((queue, None) for queue in device.state.queues if queue.takes_requests)

    def _kicked(self, queue: Queue) -> None:
        self._busy[queue] = None

    # Requests --------------------------------------------------------------------

    def _take(self, queue: Queue) -> None:
        device = self._device
        if device is not None and queue is device.state.notifications:
            return
        for _ in range(_AT_ONCE):
            chain = queue.pop()
            if chain is None:
                return
            self._answer(queue, chain)
        self._busy[queue] = None

    def _answer(self, queue: Queue, chain: Chain) -> None:
        if chain.length < fuse.IN_HEADER.size:
            log.debug("a request of %d bytes has no header", chain.length)
            self._complete(queue, chain, ())
            return
        data = chain.request(self._buffer)
        opcode, unique = _ABOUT.unpack_from(data)
        if opcode in _SILENT:
            self._receive(data)
            self._complete(queue, chain, ())
        elif opcode == _INTERRUPT:
            refusal = self._receive(data)
            self._complete(queue, chain, _fitting(refusal or (), unique, chain))
        elif chain.room < _HEADER or not unique:
            log.debug("no room for an answer to opcode %d, or nobody to answer", opcode)
            self._complete(queue, chain, ())
        elif unique in self._parked:
            queue.fail(f"two requests are number {unique}")
            return
        else:
            # Before it is asked: the answer may come from another thread at once.
            self._parked[unique] = _Parked(queue, chain)
            reply = self._receive(data)
            if reply is not None:
                self._parked.pop(unique, None)
                self._complete(queue, chain, _fitting(reply, unique, chain))
        self._after()

    def _complete(self, queue: Queue, chain: Chain, reply: Sequence[Payload]) -> None:
        with self._lock:
            queue.complete(chain, reply)

    # Parked requests -------------------------------------------------------------

    def _drain(self, queue: Queue) -> None:
        """Answers all that a queue holds, before it is stopped."""
        self._interrupt([unique for unique, each in self._all_parked() if each.queue is queue])
        with self._lock:
            for unique, parked in self._all_parked():
                if parked.queue is queue:
                    del self._parked[unique]
                    queue.complete(parked.chain, _failed(unique, errno.EINTR))

    def _abandon(self) -> None:
        """The rings are gone: the session is to keep nothing parked for them."""
        self._interrupt([unique for unique, _ in self._all_parked()])
        with self._lock:
            self._parked.clear()
            self._notices.clear()

    def _all_parked(self) -> list[tuple[int, _Parked]]:
        with self._lock:
            return list(self._parked.items())

    def _interrupt(self, uniques: list[int]) -> None:
        """Has the session itself answer these: it must know that they are over."""
        for unique in uniques:
            size = fuse.IN_HEADER.size + fuse.INTERRUPT_IN.size
            header = fuse.IN_HEADER.pack(
                size, _INTERRUPT, unique ^ _INTERRUPT_BIT, 0, 0, 0, 0, 0, 0
            )
            self._receive(memoryview(header + fuse.INTERRUPT_IN.pack(unique)))
            self._after()

    # Notifications ---------------------------------------------------------------

    def _notify(self, notice: Sequence[Payload]) -> None:
        with self._lock:
            device = self._device
            queue = device.state.notifications if device is not None else None
            if queue is None:
                return
            if len(self._notices) == _MOST_NOTICES:
                log.warning("the driver gives no buffers: a notification is lost")
                return
            self._notices.append([bytes(part) for part in notice])
        self._poller.wake()

    def _send_notices(self) -> None:
        """Puts what waits into buffers of the driver's, as far as there are any."""
        device = self._device
        queue = device.state.notifications if device is not None else None
        while queue is not None and self._notices:
            chain = queue.pop()
            if chain is None:
                return
            size = sum(map(len, self._notices[0]))
            if size > chain.room:
                log.debug("a notification of %d bytes, room for %d", size, chain.room)
                self._complete(queue, chain, ())
                self._notices.popleft()
                continue
            self._complete(queue, chain, self._notices.popleft())


def _fitting(reply: Sequence[Payload], unique: int, chain: Chain) -> Sequence[Payload]:
    """The reply, or that it failed if the driver has given too little room."""
    if sum(map(len, reply)) <= chain.room:
        return reply
    log.debug("a reply of %d bytes, room for %d", sum(map(len, reply)), chain.room)
    return _failed(unique, errno.EIO) if chain.room >= _HEADER else ()


def _failed(unique: int, number: int) -> Sequence[Payload]:
    return (fuse.OUT_HEADER.pack(_HEADER, -number, unique),)


def _refuse(data: memoryview) -> None:
    return None


def _nothing() -> None:
    return None
