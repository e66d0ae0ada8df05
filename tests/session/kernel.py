"""A dummy client kernel: makes request bytes, takes reply bytes apart.

Its layouts are written down here a second time, by hand from linux/fuse.h, and not taken
from farwatch.abi: a fault there would else be invisible.  Every reply is checked for what
the kernel itself would refuse (fs/fuse/dev.c: fuse_dev_do_write).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from farwatch.events import Change, Key, Place
from farwatch.export.tree import Export
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from tests.session.memory import MemoryDisk, Tree

ROOT = 1
GENERATION = 77
HIDDEN = b".farwatch-0123456789abcdef"

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE = 8, 9, 10, 11, 12, 13, 14, 15, 16
STATFS, RELEASE, FSYNC, SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR = 17, 18, 20, 21, 22, 23, 24
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 25, 26, 27, 28, 29, 30
GETLK, SETLK, SETLKW, ACCESS, CREATE, INTERRUPT, BMAP, DESTROY = 31, 32, 33, 34, 35, 36, 37, 38
IOCTL, POLL, NOTIFY_REPLY, BATCH_FORGET, FALLOCATE, READDIRPLUS = 39, 40, 41, 42, 43, 44
RENAME2, LSEEK, COPY_FILE_RANGE, SYNCFS, TMPFILE, STATX = 45, 46, 47, 50, 51, 52
WITHOUT_REPLY = (FORGET, BATCH_FORGET, INTERRUPT)

HELLO, WAIT, WATCH = 0xFFFF7701, 0xFFFF7702, 0xFFFF7703
IOCTL_DIR = 1 << 4
FIRST_UID = 0xFA520000


class Refused(OSError):
    """The session answered with an errno."""


class Attributes(NamedTuple):
    """``struct fuse_attr``."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


class Entry(NamedTuple):
    """``struct fuse_entry_out``."""

    node: int
    generation: int
    entry_valid: int
    attr_valid: int
    attributes: Attributes


class Dirent(NamedTuple):
    """``struct fuse_dirent``, and what READDIRPLUS tells with it."""

    name: bytes
    ino: int
    next_offset: int
    type: int
    entry: Entry | None


class Opened(NamedTuple):
    """``struct fuse_open_out``."""

    fh: int
    flags: int
    backing_id: int


class Step(NamedTuple):
    """One step of a batch, as the agent reads it."""

    op: int
    directory: int
    name: bytes
    new_directory: int
    new_name: bytes
    argument: int
    token: int
    pin: int


class Batch(NamedTuple):
    """What WAIT is answered with."""

    number: int
    flags: int
    sequence: int
    steps: list[Step]

    def mark(self, op: int) -> int:
        """The user id that the agent has while it is on the first step with this op."""
        index = [step.op for step in self.steps].index(op)
        return FIRST_UID + (self.sequence + index) % 0x10000


def request(
    opcode: int,
    node: int,
    body: bytes = b"",
    *,
    unique: int = 2,
    uid: int = 0,
    gid: int = 0,
    pid: int = 100,
) -> bytes:
    """``struct fuse_in_header`` and a body."""
    return struct.pack("<IIQQIIII", 40 + len(body), opcode, unique, node, uid, gid, pid, 0) + body


def checked(reply: Reply, unique: int | None = None) -> tuple[int, bytes]:
    """Errno and payload of a reply that the kernel would accept."""
    data = b"".join(bytes(part) for part in reply)
    length, error, answers = struct.unpack_from("<IiQ", data)
    assert length == len(data), "oh.len must be the number of bytes written"
    assert -512 < error <= 0, "the kernel takes errors of -511 to 0 only"
    assert answers != 0, "0 would be a notification"
    assert not error or len(data) == 16, "an error has no payload"
    if unique is not None:
        assert answers == unique
    return -error, data[16:]


