"""What can go wrong that is no errno: our side's fault, or the server's.

An errno that the server answers with is a plain OSError, a connection that is lost a
ConnectionError.  Whatever the server's bytes make a decoder raise becomes a ProtocolError
in ``theirs``, and nowhere else.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from farwatch.abi.fsnotify import Malformed


class Misuse(ValueError):
    """The program asks for what cannot be: a wrong URL, something that is closed."""


class ProtocolError(ConnectionError):
    """The server has said what no server may say.  The connection is of no more use."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPROTO, what)


@contextmanager
def theirs(what: str) -> Iterator[None]:
    """For decoding what the server has said: what it cannot be read as is its fault.

    ``what`` names it.  Raises ProtocolError.
    """
    try:
        yield
    except (Malformed, struct.error, ValueError) as error:
        raise ProtocolError(f"{what}: {error}") from None
