"""Steps: what the server has the agent do, and how a batch of them travels (WAIT's answer).

    batch   number, flags, sequence of the first step, number of steps; behind it the steps
    step    operation, lengths of both names, 0, argument, directory, new directory, token,
            pin; behind it the name and the new name

Little endian, names are bytes without a NUL; a batch fits the buffer of one ioctl
(``farwatch.abi.control``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from farwatch.abi.control import BUFFER_SIZE, Malformed, is_name

BATCH = Struct("<QIII")
"""number, flags, sequence of the first step, number of steps.  While the agent is on the
step with sequence n its thread's fsuid is ``FIRST_UID + n``, so that each of its requests
says which step it belongs to; after ``SEQUENCES - 1`` comes 0."""
BATCH_ROOM = BUFFER_SIZE - BATCH.size
"""Bytes for steps in one batch."""
_STEP = Struct("<BBBBIQQQQ")


class BatchFlag(IntFlag):
    """What a batch asks for besides its steps."""

    SCAN = 1
    """Scan for watches now: somebody has been active in the client."""
    RELEASE = 2
    """Close every descriptor kept for an OPEN: nobody asks for them any more."""


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


def step_size(step: Step) -> int:
    """The bytes that a step takes in a batch."""
    return _STEP.size + len(step.name) + len(step.new_name)


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
