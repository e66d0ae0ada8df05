"""The device as the front end sets it up: one handler a message, and what must hold.

    connected ──SET_OWNER, features, memory──> set up ──a queue each: size, base, address,
    kick──> running ──GET_VRING_BASE a queue──> set up ──...

A message that cannot be obeyed is answered with 1 where an acknowledgement was asked for,
and ends the connection where it was not: the front end could not know otherwise.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from farwatch.abi import vhost_user, virtio
from farwatch.abi.vhost_user import ConfigAccess, Malformed, Protocol, Request
from farwatch.abi.virtio import Feature
from farwatch.transports.vhost.channel import Channel, Message, close_all
from farwatch.transports.vhost.errors import BadAddress, ProtocolError
from farwatch.transports.vhost.memory import Memory
from farwatch.transports.vhost.memory_messages import MemoryMessages
from farwatch.transports.vhost.poller import Poller
from farwatch.transports.vhost.queue import Queue
from farwatch.transports.vhost.queue_messages import QueueMessages
from farwatch.transports.vhost.state import Answer, Options, State

log = logging.getLogger(__name__)

_FEATURES = int(Feature.VERSION_1 | Feature.INDIRECT_DESC | Feature.EVENT_IDX)
_NEEDS = {
    Request.GET_QUEUE_NUM: Protocol.MQ,
    Request.SET_BACKEND_REQ_FD: Protocol.BACKEND_REQ,
    Request.GET_CONFIG: Protocol.CONFIG,
    Request.SET_CONFIG: Protocol.CONFIG,
    Request.GET_INFLIGHT_FD: Protocol.INFLIGHT_SHMFD,
    Request.SET_INFLIGHT_FD: Protocol.INFLIGHT_SHMFD,
    Request.RESET_DEVICE: Protocol.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS: Protocol.CONFIGURE_MEM_SLOTS,
    Request.ADD_MEM_REG: Protocol.CONFIGURE_MEM_SLOTS,
    Request.REM_MEM_REG: Protocol.CONFIGURE_MEM_SLOTS,
}
"""Requests that only a protocol feature makes legal."""


class Device:
    """What one connection has set up."""

    def __init__(
        self,
        options: Options,
        poller: Poller,
        lock: AbstractContextManager[object],
        kicked: Callable[[Queue], None],
        drain: Callable[[Queue], None],
    ) -> None:
        """``drain`` answers all that a queue holds; it is called without the lock."""
        self._config = virtio.encode_config(
            options.tag, options.request_queues, options.notify_buf_size
        )
        self.offered = _FEATURES | vhost_user.F_PROTOCOL_FEATURES
        if options.notify_buf_size is not None:
            self.offered |= Feature.FS_NOTIFICATION
        queues = [Queue(index, poller, kicked) for index in range(options.queues)]
        self.state = State(options, lock, queues)
        self._drain = drain
        self._backend_requests: int | None = None
        self._handlers: dict[int, Callable[[Message], Answer | None]] = {
            **MemoryMessages(self.state).handlers,
            **QueueMessages(self.state, drain).handlers,
            Request.GET_FEATURES: self._get_features,
            Request.SET_FEATURES: self._set_features,
            Request.SET_OWNER: self._nothing,
            Request.RESET_OWNER: self._reset_owner,
            Request.GET_PROTOCOL_FEATURES: self._get_protocol_features,
            Request.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            Request.GET_QUEUE_NUM: self._get_queue_number,
            Request.SET_BACKEND_REQ_FD: self._set_backend_requests,
            Request.GET_CONFIG: self._get_config,
            Request.SET_CONFIG: self._set_config,
            Request.RESET_DEVICE: self._reset_device,
        }

    def handle(self, message: Message, channel: Channel) -> None:
        """Obeys one message and answers it.

        Raises Malformed or ProtocolError where that cannot be said in an answer; PeerGone.
        """
        header = message.header
        acknowledges = (
            header.needs_reply
            and self.state.protocol & Protocol.REPLY_ACK
            and header.request not in vhost_user.ANSWERED
        )
        try:
            answer = self._obey(message)
        except (Malformed, ProtocolError, BadAddress, OSError) as error:
            if not acknowledges:
                raise ProtocolError(f"{message.name}: {error}") from error
            log.info("refused: %s: %s", message.name, error)
            channel.reply(header, vhost_user.encode_u64(1))
            return
        if answer is not None:
            try:
                channel.reply(header, answer.payload, answer.descriptors)
            finally:
                close_all(list(answer.descriptors))
        elif header.needs_reply and self.state.protocol & Protocol.REPLY_ACK:
            channel.reply(header, vhost_user.encode_u64(0))

    def _obey(self, message: Message) -> Answer | None:
        header = message.header
        handler = self._handlers.get(header.request)
        if handler is None:
            raise ProtocolError("unknown, or not offered")
        if header.is_reply:
            raise ProtocolError("a reply to nothing")
        needed = _NEEDS.get(Request(header.request), 0)
        if needed & ~self.state.protocol:
            raise ProtocolError("its protocol feature was not agreed on")
        return handler(message)

    def close(self) -> None:
        """Stop everything, with nothing answered; forget all that was set."""
        with self.state.lock:
            for queue in self.state.queues:
                queue.close()
        self.state.memory = Memory()
        self.state.inflight = None
        self._keep_backend_requests(None)

    # Features --------------------------------------------------------------------

    def _nothing(self, message: Message) -> None:
        vhost_user.decode_nothing(message.payload, message.name)

    def _get_features(self, message: Message) -> Answer:
        self._nothing(message)
        return Answer(vhost_user.encode_u64(self.offered))

    def _set_features(self, message: Message) -> None:
        features = vhost_user.decode_u64(message.payload, message.name)
        if features & ~self.offered:
            raise ProtocolError(f"features {features & ~self.offered:#x} were not offered")
        ring_features = Feature.INDIRECT_DESC | Feature.EVENT_IDX | Feature.FS_NOTIFICATION
        if self.state.is_running and (features ^ self.state.features) & ring_features:
            raise ProtocolError("queues are running")
        self.state.features = features
        if not features & vhost_user.F_PROTOCOL_FEATURES:
            for queue in self.state.queues:
                queue.is_enabled = True

    def _get_protocol_features(self, message: Message) -> Answer:
        self._nothing(message)
        return Answer(vhost_user.encode_u64(self.state.options.protocol_features))

    def _set_protocol_features(self, message: Message) -> None:
        features = vhost_user.decode_u64(message.payload, message.name)
        other = features & ~self.state.options.protocol_features
        if other:
            raise ProtocolError(f"protocol features {other:#x} were not offered")
        self.state.protocol = features

    def _get_queue_number(self, message: Message) -> Answer:
        self._nothing(message)
        return Answer(vhost_user.encode_u64(len(self.state.queues)))

    def _reset_owner(self, message: Message) -> None:
        self._nothing(message)
        for queue in self.state.queues:
            queue.is_enabled = False

    def _reset_device(self, message: Message) -> None:
        self._nothing(message)
        for queue in self.state.queues:
            self._drain(queue)
        with self.state.lock:
            for queue in self.state.queues:
                queue.stop()
                queue.close()
        self.state.features = 0

    def _set_backend_requests(self, message: Message) -> None:
        self._nothing(message)
        self._keep_backend_requests(message.take_all(1)[0])

    def _keep_backend_requests(self, fd: int | None) -> None:
        """Nothing is asked of the front end; it may rely on the descriptor being held."""
        old, self._backend_requests = self._backend_requests, fd
        if old is not None:
            os.close(old)

    # Configuration space ---------------------------------------------------------

    def _get_config(self, message: Message) -> Answer:
        asked = ConfigAccess.decode(message.payload, message.name)
        end = asked.offset + asked.size
        if end > len(self._config):
            return Answer(ConfigAccess(asked.offset, 0, asked.flags, b"").encode())
        found = self._config[asked.offset : end]
        return Answer(ConfigAccess(asked.offset, asked.size, asked.flags, found).encode())

    def _set_config(self, message: Message) -> None:
        """Every field is read-only: what a migration brings must be what is here."""
        asked = ConfigAccess.decode(message.payload, message.name)
        here = self._config[asked.offset : asked.offset + asked.size]
        if not asked.flags & vhost_user.Config.LIVE_MIGRATION or asked.data != here:
            raise ProtocolError("the config space is read-only")
