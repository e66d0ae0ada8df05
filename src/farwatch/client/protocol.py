"""One FUSE connection, from the client's side: bytes in, bytes out, no I/O.

    connection = Connection(Caller(uid, gid, pid))
    unique, data = connection.request(opcode, node, body)    # send data
    connection.receive_data(data)                            # whatever was read
    while (event := connection.next_event()) is not None: ...

A request is numbered (``unique``), and any number of them may be under way:

    IDLE ── request ──► UNDER WAY ── its Reply ──► IDLE
                            │  interrupt: the server is asked to be quick about it

What comes is checked before it is kept: a message says first how long it is, and may only
be as long as the answer that its request allows, or as a notification.  A message that no
server may send raises ProtocolError, and so does everything after it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fuse import Opcode
from farwatch.client.errors import Misuse, ProtocolError, theirs

LARGEST_REQUEST = 1 << 20
"""Bytes that a request carries behind its arguments."""
_LARGEST_NOTIFICATION = 1 << 16
_LOWEST_ERROR = -512
"""fs/fuse/dev.c: an error is above this and not above 0."""
_READLINK_MOST = 4096
_INTERRUPT_BIT = 1
"""``FUSE_INT_REQ_BIT``: the unique of an INTERRUPT is that of its request, and this."""


class Caller(NamedTuple):
    """On whose behalf requests are made; the server may know better."""

    uid: int = 0
    gid: int = 0
    pid: int = 0


class Reply(NamedTuple):
    """The answer to the request with this number; ``error`` is 0 or an errno."""

    unique: int
    error: int
    payload: bytes


class Notification(NamedTuple):
    """What the server says without having been asked: ``fuse.Notify``, or of fsnotify."""

    code: int
    payload: bytes


class _UnderWay(NamedTuple):
    opcode: int
    most: int


def _sized(layout: struct.Struct, field: int, header: int = 0) -> Callable[[bytes], int]:
    return lambda body: header + int(layout.unpack_from(body)[field])


def _xattr_most(body: bytes) -> int:
    size = int(fuse.GETXATTR_IN.unpack_from(body)[0])
    return size or fuse.GETXATTR_OUT.size


_ENTRY = fuse.ENTRY_OUT_SIZE
_ATTR = fuse.ATTR_OUT_HEAD.size + fuse.ATTR.size
_MOST: dict[int, int | Callable[[bytes], int]] = {
    Opcode.LOOKUP: _ENTRY,
    Opcode.MKNOD: _ENTRY,
    Opcode.MKDIR: _ENTRY,
    Opcode.SYMLINK: _ENTRY,
    Opcode.LINK: _ENTRY,
    Opcode.CREATE: _ENTRY + fuse.OPEN_OUT.size,
    Opcode.GETATTR: _ATTR,
    Opcode.SETATTR: _ATTR,
    Opcode.READLINK: _READLINK_MOST,
    Opcode.OPEN: fuse.OPEN_OUT.size,
    Opcode.OPENDIR: fuse.OPEN_OUT.size,
    Opcode.READ: _sized(fuse.READ_IN, 2),
    Opcode.READDIR: _sized(fuse.READ_IN, 2),
    Opcode.READDIRPLUS: _sized(fuse.READ_IN, 2),
    Opcode.WRITE: fuse.WRITE_OUT.size,
    Opcode.COPY_FILE_RANGE: fuse.WRITE_OUT.size,
    Opcode.STATFS: fuse.STATFS_OUT.size,
    Opcode.GETXATTR: _xattr_most,
    Opcode.LISTXATTR: _xattr_most,
    Opcode.LSEEK: fuse.LSEEK_OUT.size,
    Opcode.INIT: fuse.INIT_OUT.size,
    fsnotify.BEGIN: fsnotify.BEGIN_OUT.size,
    fsnotify.MARK: fsnotify.MARK_OUT.size,
    fsnotify.TAKE: _sized(fsnotify.TAKE_IN, 0),
}


def most_answered(opcode: int, body: bytes) -> int:
    """The most bytes, without the header, that a request with this body can be answered."""
    most = _MOST.get(opcode, 0)
    return most if isinstance(most, int) else most(body)


def taken(payload: bytes) -> list[Notification]:
    """The notifications that TAKE was answered.  Raises ProtocolError."""
    found, start = [], 0
    while start < len(payload):
        with theirs("TAKE"):
            length, code, unique = fuse.OUT_HEADER.unpack_from(payload, start)
        end = start + length
        if length < fuse.OUT_HEADER.size or end > len(payload) or unique or code <= 0:
            raise ProtocolError(f"TAKE: a notification of {length} bytes, code {code}")
        found.append(Notification(code, payload[start + fuse.OUT_HEADER.size : end]))
        start = end
    return found


class Connection:
    """See the top of the file."""

    def __init__(self, caller: Caller, *, most_under_way: int = 4096) -> None:
        self._caller = caller
        self._most_under_way = most_under_way
        self._last = 0
        self._under_way: dict[int, _UnderWay] = {}
        self._data = bytearray()
        self._checked = False
        self._broken: ProtocolError | None = None

    @property
    def under_way(self) -> int:
        """How many requests wait for their replies."""
        return len(self._under_way)

    # What is sent ----------------------------------------------------------------

    def request(
        self, opcode: int, node: int, body: bytes = b"", *, expects_reply: bool = True
    ) -> tuple[int, bytes]:
        """A request's number and its bytes.

        Raises Misuse for more content than a message carries, or too many requests.
        """
        if len(body) > LARGEST_REQUEST + 4096:
            raise Misuse(f"a request of {len(body)} bytes: at most {LARGEST_REQUEST}")
        if expects_reply and len(self._under_way) >= self._most_under_way:
            raise Misuse(f"{len(self._under_way)} requests are under way already")
        self._last += 2
        if expects_reply:
            self._under_way[self._last] = _UnderWay(opcode, most_answered(opcode, body))
        return self._last, self._message(opcode, node, self._last, body)

    def interrupt(self, unique: int) -> bytes:
        """INTERRUPT of a request; empty if it has been answered."""
        if unique not in self._under_way:
            return b""
        body = fuse.INTERRUPT_IN.pack(unique)
        return self._message(Opcode.INTERRUPT, 0, unique | _INTERRUPT_BIT, body)

    def _message(self, opcode: int, node: int, unique: int, body: bytes) -> bytes:
        uid, gid, pid = self._caller
        length = fuse.IN_HEADER.size + len(body)
        return fuse.IN_HEADER.pack(length, opcode, unique, node, uid, gid, pid, 0, 0) + body

    # What is received ------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> None:
        """More of what the server has sent, in pieces of any size."""
        self._data += data

    def receive_message(self, data: bytes) -> None:
        """A whole message, from where messages have borders.  Raises ProtocolError."""
        if len(data) < fuse.OUT_HEADER.size or fuse.OUT_HEADER.unpack_from(data)[0] != len(data):
            raise self._wrong(f"{len(data)} bytes that are not one message")
        self.receive_data(data)

    def receive_end(self) -> None:
        """The server has closed the connection.  Raises ProtocolError within a message."""
        if self._data:
            raise self._wrong(f"the connection ends {len(self._data)} bytes into a message")

    def next_event(self) -> Reply | Notification | None:
        """The next message, None if it is not there as a whole.  Raises ProtocolError."""
        if self._broken is not None:
            raise self._broken
        header = fuse.OUT_HEADER
        while len(self._data) >= header.size:
            length, error, unique = header.unpack_from(self._data)
            if not self._checked:
                self._check(length, error, unique)
                self._checked = True
            if len(self._data) < length:
                return None
            payload = bytes(memoryview(self._data)[header.size : length])
            del self._data[:length]
            self._checked = False
            if unique == 0:
                return Notification(error, payload)
            if unique & _INTERRUPT_BIT:
                continue  # what became of an INTERRUPT is seen from the request's answer
            del self._under_way[unique]
            return Reply(unique, -error, payload)
        return None

    def _check(self, length: int, error: int, unique: int) -> None:
        size = length - fuse.OUT_HEADER.size
        if size < 0:
            raise self._wrong(f"a message of {length} bytes")
        if unique == 0:
            if error <= 0:
                raise self._wrong(f"a notification with code {error}")
            if size > _LARGEST_NOTIFICATION:
                raise self._wrong(f"a notification of {size} bytes")
            return
        if not _LOWEST_ERROR < error <= 0:
            raise self._wrong(f"an answer with error {error}")
        if unique & _INTERRUPT_BIT:
            if not 0 < unique <= self._last + 1 or size or not error:
                raise self._wrong(f"an answer to no INTERRUPT: {unique}")
            return
        request = self._under_way.get(unique)
        if request is None:
            raise self._wrong(f"an answer to no request: {unique}")
        if size > (0 if error else request.most):
            raise self._wrong(f"an answer of {size} bytes to opcode {request.opcode:#x}")

    def _wrong(self, what: str) -> ProtocolError:
        self._data.clear()
        self._broken = ProtocolError(what)
        return self._broken
