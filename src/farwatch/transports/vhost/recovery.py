"""What a back end does for the guest of one that died.

The guest's driver does not know of that, and does not say INIT again.  So the INIT that was
agreed on is kept with what is in flight (inflight.py), and said again in its place.

A request that was taken and not answered may have been done, in part or in whole: only its
answer is known to be missing.  What changes nothing is simply done again.  Anything else
is answered EIO: done twice it could remove, cut or rename what somebody has made in its
place since, and whoever asked knows by EIO that the outcome is unknown.  (ESTALE would make
the guest's VFS try it again by itself.)

A replay's request is answered by the session, which has armed none: it is refused.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.session.request import Payload
from farwatch.transports.vhost.inflight import InflightBuffer

log = logging.getLogger(__name__)

_OPCODE = struct.Struct("<4xI")
_ERROR = struct.Struct("<4xi")

REPEATABLE = frozenset(
    (
        Opcode.LOOKUP,
        Opcode.FORGET,
        Opcode.BATCH_FORGET,
        Opcode.GETATTR,
        Opcode.READLINK,
        Opcode.STATFS,
        Opcode.GETXATTR,
        Opcode.LISTXATTR,
        # Files and directories that were open are unknown by now: EBADF or ESTALE.
        Opcode.OPEN,
        Opcode.READ,
        Opcode.RELEASE,
        Opcode.FLUSH,
        Opcode.FSYNC,
        Opcode.LSEEK,
        Opcode.OPENDIR,
        Opcode.READDIR,
        Opcode.READDIRPLUS,
        Opcode.RELEASEDIR,
        Opcode.FSYNCDIR,
        Opcode.SYNCFS,
        # Of the session itself, and the agent's channel.
        Opcode.INIT,
        Opcode.DESTROY,
        Opcode.INTERRUPT,
        Opcode.IOCTL,
    )
)
"""Opcodes of requests that change nothing, or nothing more when they are done again."""


class Continuity:
    """The INIT of one session, kept for the session after it."""

    def __init__(self, instance: int, say: Callable[[bytes], object]) -> None:
        """``instance`` tells the session from any other; ``say`` gives it a request."""
        self._instance = instance
        self._say = say
        self._buffer: InflightBuffer | None = None

    def use(self, buffer: InflightBuffer | None) -> None:
        """The front end's buffer is this one: says the INIT that another session agreed to."""
        if buffer is self._buffer:
            return
        self._buffer = buffer
        noted = buffer.noted() if buffer is not None else None
        if buffer is None or noted is None or noted[0] == self._instance:
            return
        request = noted[1]
        if len(request) >= fuse.IN_HEADER.size and _OPCODE.unpack_from(request)[0] == Opcode.INIT:
            log.info("going on with the guest of a daemon that has ended")
            self._say(request)
            buffer.note(self._instance, request)

    def note(self, request: bytes, reply: Sequence[Payload]) -> None:
        """An INIT was answered, or (with no request) DESTROY."""
        if self._buffer is not None and not _ERROR.unpack_from(reply[0])[0]:
            self._buffer.note(self._instance, request)
