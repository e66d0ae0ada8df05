"""The front end's messages about the guest's memory."""

from __future__ import annotations

from collections.abc import Callable

from farwatch.abi import vhost_user
from farwatch.abi.vhost_user import MemoryRegion, Request
from farwatch.transports.vhost.channel import Message, close_all
from farwatch.transports.vhost.memory import MAX_SLOTS, Memory, map_region
from farwatch.transports.vhost.state import Answer, State


class MemoryMessages:
    """Handlers; each raises Malformed or ProtocolError, and then has changed nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.handlers: dict[int, Callable[[Message], Answer | None]] = {
            Request.SET_MEM_TABLE: self._set_memory,
            Request.GET_MAX_MEM_SLOTS: self._get_slots,
            Request.ADD_MEM_REG: self._add_region,
            Request.REM_MEM_REG: self._remove_region,
        }

    def _set_memory(self, message: Message) -> None:
        places = vhost_user.decode_regions(message.payload, message.name)
        descriptors = message.take_all(len(places))
        try:
            regions = [map_region(fd, place) for fd, place in zip(descriptors, places, strict=True)]
        finally:
            close_all(descriptors)
        self._state.use(Memory(regions))

    def _get_slots(self, message: Message) -> Answer:
        vhost_user.decode_nothing(message.payload, message.name)
        return Answer(vhost_user.encode_u64(MAX_SLOTS))

    def _add_region(self, message: Message) -> None:
        place = MemoryRegion.decode(message.payload, message.name)
        descriptors = message.take_all(1)
        try:
            region = map_region(descriptors[0], place)
        finally:
            close_all(descriptors)
        self._state.use(self._state.memory.with_region(region))

    def _remove_region(self, message: Message) -> None:
        self._state.use(
            self._state.memory.without(MemoryRegion.decode(message.payload, message.name))
        )
