"""A guest that keeps its own marks, and the kernel's inotify on the same files beside it.

What the guest is told is spread over its marks here as a kernel would (a RENAME is two
halves and MOVE_SELF), so that it can be compared, event for event and in order, with what
inotify(7) hears in SRC of the very same change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from farwatch.abi.inotify import parse
from farwatch.abi.virtio import Feature
from farwatch.linux.inotify import Inotify
from farwatch.transports.vhost.frontend import Frontend, Pending
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from tests.mounting.mounted import wait_until
from tests.session.fsnotify.client import (
    ALL,
    BEGIN,
    CREATE,
    DELETE,
    HAVE_FSNOTIFY,
    ISDIR,
    MARK,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    REMOTE,
    RENAME,
    TAKE,
    End,
    Told,
    notices,
)
from tests.session.kernel import FLAGS2_6_18, FLAGS_6_18, ROOT, checked
from tests.virtiofsd.guest import ROOM, Guest

NOTIFYING = int(FEATURES | Feature.FS_NOTIFICATION)
BUFFER = 1024
IGNORED = 0x8000
_OF_NAMES = CREATE | DELETE
_NO_DIRECTORY = 0x400 | MOVE_SELF
"""DELETE_SELF and MOVE_SELF: inotify(7) never says ISDIR of these."""

Heard = tuple[str, int, bytes]
"""Which mark, a mask, a name."""


class Marking(Guest):
    """Negotiated and begun.  ``buffers`` for notifications are kept with the device."""

    def __init__(self, path: str, *, by_queue: bool, mode: int = REMOTE, buffers: int = 8) -> None:
        self._unique = 0
        self.given = {}
        self._by_queue = by_queue
        self._offered: list[Pending] = []
        self.generation = 0
        """Of all nodes but the root."""
        self._asked: tuple[int, Pending] | None = None
        self.marks: dict[int, tuple[str, int]] = {}
        self.frontend = Frontend.connect(path)
        try:
            self.frontend.negotiate(NOTIFYING if by_queue else int(FEATURES))
            self.frontend.start(SharedMemory([8 << 20]), queues=3 if by_queue else 2)
            self.init()
            answer = self.ask(BEGIN, ROOT, struct.pack("<IIII", 1, mode, 0, 0))
            assert struct.unpack("<IIIIQ", answer)[:2] == (1, mode)
            if by_queue:
                self.offer(buffers)
        except BaseException:
            self.frontend.close()
            raise

    def __enter__(self) -> Marking:
        return self

    def init(
        self, minor: int = 45, flags: int = FLAGS_6_18, flags2: int = FLAGS2_6_18 | HAVE_FSNOTIFY,
        *, major: int = 7, long: bool = True,
    ) -> tuple[int, ...]:  # fmt: skip
        answer = super().init(minor, flags, flags2, major=major, long=long)
        assert answer[10] & HAVE_FSNOTIFY
        return answer

    def offer(self, count: int, size: int = BUFFER) -> None:
        """Buffers for notifications."""
        self._offered += self.frontend.offer(size, count)

    def mark(self, path: str, mask: int = ALL, label: str | None = None) -> int:
        """The node at a path, marked."""
        node, generation = ROOT, 0
        if path:
            entry = self.walk(path)
            node, generation = entry.node, entry.generation
            self.generation = generation
        self.ask(MARK, node, struct.pack("<QII", generation, mask, 0))
        self.marks[node] = (path if label is None else label, mask)
        return node

    def more(self) -> list[Told | End]:
        """What has come by now."""
        if self._by_queue:
            return self._from_buffers()
        if self._asked is None:
            self._asked = self.submit(TAKE, ROOT, struct.pack("<II", ROOM - 4096, 0))
        unique, pending = self._asked
        data = self.frontend.poll(pending)
        if data is None:
            return []
        self._asked = None
        number, payload = checked([data], unique)
        assert not number
        return notices(payload)

    def _from_buffers(self) -> list[Told | End]:
        found: list[Told | End] = []
        while self._offered and (data := self.frontend.poll(self._offered[0])) is not None:
            del self._offered[0]
            found += notices(data)
            self.offer(1)
        return found

    def hear_until(self, holds: Callable[[list[Told | End]], bool]) -> list[Told | End]:
        """Everything since this was last asked, until it holds."""
        found: list[Told | End] = []

        def is_there() -> bool:
            found.extend(self.more())
            return holds(found)

        try:
            wait_until(is_there, "events")
        except AssertionError as error:
            raise AssertionError(f"{error}; heard {found}") from None
        return found

    def hear_through(self, name: str) -> list[Told | End]:
        """Until the name was told of at which everything ends; without that."""
        found = self.hear_until(lambda told: any(_is_of(each, name.encode()) for each in told))
        return [each for each in found if not _is_of(each, name.encode())]

    def spread(self, told: list[Told | End]) -> list[Heard]:
        """What each mark hears of it, in one queue: an event like the last one is left out."""
        heard: list[Heard] = []
        for each in told:
            if isinstance(each, Told):
                for one in self._spread(each):
                    if heard[-1:] != [one]:
                        heard.append(one)
        return heard

    def _spread(self, told: Told) -> list[Heard]:
        flags, kind = told.mask & ISDIR, told.mask & ~ISDIR
        if kind == RENAME:
            return (
                self._at(told.parent, MOVED_FROM, flags, told.name)
                + self._at(told.new_parent, MOVED_TO, flags, told.new_name)
                + self._at(told.node, MOVE_SELF, 0, b"")
            )
        heard = self._at(told.parent, kind, flags, told.name)
        if not kind & _OF_NAMES:
            heard += self._at(told.node, kind, 0 if kind & _NO_DIRECTORY else flags, b"")
        return heard

    def _at(self, node: int, kind: int, flags: int, name: bytes) -> list[Heard]:
        label, mask = self.marks.get(node, ("", 0))
        return [(label, kind | flags, name)] if mask & kind else []


class Native:
    """inotify(7) in SRC.  A context manager."""

    def __init__(self, src: Path) -> None:
        self._src = src
        self._inotify = Inotify()
        self._labels: dict[int, str] = {}

    def watch(self, path: str, mask: int = ALL) -> None:
        self._labels[self._inotify.add(self._src / path, mask)] = path

    def hear(self) -> list[Heard]:
        """Everything so far, without IGNORED."""
        heard: list[Heard] = []
        buffer = bytearray(1 << 16)
        while True:
            try:
                size = self._inotify.read(buffer)
            except BlockingIOError:
                return heard
            heard += [
                (self._labels[event.wd], event.mask, event.name)
                for event in parse(bytes(buffer[:size]))
                if not event.mask & IGNORED
            ]

    def __enter__(self) -> Native:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()


def _is_of(each: Told | End, name: bytes) -> bool:
    return isinstance(each, Told) and each.name == name
