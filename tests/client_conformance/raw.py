"""Clients of the layouts that were posted, byte by byte: nothing here is farwatch's.

As much of FUSE as it takes to look a name up, and the structs of three postings to the
kernel's lists (*Inotify support in FUSE and virtiofs* and what followed), as they were:

    posted      struct fuse_notify_fsnotify_in  { u64 mask; u64 group; u32 action; u32 padding; }
                struct fuse_notify_fsnotify_out { u64 inode; u64 mask; u32 namelen; u32 cookie; }
    aggregated  struct fuse_notify_fsnotify_in  { u32 mask; u32 generation; }
                struct fuse_notify_fsnotify_out { the same; u32 generation; u32 padding; }
    parented    struct fuse_fsnotify_in  { u64 mask; }
                struct fuse_fsnotify_out { u64 inode; u64 parent; u64 mask; u32 namelen;
                                           u32 generation; u8 notify_parent; u8 padding[7]; }

with the name behind the event, in the first two with one NUL or more, opcode 51, notification
code 8; asked for by init flag 30 with minor version 36, the last by flag 34 with minor 38.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from abc import abstractmethod
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from farwatch.linux.descriptors import Closable
from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from tests.client_conformance.stage import Transport

SECONDS = 20.0
"""Only a failure lasts that long."""
ROOM = 8192
NOTIFICATION_QUEUE_FEATURE = 1 << 0
"""VIRTIO_FS_F_NOTIFICATION, virtio 1.2, 5.11.3."""
BUFFERS = 8

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
LOOKUP, INIT, TMPFILE = 1, 26, 51
FSNOTIFY, NOTIFY_FSNOTIFY = 51, 8
BIT_30, BIT_34 = 1 << 30, 1 << 34
ASYNC_READ, BIG_WRITES = 1 << 0, 1 << 5
REMOVE, ADD = 0, 1
FAN_EVENT_ON_CHILD = 0x0800_0000
"""fanotify(7)."""
GROUP = 0xFFFF_8880_1234_5678
"""The posted code sent the address of the client's fsnotify group."""


class Layout(StrEnum):
    """What a client asks for in INIT."""

    NOTHING = "nothing"
    """7.36, when the postings were made, without any of them."""
    MODERN = "modern"
    """7.41 as Linux 6.12 has it: flag 30 is INIT_EXT, opcode 51 is TMPFILE."""
    POSTED = "posted"
    AGGREGATED = "aggregated"
    PARENTED = "parented"


SHORT = frozenset({Layout.NOTHING, Layout.POSTED, Layout.AGGREGATED})
"""Whose INIT has 16 bytes."""


class Told(NamedTuple):
    """One notification."""

    inode: int
    mask: int
    name: bytes
    cookie: int = 0
    generation: int | None = None
    parent: int | None = None
    """Of a child that was named: it is told to both."""


class Node(NamedTuple):
    id: int
    generation: int


ROOT = Node(1, 0)


class Link(Closable):
    """Whole messages, there and back."""

    def __init__(self) -> None:
        self.notifications: list[bytes] = []

    @abstractmethod
    def ask(self, request: bytes) -> bytes: ...

    @abstractmethod
    def listen(self, seconds: float) -> None:
        """Take what comes within so many seconds, at most until one notification is there."""

    @abstractmethod
    def close(self) -> None: ...


class StreamLink(Link):
    """A line each way, then the messages as they are."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(SECONDS)
        self._data = b""
        self._answers: list[bytes] = []
        try:
            self._socket.connect(str(path))
            self._socket.sendall(b"FARWATCH/1\n")
            while b"\n" not in self._data:
                self._receive()
        except BaseException:
            self._socket.close()
            raise
        line, _, self._data = self._data.partition(b"\n")
        assert line == b"FARWATCH/1 ok", line

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the server has closed the connection"
        self._data += data

    def _sort(self) -> None:
        while len(self._data) >= 4:
            (size,) = struct.unpack_from("<I", self._data)
            if len(self._data) < size:
                return
            message, self._data = self._data[:size], self._data[size:]
            is_notification = OUT_HEADER.unpack_from(message)[2] == 0
            (self.notifications if is_notification else self._answers).append(message)

    def ask(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        while not self._answers:
            self._receive()
            self._sort()
        return self._answers.pop()

    def listen(self, seconds: float) -> None:
        if select.select([self._socket], [], [], seconds)[0]:
            self._receive()
            self._sort()

    def close(self) -> None:
        self._socket.close()


class VhostLink(Link):
    """Virtqueues, the notification queue among them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._frontend = Frontend.connect(str(path), timeout=SECONDS)
        self._offered: list[Pending] = []
        try:
            self._frontend.negotiate(FEATURES | NOTIFICATION_QUEUE_FEATURE)
            assert self._frontend.features & NOTIFICATION_QUEUE_FEATURE
            self._frontend.start(SharedMemory([4 << 20]), queues=3)
            self._offered = self._frontend.offer(ROOM, BUFFERS)
        except BaseException:
            self._frontend.close()
            raise

    def ask(self, request: bytes) -> bytes:
        return self._frontend.ask(request, ROOM)

    def listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (said := self._frontend.poll(self._offered[0])) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            ring = self._frontend.rings[self._offered[0].queue]
            if ring.rest():
                ring.wait(left)
        self._offered = [*self._offered[1:], *self._frontend.offer(ROOM, 1)]
        if said:
            self.notifications.append(said)

    def close(self) -> None:
        self._frontend.close()


