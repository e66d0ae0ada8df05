"""A mount that is read-only for programs, where the file system itself must not be.

A file system that the kernel has mounted read-only refuses replays before the server is
asked; and an ordinary user cannot have a mount read-only and its file system not.  So the
server refuses what would change something.  Steps of the agent's never come here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.session.naming import CHANGES
from farwatch.session.request import Handler, Payload, Placed, Request, fail

_CHANGES = CHANGES | {
    Opcode.SETATTR,
    Opcode.WRITE,
    Opcode.FALLOCATE,
    Opcode.COPY_FILE_RANGE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.TMPFILE,
}


def read_only(handlers: dict[int, Handler]) -> dict[int, Handler]:
    """The same handlers, but EROFS (OSError) for whatever changes something."""
    refused: dict[int, Handler] = {opcode: _refused for opcode in _CHANGES if opcode in handlers}
    checked: dict[int, Handler] = {
        opcode: _unless(handlers[opcode], writes)
        for opcode, writes in ((Opcode.OPEN, _opens_to_write), (Opcode.ACCESS, _asks_to_write))
        if opcode in handlers
    }
    return {**handlers, **refused, **checked}


def _refused(request: Request) -> Payload:
    raise fail(errno.EROFS)


def _unless(handler: Handler, writes: Callable[[Request], bool]) -> Handler:
    def answer(request: Request) -> Payload | Placed | None:
        if writes(request):
            raise fail(errno.EROFS)
        return handler(request)

    return answer


def _opens_to_write(request: Request) -> bool:
    flags = fuse.OPEN_IN.unpack_from(request.body)[0]
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


def _asks_to_write(request: Request) -> bool:
    return bool(fuse.ACCESS_IN.unpack_from(request.body)[0] & os.W_OK)
