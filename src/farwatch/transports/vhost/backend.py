"""The back end: takes requests from virtqueues to a session, and replies back.

One thread serves everything: the socket, and every queue in turn.  It waits for nobody:
the socket is read as messages come in, and eventfds never block.  A request that the
session parks keeps its chain until ``send`` brings the reply, from any thread.

The session's side is that of /dev/fuse: ``receive`` answers one request or None, ``after``
is called after each, and ``send`` takes a reply, or a notification, whenever there is one.
Those notifications that must not be lost are taken from ``speaker`` as the driver gives
buffers for them; ``wake`` has another thread's looked for.  Where ``speaker`` says so, they
are put there before a request is answered: a driver that looks for answers first, and then
for notifications, has all that came before an answer.  Nobody waits for buffers, though.

A front end that keeps what is in flight (inflight.py) may go on with another back end, and
its driver does not say INIT again.  So INIT is kept there as well, and is said in its place.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.abi.vhost_user import Malformed
from farwatch.session.reply import failed
from farwatch.session.request import Payload, Views
from farwatch.transports.vhost.chain import Chain
from farwatch.transports.vhost.channel import Channel
from farwatch.transports.vhost.device import Device
from farwatch.transports.vhost.errors import PeerGone, ProtocolError
from farwatch.transports.vhost.notices import Notices, Speaker
from farwatch.transports.vhost.poller import Poller
from farwatch.transports.vhost.queue import Queue
from farwatch.transports.vhost.recovery import REPEATABLE, Continuity
from farwatch.transports.vhost.state import Options

log = logging.getLogger(__name__)

Receive = Callable[[memoryview, Views | None, Views | None], Sequence[Payload] | None]
"""Answers one request: ``Session.receive``, with a WRITE's payload and a READ's room."""

_AT_ONCE = 64
"""Requests of one queue, before the others and the socket have their turn."""
_HEADER = fuse.OUT_HEADER.size
_ABOUT = struct.Struct("<4xIQ")
"""Of a request's header: opcode and unique."""
_UNIQUE = struct.Struct("<8xQ")
_SILENT = frozenset((int(Opcode.FORGET), int(Opcode.BATCH_FORGET)))
_INIT = int(Opcode.INIT)
_DESTROY = int(Opcode.DESTROY)
_READ = int(Opcode.READ)
_WRITE = int(Opcode.WRITE)
_WRITE_END = fuse.IN_HEADER.size + fuse.WRITE_IN.size
_INTERRUPT = int(Opcode.INTERRUPT)
"""Has an answer only if it is refused."""
_INTERRUPT_BIT = 1


