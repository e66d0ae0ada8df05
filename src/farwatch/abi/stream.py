"""FUSE messages on a stream of bytes: a socket between a client and ``farwatch serve``.

One line each way, then FUSE messages as they are, one behind the other:

    client   FARWATCH/1 TOKEN LF          the token may be left out: FARWATCH/1 LF
    server   FARWATCH/1 ok LF
             FARWATCH/1 no REASON LF      and nothing more will come
    client   requests                     fuse_in_header and what its opcode says
    server   replies, notifications       fuse_out_header and a payload

A line has at most 4096 bytes with its LF, in printable ASCII; a token has no space.  Every
message begins with its own length (u32, the header included), at most 1 MiB and 4096 bytes.

    hello ──line──> messages        a client may send its first request behind its line

Nothing here reads or writes a socket.  Whoever does gives and takes bytes:

    room = incoming.room();  incoming.received(socket.recv_into(room))
    while (message := incoming.next_message()) is not None: …
"""

from __future__ import annotations

from struct import Struct

from farwatch.abi import fuse

VERSION = 1
LONGEST_LINE = 4096
LONGEST_MESSAGE = (1 << 20) + 4096
"""The largest WRITE or READ, and its headers."""
SHORTEST_REQUEST = fuse.IN_HEADER.size
SHORTEST_REPLY = fuse.OUT_HEADER.size

_GREETING = b"FARWATCH/%d" % VERSION
_OK = _GREETING + b" ok\n"
_NO = _GREETING + b" no "
_LENGTH = Struct("<I")
_USUAL = 1 << 16
"""Bytes of a buffer that has no larger message to hold."""
_LEAST_ROOM = 4096
_PRINTABLE = frozenset(range(0x21, 0x7F))


class Malformed(ValueError):
    """Bytes that the other side must not send; one line says what is wrong with them."""


class Refused(Exception):
    """The server's no, with its reason."""


def is_token(token: str) -> bool:
    """Whether this can be sent as a token: printable ASCII without spaces, not too long."""
    data = token.encode("utf-8", "surrogateescape")
    longest = LONGEST_LINE - len(_GREETING) - 2
    return 0 < len(data) <= longest and _PRINTABLE.issuperset(data)


def encode_hello(token: str | None = None) -> bytes:
    """The client's line.  Raises ValueError for what is no token."""
    if token is None:
        return _GREETING + b"\n"
    if not is_token(token):
        raise ValueError("a token is printable ASCII without spaces, of less than 4 KiB")
    return _GREETING + b" " + token.encode() + b"\n"


def decode_hello(line: bytes) -> str:
    """The token of the client's line, which has no LF any more; "" without one.

    Raises Malformed.
    """
    greeting, _, token = line.partition(b" ")
    if greeting != _GREETING:
        raise Malformed(_stranger(greeting))
    if token and not _PRINTABLE.issuperset(token):
        raise Malformed("a token of what is not printable")
    return token.decode("ascii")


def encode_ok() -> bytes:
    """The server's line for a client that it serves."""
    return _OK


def encode_no(reason: str) -> bytes:
    """The server's line for one that it does not; ``reason`` is cut to what fits."""
    return _NO + _plain(reason).encode()[: LONGEST_LINE - len(_NO) - 1] + b"\n"


def decode_answer(line: bytes) -> None:
    """Reads the server's line, which has no LF any more.  Raises Refused or Malformed."""
    if line + b"\n" == _OK:
        return
    if not line.startswith(_NO):
        raise Malformed(_stranger(line))
    raise Refused(_plain(line[len(_NO) :].decode("ascii", "replace")))


def _plain(text: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def _stranger(line: bytes) -> str:
    if line.startswith(b"FARWATCH/"):
        return "another version of the protocol; this is FARWATCH/1"
    return "this is not the FARWATCH protocol"


class Incoming:
    """What has come, from the first line to the last message.

    ``shortest`` is the least that a message can be: SHORTEST_REQUEST at a server,
    SHORTEST_REPLY at a client.  Holds no more than one message of the greatest length.
    """

    def __init__(self, shortest: int) -> None:
        self._shortest = shortest
        self._usual = _LEAST_ROOM
        self._buffer = memoryview(bytearray(self._usual))
        self._start = 0
        self._end = 0

    def room(self) -> memoryview:
        """Where what comes next is to be put; never empty.

        What ``next_message`` gave before is not good any more.
        """
        waiting = self._end - self._start
        if not waiting:
            self._start = self._end = 0
            if len(self._buffer) != self._usual:
                self._buffer = memoryview(bytearray(self._usual))
        else:
            needed = max(self._announced(), waiting + 1)
            if len(self._buffer) - self._start < needed:
                self._move(max(needed, self._usual))
        return self._buffer[self._end :]

    def _announced(self) -> int:
        """Bytes of the message that waits, as far as it says, and as far as is allowed."""
        if self._end - self._start < _LENGTH.size:
            return _LENGTH.size
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        return min(length, LONGEST_MESSAGE)

    def _move(self, size: int) -> None:
        """What waits goes to the front of a buffer of this size."""
        waiting = self._buffer[self._start : self._end].tobytes()
        if size != len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._buffer[: len(waiting)] = waiting
        self._start, self._end = 0, len(waiting)

    def received(self, size: int) -> None:
        """So many bytes have been put into the room."""
        self._end += size

    def feed(self, data: bytes) -> None:
        """The same for who has them in bytes already, and as many as there is room for."""
        self.room()[: len(data)] = data
        self.received(len(data))

    def next_line(self) -> bytes | None:
        """The first line without its LF, None if it is not whole yet.  Raises Malformed."""
        waiting = bytes(self._buffer[self._start : min(self._end, self._start + LONGEST_LINE)])
        line, end, _ = waiting.partition(b"\n")
        if not end:
            if len(waiting) >= LONGEST_LINE:
                raise Malformed(f"a line of more than {LONGEST_LINE} bytes")
            return None
        self._start += len(line) + 1
        self._usual = _USUAL
        return line

    def next_message(self) -> memoryview | None:
        """The next message, None if it is not whole yet.

        It can be written to, and is good until ``room`` is called.  Raises Malformed.
        """
        waiting = self._end - self._start
        if waiting < _LENGTH.size:
            return None
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        if not self._shortest <= length <= LONGEST_MESSAGE:
            raise Malformed(f"a message of {length} bytes")
        if waiting < length:
            return None
        start = self._start
        self._start += length
        return self._buffer[start : start + length]

    @property
    def is_between(self) -> bool:
        """Whether no part of a message waits."""
        return self._start == self._end
