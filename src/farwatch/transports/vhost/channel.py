"""Messages over the socket, with the descriptors that travel beside them.

A message's descriptors belong to it until somebody takes them; leaving its ``with``
block closes the rest, so that no message, however wrong, can leave one open.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from farwatch.abi import vhost_user
from farwatch.abi.vhost_user import Flag, Header, Malformed
from farwatch.linux.descriptors import Closable
from farwatch.transports.vhost.errors import PeerGone, ProtocolError

_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(vhost_user.MAX_DESCRIPTORS * _INT)


class Message(Closable):
    """A message that was received.  Owns its descriptors."""

    def __init__(self, header: Header, payload: bytes, descriptors: list[int]) -> None:
        self.header = header
        self.payload = payload
        self._descriptors = descriptors

    @property
    def name(self) -> str:
        """The request, for people."""
        return self.header.name

    @property
    def count(self) -> int:
        """How many descriptors there are."""
        return len(self._descriptors)

    def take(self) -> int:
        """Its first descriptor, which is the caller's from now on."""
        return self._descriptors.pop(0)

    def take_all(self, count: int) -> list[int]:
        """Its descriptors, exactly so many.  Raises ProtocolError."""
        if len(self._descriptors) != count:
            raise ProtocolError(
                f"{self.name}: {len(self._descriptors)} descriptors where there should be {count}"
            )
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Close what nobody has taken."""
        close_all(self._descriptors)


class Channel:
    """One end of the socket.  Owns it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._data = bytearray()
        self._header: Header | None = None
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._socket.fileno()

    def receive(self) -> Message | None:
        """The next message; None if it is not there as a whole yet.

        Raises PeerGone; Malformed or ProtocolError for what cannot be read on from.
        """
        if self._header is None:
            if not self._fill(vhost_user.HEADER.size):
                return None
            self._header = Header.decode(self._data)
        header = self._header
        if not self._fill(vhost_user.HEADER.size + header.size):
            return None
        payload = bytes(self._data[vhost_user.HEADER.size :])
        message = Message(header, payload, self._descriptors)
        self._data.clear()
        self._header = None
        self._descriptors = []
        return message

    def _fill(self, size: int) -> bool:
        """Reads until ``size`` bytes of this message are there, and never beyond."""
        while len(self._data) < size:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    size - len(self._data), _ROOM, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return False
            except ConnectionError:
                raise PeerGone from None
            self._descriptors += _descriptors(ancillary)
            if flags & socket.MSG_CTRUNC or len(self._descriptors) > vhost_user.MAX_DESCRIPTORS:
                raise ProtocolError("more descriptors than a message may have")
            if not data:
                if self._data:
                    raise Malformed("message", f"ends after {len(self._data)} of {size} bytes")
                raise PeerGone
            self._data += data
        return True

    def send(
        self, request: int, payload: bytes = b"", flags: int = 0, descriptors: Sequence[int] = ()
    ) -> None:
        """Sends one message; the descriptors stay the caller's.

        Raises PeerGone, also if the other side does not read what it has asked for.
        """
        self.send_bytes(vhost_user.encode(request, payload, flags), descriptors)

    def reply(self, header: Header, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        """Answers a message."""
        self.send(header.request, payload, Flag.REPLY, descriptors)

    def send_bytes(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """The same with any bytes."""
        ancillary = []
        if descriptors:
            rights = array.array("i", descriptors)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        try:
            sent = self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, ConnectionError):
            raise PeerGone from None
        if sent != len(data):
            raise PeerGone

    def close(self) -> None:
        """Close the socket, and what a message that is not complete has brought."""
        close_all(self._descriptors)
        self._socket.close()


def close_all(descriptors: list[int]) -> None:
    """Close these, and empty the list."""
    while descriptors:
        os.close(descriptors.pop())


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % _INT])
            found += numbers
    return found
