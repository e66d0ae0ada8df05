"""What a client's kernel asks of its callers before it asks the server (default_permissions).

For a client that has no kernel to do so (``Settings.checks_permissions``) the backing file
system asks it instead: ``export.checked`` acts as the caller, so modes, groups, access
control lists, sticky directories and the rules for owners, times and extended attributes
are the kernel's own.  Left for here is what no file system is ever asked:

    MARK, FSNOTIFY   a watch needs permission to read what it watches (inotify_add_watch(2));
                     to give one up needs nothing
    IOCTL            the control channel is an agent's, and there is none: it would be told
                     of everything

A kernel that has not been told to check (a mount of one user's, whom the backing file system
knows) asks ACCESS for access(2) and chdir(2), and lets everything else be tried.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fsnotify_posted import (
    AGGREGATED_IN,
    POSTED_IN,
    POSTED_OPCODE,
    decode_posted_marking,
)
from farwatch.session.request import Handler, Payload, Placed, Request, fail

_ANY_ACCESS = os.R_OK | os.W_OK | os.X_OK
_MARKS = (fsnotify.MARK, POSTED_OPCODE)
_BY_SIZE = {
    POSTED_IN.size: fsnotify.Dialect.POSTED,
    AGGREGATED_IN.size: fsnotify.Dialect.AGGREGATED,
}
"""AGGREGATED's mask and generation are PARENTED's mask, whose upper half nobody uses."""


def guarded(
    handlers: Mapping[int, Handler], must_be_readable: Callable[[int], None]
) -> dict[int, Handler]:
    """The handlers of requests about watches, for who may read what is watched.

    ``must_be_readable`` raises OSError for a node that its caller may not read.
    """
    return {
        opcode: _readable(handler, must_be_readable) if opcode in _MARKS else handler
        for opcode, handler in handlers.items()
    }


def access(must_allow: Callable[[int, int], None]) -> Handler:
    """The handler of ACCESS.  ``must_allow`` raises OSError for a node and an R_OK, W_OK, X_OK."""

    def answer(request: Request) -> Payload:
        must_allow(request.node, fuse.ACCESS_IN.unpack_from(request.body)[0] & _ANY_ACCESS)
        return b""

    return answer


def no_control_channel(request: Request) -> Payload:
    """IOCTL: as for a file that knows none."""
    raise fail(errno.ENOTTY)


def _readable(handler: Handler, must_be_readable: Callable[[int], None]) -> Handler:
    def answer(request: Request) -> Payload | Placed | None:
        if not _gives_up(request):
            must_be_readable(request.node)
        return handler(request)

    return answer


def _gives_up(request: Request) -> bool:
    """Whether a request only takes a watch away; what is no such request is refused later."""
    size = len(request.body)
    if request.opcode == fsnotify.MARK:
        return size == fsnotify.MARK_IN.size and not fsnotify.MARK_IN.unpack(request.body)[1]
    dialect = _BY_SIZE.get(size)
    try:
        return dialect is not None and not decode_posted_marking(dialect, request.body).mask
    except fsnotify.Malformed:
        return False
