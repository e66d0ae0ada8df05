"""What a front end says to a device, message by message, and what it hears."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from farwatch.abi import vhost_user
from farwatch.abi.vhost_user import ConfigAccess, Flag, Protocol, Request
from farwatch.abi.virtio import Feature
from farwatch.transports.vhost.channel import Channel, Message
from farwatch.transports.vhost.errors import ProtocolError

FEATURES = int(Feature.VERSION_1 | Feature.INDIRECT_DESC | Feature.EVENT_IDX)
PROTOCOL = int(
    Protocol.MQ
    | Protocol.REPLY_ACK
    | Protocol.CONFIG
    | Protocol.INFLIGHT_SHMFD
    | Protocol.RESET_DEVICE
    | Protocol.CONFIGURE_MEM_SLOTS
)


class Refused(Exception):
    """The device has answered a message with an error."""


class Peer:
    """One connection to a device.  Owns the socket."""

    def __init__(self, connection: socket.socket, *, timeout: float = 10.0) -> None:
        self.channel = Channel(connection)
        self.timeout = timeout
        self.features = 0
        self.protocol = 0

    def tell(self, request: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Sends what has no answer of its own; waits until it is obeyed, if that can be had.

        Raises Refused or PeerGone.
        """
        if not self.protocol & Protocol.REPLY_ACK:
            self.channel.send(request, payload, 0, descriptors)
            return
        self.channel.send(request, payload, Flag.NEED_REPLY, descriptors)
        with self.reply_to(request) as reply:
            if vhost_user.decode_u64(reply.payload, reply.name):
                raise Refused(vhost_user.name_of(request))

    def get(self, request: int, payload: bytes = b"") -> Message:
        """Sends what has an answer; the answer, to be closed.  Raises PeerGone."""
        self.channel.send(request, payload)
        return self.reply_to(request)

    def get_number(self, request: int) -> int:
        """The same where that is a number."""
        with self.get(request) as reply:
            return vhost_user.decode_u64(reply.payload, reply.name)

    def reply_to(self, request: int) -> Message:
        """The next message, which must answer this.

        Raises ProtocolError, PeerGone, or TimeoutError.
        """
        deadline = time.monotonic() + self.timeout
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        while True:
            message = self.channel.receive()
            if message is not None:
                break
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(vhost_user.name_of(request))
        if message.header.request != request or not message.header.is_reply:
            message.close()
            raise ProtocolError(f"{message.name} in the place of an answer")
        return message

    def negotiate(self, features: int = FEATURES, protocol: int = PROTOCOL) -> None:
        """Agrees on as much of these as the device offers."""
        offered = self.get_number(Request.GET_FEATURES)
        if offered & vhost_user.F_PROTOCOL_FEATURES:
            protocol &= self.get_number(Request.GET_PROTOCOL_FEATURES)
            self.channel.send(Request.SET_PROTOCOL_FEATURES, vhost_user.encode_u64(protocol))
            self.protocol = protocol
        self.tell(Request.SET_OWNER)
        self.features = offered & (features | vhost_user.F_PROTOCOL_FEATURES)
        self.tell(Request.SET_FEATURES, vhost_user.encode_u64(self.features))

    def config(self, offset: int, size: int) -> bytes:
        """A piece of the config space, empty if there is none such."""
        asked = ConfigAccess(offset, size, 0, bytes(size))
        with self.get(Request.GET_CONFIG, asked.encode()) as reply:
            return ConfigAccess.decode(reply.payload, reply.name).data
