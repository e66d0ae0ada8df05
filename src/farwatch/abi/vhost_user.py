"""The vhost-user protocol, as declarations.

The source of every number is the specification (*Vhost-user Protocol*, QEMU's
``docs/interop/vhost-user.rst``), of the layouts that it borrows ``linux/vhost_types.h``.
Messages are in the byte order of the machine: little endian, wherever farwatch runs.

    header   request, flags, size of the payload
    payload  by the request; descriptors travel beside it, with the first byte

The *front end* is the virtual machine's monitor, the *back end* serves the device.
The front end asks; the back end answers those requests that have an answer, and with
REPLY_ACK every other one in which NEED_REPLY is set: a u64, 0 for success.

Decoding raises Malformed, which names the message and what is wrong with it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any, NamedTuple, Self

Bytes = bytes | bytearray | memoryview

HEADER = Struct("<III")
"""request, flags, size."""
VERSION = 1
VERSION_MASK = 3
MAX_PAYLOAD = 4096
"""No payload below comes near it; whoever announces more is not understood."""
MAX_DESCRIPTORS = 8
"""Descriptors that one message may carry."""
MAX_REGIONS = 8
"""Regions in one SET_MEM_TABLE."""
MAX_CONFIG = 256
"""Bytes of a device's config space (``VHOST_USER_MAX_CONFIG_SIZE``)."""


class Malformed(ValueError):
    """Bytes that the layouts here do not allow.  ``where`` is the message."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class Flag(IntFlag):
    """Message flags, besides the version in bits 0 and 1."""

    REPLY = 1 << 2
    NEED_REPLY = 1 << 3


class Request(IntEnum):
    """``VHOST_USER_*``: what a front end asks."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


ANSWERED = frozenset(
    (
        Request.GET_FEATURES,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_VRING_BASE,
        Request.GET_CONFIG,
        Request.GET_INFLIGHT_FD,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_STATUS,
    )
)
"""Requests with an answer of their own, whether NEED_REPLY is set or not."""

F_PROTOCOL_FEATURES = 1 << 30
"""``VHOST_USER_F_PROTOCOL_FEATURES``, among the device's feature bits."""


class Protocol(IntFlag):
    """``VHOST_USER_PROTOCOL_F_*``."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    RARP = 1 << 2
    REPLY_ACK = 1 << 3
    NET_MTU = 1 << 4
    BACKEND_REQ = 1 << 5
    CROSS_ENDIAN = 1 << 6
    CRYPTO_SESSION = 1 << 7
    PAGEFAULT = 1 << 8
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    HOST_NOTIFIER = 1 << 11
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND_NOTIFICATIONS = 1 << 14
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


U64 = Struct("<Q")
VRING_STATE = Struct("<II")
"""``struct vhost_vring_state``: index, num."""
VRING_ADDR = Struct("<II4Q")
"""``struct vhost_vring_addr``: index, flags, desc, used, avail, log."""
MEMORY_HEAD = Struct("<II")
"""number of regions, padding."""
REGION = Struct("<4Q")
"""guest address, size, user address, mmap offset."""
SINGLE_REGION = Struct("<8x4Q")
"""padding and one region."""
CONFIG_HEAD = Struct("<III")
"""offset, size, flags; the bytes follow."""
INFLIGHT = Struct("<QQHH")
"""mmap size, mmap offset, number of queues, queue size."""
INFLIGHT_PADDED = Struct("<QQHH4x")
"""The same as C lays it out, which is what front ends send and expect."""
VRING_INDEX_MASK = 0xFF
VRING_NO_DESCRIPTOR = 1 << 8
"""In the u64 of SET_VRING_KICK, CALL and ERR: no descriptor comes with it."""


class Config(IntFlag):
    """Flags of SET_CONFIG."""

    WRITABLE = 0
    LIVE_MIGRATION = 1


class Header(NamedTuple):
    """The header of a message; ``request`` need not be one of ``Request``."""

    request: int
    flags: int
    size: int

    @property
    def name(self) -> str:
        """The request, for people."""
        return name_of(self.request)

    @property
    def needs_reply(self) -> bool:
        """Whether the sender asks for an acknowledgement."""
        return bool(self.flags & Flag.NEED_REPLY)

    @property
    def is_reply(self) -> bool:
        """Whether this answers a request."""
        return bool(self.flags & Flag.REPLY)

    @classmethod
    def decode(cls, data: Bytes) -> Self:
        """Raises Malformed: too short, another version, too large a payload."""
        header = cls(*_unpack(HEADER, data, "header"))
        if header.flags & VERSION_MASK != VERSION:
            raise Malformed(header.name, f"version {header.flags & VERSION_MASK}")
        if header.size > MAX_PAYLOAD:
            raise Malformed(header.name, f"a payload of {header.size} bytes")
        return header


class VringState(NamedTuple):
    """A vring's index, and a number."""

    vring: int
    num: int

    def encode(self) -> bytes:
        """The payload."""
        return VRING_STATE.pack(*self)

    @classmethod
    def decode(cls, data: Bytes, where: str = "vring state") -> Self:
        """Raises Malformed."""
        return cls(*_unpack(VRING_STATE, data, where))


class VringAddress(NamedTuple):
    """Where the parts of a vring are, as user addresses."""

    vring: int
    flags: int
    descriptors: int
    used: int
    available: int
    log: int = 0

    def encode(self) -> bytes:
        """The payload."""
        return VRING_ADDR.pack(*self)

    @classmethod
    def decode(cls, data: Bytes, where: str = "vring address") -> Self:
        """Raises Malformed."""
        return cls(*_unpack(VRING_ADDR, data, where))