def attributes_of(data: bytes) -> Attributes:
    return Attributes(*struct.unpack("<QQQQQQIIIIIIIIII", data))


def entry_of(data: bytes) -> Entry:
    assert len(data) == 40 + 88
    node, generation, entry_valid, attr_valid, nsec, attr_nsec = struct.unpack_from("<QQQQII", data)
    assert (nsec, attr_nsec) == (0, 0)
    return Entry(node, generation, entry_valid, attr_valid, attributes_of(data[40:]))


def opened_of(data: bytes) -> Opened:
    return Opened(*struct.unpack("<QIi", data))


def dirents(data: bytes, *, plus: bool) -> Iterator[Dirent]:
    offset = 0
    while offset < len(data):
        entry = None
        if plus:
            entry = entry_of(data[offset : offset + 128])
            offset += 128
        ino, following, length, kind = struct.unpack_from("<QQII", data, offset)
        name = data[offset + 24 : offset + 24 + length]
        assert len(name) == length
        assert length
        yield Dirent(name, ino, following, kind, entry)
        offset += (24 + length + 7) & ~7
    assert offset == len(data)


def batch_of(message: bytes) -> Batch:
    number, flags, sequence, count = struct.unpack_from("<QIII", message)
    steps, offset = [], 20
    for _ in range(count):
        op, length, new_length, zero, argument, directory, new_directory, token, pin = (
            struct.unpack_from("<BBBBIQQQQ", message, offset)
        )
        assert zero == 0
        offset += 40
        name = message[offset : offset + length]
        new_name = message[offset + length : offset + length + new_length]
        offset += length + new_length
        steps.append(Step(op, directory, name, new_directory, new_name, argument, token, pin))
    assert offset == len(message)
    return Batch(number, flags, sequence, steps)


FLAGS_6_18 = 0x73FFFFFB
"""``flags`` of the INIT of Linux 6.18 (tests/abi/golden/requests-6.18.txt), bits 0-31."""
FLAGS2_6_18 = 0x5FD
"""``flags2`` there: bits 32-63, shifted down."""


def settings(*, passthrough: bool = False, max_write: int = 1 << 17) -> Settings:
    return Settings(GENERATION, HIDDEN, passthrough, max_write)


def in_session(tree: Tree) -> Export:
    """The disk in the place of an export: the session asks no more of one than ``Tree``."""
    return cast("Export", tree)


