"""A client that keeps its own marks, on a disk in memory.

The layouts are written down here a second time, as in tests/session/kernel.py.  Whatever is
done, by the client or by somebody else, is told to the session as the settler would have it:
``somebody`` and ``itself`` say whose doing a change is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.events import Change, Key, Kind
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import DIALECTS, Settings
from tests.session.kernel import (
    FLAGS2_6_18,
    FLAGS_6_18,
    GENERATION,
    HIDDEN,
    ROOT,
    Kernel,
    in_session,
)
from tests.session.memory import Inode, MemoryDisk

BEGIN, MARK, TAKE, FSNOTIFY = 0x46570001, 0x46570002, 0x46570003, 51
EVENT, ENDED, POSTED = 0x4657, 0x4658, 8
REMOTE, MERGED = 1, 2
LIMBO = 1
HAVE_FSNOTIFY = 1 << 29

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 1, 2, 4, 8, 0x10, 0x20
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = (
    0x40,
    0x80,
    0x100,
    0x200,
    0x400,
    0x800,
)
Q_OVERFLOW, RENAME, ISDIR = 0x4000, 0x10000000, 0x40000000
ALL = 0xFFF

REMOVED, GONE, DROPPED = 1, 2, 3
UNKNOWN_SOURCE, LOCAL_SOURCE, REMOTE_SOURCE = 0, 1, 2

OWN_THREAD, OTHER_CLIENT, HOST_THREAD = 501, 502, 77
NUMBER = 3
"""Of this client at the server."""


class Told(NamedTuple):
    """An EVENT."""

    sequence: int
    mask: int
    cookie: int
    node: int
    parent: int
    new_parent: int
    generation: int
    parent_generation: int
    new_parent_generation: int
    source: int
    client: int
    name: bytes
    new_name: bytes


class End(NamedTuple):
    """An ENDED."""

    sequence: int
    node: int
    generation: int
    reason: int


class Posted(NamedTuple):
    """An event of a dialect that was posted: its numbers, and the name as it stands there."""

    fields: tuple[int, ...]
    name: bytes


POSTED_LAYOUTS = {
    Dialect.POSTED: "<QQII",
    Dialect.AGGREGATED: "<QQIII4x",
    Dialect.PARENTED: "<QQQIIB7x",
}
POSTED_NAMES = {Dialect.POSTED: 2, Dialect.AGGREGATED: 2, Dialect.PARENTED: 3}
"""Which of the fields is the length of the name."""


def options(
    *,
    fsnotify: frozenset[Dialect] = DIALECTS,
    most_notices: int = 16384,
    most_marks: int = 1 << 16,
    most_in_limbo: int = 1024,
    longest_wait: float | None = None,
) -> Settings:
    return Settings(
        GENERATION,
        HIDDEN,
        max_write=1 << 17,
        fsnotify=fsnotify,
        client=NUMBER,
        most_notices=most_notices,
        most_marks=most_marks,
        most_in_limbo=most_in_limbo,
        longest_wait=longest_wait,
    )


class Client:
    """``kernel`` asks as any client does; this is what one with marks asks besides."""

    def __init__(self, disk: MemoryDisk, settings: Settings | None = None) -> None:
        session = Session(in_session(disk), settings or options(), disk, lambda thread, key: None)
        session.client_of = lambda thread: {OWN_THREAD: NUMBER, OTHER_CLIENT: 9}.get(thread, 0)
        self.kernel = Kernel(disk, session)
        self.session = session
        self.disk = disk

    # What it asks ------------------------------------------------------------------

    def init(self, flags2: int = FLAGS2_6_18 | HAVE_FSNOTIFY) -> tuple[int, ...]:
        return self.kernel.init(45, FLAGS_6_18, flags2)

    def begin(self, mode: int = REMOTE, version: int = 1, flags: int = 0) -> tuple[int, ...]:
        answer = self.kernel.ask(BEGIN, ROOT, struct.pack("<IIII", version, mode, flags, 0))
        return struct.unpack("<IIIIQ", answer)

    def mark(
        self, node: int, mask: int = ALL, flags: int = 0, generation: int | None = None
    ) -> tuple[int, int]:
        """The kinds that can be told, and the sequence."""
        answer = self.kernel.ask(MARK, node, self.mark_body(node, mask, flags, generation))
        kinds, zero, sequence = struct.unpack("<IIQ", answer)
        assert zero == 0
        return kinds, sequence

    @staticmethod
    def mark_body(node: int, mask: int, flags: int = 0, generation: int | None = None) -> bytes:
        if generation is None:
            generation = 0 if node == ROOT else GENERATION
        return struct.pack("<QII", generation, mask, flags)

    def take(self, room: int = 1 << 16) -> list[Told | End] | None:
        """None if it is parked."""
        answer = self.kernel.try_ask(TAKE, ROOT, struct.pack("<II", room, 0))
        return None if answer is None else notices(answer)

    def node(self, path: str) -> int:
        """Walks there."""
        return self.kernel.walk(path).node if path else ROOT

    def watch(self, path: str, mask: int = ALL) -> int:
        node = self.node(path)
        self.mark(node, mask)
        return node

    # What it is told ---------------------------------------------------------------

    def heard(self, room: int | None = None) -> list[Told | End]:
        """Everything that waits for it."""
        found: list[Told | End] = []
        while (notice := self.session.next_notice(room)) is not None:
            found += notices(joined(notice))
        return found

    def posted(self, dialect: Dialect) -> list[Posted]:
        """The same, in a dialect that was posted."""
        found = []
        while (notice := self.session.next_notice()) is not None:
            data = joined(notice)
            size, code, unique = struct.unpack_from("<IiQ", data)
            assert (size, code, unique) == (len(data), POSTED, 0)
            layout = struct.Struct(POSTED_LAYOUTS[dialect])
            fields = layout.unpack_from(data, 16)
            name = data[16 + layout.size :]
            assert len(name) == fields[POSTED_NAMES[dialect]]
            found.append(Posted(fields, name))
        return found

    def answer(self) -> tuple[int, int, bytes] | None:
        """A late answer: unique, errno, payload."""
        reply = self.session.answer()
        if reply is None:
            return None
        data = joined(reply)
        size, error, unique = struct.unpack_from("<IiQ", data)
        assert size == len(data)
        return unique, -error, data[16:]

    def deliver(self, *changes: Change) -> None:
        self.kernel.deliver(*changes)


def joined(reply: Reply) -> bytes:
    return b"".join(bytes(part) for part in reply)


def notices(data: bytes) -> list[Told | End]:
    """Whole notifications, one behind the other."""
    found: list[Told | End] = []
    while data:
        size, code, unique = struct.unpack_from("<IiQ", data)
        assert unique == 0
        assert len(data) >= size
        payload, data = data[16:size], data[size:]
        if code == ENDED:
            found.append(End(*struct.unpack("<QQII", payload)))
            continue
        assert code == EVENT
        fields = struct.unpack_from("<QIIQQQIIIIQHH4x", payload)
        names = payload[struct.calcsize("<QIIQQQIIIIQHH4x") :]
        assert len(names) == fields[11] + fields[12]
        found.append(Told._make((*fields[:11], names[: fields[11]], names[fields[11] :])))
    return found


def kinds(heard: Sequence[Told | End]) -> list[str]:
    """For comparison: kinds and names, without numbers."""
    words = {
        ACCESS: "ACCESS", MODIFY: "MODIFY", ATTRIB: "ATTRIB", CLOSE_WRITE: "CLOSE_WRITE",
        CLOSE_NOWRITE: "CLOSE_NOWRITE", OPEN: "OPEN", CREATE: "CREATE", DELETE: "DELETE",
        DELETE_SELF: "DELETE_SELF", MOVE_SELF: "MOVE_SELF", RENAME: "RENAME",
        Q_OVERFLOW: "Q_OVERFLOW",
    }  # fmt: skip
    reasons = {REMOVED: "REMOVED", GONE: "GONE", DROPPED: "DROPPED"}
    found = []
    for each in heard:
        if isinstance(each, End):
            found.append(f"ENDED({reasons[each.reason]})")
            continue
        text = words[each.mask & ~ISDIR]
        if each.name:
            text += f" {each.name.decode()}"
        if each.new_name:
            text += f" -> {each.new_name.decode()}"
        found.append(text)
    return found


# What happens on the disk, and the settled change of it ----------------------------------


def created(disk: MemoryDisk, path: str, thread: int = HOST_THREAD) -> Change:
    inode = disk.do_file(path)
    return Change(Kind.CREATE, disk.place(path), inode.key, thread=thread)


def made_directory(disk: MemoryDisk, path: str, thread: int = HOST_THREAD) -> Change:
    inode = disk.do_mkdir(path)
    return Change(Kind.CREATE, disk.place(path), inode.key, is_dir=True, thread=thread)


def linked(disk: MemoryDisk, old: str, new: str, thread: int = HOST_THREAD) -> Change:
    inode = disk.do_link(old, new)
    return Change(Kind.CREATE, disk.place(new), inode.key, linked=True, thread=thread)


def removed(disk: MemoryDisk, path: str, thread: int = HOST_THREAD) -> Change:
    place = disk.place(path)
    inode = disk.do_remove(path)
    return Change(Kind.DELETE, place, inode.key, inode.is_dir, thread=thread)


def renamed(
    disk: MemoryDisk, old: str, new: str, flags: int = 0, thread: int = HOST_THREAD
) -> Change:
    """Also an exchange (2)."""
    place, new_place = disk.place(old), disk.place(new)
    inode = disk.at(old)
    other = disk.at(new).key if new_place.name in disk.at(parent_of(new)).children else None
    disk.do_rename(old, new, flags)
    kind = Kind.EXCHANGE if flags & 2 else Kind.RENAME
    return Change(kind, place, inode.key, inode.is_dir, new_place, other, thread=thread)


def touched(disk: MemoryDisk, path: str, kind: Kind, thread: int = HOST_THREAD) -> Change:
    """MODIFY, ATTRIB, OPEN …; of a directory without its name, as the source reports it."""
    inode = disk.at(path)
    place = None if inode.is_dir else disk.place(path)
    return Change(kind, place, inode.key, inode.is_dir, thread=thread)


def died(
    disk: MemoryDisk, inode: Inode, thread: int = HOST_THREAD, *, with_its_name: bool = False
) -> Change:
    """``with_its_name``: nobody had it open when its last name went."""
    key: Key = inode.key
    if not inode.is_dir:
        disk.do_close(inode)
    return Change(Kind.DEATH, None, key, inode.is_dir, linked=with_its_name, thread=thread)


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]
