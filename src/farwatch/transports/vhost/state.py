"""What a connection has agreed on and set up, for those who handle its messages."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

from farwatch.abi import virtio
from farwatch.abi.vhost_user import Protocol
from farwatch.abi.virtio import Feature
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.inflight import InflightBuffer
from farwatch.transports.vhost.memory import Memory
from farwatch.transports.vhost.queue import Queue

PROTOCOL_FEATURES = (
    Protocol.MQ
    | Protocol.REPLY_ACK
    | Protocol.BACKEND_REQ
    | Protocol.CONFIG
    | Protocol.INFLIGHT_SHMFD
    | Protocol.RESET_DEVICE
    | Protocol.CONFIGURE_MEM_SLOTS
)
"""What can be offered."""


class Options(NamedTuple):
    """What a device is.

    ``tag``                what a guest mounts it by
    ``request_queues``     queues besides hiprio and notifications
    ``notify_buf_size``    offers the notification queue, with buffers of this size
    ``max_request``        bytes of the largest request: the largest WRITE and a page
    ``protocol_features``  what is offered of PROTOCOL_FEATURES
    ``look_seconds``       for how long to look for the next request before sleeping: to be
                           woken takes longer than to answer one
    """

    tag: str = "farwatch"
    request_queues: int = 1
    notify_buf_size: int | None = None
    max_request: int = (1 << 20) + 4096
    protocol_features: int = int(PROTOCOL_FEATURES)
    look_seconds: float = 0.0

    @property
    def queues(self) -> int:
        """How many there are at most."""
        return 1 + self.request_queues + (self.notify_buf_size is not None)


_FS_NOTIFICATION = int(Feature.FS_NOTIFICATION)
"""An int: it is looked at for each request, and a Flag takes a microsecond."""


class Answer(NamedTuple):
    """A reply's payload, and descriptors that are sent with it and closed then."""

    payload: bytes
    descriptors: tuple[int, ...] = ()


class State:
    """The device of one connection.

    ``lock`` is held by whoever changes the memory, or takes a queue's ring or eventfds away.
    """

    def __init__(
        self, options: Options, lock: AbstractContextManager[object], queues: list[Queue]
    ) -> None:
        self.options = options
        self.lock = lock
        self.queues = queues
        self.features = 0
        self.protocol = 0
        self.memory = Memory()
        self.inflight: InflightBuffer | None = None

    def queue(self, index: int) -> Queue:
        """Raises ProtocolError."""
        if index >= len(self.queues):
            raise ProtocolError(f"no queue {index}")
        return self.queues[index]

    @property
    def is_running(self) -> bool:
        """Whether any queue was started."""
        return any(queue.is_started for queue in self.queues)

    @property
    def notifications(self) -> Queue | None:
        """The queue for what nobody has asked for, if the driver has agreed on one."""
        if self.features & _FS_NOTIFICATION:
            return self.queues[virtio.NOTIFICATION_QUEUE]
        return None

    def use(self, memory: Memory) -> None:
        """The memory is this one from now on."""
        with self.lock:
            self.memory = memory
            for queue in self.queues:
                queue.remap(self.features, memory)
