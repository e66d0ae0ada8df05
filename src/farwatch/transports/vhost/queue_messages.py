"""The front end's messages about queues, and about the buffer of what is in flight."""

from __future__ import annotations

from collections.abc import Callable

from farwatch.abi.vhost_user import (
    Inflight,
    Request,
    VringAddress,
    VringDescriptor,
    VringState,
)
from farwatch.transports.vhost.channel import Message, close_all
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.eventfds import EventFd
from farwatch.transports.vhost.inflight import InflightBuffer
from farwatch.transports.vhost.queue import Queue
from farwatch.transports.vhost.state import Answer, State


class QueueMessages:
    """Handlers; each raises Malformed, ProtocolError or BadAddress.

    ``drain`` answers all that a queue holds; it is called without the lock.
    """

    def __init__(self, state: State, drain: Callable[[Queue], None]) -> None:
        self._state = state
        self._drain = drain
        self.handlers: dict[int, Callable[[Message], Answer | None]] = {
            Request.SET_VRING_NUM: self._set_size,
            Request.SET_VRING_ADDR: self._set_address,
            Request.SET_VRING_BASE: self._set_base,
            Request.GET_VRING_BASE: self._get_base,
            Request.SET_VRING_KICK: self._set_kick,
            Request.SET_VRING_CALL: self._set_call,
            Request.SET_VRING_ERR: self._set_error,
            Request.SET_VRING_ENABLE: self._set_enable,
            Request.GET_INFLIGHT_FD: self._get_inflight,
            Request.SET_INFLIGHT_FD: self._set_inflight,
        }

    def _set_size(self, message: Message) -> None:
        state = VringState.decode(message.payload, message.name)
        self._state.queue(state.vring).set_size(state.num)

    def _set_base(self, message: Message) -> None:
        state = VringState.decode(message.payload, message.name)
        self._state.queue(state.vring).set_base(state.num)

    def _set_address(self, message: Message) -> None:
        address = VringAddress.decode(message.payload, message.name)
        with self._state.lock:
            self._state.queue(address.vring).set_address(
                address, self._state.features, self._state.memory
            )

    def _get_base(self, message: Message) -> Answer:
        """Stops a queue.  First what it holds is answered: nobody will ask for it again."""
        state = VringState.decode(message.payload, message.name)
        queue = self._state.queue(state.vring)
        self._drain(queue)
        with self._state.lock:
            base = queue.stop()
        return Answer(VringState(state.vring, base).encode())

    def _set_enable(self, message: Message) -> None:
        state = VringState.decode(message.payload, message.name)
        if state.num > 1:
            raise ProtocolError(f"enable {state.num}")
        self._state.queue(state.vring).is_enabled = bool(state.num)

    def _event(self, message: Message) -> tuple[Queue, EventFd | None]:
        which = VringDescriptor.decode(message.payload, message.name)
        queue = self._state.queue(which.vring)
        taken = message.take_all(int(which.has_descriptor))
        return queue, EventFd(taken[0]) if taken else None

    def _set_kick(self, message: Message) -> None:
        queue, event = self._event(message)
        if event is None:
            raise ProtocolError("rings are not polled")
        state, inflight = self._state, self._state.inflight
        try:
            track = inflight.queue(queue.index, queue.size) if inflight is not None else None
        except BaseException:
            event.close()
            raise
        most = state.options.max_request
        with state.lock:
            queue.start(event, state.features, state.memory, track, most)

    def _set_call(self, message: Message) -> None:
        queue, event = self._event(message)
        with self._state.lock:
            queue.set_call(event)

    def _set_error(self, message: Message) -> None:
        queue, event = self._event(message)
        with self._state.lock:
            queue.set_error(event)

    def _get_inflight(self, message: Message) -> Answer:
        asked = Inflight.decode(message.payload, message.name)
        self._state.inflight, fd, place = InflightBuffer.create(asked.queues, asked.queue_size)
        return Answer(place.encode(), (fd,))

    def _set_inflight(self, message: Message) -> None:
        place = Inflight.decode(message.payload, message.name)
        descriptors = message.take_all(1)
        try:
            self._state.inflight = InflightBuffer.of(descriptors[0], place)
        finally:
            close_all(descriptors)