class VringDescriptor(NamedTuple):
    """The u64 that comes with a vring's eventfd."""

    vring: int
    has_descriptor: bool

    def encode(self) -> bytes:
        """The payload."""
        return U64.pack(self.vring | (0 if self.has_descriptor else VRING_NO_DESCRIPTOR))

    @classmethod
    def decode(cls, data: Bytes, where: str = "vring descriptor") -> Self:
        """Raises Malformed."""
        number = decode_u64(data, where)
        if number & ~(VRING_INDEX_MASK | VRING_NO_DESCRIPTOR):
            raise Malformed(where, f"unknown bits in {number:#x}")
        return cls(number & VRING_INDEX_MASK, not number & VRING_NO_DESCRIPTOR)


class MemoryRegion(NamedTuple):
    """One region of the guest's memory, which a descriptor comes with."""

    guest_address: int
    size: int
    user_address: int
    mmap_offset: int

    def encode(self) -> bytes:
        """The payload of ADD_MEM_REG and REM_MEM_REG."""
        return SINGLE_REGION.pack(*self)

    @classmethod
    def decode(cls, data: Bytes, where: str = "memory region") -> Self:
        """Of ADD_MEM_REG and REM_MEM_REG.  Raises Malformed."""
        return cls(*_unpack(SINGLE_REGION, data, where)).checked(where)

    def checked(self, where: str) -> Self:
        """Itself.  Raises Malformed if it is empty, or passes the end of an address space."""
        if not self.size:
            raise Malformed(where, "an empty region")
        for start in (self.guest_address, self.user_address):
            if start + self.size > 1 << 64:
                raise Malformed(where, f"{self.size:#x} bytes at {start:#x} pass 2^64")
        if self.mmap_offset + self.size > (1 << 63) - 1:
            raise Malformed(where, f"{self.size:#x} bytes at offset {self.mmap_offset:#x}")
        return self


class ConfigAccess(NamedTuple):
    """A piece of the device's config space."""

    offset: int
    size: int
    flags: int
    data: bytes

    def encode(self) -> bytes:
        """The payload."""
        return CONFIG_HEAD.pack(*self[:3]) + self.data

    @classmethod
    def decode(cls, data: Bytes, where: str = "config") -> Self:
        """Raises Malformed, also if the bytes are not as many as ``size`` says."""
        if len(data) < CONFIG_HEAD.size:
            raise Malformed(where, f"{len(data)} bytes")
        offset, size, flags = CONFIG_HEAD.unpack_from(data)
        rest = bytes(data[CONFIG_HEAD.size :])
        if len(rest) != size:
            raise Malformed(where, f"{len(rest)} bytes where there should be {size}")
        if offset + size > MAX_CONFIG:
            raise Malformed(where, f"{size} bytes at {offset}")
        return cls(offset, size, flags, rest)


class Inflight(NamedTuple):
    """The buffer in which a back end notes what it has not answered yet."""

    mmap_size: int
    mmap_offset: int
    queues: int
    queue_size: int

    def encode(self) -> bytes:
        """The payload."""
        return INFLIGHT_PADDED.pack(*self)

    @classmethod
    def decode(cls, data: Bytes, where: str = "inflight") -> Self:
        """Raises Malformed.  The padding at the end may be left out."""
        layout = INFLIGHT if len(data) == INFLIGHT.size else INFLIGHT_PADDED
        return cls(*_unpack(layout, data, where))


def name_of(request: int) -> str:
    """A request's name, or its number."""
    try:
        return Request(request).name
    except ValueError:
        return f"request {request}"


def encode(request: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A whole message.  ``flags`` are ``Flag`` bits."""
    return HEADER.pack(request, VERSION | flags, len(payload)) + payload


def encode_u64(number: int) -> bytes:
    """The payload of many messages."""
    return U64.pack(number)


def decode_u64(data: Bytes, where: str = "u64") -> int:
    """Raises Malformed."""
    (number,) = _unpack(U64, data, where)
    return int(number)


def decode_nothing(data: Bytes, where: str) -> None:
    """Raises Malformed if there is a payload."""
    if len(data):
        raise Malformed(where, f"{len(data)} bytes where there should be none")


def encode_regions(regions: Sequence[MemoryRegion]) -> bytes:
    """The payload of SET_MEM_TABLE."""
    return MEMORY_HEAD.pack(len(regions), 0) + b"".join(REGION.pack(*each) for each in regions)


def decode_regions(data: Bytes, where: str = "memory table") -> list[MemoryRegion]:
    """The regions of SET_MEM_TABLE.  Raises Malformed."""
    if len(data) < MEMORY_HEAD.size:
        raise Malformed(where, f"{len(data)} bytes")
    count, _ = MEMORY_HEAD.unpack_from(data)
    if count > MAX_REGIONS:
        raise Malformed(where, f"{count} regions")
    if len(data) != MEMORY_HEAD.size + count * REGION.size:
        raise Malformed(where, f"{len(data)} bytes for {count} regions")
    return [
        MemoryRegion(*REGION.unpack_from(data, MEMORY_HEAD.size + place * REGION.size)).checked(
            where
        )
        for place in range(count)
    ]


def _unpack(layout: Struct, data: Bytes, where: str) -> tuple[Any, ...]:
    try:
        return layout.unpack(data)
    except struct.error:
        raise Malformed(where, f"{len(data)} bytes where there should be {layout.size}") from None
