"""The control channel between agent and server: ioctls on the mount's root directory.

No socket and no port: the same through /dev/fuse and through a virtqueue, and the
FUSE header of an ioctl says which thread asks.  Layouts are little endian, names
are bytes without a NUL, lengths are in bytes.

    HELLO   agent -> server  version, flags
            server -> agent  version, fsuid, generation, name of the hidden directory
    WAIT    agent -> server  the batch that is done, an errno for each step that failed, and
                             the outcome of earlier steps that were EINPROGRESS
            server -> agent  the next batch of steps (``farwatch.abi.steps``)
    WATCH   agent -> server  what somebody in the client watches, after a scan
    PLACE   agent -> server  a directory's node id
            server -> agent  the id of a directory above it, and the path from there

WAIT is parked by the server until there is something to do.  A batch's number is
acknowledged by the next WAIT; number 0 acknowledges nothing.

An ioctl number is ``_IOWR('w', n, size)`` of asm-generic/ioctl.h.  In a FUSE ioctl
the size is both what the kernel copies in and the room for what it copies out, and
has 14 bits: at most 16,383 bytes either way.

All of it runs in a guest as well, so nothing beyond the standard library is needed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntFlag
from struct import Struct
from typing import NamedTuple

VERSION = 1
BUFFER_SIZE = 16_383
"""Bytes of the buffer of every ioctl: the 14 bits of ``_IOC_SIZEBITS``."""
_IOWR = 3 << 30 | BUFFER_SIZE << 16 | ord("w") << 8
HELLO = _IOWR | 1
WAIT = _IOWR | 2
WATCH = _IOWR | 3
PLACE = _IOWR | 4

FIRST_UID = 0xFA52_0000
LAST_UID = 0xFA52_FFFF
"""User ids that mark a request as replayed.  Nobody else can have one: a request
from this range that is not armed is refused, whoever sends it."""
SEQUENCES = LAST_UID - FIRST_UID + 1
NO_UID = 0xFFFF_FFFF
"""In HELLO's answer, in place of FIRST_UID: the agent is an ordinary user's, which cannot change
its fsuid.  The thread that has said HELLO is known by its id, the first of its process and the
only one that replays; it does the steps of a batch in their order, and opens no handles."""

ROOT_ID = 1
HIDDEN_ID = 2
"""Node id of the hidden directory: the place of what the client cannot name."""

HELLO_IN = Struct("<II")
"""version, flags (``HelloFlag``)."""
HELLO_OUT = Struct("<IIIH")
"""version, fsuid, generation of every node but the root, length of the hidden name."""
WAIT_IN = Struct("<QII")
"""number of the batch that is done, number of failures, number of late steps."""
FAILURE = Struct("<II")
"""index of the step in its batch, errno or NOT_TRIED."""
NOT_TRIED = 0xFFFF_FFFF
"""In place of an errno: an earlier step about names failed, and what follows it has to
wait for what the server does instead."""
WATCH_IN = Struct("<III")
"""flags, duration of the scan in microseconds, number of watches."""
WATCHED = Struct("<QII")
"""node id, generation, mask: the fields of the RFC's FUSE_FSNOTIFY request."""
WATCHES_PER_MESSAGE = (BUFFER_SIZE - WATCH_IN.size) // WATCHED.size
PLACE_IN = Struct("<Q")
"""node id of a directory."""
PLACE_OUT = Struct("<QI")
"""node id of a directory above it, which may be the root or the hidden one; bytes of the path."""


class HelloFlag(IntFlag):
    """How an agent wants to be registered."""

    IF_NONE = 1
    """Only if no other agent is, else EBUSY.  So two agents do not replace each other for
    ever: the one that was replaced asks again in this way, lest the server was restarted."""


class WatchFlag(IntFlag):
    """What a scan found besides watches on single inodes."""

    FIRST = 1
    """The first message of a scan."""
    LAST = 2
    """The last one: the table is complete and in force."""
    EVERYTHING = 4
    """A mount or superblock mark sees every node (REPLAYED whatever is live)."""
    BY_PATH = 8
    """Somebody wants descriptors or is told of paths: MODIFY must be a write."""
    ASKS = 16
    """A permission listener can hold up an open."""


class Malformed(ValueError):
    """A message that the layouts above do not allow."""


def is_name(name: bytes) -> bool:
    """Whether it can lead nowhere but to an entry of a directory, or is empty.

    The agent is root in the client: by no name may a server lead it out of the mount.
    """
    return b"/" not in name and b"\0" not in name and name != b".."