def linked(transport: Transport, path: Path) -> Link:
    return StreamLink(path) if transport is Transport.UNIX else VhostLink(path)


class RawClient:
    """A client that speaks one of the layouts, or none, over a link that it does not own."""

    def __init__(self, link: Link, layout: Layout) -> None:
        self.layout = layout
        self._link = link
        self._unique = 0
        self.marked: set[int] = set()
        self.agreed = self._init()

    def _request(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        """The errno, 0 or negative, and the answer's payload."""
        self._unique += 2
        size = IN_HEADER.size + len(body)
        head = (size, opcode, self._unique, node, os.geteuid(), os.getegid(), os.getpid(), 0)
        answer = self._link.ask(IN_HEADER.pack(*head) + body)
        length, error, unique = OUT_HEADER.unpack_from(answer)
        assert (length, unique) == (len(answer), self._unique)
        return error, answer[OUT_HEADER.size :]

    def _init(self) -> int:
        """The flags that the server has taken, all 64 bits of them."""
        flags = ASYNC_READ | BIG_WRITES
        if self.layout in SHORT:
            flags |= 0 if self.layout is Layout.NOTHING else BIT_30
            body = struct.pack("<4I", 7, 36, 1 << 17, flags)
        else:
            # fuse_init_in has 64 bytes, and flag 30 says so.  Flag 34 of a modern one is
            # CREATE_SUPP_GROUP.
            flags |= BIT_30 | BIT_34
            minor = 38 if self.layout is Layout.PARENTED else 41
            low, high = flags & 0xFFFF_FFFF, flags >> 32
            body = struct.pack("<5I44x", 7, minor, 1 << 17, low, high)
        error, answer = self._request(INIT, 0, body)
        assert not error, os.strerror(-error)
        taken, more = struct.unpack_from("<12xI16xI", answer)
        return int(taken | more << 32)

    @property
    def is_agreed(self) -> bool:
        """Whether the server has taken the flag."""
        return bool(self.agreed & (BIT_30 if self.layout in SHORT else BIT_34))

    def lookup(self, name: bytes, parent: Node = ROOT) -> Node:
        """struct fuse_entry_out begins with node id and generation."""
        error, answer = self._request(LOOKUP, parent.id, name + b"\0")
        assert not error, os.strerror(-error)
        return Node(*struct.unpack_from("<QQ", answer))

    def mark(self, node: Node, mask: int) -> int:
        """Watch a node, or with mask 0 no more; the errno, 0 or negative."""
        if self.layout is Layout.PARENTED:
            body = struct.pack("<Q", mask)
        elif self.layout is Layout.AGGREGATED:
            body = struct.pack("<II", mask, node.generation)
        else:
            body = struct.pack("<QQII", mask, GROUP, ADD if mask else REMOVE, 0)
        error = self.fsnotify(node, body)
        if not error:
            (self.marked.add if mask else self.marked.discard)(node.id)
        return error

    def fsnotify(self, node: Node, body: bytes) -> int:
        """FUSE_FSNOTIFY with this body; the errno, 0 or negative."""
        return self._request(FSNOTIFY, node.id, body)[0]

    def make_temporary(self, directory: Node) -> int:
        """What opcode 51 has become: struct fuse_create_in and a name; the errno."""
        body = struct.pack("<4I", os.O_RDWR | os.O_TMPFILE, 0o100600, 0o22, 0) + b"#1\0"
        return self._request(TMPFILE, directory.id, body)[0]

    def told_until(self, last: bytes) -> list[Told]:
        """Every notification so far, in order, as far as the first one about this name."""
        deadline = time.monotonic() + SECONDS
        told: list[Told] = []
        while not told or told[-1].name != last:
            while not self._link.notifications:
                assert time.monotonic() < deadline, f"nothing came of {last!r} after {told}"
                self._link.listen(deadline - time.monotonic())
            told.append(self._decoded(self._link.notifications.pop(0)))
        return told

    def _decoded(self, message: bytes) -> Told:
        length, code, unique = OUT_HEADER.unpack_from(message)
        assert (length, code, unique) == (len(message), NOTIFY_FSNOTIFY, 0)
        body = message[OUT_HEADER.size :]
        if self.layout is Layout.POSTED:
            inode, mask, size, cookie = struct.unpack_from("<QQII", body)
            return Told(inode, mask, _name(body[24:], size), cookie)
        if self.layout is Layout.AGGREGATED:
            inode, mask, size, cookie, generation = struct.unpack_from("<QQIII4x", body)
            return Told(inode, mask, _name(body[32:], size), cookie, generation)
        inode, parent, mask, size, generation, flag = struct.unpack_from("<QQQIIB7x", body)
        name = body[40:]
        assert len(name) == size
        assert bool(mask & FAN_EVENT_ON_CHILD) == bool(flag) == bool(parent)
        return Told(inode, mask & ~FAN_EVENT_ON_CHILD, name, 0, generation, parent or None)


def _name(data: bytes, size: int) -> bytes:
    """A name and at least one NUL, which inotify pads names with; or nothing."""
    assert len(data) == size
    name, _, padding = data.partition(b"\0")
    assert bool(name) == bool(size)
    assert not size or data.endswith(b"\0")
    assert not padding.strip(b"\0")
    return name
