"""A connected socket that never waits, plain or with TLS."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence

AT_ONCE = 1 << 16
"""Bytes given to TLS in one call: it holds on to all of them until they are sent."""


class Ended(Exception):
    """The connection is over; ``str`` says how, or nothing if it was closed in order."""


class Channel:
    """Reads and writes what can be without waiting.  Owns the socket.

    ``wants`` says what to poll for before the last call is worth repeating.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self.is_tls = isinstance(connection, ssl.SSLSocket)
        self.wants = 0

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def handshake(self) -> bool:
        """Goes on with TLS's; whether it is over.  Raises Ended."""
        connection = self._socket
        if not isinstance(connection, ssl.SSLSocket):
            return True
        self.wants = 0
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self.wants = select.POLLIN
            return False
        except ssl.SSLWantWriteError:
            self.wants = select.POLLOUT
            return False
        except (OSError, ValueError) as error:
            raise Ended(_reason(error)) from None
        return True

    def receive(self, room: memoryview) -> int:
        """Reads into the room; the number of bytes, 0 if nothing is there.  Raises Ended."""
        self.wants = 0
        try:
            size = self._socket.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError):
            self.wants = select.POLLIN
            return 0
        except ssl.SSLWantWriteError:
            self.wants = select.POLLOUT
            return 0
        except InterruptedError:
            return 0
        except (OSError, ValueError) as error:
            raise Ended(_reason(error)) from None
        if not size:
            raise Ended
        return size

    def send(self, parts: Sequence[bytes | bytearray | memoryview]) -> int:
        """Writes of these what can be; the number of bytes.  Raises Ended.

        With TLS, what is not written must come first in the next call.
        """
        self.wants = 0
        try:
            if self.is_tls:
                return self._socket.send(memoryview(parts[0])[:AT_ONCE])
            return self._socket.sendmsg(parts)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.wants = select.POLLOUT
            return 0
        except ssl.SSLWantReadError:
            self.wants = select.POLLIN
            return 0
        except InterruptedError:
            return 0
        except (OSError, ValueError) as error:
            raise Ended(_reason(error)) from None

    def finish(self) -> None:
        """Say that nothing more will be written."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