def _nothing() -> None:
    return None


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
        self._notices = Notices(self._lock)
        self._busy: dict[Queue, None] = {}
        self._awake: dict[Queue, None] = {}
        """Queues that were emptied, and whose driver was not asked to kick for more yet."""
        self._device: Device | None = None
        self._channel: Channel | None = None
        self._receive: Receive = _refuse
        self._after: Callable[[], None] = _nothing
        self._hear: Callable[[], None] = _nothing
        self._continuity = Continuity(0, lambda _: None)
        self._is_stopped = False
        self._is_over = False

    def serve(
        self,
        connection: socket.socket,
        receive: Receive,
        after: Callable[[], None],
        *,
        due: Callable[[], float | None] = _nothing,
        tick: Callable[[], None] = _nothing,
        beside: tuple[int, Callable[[], None]] | None = None,
        instance: int = 0,
        speaker: Speaker | None = None,
    ) -> None:
        """Serves until the front end is gone or ``stop`` is called; closes the connection.

        ``due`` is the time (``time.monotonic``) at which ``tick`` is to be called if nothing
        happens until then; None for never.  ``beside`` is a descriptor to wait for as well,
        and what to call when it is readable.
        ``instance`` tells the session behind ``receive`` from any other.  ``speaker`` is asked
        for notifications.
        A front end that breaks the protocol is let go as well, with a line in the log.
        """
        self._receive, self._after = receive, after
        self._hear = beside[1] if beside is not None else _nothing
        self._continuity = Continuity(
            instance, lambda request: receive(memoryview(request), None, None)
        )
        channel = self._channel = Channel(connection)
        device = self._device = Device(
            self.options, self._poller, self._lock, self._kicked, self._drain
        )
        self._is_over = False
        if speaker is not None:
            self._notices.speaker = speaker
        self._poller.add(channel.fileno(), self._on_message)
        if beside is not None:
            self._poller.add(*beside)
        try:
            while not (self._is_stopped or self._is_over):
                self._wait(due, tick)
                busy, self._busy = self._busy, {}
                for queue in busy:
                    self._take(queue)
                self._notices.send(device.state.notifications)
        finally:
            self._poller.remove(channel.fileno())
            if beside is not None:
                self._poller.remove(beside[0])
            self._busy.clear()
            self._awake.clear()
            device.close()
            self._continuity.use(None)
            self._abandon()
            channel.close()

    def _wait(self, due: Callable[[], float | None], tick: Callable[[], None]) -> None:
        if self._awake and not self._busy:
            if self._look():
                return
            self._rest()
        if self._busy:
            self._see_more()
            self._poller.wait(0)
            return
        when = due()
        self._poller.wait(None if when is None else max(when - time.monotonic(), 0))
        if when is not None and time.monotonic() >= when:
            tick()

    def _look(self) -> bool:
        """Looks for what comes next, for as long as the options say; whether it came.

        There have just been requests, so more are likely.  They are seen in the ring itself,
        with no kick.  Whoever else wants this CPU has it in between: to look is only worth
        it as long as nobody does, and it may be the guest that has to run first.
        """
        end = time.monotonic() + self.options.look_seconds
        while time.monotonic() < end:
            self._see_more()
            if self._poller.wait(0) or self._busy:
                return True
            os.sched_yield()
        return False

    def wake(self) -> None:
        """There is a notification.  From any thread."""
        self._poller.wake()

    def _see_more(self) -> None:
        for queue in self._awake:
            if queue.has_more:
                self._busy[queue] = None

    def _rest(self) -> None:
        """Has every queue kick again; those that have got something meanwhile are busy."""
        awake, self._awake = self._awake, {}
        self._busy.update((queue, None) for queue in awake if not queue.rest())

    def stop(self) -> None:
        """Have ``serve`` return.  From any thread."""
        self._is_stopped = True
        self._poller.wake()

    def stop_at(self, fd: int) -> None:
        """Have ``serve`` return once this descriptor is readable, and not begin any more."""
        self._poller.add(fd, self.stop)

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
            device = self._device
            if device is not None and device.state.notifications is not None:
                self._notices.add(reply)
                self._poller.wake()
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
        self._continuity.use(device.state.inflight)
        # A queue may have been started or enabled, and kicked long before.
        self._busy.update((queue, None) for queue in device.state.queues if queue.takes_requests)

    def _kicked(self, queue: Queue) -> None:
        self._busy[queue] = None

    # Requests --------------------------------------------------------------------

    def _take(self, queue: Queue) -> None:
        device = self._device
        if device is not None and queue is device.state.notifications:
            return
        while queue.is_recovering:
            chain = queue.pop()
            if chain is not None:
                self._answer_again(queue, chain)
        for _ in range(_AT_ONCE):
            chain = queue.pop()
            if chain is None:
                self._awake[queue] = None
                return
            self._answer(queue, chain)
        self._busy[queue] = None

    def _answer(self, queue: Queue, chain: Chain) -> None:
        if chain.length < fuse.IN_HEADER.size:
            log.debug("a request of %d bytes has no header", chain.length)
            self._complete(queue, chain, ())
            return
        request, payload = _taken(chain)
        data = memoryview(request)
        opcode, unique = _ABOUT.unpack_from(data)
        if opcode in _SILENT:
            self._receive(data, None, None)
            self._complete(queue, chain, ())
        elif opcode == _INTERRUPT:
            refusal = self._receive(data, None, None)
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
            room = chain.room_behind(_HEADER) if opcode == _READ else None
            reply = self._receive(data, payload, room)
            if reply is not None:
                if opcode == _INIT or opcode == _DESTROY:
                    self._continuity.note(bytes(data) if opcode == _INIT else b"", reply)
                if opcode in self._notices.speaker.told_first:
                    self._tell_first()
                self._parked.pop(unique, None)
                self._complete(queue, chain, _fitting(reply, unique, chain))
        self._after()

    def _tell_first(self) -> None:
        """A request is done: what happened before is told before it is answered."""
        device = self._device
        if device is not None:
            with self._notices.speaker.answering():
                self._hear()
                self._notices.send(device.state.notifications)

    def _answer_again(self, queue: Queue, chain: Chain) -> None:
        """A request that a back end had taken before it died; see recovery.py."""
        if chain.length >= fuse.IN_HEADER.size:
            opcode, unique = _ABOUT.unpack(chain.split(_ABOUT.size)[0])
            if opcode not in REPEATABLE:
                log.info("opcode %d may have been done already: its outcome is unknown", opcode)
                reply = failed(unique, errno.EIO) if chain.room >= _HEADER else ()
                self._complete(queue, chain, reply)
                return
        self._answer(queue, chain)

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
                    queue.complete(parked.chain, failed(unique, errno.EINTR))

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
            self._receive(memoryview(header + fuse.INTERRUPT_IN.pack(unique)), None, None)
            self._after()


def _taken(chain: Chain) -> tuple[bytes, Views | None]:
    """The request and, apart from it and where it is, what a WRITE has behind its arguments.

    The rest is copied, and once, so that it stays as it was when it was looked at.
    """
    if chain.length <= _WRITE_END:
        return chain.request(), None
    data, behind = chain.split(_WRITE_END)
    if _ABOUT.unpack_from(data)[0] == _WRITE:
        return data, behind
    return b"".join((data, *behind)), None


def _fitting(reply: Sequence[Payload], unique: int, chain: Chain) -> Sequence[Payload]:
    """The reply, or that it failed if the driver has given too little room."""
    if sum(map(len, reply)) <= chain.room:
        return reply
    log.debug("a reply of %d bytes, room for %d", sum(map(len, reply)), chain.room)
    return failed(unique, errno.EIO) if chain.room >= _HEADER else ()


def _refuse(data: memoryview, payload: Views | None, room: Views | None) -> None:
    return None
