"""The control channel between agent and server: ioctls on the mount's root directory.

No socket and no port: the same through /dev/fuse and through a virtqueue, and the
FUSE header of an ioctl says which thread asks.  Layouts are little endian, names
are bytes without a NUL, lengths are in bytes.

    HELLO   agent -> server  version, flags
            server -> agent  version, fsuid, generation, name of the hidden directory
    WAIT    agent -> server  the batch that is done, an errno for each step that failed, and
                             the outcome of earlier steps that were EINPROGRESS
            server -> agent  the next batch: its number, flags, first sequence, steps
    WATCH   agent -> server  what somebody in the client watches, after a scan
    PLACE   agent -> server  a directory's node id
            server -> agent  the id of a directory above it, and the path from there

WAIT is parked by the server until there is something to do.  A batch's number is
acknowledged by the next WAIT; number 0 acknowledges nothing.

An ioctl number is ``_IOWR('w', n, size)`` of asm-generic/ioctl.h.  In a FUSE ioctl
the size is both what the kernel copies in and the room for what it copies out, and
has 14 bits: at most 16,383 bytes either way.

This file and ``farwatch.agent`` are all that a guest needs: standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
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
BATCH = Struct("<QIII")
"""number, flags, sequence of the first step, number of steps.  While the agent is on the
step with sequence n its thread's fsuid is ``FIRST_UID + n``, so that each of its requests
says which step it belongs to; after ``SEQUENCES - 1`` comes 0."""
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


class BatchFlag(IntFlag):
    """What a batch asks for besides its steps."""

    SCAN = 1
    """Scan for watches now: somebody has been active in the client."""
    RELEASE = 2
    """Close every descriptor kept for an OPEN: nobody asks for them any more."""


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


class Op(IntEnum):
    """What the agent does for a step.  ``directory`` and ``name`` say where."""

    MKNOD = 1
    MKDIR = 2
    SYMLINK = 3
    LINK = 4
    """Gives what has the name in the hidden directory ``new_name`` as well."""
    UNLINK = 5
    RMDIR = 6
    RENAME = 7
    """To ``new_directory`` and ``new_name``; ``argument`` is renameat2's flags."""
    TOUCH = 8
    """``utimensat`` of the times in ``argument`` (``Times``): MODIFY, ACCESS or ATTRIB."""
    OPEN_CLOSE = 9
    """Opens with the access mode in ``argument`` and closes."""
    OPEN = 10
    """Opens with the access mode in ``argument`` and keeps the file under ``token``."""
    CLOSE = 11
    """Closes the file kept under ``token``."""
    PIN = 12
    """Keeps an O_PATH descriptor under ``token``."""
    UNPIN = 13
    LOOK = 14
    """Looks the name up, so that the client's tree is as it was told."""
    WRITE = 15
    """Writes one byte through the file kept under ``token``."""
    READ = 16
    """Reads one byte through the file kept under ``token``."""


KNOWN = 1 << 8
"""In the ``argument`` of a step that opens: the client's kernel is known to believe that the
name holds what it does, a regular file or a directory; it need not be looked at first."""


AGAIN = 1
"""In the ``argument`` of LOOK: the client's kernel may believe something else of the name, and
is to ask for it although it need not."""

ABOUT_NAMES = frozenset((Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.UNLINK, Op.RMDIR, Op.RENAME))
"""Steps that change what names hold.  When one fails the rest of its batch is not tried."""


class Times(IntFlag):
    """Which times a TOUCH sets; the kernel makes the event of it (fsnotify_change)."""

    ACCESS = 1
    MODIFY = 2
    ATTRIB = 3


class Step(NamedTuple):
    """One thing for the agent to do.

    Directories are node ids; an empty name means the directory itself.  ``pin`` is the
    token of a pin to act through, in place of a name; ``token`` what a step keeps
    something under, or uses.  In a step that takes a name, ``pin`` is the pin of the inode
    that loses it: its attributes are asked for afterwards.
    """

    op: int
    directory: int = 0
    name: bytes = b""
    new_directory: int = 0
    new_name: bytes = b""
    argument: int = 0
    token: int = 0
    pin: int = 0


_STEP = Struct("<BBBBIQQQQ")


class Malformed(ValueError):
    """A message that the layouts above do not allow."""


def step_size(step: Step) -> int:
    """The bytes that a step takes in a batch."""
    return _STEP.size + len(step.name) + len(step.new_name)


BATCH_ROOM = BUFFER_SIZE - BATCH.size
"""Bytes for steps in one batch."""


def encode_batch(number: int, flags: int, sequence: int, steps: Iterable[Step]) -> bytes:
    """A batch as WAIT's answer.  The caller keeps it within ``BATCH_ROOM``."""
    pack = _STEP.pack
    parts = [b""]
    for op, directory, name, new_directory, new_name, argument, token, pin in steps:
        parts.append(
            pack(op, len(name), len(new_name), 0, argument, directory, new_directory, token, pin)
        )
        parts.append(name)
        parts.append(new_name)
    parts[0] = BATCH.pack(number, flags, sequence, (len(parts) - 1) // 3)
    return b"".join(parts)


def is_name(name: bytes) -> bool:
    """Whether it can lead nowhere but to an entry of a directory, or is empty.

    The agent is root in the client: by no name may a server lead it out of the mount.
    """
    return b"/" not in name and b"\0" not in name and name != b".."


def decode_batch(message: bytes | memoryview) -> tuple[int, int, int, list[Step]]:
    """A batch's number, flags, first sequence and steps.  Raises Malformed."""
    try:
        number, flags, sequence, count = BATCH.unpack_from(message, 0)
        steps = list(_decode_steps(bytes(message[BATCH.size :]), count))
    except struct.error as error:
        raise Malformed(f"batch: {error}") from None
    return number, flags, sequence, steps


def _decode_steps(message: bytes, count: int) -> Iterator[Step]:
    offset = 0
    size = _STEP.size
    for _ in range(count):
        op, length, new_length, _, argument, directory, new_directory, token, pin = (
            _STEP.unpack_from(message, offset)
        )
        middle = offset + size + length
        end = middle + new_length
        if end > len(message):
            raise Malformed("batch: a name ends outside the message")
        name, new_name = message[offset + size : middle], message[middle:end]
        if not (is_name(name) and is_name(new_name)):
            raise Malformed("batch: a name that is a path")
        yield Step(
            op,
            directory,
            name,
            new_directory,
            new_name,
            argument,
            token,
            pin,
        )
        offset = end


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