class Late(NamedTuple):
    """A step that was reported as EINPROGRESS, and is done: its sequence, and 0 or an errno."""

    sequence: int
    errno: int


def encode_wait(
    number: int, failures: Iterable[tuple[int, int]], late: Iterable[Late] = ()
) -> bytes:
    """WAIT's question: batch ``number`` is done but for ``failures`` (index, errno)."""
    room = (BUFFER_SIZE - WAIT_IN.size) // FAILURE.size
    failed = [FAILURE.pack(index, error) for index, error in failures][:room]
    done = [FAILURE.pack(*step) for step in late][: room - len(failed)]
    return WAIT_IN.pack(number, len(failed), len(done)) + b"".join(failed + done)


def decode_wait(
    message: bytes | memoryview,
) -> tuple[int, list[tuple[int, int]], list[Late]]:
    """The batch that is done, its failures, and late steps.  Raises Malformed."""
    try:
        number, count, late = WAIT_IN.unpack_from(message, 0)
        if count + late > BUFFER_SIZE // FAILURE.size:
            raise Malformed("WAIT: more steps than there is room for")
        entries = [
            FAILURE.unpack_from(message, WAIT_IN.size + index * FAILURE.size)
            for index in range(count + late)
        ]
    except struct.error as error:
        raise Malformed(f"WAIT: {error}") from None
    return number, entries[:count], [Late(*entry) for entry in entries[count:]]


class Watched(NamedTuple):
    """One watch in the client: node id, generation, mask."""

    node: int
    generation: int
    mask: int


def encode_watches(flags: int, microseconds: int, watches: list[Watched]) -> Iterator[bytes]:
    """A scan's result, in as many messages as it takes (at least one)."""
    for start in range(0, max(len(watches), 1), WATCHES_PER_MESSAGE):
        part = watches[start : start + WATCHES_PER_MESSAGE]
        edges = WatchFlag.FIRST if start == 0 else 0
        if start + WATCHES_PER_MESSAGE >= len(watches):
            edges |= WatchFlag.LAST
        yield WATCH_IN.pack(flags | edges, min(microseconds, 0xFFFF_FFFF), len(part)) + b"".join(
            WATCHED.pack(*watch) for watch in part
        )


def decode_watches(message: bytes | memoryview) -> tuple[int, int, list[Watched]]:
    """Flags, duration in microseconds and watches of one message.  Raises Malformed."""
    try:
        flags, microseconds, count = WATCH_IN.unpack_from(message, 0)
        if count > WATCHES_PER_MESSAGE:
            raise Malformed("WATCH: more watches than there is room for")
        return (
            flags,
            microseconds,
            [
                Watched(*WATCHED.unpack_from(message, WATCH_IN.size + index * WATCHED.size))
                for index in range(count)
            ],
        )
    except struct.error as error:
        raise Malformed(f"WATCH: {error}") from None


class Hello(NamedTuple):
    """The server's answer to HELLO."""

    version: int
    uid: int
    generation: int
    hidden: bytes


def encode_hello(hello: Hello) -> bytes:
    """HELLO's answer."""
    return HELLO_OUT.pack(hello.version, hello.uid, hello.generation, len(hello.hidden)) + (
        hello.hidden
    )


def decode_hello(message: bytes | memoryview) -> Hello:
    """HELLO's answer.  Raises Malformed."""
    try:
        version, uid, generation, length = HELLO_OUT.unpack_from(message, 0)
    except struct.error as error:
        raise Malformed(f"HELLO: {error}") from None
    hidden = bytes(message[HELLO_OUT.size : HELLO_OUT.size + length])
    if len(hidden) != length or not hidden or not is_name(hidden):
        raise Malformed("HELLO: the hidden directory's name is cut off, or none")
    return Hello(version, uid, generation, hidden)


def encode_place(above: int, path: bytes) -> bytes:
    """PLACE's answer."""
    return PLACE_OUT.pack(above, len(path)) + path


def decode_place(message: bytes | memoryview) -> tuple[int, bytes]:
    """PLACE's answer: no name in the path leads up or is empty.  Raises Malformed."""
    try:
        above, length = PLACE_OUT.unpack_from(message, 0)
    except struct.error as error:
        raise Malformed(f"PLACE: {error}") from None
    path = bytes(message[PLACE_OUT.size : PLACE_OUT.size + length])
    if len(path) != length or not all(name and is_name(name) for name in path.split(b"/")):
        raise Malformed("PLACE: no path")
    return above, path
