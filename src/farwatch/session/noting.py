"""Requests that do something to a file's descriptors, where the export has to say so.

Closing a file that was open for writing raises CLOSE_WRITE behind the mount; locking one may
open it once more, and close that.  A source that cannot tell whose an event is takes that for
somebody else's, unless it is said before.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from farwatch.abi.fuse import Opcode
from farwatch.export.noted import NotedExport
from farwatch.session.files import NO_FILE, OpenFiles
from farwatch.session.request import Handler, Payload, Placed, Request

_HANDLE = struct.Struct("=Q")
"""The file handle: the first field of ``fuse_lk_in``, ``fuse_flush_in``, ``fuse_release_in``."""
_OF_DESCRIPTORS = (Opcode.SETLK, Opcode.SETLKW, Opcode.FLUSH, Opcode.RELEASE)


def noted(
    handlers: Mapping[int, Handler], export: NotedExport, files: OpenFiles
) -> dict[int, Handler]:
    """The same handlers, those of such requests within ``export.about`` their file."""

    def within(handler: Handler) -> Handler:
        def answer(request: Request) -> Payload | Placed | None:
            (fh,) = _HANDLE.unpack_from(request.body)
            file = files.get(fh)
            if file.fd == NO_FILE:
                return handler(request)
            with export.about(file.node.key):
                return handler(request)

        return answer

    return {
        opcode: within(handler) if opcode in _OF_DESCRIPTORS else handler
        for opcode, handler in handlers.items()
    }
