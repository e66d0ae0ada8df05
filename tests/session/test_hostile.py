"""A client that means harm: nothing it sends may raise, hang, or be answered badly.

``checked`` in kernel.py says what a good answer is.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.session import kernel as k
from tests.session.kernel import ROOT, Kernel, checked, request, setattr_body
from tests.session.memory import MemoryDisk

NAME = b"name\0"
BODIES = {
    k.LOOKUP: NAME,
    k.FORGET: struct.pack("<Q", 1),
    k.GETATTR: struct.pack("<IIQ", 1, 0, 1),
    k.SETATTR: setattr_body(0x1FF, 1, size=3, mode=0o600, atime=1, mtime=2),
    k.READLINK: b"",
    k.SYMLINK: b"new\0target\0",
    k.MKNOD: struct.pack("<IIII", 0o100644, 0, 0o22, 0) + b"made\0",
    k.MKDIR: struct.pack("<II", 0o755, 0o22) + b"madedir\0",
    k.UNLINK: NAME,
    k.RMDIR: b"directory\0",
    k.RENAME: struct.pack("<Q", ROOT) + b"name\0other\0",
    k.LINK: struct.pack("<Q", 16) + b"link\0",
    k.OPEN: struct.pack("<II", 2, 0),
    k.READ: struct.pack("<QQIIQII", 1, 0, 100, 0, 0, 0, 0),
    k.WRITE: struct.pack("<QQIIQII", 1, 0, 4, 0, 0, 0, 0) + b"data",
    k.STATFS: b"",
    k.RELEASE: struct.pack("<QIIQ", 1, 0, 0, 0),
    k.FSYNC: struct.pack("<QII", 1, 0, 0),
    k.SETXATTR: struct.pack("<II", 1, 0) + b"user.a\0v",
    k.GETXATTR: struct.pack("<II", 10, 0) + b"user.a\0",
    k.LISTXATTR: struct.pack("<II", 10, 0),
    k.REMOVEXATTR: b"user.a\0",
    k.FLUSH: struct.pack("<QIIQ", 1, 0, 0, 0),
    k.INIT: struct.pack("<5I44x", 7, 45, 0, k.FLAGS_6_18, k.FLAGS2_6_18),
    k.OPENDIR: struct.pack("<II", 0, 0),
    k.READDIR: struct.pack("<QQIIQII", 1, 0, 100, 0, 0, 0, 0),
    k.RELEASEDIR: struct.pack("<QIIQ", 1, 0, 0, 0),
    k.FSYNCDIR: struct.pack("<QII", 1, 0, 0),
    k.GETLK: struct.pack("<4Q4I", 1, 9, 0, 100, 1, 7, 0, 0),
    k.SETLK: struct.pack("<4Q4I", 1, 9, 0, 100, 1, 7, 0, 0),
    k.SETLKW: struct.pack("<4Q4I", 1, 9, 0, 100, 0, 7, 1, 0),
    k.ACCESS: struct.pack("<II", 4, 0),
    k.CREATE: struct.pack("<IIII", 0o102, 0o100644, 0o22, 0) + b"created\0",
    k.INTERRUPT: struct.pack("<Q", 2),
    k.DESTROY: b"",
    k.IOCTL: struct.pack("<QIIQII", 1, k.IOCTL_DIR, k.HELLO, 0, 8, 100) + struct.pack("<II", 1, 0),
    k.BATCH_FORGET: struct.pack("<IIQQQQ", 2, 0, 16, 1, 17, 1),
    k.FALLOCATE: struct.pack("<QQQII", 1, 0, 10, 0, 0),
    k.READDIRPLUS: struct.pack("<QQIIQII", 1, 0, 400, 0, 0, 0, 0),
    k.RENAME2: struct.pack("<QII", ROOT, 2, 0) + b"name\0other\0",
    k.LSEEK: struct.pack("<QQII", 1, 0, 3, 0),
    k.COPY_FILE_RANGE: struct.pack("<7Q", 1, 0, 16, 1, 50, 10, 0),
    k.SYNCFS: struct.pack("<Q", 0),
    k.TMPFILE: struct.pack("<IIII", 2, 0o100600, 0, 0) + b"x\0",
    k.STATX: bytes(24),
}
"""A good request of every opcode."""
OPCODES = sorted(BODIES)
UIDS = (0, 1000, k.FIRST_UID, k.FIRST_UID + 1, k.FIRST_UID + 0xFFFF, 0xFFFFFFFF)


class Target:
    """A session that is used on and on, with a file and a directory open as handle 1."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.kernel = Kernel(self.disk)
        self.prepare()

    def prepare(self) -> None:
        self.kernel.init()
        for path in ("name", "other"):
            if path.encode() not in self.disk.root.children:
                self.disk.do_file(path, b"content")
        if b"directory" not in self.disk.root.children:
            self.disk.do_mkdir("directory")
        self.kernel.open(self.kernel.lookup("name").node, os.O_RDWR)
        self.kernel.opendir()

    def send(self, data: bytes) -> int | None:
        """The errno of the answer; None if there is none."""
        if self.kernel.session.agreed is None:
            self.kernel.session.close()
            self.prepare()
        reply = self.kernel.session.receive(memoryview(data))
        if reply is None:
            return None
        unique = struct.unpack_from("<Q", data, 8)[0]
        number, _ = checked(reply, unique)
        return number


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.kernel.session.close()
    made.disk.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def no_faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is farwatch's own fault is logged as an error."""
    caplog.set_level(logging.ERROR)
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize("uid", UIDS)
def test_cut_off_at_every_length(target: Target, opcode: int, uid: int) -> None:
    whole = request(opcode, ROOT, BODIES[opcode], uid=uid)
    for length in range(40, len(whole) + 1):
        for says in (length, len(whole)):
            data = struct.pack("<I", says) + whole[4:length]
            number = target.send(data)
            if number is None:
                assert opcode in (*k.WITHOUT_REPLY, k.INIT, k.IOCTL, k.SETLKW)