class Kernel:
    """One client kernel, on a disk in memory.

    Every request counts as made by thread ``pid``, and raises Refused if the reply says so.
    """

    def __init__(self, disk: MemoryDisk, session: Session | None = None) -> None:
        self.disk = disk
        self.session = session or Session(
            in_session(disk), settings(), disk, lambda thread, key: None
        )
        self.modes: dict[tuple[int, Key], int] = {}
        self._unique = 0
        self.given: dict[int, int] = {}
        """Look-ups that the session has counted for each node, by what it answered."""

    def ask(
        self,
        opcode: int,
        node: int = ROOT,
        body: bytes = b"",
        *,
        uid: int = 0,
        gid: int = 0,
        pid: int = 100,
    ) -> bytes:
        """The payload of a reply.  Raises Refused."""
        found = self.try_ask(opcode, node, body, uid=uid, gid=gid, pid=pid)
        assert found is not None, "no answer"
        return found

    def try_ask(
        self,
        opcode: int,
        node: int = ROOT,
        body: bytes = b"",
        *,
        uid: int = 0,
        gid: int = 0,
        pid: int = 100,
    ) -> bytes | None:
        """The same; None if there is no answer."""
        self._unique += 2
        data = request(opcode, node, body, unique=self._unique, uid=uid, gid=gid, pid=pid)
        reply = self.session.receive(memoryview(data))
        if reply is None:
            return None
        number, payload = checked(reply, self._unique)
        # INTERRUPT may be refused, and has no other answer (fs/fuse/dev.c).
        assert opcode not in WITHOUT_REPLY or (opcode == INTERRUPT and number)
        if number:
            raise Refused(number, errno.errorcode.get(number, str(number)))
        return payload

    @property
    def last_unique(self) -> int:
        return self._unique

    # INIT --------------------------------------------------------------------------

    def init(
        self,
        minor: int = 45,
        flags: int = FLAGS_6_18,
        flags2: int = FLAGS2_6_18,
        *,
        major: int = 7,
        long: bool = True,
    ) -> tuple[int, ...]:
        """INIT; the reply's 12 fields, as ``struct fuse_init_out`` has them."""
        body = struct.pack("<IIII", major, minor, 1 << 17, flags)
        if long:
            body += struct.pack("<I44x", flags2)
        answer = self.ask(INIT, 0, body, pid=0)
        assert len(answer) == 64
        return struct.unpack("<IIIIHHIIHHII24x", answer)

    # Names -------------------------------------------------------------------------

    def lookup(self, name: str | bytes, directory: int = ROOT, **who: int) -> Entry:
        return self._told(self.ask(LOOKUP, directory, _name(name), **who))

    def walk(self, path: str) -> Entry:
        """Looks up every name of a path."""
        node, entry = ROOT, None
        for name in path.split("/"):
            entry = self.lookup(name, node)
            node = entry.node
        assert entry is not None
        return entry

    def _told(self, payload: bytes) -> Entry:
        entry = entry_of(payload)
        self.given[entry.node] = self.given.get(entry.node, 0) + 1
        return entry

    def mknod(
        self, name: str | bytes, mode: int = 0o100644, directory: int = ROOT, rdev: int = 0,
        **who: int,
    ) -> Entry:  # fmt: skip
        body = struct.pack("<IIII", mode, rdev, 0o022, 0) + _name(name)
        return self._told(self.ask(MKNOD, directory, body, **who))

    def mkdir(
        self, name: str | bytes, mode: int = 0o755, directory: int = ROOT, **who: int
    ) -> Entry:
        body = struct.pack("<II", mode, 0o022) + _name(name)
        return self._told(self.ask(MKDIR, directory, body, **who))

    def symlink(self, name: str | bytes, target: bytes, directory: int = ROOT, **who: int) -> Entry:
        return self._told(self.ask(SYMLINK, directory, _name(name) + _name(target), **who))

    def link(self, node: int, name: str | bytes, directory: int = ROOT, **who: int) -> Entry:
        body = struct.pack("<Q", node) + _name(name)
        return self._told(self.ask(LINK, directory, body, **who))

    def create(
        self, name: str | bytes, flags: int = 0o2, mode: int = 0o100644, directory: int = ROOT,
        **who: int,
    ) -> tuple[Entry, Opened]:  # fmt: skip
        body = struct.pack("<IIII", flags | 0o100, mode, 0o022, 0) + _name(name)
        answer = self.ask(CREATE, directory, body, **who)
        return self._told(answer[:128]), opened_of(answer[128:])

    def tmpfile(self, directory: int = ROOT, **who: int) -> tuple[Entry, Opened]:
        body = struct.pack("<IIII", 0o20200002, 0o100600, 0o022, 0) + _name("x")
        answer = self.ask(TMPFILE, directory, body, **who)
        return self._told(answer[:128]), opened_of(answer[128:])

    def unlink(self, name: str | bytes, directory: int = ROOT, **who: int) -> None:
        assert self.ask(UNLINK, directory, _name(name), **who) == b""

    def rmdir(self, name: str | bytes, directory: int = ROOT, **who: int) -> None:
        assert self.ask(RMDIR, directory, _name(name), **who) == b""

    def rename(
        self, old: str | bytes, new: str | bytes, directory: int = ROOT,
        new_directory: int | None = None, flags: int = 0, **who: int,
    ) -> None:  # fmt: skip
        target = directory if new_directory is None else new_directory
        names = _name(old) + _name(new)
        if flags:
            answer = self.ask(
                RENAME2, directory, struct.pack("<QII", target, flags, 0) + names, **who
            )
        else:
            answer = self.ask(RENAME, directory, struct.pack("<Q", target) + names, **who)
        assert answer == b""

    # Nodes -------------------------------------------------------------------------

    def getattr(self, node: int, fh: int | None = None, **who: int) -> Attributes:
        body = struct.pack("<IIQ", fh is not None, 0, fh or 0)
        return _attr_out(self.ask(GETATTR, node, body, **who))

    def setattr(self, node: int, valid: int, fh: int = 0, **fields: int) -> Attributes:
        return _attr_out(self.ask(SETATTR, node, setattr_body(valid, fh, **fields)))

    def forget(self, node: int, lookups: int) -> None:
        assert self.try_ask(FORGET, node, struct.pack("<Q", lookups), pid=0) is None

    def batch_forget(self, pairs: Sequence[tuple[int, int]], count: int | None = None) -> None:
        body = struct.pack("<II", len(pairs) if count is None else count, 0)
        body += b"".join(struct.pack("<QQ", *pair) for pair in pairs)
        assert self.try_ask(BATCH_FORGET, 0, body, pid=0) is None

    def forget_all(self) -> None:
        """Gives back every look-up that was counted."""
        for node, lookups in self.given.items():
            self.forget(node, lookups)
        self.given.clear()

    # Open files and directories ----------------------------------------------------

    def open(self, node: int, flags: int = 0, **who: int) -> Opened:
        return opened_of(self.ask(OPEN, node, struct.pack("<II", flags, 0), **who))

    def release(self, node: int, fh: int) -> None:
        # RELEASE carries no credentials and pid 0.
        assert self.ask(RELEASE, node, struct.pack("<QIIQ", fh, 0, 0, 0), pid=0) == b""

    def read(self, node: int, fh: int, size: int = 4096, offset: int = 0, **who: int) -> bytes:
        body = struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0)
        return self.ask(READ, node, body, **who)

    def write(self, node: int, fh: int, data: bytes, offset: int = 0, **who: int) -> int:
        body = struct.pack("<QQIIQII", fh, offset, len(data), 0, 0, 0, 0) + data
        size, zero = struct.unpack("<II", self.ask(WRITE, node, body, **who))
        assert zero == 0
        return int(size)

    def opendir(self, node: int = ROOT, **who: int) -> Opened:
        return opened_of(self.ask(OPENDIR, node, struct.pack("<II", 0, 0), **who))

    def releasedir(self, node: int, fh: int) -> None:
        assert self.ask(RELEASEDIR, node, struct.pack("<QIIQ", fh, 0, 0, 0), pid=0) == b""

    def readdir(
        self, fh: int, node: int = ROOT, *, plus: bool = True, size: int = 4096, offset: int = 0
    ) -> list[Dirent]:
        body = struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0)
        answer = self.ask(READDIRPLUS if plus else READDIR, node, body)
        assert len(answer) <= size
        found = list(dirents(answer, plus=plus))
        for dirent in found:
            if dirent.entry is not None and dirent.entry.node:
                self.given[dirent.entry.node] = self.given.get(dirent.entry.node, 0) + 1
        return found

    def list(self, node: int = ROOT, *, plus: bool = True) -> dict[bytes, Dirent]:
        """Opens, lists to the end, closes."""
        fh = self.opendir(node).fh
        found: dict[bytes, Dirent] = {}
        offset = 0
        while part := self.readdir(fh, node, plus=plus, offset=offset, size=600):
            found.update({dirent.name: dirent for dirent in part})
            offset = part[-1].next_offset
        self.releasedir(node, fh)
        return found

    # Remote changes ----------------------------------------------------------------

    def deliver(self, *changes: Change, own: frozenset[Place] = frozenset()) -> None:
        """What the source's thread does with a settled batch."""
        self.session.view.drains.begin()
        self.session.deliver(list(changes), own)
        with self.session.view.lock:
            self.session.view.drains.end()


