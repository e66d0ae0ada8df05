"""One queue of the device: what the front end has set of it, and its ring while it runs.

    stopped ──kick descriptor──> started ──GET_VRING_BASE──> stopped
                                    │ the driver breaks it
                                    v
                                  broken: takes and gives nothing until it was stopped

A queue takes requests while it is started, enabled and not broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from struct import Struct

from farwatch.abi import virtio
from farwatch.abi.vhost_user import VringAddress
from farwatch.session.request import Payload
from farwatch.transports.vhost.chain import Chain
from farwatch.transports.vhost.errors import BadAddress, BrokenRing, ProtocolError
from farwatch.transports.vhost.eventfds import EventFd
from farwatch.transports.vhost.inflight import QueueLog
from farwatch.transports.vhost.memory import Memory
from farwatch.transports.vhost.poller import Poller
from farwatch.transports.vhost.vring import Areas, Vring

log = logging.getLogger(__name__)

_LENGTH = Struct("<I")
"""What a reply's header begins with: the reply's bytes, its own included."""


class Queue:
    """See the top of the file.

    Everything is done by the device's thread, ``complete`` by others as well: it, and what
    takes the ring or an eventfd away, is called under the device's lock.
    """

    def __init__(self, index: int, poller: Poller, kicked: Callable[[Queue], None]) -> None:
        self.index = index
        self._poller = poller
        self._kicked = kicked
        self.held: dict[int, Chain] = {}
        """The chains that are not given back yet, by their heads."""
        self.is_enabled = False
        self.is_broken = False
        self._size = 0
        self._base = 0
        self._address: VringAddress | None = None
        self._ring: Vring | None = None
        self._kick: EventFd | None = None
        self._call: EventFd | None = None
        self._error: EventFd | None = None

    @property
    def is_started(self) -> bool:
        """Whether there is a ring."""
        return self._ring is not None

    @property
    def takes_requests(self) -> bool:
        """Whether ``pop`` may give something."""
        return self._ring is not None and self.is_enabled and not self.is_broken

    @property
    def is_recovering(self) -> bool:
        """Whether ``pop`` gives what a device that has died had taken."""
        return self._ring is not None and self._ring.is_recovering and self.takes_requests

    @property
    def base(self) -> int:
        """The entry of the available ring that comes next."""
        return self._base if self._ring is None else self._ring.next

    @property
    def size(self) -> int:
        """Entries, 0 before they were set."""
        return self._size

    # What the front end sets -----------------------------------------------------

    def set_size(self, size: int) -> None:
        """Raises ProtocolError."""
        self._must_be_stopped()
        if not virtio.is_queue_size(size):
            raise ProtocolError(f"a queue of {size} entries")
        self._size = size

    def set_base(self, base: int) -> None:
        """Raises ProtocolError."""
        self._must_be_stopped()
        if base > virtio.INDEX_MASK:
            raise ProtocolError(f"base {base}")
        self._base = base

    def set_address(self, address: VringAddress, features: int, memory: Memory) -> None:
        """Raises ProtocolError or BadAddress."""
        if address.flags:
            raise ProtocolError("a dirty log is not kept")
        for start, unit in (
            (address.descriptors, virtio.DESCRIPTOR_ALIGN),
            (address.available, virtio.AVAILABLE_ALIGN),
            (address.used, virtio.USED_ALIGN),
        ):
            if start % unit:
                raise ProtocolError(f"address {start:#x} is not a multiple of {unit}")
        if self._size and len(memory):
            areas = _areas(self._size, address, features, memory)
            if self._ring is not None:
                self._ring.move(areas, memory)
        self._address = address

    def set_call(self, event: EventFd | None) -> None:
        """How the driver is told that something was used."""
        old, self._call = self._call, event
        if old is not None:
            old.close()

    def set_error(self, event: EventFd | None) -> None:
        """How the front end is told that the ring is broken."""
        old, self._error = self._error, event
        if old is not None:
            old.close()

    def start(
        self, kick: EventFd, features: int, memory: Memory, track: QueueLog | None, most: int
    ) -> None:
        """Runs from now on, if it is enabled; the kick descriptor is the queue's.

        ``most`` is the size of the largest request.  Raises ProtocolError or BadAddress.
        """
        try:
            if self._ring is None:
                if self._address is None or not self._size:
                    raise ProtocolError(f"queue {self.index} has no size or no address")
                areas = _areas(self._size, self._address, features, memory)
                ring = Vring(self._size, features, areas, memory, most)
                ring.start(self._base, track)
                self._ring = ring
                self.is_broken = False
                self.held.clear()
            self._drop_kick()
            self._poller.add(kick.fd, self._on_kick, is_counter=True)
            self._kick = kick
        except BaseException:
            kick.close()
            raise

    def remap(self, features: int, memory: Memory) -> None:
        """The memory is another one; a ring that is not in it any more is broken."""
        if self._ring is None or self._address is None:
            return
        try:
            self._ring.move(_areas(self._size, self._address, features, memory), memory)
        except BadAddress as error:
            self.fail(f"the ring was unmapped: {error}")

    def stop(self) -> int:
        """Stopped in order: takes and gives nothing any more; the base to go on from."""
        if self._ring is not None:
            self._base = self._ring.finish()
        self._drop_ring()
        return self._base

    def close(self) -> None:
        """Forget all that was set.

        A ring that was not stopped before is left as it is, with what is in flight: the front
        end is gone, and may come back.
        """
        self._drop_ring()
        self.set_call(None)
        self.set_error(None)
        self.is_enabled = False
        self.is_broken = False
        self._size = 0
        self._base = 0
        self._address = None

    def _drop_ring(self) -> None:
        self._ring = None
        self.held.clear()
        self._drop_kick()

    # Requests --------------------------------------------------------------------

    def pop(self) -> Chain | None:
        """The next request; None if there is none, also since the ring is broken or stopped.

        For one that comes later there may be no kick until ``rest``.
        """
        ring = self._ring
        if ring is None or self.is_broken or not self.is_enabled:
            return None
        try:
            chain = ring.pop()
            if chain is not None:
                if chain.head in self.held:
                    raise BrokenRing(f"descriptor {chain.head} is with the device already")
                self.held[chain.head] = chain
            return chain
        except (BrokenRing, BadAddress) as error:
            self.fail(str(error))
            return None

    @property
    def has_more(self) -> bool:
        """Whether ``pop`` has something to look at, kicked or not."""
        return self._ring is not None and self._ring.has_more and self.takes_requests

    def rest(self) -> bool:
        """Asks for a kick when there is more.  False if there is something already."""
        return not self.takes_requests or self._ring is None or self._ring.rest()

    def complete(self, chain: Chain, reply: Sequence[Payload]) -> None:
        """Writes the reply, gives the chain back and calls the driver.

        What the reply's header counts besides its parts is in the chain's room already.
        """
        ring, head = self._ring, chain.head
        if ring is None or self.is_broken or self.held.get(head) is not chain:
            return
        del self.held[head]
        written = 0
        if reply:
            chain.write(reply)
            written = _LENGTH.unpack_from(reply[0])[0]
        ring.push(head, written)
        if ring.wants_call() and self._call is not None:
            self._call.signal()

    def fail(self, why: str) -> None:
        """The ring is broken: says so to the front end, and touches it no more."""
        if self.is_broken:
            return
        self.is_broken = True
        log.info("queue %d is stopped: the guest broke it: %s", self.index, why)
        if self._error is not None:
            self._error.signal()

    def _on_kick(self) -> None:
        self._kicked(self)

    def _drop_kick(self) -> None:
        kick, self._kick = self._kick, None
        if kick is not None:
            self._poller.remove(kick.fd)
            kick.close()

    def _must_be_stopped(self) -> None:
        if self._ring is not None:
            raise ProtocolError(f"queue {self.index} is running")


def _areas(size: int, address: VringAddress, features: int, memory: Memory) -> Areas:
    event_idx = bool(features & virtio.Feature.EVENT_IDX)
    return Areas(
        memory.user(address.descriptors, virtio.descriptors_size(size)),
        memory.user(address.available, virtio.available_size(size, event_idx=event_idx)),
        memory.user(address.used, virtio.used_size(size, event_idx=event_idx)),
    )