@pytest.mark.parametrize("length", range(40))
def test_a_cut_off_header_has_no_answer(target: Target, length: int) -> None:
    assert target.send(request(k.GETATTR, ROOT, BODIES[k.GETATTR])[:length]) is None


@pytest.mark.parametrize("says", [0, 1, 39, 41, 1 << 31, 0xFFFFFFFF])
def test_a_header_that_lies_about_its_length(target: Target, says: int) -> None:
    for opcode in OPCODES:
        data = request(opcode, ROOT, BODIES[opcode])
        target.send(struct.pack("<I", says) + data[4:])


NODES = st.sampled_from([0, 1, 2, 3, 16, 17, 18, 19, (1 << 64) - 1]) | st.integers(0, 1 << 64).map(
    lambda number: number % (1 << 64)
)


@settings(max_examples=400)
@given(
    st.sampled_from(OPCODES) | st.integers(0, 0xFFFFFFFF),
    NODES,
    st.binary(max_size=120),
    st.sampled_from(UIDS),
    st.sampled_from([0, 1, 100, 900]),
)
def test_any_bytes(target: Target, opcode: int, node: int, body: bytes, uid: int, pid: int) -> None:
    target.send(request(opcode, node, body, uid=uid, pid=pid))


@settings(max_examples=400)
@given(st.sampled_from(OPCODES), NODES, st.data())
def test_good_requests_with_some_bytes_changed(
    target: Target, opcode: int, node: int, data: st.DataObject
) -> None:
    body = bytearray(BODIES[opcode])
    if body:
        for _ in range(data.draw(st.integers(1, 4))):
            where = data.draw(st.integers(0, len(body) - 1))
            body[where] = data.draw(st.sampled_from([0, 1, 0x2F, 0x2E, 0x7F, 0x80, 0xFF]))
    target.send(request(opcode, node, bytes(body), uid=data.draw(st.sampled_from(UIDS))))


@settings(max_examples=200)
@given(st.sampled_from(OPCODES), st.binary(min_size=1, max_size=40))
def test_more_than_was_asked(target: Target, opcode: int, more: bytes) -> None:
    target.send(request(opcode, ROOT, BODIES[opcode] + more))


@pytest.mark.parametrize("count", [0, 3, 0xFFFF, 0xFFFFFFFF])
def test_a_batch_forget_that_lies_about_its_count(target: Target, count: int) -> None:
    body = struct.pack("<IIQQQQ", count, 0, 16, 1, 99, 1)
    assert target.send(request(k.BATCH_FORGET, 0, body)) is None


@pytest.mark.parametrize("size", [1 << 17, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
def test_huge_sizes(target: Target, size: int) -> None:
    for opcode in (k.READ, k.READDIR, k.READDIRPLUS):
        assert target.send(
            request(opcode, ROOT, struct.pack("<QQIIQII", 1, 0, size, 0, 0, 0, 0))
        ) in (0, errno.EBADF)
    for opcode in (k.GETXATTR, k.LISTXATTR):
        body = struct.pack("<II", size, 0) + (b"user.no\0" if opcode == k.GETXATTR else b"")
        assert target.send(request(opcode, ROOT, body)) in (0, errno.ENODATA)


def test_nobody_else_is_the_agent(target: Target) -> None:
    """WAIT and WATCH on a descriptor that has not said HELLO."""
    for command in (k.WAIT, k.WATCH):
        body = struct.pack("<QIIQII", 777, k.IOCTL_DIR, command, 0, 16, 100) + bytes(16)
        assert target.send(request(k.IOCTL, ROOT, body)) == errno.EPERM


def test_memory_is_not_kept_for_unknown_nodes(target: Target) -> None:
    before = len(target.kernel.session.view.nodes)
    for node in range(10_000, 12_000):
        target.send(request(k.LOOKUP, node, NAME))
        target.send(request(k.FORGET, node, struct.pack("<Q", 1)))
        target.send(request(k.GETATTR, node, BODIES[k.GETATTR]))
    assert len(target.kernel.session.view.nodes) == before