class Agent:
    """The agent's requests, in ``kernel``; threads ``pid`` (replays) and ``pid + 1``."""

    def __init__(self, kernel: Kernel, pid: int = 900) -> None:
        self.kernel = kernel
        self.pid = pid
        self.fh = kernel.opendir(ROOT, pid=pid).fh
        self.parked: int | None = None
        self.sequence = 0

    def ioctl(
        self, command: int, data: bytes, *, node: int = ROOT, flags: int = IOCTL_DIR, uid: int = 0,
        pid: int | None = None, fh: int | None = None,
    ) -> bytes | None:  # fmt: skip
        """The bytes that the caller gets; None if it is parked."""
        body = struct.pack(
            "<QIIQII", self.fh if fh is None else fh, flags, command, 0, len(data), 16383
        )
        answer = self.kernel.try_ask(
            IOCTL, node, body + data, uid=uid, pid=self.pid if pid is None else pid
        )
        if answer is None:
            return None
        assert struct.unpack_from("<iIII", answer) == (0, 0, 0, 0)
        return answer[16:]

    def hello(self, **who: int) -> tuple[int, int, int, bytes]:
        answer = self.ioctl(HELLO, struct.pack("<II", 1, 0), **who)
        assert answer is not None
        version, uid, generation, length = struct.unpack_from("<IIIH", answer)
        assert len(answer) == 14 + length
        return version, uid, generation, answer[14:]

    def watch(
        self, watches: Sequence[tuple[int, int, int]] = (), flags: int = 3, micros: int = 10
    ) -> None:
        body = struct.pack("<III", flags, micros, len(watches))
        body += b"".join(struct.pack("<QII", *watch) for watch in watches)
        assert self.ioctl(WATCH, body, pid=self.pid + 1) == b""

    def wait(
        self,
        done: int = 0,
        failures: Sequence[tuple[int, int]] = (),
        late: Sequence[tuple[int, int]] = (),
    ) -> Batch | None:
        """WAIT; the next batch, or None if parked.  Uid as the last step's, as it is."""
        body = struct.pack("<QII", done, len(failures), len(late))
        body += b"".join(struct.pack("<II", *step) for step in (*failures, *late))
        answer = self.ioctl(WAIT, body, uid=FIRST_UID)
        if answer is None:
            self.parked = self.kernel.last_unique
            return None
        return batch_of(answer)

    def woken(self) -> Batch | None:
        """What the parked WAIT is answered now, if it is."""
        reply = self.kernel.session.answer()
        if reply is None:
            return None
        number, payload = checked(reply, self.parked)
        self.parked = None
        if number:
            raise Refused(number, errno.errorcode[number])
        assert struct.unpack_from("<iIII", payload) == (0, 0, 0, 0)
        return batch_of(payload[16:])

    def register(self) -> Agent:
        """HELLO of both threads, and a scan that found nothing."""
        self.hello()
        self.hello(pid=self.pid + 1)
        self.watch()
        return self


def setattr_body(valid: int, fh: int = 0, **fields: int) -> bytes:
    longs = [fields.pop(name, 0) for name in ("size", "lock_owner", "atime", "mtime", "ctime")]
    short = ("atimensec", "mtimensec", "ctimensec", "mode", "unused", "uid", "gid")
    ints = [fields.pop(name, 0) for name in short]
    assert not fields
    return struct.pack("<IIQ5Q7II", valid, 0, fh, *longs, *ints, 0)


def _attr_out(answer: bytes) -> Attributes:
    assert len(answer) == 16 + 88
    return attributes_of(answer[16:])


def _name(name: str | bytes) -> bytes:
    return (name.encode() if isinstance(name, str) else name) + b"\0"
