"""Requests about attributes, extended attributes, open files and directories."""

from __future__ import annotations

import os
import struct

import pytest

from tests.session.kernel import (
    ACCESS,
    BMAP,
    COPY_FILE_RANGE,
    FALLOCATE,
    FLUSH,
    FSYNC,
    FSYNCDIR,
    GETXATTR,
    LISTXATTR,
    LSEEK,
    POLL,
    READ,
    READDIR,
    READDIRPLUS,
    RELEASE,
    REMOVEXATTR,
    ROOT,
    SETXATTR,
    STATFS,
    Kernel,
    Refused,
)

MODE, UID, GID, SIZE, ATIME, MTIME, FH, ATIME_NOW, MTIME_NOW = (1 << bit for bit in range(9))
KILL = 1 << 11


# Attributes -----------------------------------------------------------------------------


def test_getattr_of_the_root(kernel: Kernel) -> None:
    kernel.disk.do_mkdir("d")
    told = kernel.getattr(ROOT)
    assert (told.mode, told.nlink, told.ino) == (0o40755, 3, kernel.disk.root.ino)


def test_chmod_chown_truncate_and_times(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"12345")
    node = kernel.lookup("f").node
    assert kernel.setattr(node, MODE, mode=0o104711).mode == 0o104711
    told = kernel.setattr(node, UID | GID, uid=5, gid=6)
    assert (told.uid, told.gid) == (5, 6)
    assert kernel.setattr(node, SIZE, size=2).size == 2
    told = kernel.setattr(node, ATIME | MTIME, atime=3, atimensec=4, mtime=5, mtimensec=6)
    assert (told.atime, told.atimensec, told.mtime, told.mtimensec) == (3, 4, 5, 6)
    inode = kernel.disk.at("f")
    assert (inode.content(), inode.mode, inode.uid) == (b"12", 0o104711, 5)
    assert kernel.getattr(node)._replace(ctime=0) == told._replace(ctime=0)


def test_only_what_is_valid_is_set(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"12345")
    node = kernel.lookup("f").node
    before = kernel.disk.snapshot()
    kernel.setattr(node, 0, size=1, mode=0, uid=9, gid=9, atime=9, mtime=9)
    assert kernel.disk.snapshot() == before


def test_times_before_1970(kernel: Kernel) -> None:
    kernel.disk.do_file("f")
    node = kernel.lookup("f").node
    told = kernel.setattr(node, MTIME, mtime=(1 << 64) - 2, mtimensec=500_000_000)
    assert kernel.disk.at("f").times[1] == -1_500_000_000
    assert (told.mtime, told.mtimensec) == ((1 << 64) - 2, 500_000_000)


def test_times_of_now(kernel: Kernel) -> None:
    kernel.disk.do_file("f")
    node = kernel.lookup("f").node
    kernel.setattr(node, ATIME | ATIME_NOW, atime=1)
    assert kernel.disk.at("f").times[0] == 5_000_000_000
    kernel.setattr(node, MTIME_NOW)
    assert kernel.disk.at("f").times[1] == 5_000_000_000


@pytest.mark.parametrize("nanoseconds", [1_000_000_000, 0xFFFFFFFF])
def test_nanoseconds_that_are_none(kernel: Kernel, nanoseconds: int) -> None:
    kernel.disk.do_file("f")
    with pytest.raises(Refused, match="EINVAL"):
        kernel.setattr(kernel.lookup("f").node, MTIME, mtimensec=nanoseconds)
    assert "setattr" not in kernel.disk.journal


def test_an_owner_of_minus_one_is_refused(kernel: Kernel) -> None:
    kernel.disk.do_file("f")
    with pytest.raises(Refused, match="EINVAL"):
        kernel.setattr(kernel.lookup("f").node, UID, uid=0xFFFFFFFF)


def test_setattr_by_handle(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"12345")
    node = kernel.lookup("f").node
    fh = kernel.open(node, os.O_RDWR).fh
    kernel.setattr(node, FH | SIZE, fh, size=1)
    assert kernel.disk.at("f").content() == b"1"
    with pytest.raises(Refused, match="EBADF"):
        kernel.setattr(node, FH | SIZE, fh + 1, size=0)
    kernel.release(node, fh)


def test_what_is_changed_by_handle_alone_is_told_under_its_name(kernel: Kernel) -> None:
    kernel.disk.do_mkdir("d")
    kernel.disk.do_file("d/f", b"x")
    node = kernel.walk("d/f").node
    kernel.setattr(node, MODE, mode=0o600)
    kernel.release(node, kernel.open(node).fh)
    kernel.ask(SETXATTR, node, struct.pack("<II", 1, 0) + b"user.a\0b")
    kernel.ask(REMOVEXATTR, node, b"user.a\0")
    assert kernel.disk.places == [kernel.disk.place("d/f")] * 4


def test_statfs(kernel: Kernel) -> None:
    answer = struct.unpack("<QQQQQIIIIIIIIII", kernel.ask(STATFS, ROOT))
    assert answer[:8] == (1000, 900, 800, 700, 600, 4096, 255, 4096)
    assert answer[8:] == (0,) * 7


# Extended attributes --------------------------------------------------------------------


def setxattr(kernel: Kernel, node: int, name: bytes, value: bytes, flags: int = 0) -> None:
    body = struct.pack("<II", len(value), flags) + name + b"\0" + value
    assert kernel.ask(SETXATTR, node, body) == b""


def test_extended_attributes(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    setxattr(kernel, node, b"user.a", b"1\x002")
    setxattr(kernel, node, b"user.bc", b"")
    ask = struct.pack("<II", 100, 0)
    size = struct.pack("<II", 0, 0)
    assert kernel.ask(GETXATTR, node, ask + b"user.a\0") == b"1\x002"
    assert kernel.ask(GETXATTR, node, size + b"user.a\0") == struct.pack("<II", 3, 0)
    assert kernel.ask(GETXATTR, node, ask + b"user.bc\0") == b""
    assert kernel.ask(LISTXATTR, node, ask) == b"user.a\0user.bc\0"
    assert kernel.ask(LISTXATTR, node, size) == struct.pack("<II", 15, 0)
    short = struct.pack("<II", 2, 0)
    with pytest.raises(Refused, match="ERANGE"):
        kernel.ask(GETXATTR, node, short + b"user.a\0")
    with pytest.raises(Refused, match="ERANGE"):
        kernel.ask(LISTXATTR, node, short)
    assert kernel.ask(REMOVEXATTR, node, b"user.a\0") == b""
    for act, body in ((GETXATTR, ask + b"user.a\0"), (REMOVEXATTR, b"user.a\0")):
        with pytest.raises(Refused, match="ENODATA"):
            kernel.ask(act, node, body)


@pytest.mark.parametrize(
    ("flags", "name", "error"),
    [(1, b"user.a", "EEXIST"), (2, b"user.b", "ENODATA"), (4, b"user.b", "EINVAL")],
)
def test_flags_of_setxattr(kernel: Kernel, flags: int, name: bytes, error: str) -> None:
    node = kernel.mknod("f").node
    setxattr(kernel, node, b"user.a", b"1")
    with pytest.raises(Refused, match=error):
        setxattr(kernel, node, name, b"2", flags)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<II", 3, 0) + b"user.a\0ab",
        struct.pack("<II", 1, 0) + b"user.a\0ab",
        struct.pack("<II", 0, 0) + b"user.a",
        struct.pack("<II", 65537, 0) + b"user.a\0" + bytes(65537),
        struct.pack("<II", 0, 0) + b"\0",
    ],
    ids=["short value", "long value", "no end", "huge", "no name"],
)
def test_bad_setxattr(kernel: Kernel, body: bytes) -> None:
    node = kernel.mknod("f").node
    with pytest.raises(Refused, match=r"EINVAL|ERANGE"):
        kernel.ask(SETXATTR, node, body)
    assert kernel.disk.at("f").xattrs == {}


# Open files -----------------------------------------------------------------------------


def test_read_write_and_release(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"0123456789")
    node = kernel.lookup("f").node
    fh = kernel.open(node, os.O_RDWR).fh
    assert kernel.read(node, fh, 4, 2) == b"2345"
    assert kernel.read(node, fh, 4, 8) == b"89"
    assert kernel.read(node, fh, 4, 10) == b""
    assert kernel.write(node, fh, b"XY", 9) == 2
    assert kernel.getattr(node, fh).size == 11
    kernel.release(node, fh)
    for act in (
        lambda: kernel.read(node, fh),
        lambda: kernel.write(node, fh, b""),
        lambda: kernel.release(node, fh),
        lambda: kernel.getattr(node, fh),
    ):
        with pytest.raises(Refused, match="EBADF"):
            act()
    assert kernel.disk.at("f").content() == b"012345678XY"


def test_file_handles_are_not_used_again(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    seen = set()
    for _ in range(20):
        fh = kernel.open(node).fh
        assert fh not in seen
        seen.add(fh)
        kernel.release(node, fh)


def test_a_huge_read_gives_no_more_than_was_agreed(kernel: Kernel) -> None:
    kernel.disk.do_file("f", bytes(300_000))
    node = kernel.lookup("f").node
    fh = kernel.open(node).fh
    assert len(kernel.read(node, fh, 0xFFFFFFFF)) == 1 << 17
    with pytest.raises(Refused, match="EINVAL"):
        kernel.read(node, fh, 1, 1 << 63)
    kernel.release(node, fh)


def test_a_write_that_says_another_size(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    fh = kernel.open(node, os.O_RDWR).fh
    for size in (0, 2, 4, 0xFFFFFFFF):
        with pytest.raises(Refused, match="EINVAL"):
            kernel.ask(16, node, struct.pack("<QQIIQII", fh, 0, size, 0, 0, 0, 0) + b"abc")
    assert kernel.disk.at("f").content() == b""
    kernel.release(node, fh)


def test_what_was_opened_for_reading_is_not_written(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    fh = kernel.open(node, os.O_RDONLY).fh
    with pytest.raises(Refused, match="EBADF"):
        kernel.write(node, fh, b"x")
    kernel.release(node, fh)


def test_fsync_flush_fallocate_lseek_and_copy(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"0123456789")
    node = kernel.lookup("f").node
    other = kernel.mknod("g").node
    fh, other_fh = kernel.open(node, os.O_RDWR).fh, kernel.open(other, os.O_RDWR).fh
    assert kernel.ask(FSYNC, node, struct.pack("<QII", fh, 0, 0)) == b""
    assert kernel.ask(FSYNC, node, struct.pack("<QII", fh, 1, 0)) == b""
    assert kernel.ask(FLUSH, node, struct.pack("<QIIQ", fh, 0, 0, 0)) == b""
    assert kernel.ask(FALLOCATE, node, struct.pack("<QQQII", fh, 0, 20, 0, 0)) == b""
    assert kernel.getattr(node).size == 20
    assert kernel.ask(LSEEK, node, struct.pack("<QQII", fh, 0, 3, 0)) == struct.pack("<Q", 0)
    with pytest.raises(Refused, match="EINVAL"):
        kernel.ask(LSEEK, node, struct.pack("<QQII", fh, 0, 0, 0))
    with pytest.raises(Refused, match="ENXIO"):
        kernel.ask(LSEEK, node, struct.pack("<QQII", fh, 1000, 3, 0))
    copy = struct.pack("<7Q", fh, 2, other, other_fh, 0, 5, 0)
    assert kernel.ask(COPY_FILE_RANGE, node, copy) == struct.pack("<II", 5, 0)
    assert kernel.disk.at("g").content() == b"23456"
    for opened in ((node, fh), (other, other_fh)):
        kernel.release(*opened)


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "symlink"])
def test_only_regular_files_are_opened(kernel: Kernel, kind: str) -> None:
    node = {
        "directory": lambda: kernel.mkdir("n"),
        "fifo": lambda: kernel.mknod("n", 0o010644),
        "device": lambda: kernel.mknod("n", 0o020644, rdev=0x103),
        "symlink": lambda: kernel.symlink("n", b"x"),
    }[kind]().node
    with pytest.raises(Refused, match=r"EISDIR|ENXIO"):
        kernel.open(node)
    assert "open" not in kernel.disk.journal


def test_a_handle_of_another_kind(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    fh = kernel.open(node).fh
    directory_fh = kernel.opendir().fh + 100
    body = struct.pack("<QQIIQII", directory_fh, 0, 100, 0, 0, 0, 0)
    for opcode in (READ, READDIR, READDIRPLUS):
        with pytest.raises(Refused, match="EBADF"):
            kernel.ask(opcode, node, body)
    for opcode in (FSYNC, FSYNCDIR):
        with pytest.raises(Refused, match="EBADF"):
            kernel.ask(opcode, node, struct.pack("<QII", directory_fh, 0, 0))
    kernel.release(node, fh)


def test_everything_is_closed_at_the_end(kernel: Kernel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    node = kernel.mknod("f").node
    made = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        kernel.open(node)
        kernel.opendir()
    assert len(os.listdir("/proc/self/fd")) == made + 5
    kernel.session.close()
    assert len(os.listdir("/proc/self/fd")) == made
    assert made == before + 1  # the file itself
    assert kernel.disk.open_directories == 0


@pytest.mark.parametrize("opcode", [ACCESS, BMAP, POLL, 7, 19, 54, 4096, 0, 0xFFFFFFFF])
def test_what_there_is_none_of(kernel: Kernel, opcode: int) -> None:
    """ENOSYS: the kernel does access checks by itself, and asks no more."""
    with pytest.raises(Refused, match="ENOSYS"):
        kernel.ask(opcode, ROOT, bytes(64))


# Directories ----------------------------------------------------------------------------


@pytest.mark.parametrize("plus", [False, True])
def test_listing(kernel: Kernel, plus: bool) -> None:
    for number in range(40):
        kernel.disk.do_file(f"name {number} {'x' * (number % 9)}")
    kernel.disk.do_mkdir("d")
    kernel.disk.do_symlink("l", b"x")
    found = kernel.list(plus=plus)
    assert set(found) == {b".", b".."} | set(kernel.disk.root.children)
    assert (found[b"d"].type, found[b"l"].type) == (4, 10)
    assert found[b"d"].ino == kernel.disk.at("d").ino
    assert kernel.disk.open_directories == 0


def test_readdirplus_tells_what_a_lookup_would(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"123")
    found = kernel.list()
    entry = found[b"f"].entry
    assert entry is not None
    assert entry == kernel.lookup("f")
    for dots in (b".", b".."):
        told = found[dots].entry
        assert told is not None
        assert told.node == 0
    assert kernel.session.view.nodes.by_id[entry.node].lookups == 2


@pytest.mark.parametrize("size", [0, 1, 24, 151, 152, 300])
@pytest.mark.parametrize("plus", [False, True])
def test_a_small_buffer_gets_whole_entries(kernel: Kernel, size: int, plus: bool) -> None:
    for number in range(5):
        kernel.disk.do_file(f"n{number}")
    fh = kernel.opendir().fh
    found = kernel.readdir(fh, plus=plus, size=size)
    assert len(found) == min(7, size // ((128 if plus else 0) + 32))
    nodes = kernel.session.view.nodes
    lookups = sum(node.lookups for node in nodes.by_id.values()) - 1
    # What did not fit was not counted as told.
    told = [entry for entry in found if entry.entry is not None and entry.entry.node]
    assert lookups == len(told)
    kernel.releasedir(ROOT, fh)


def test_listing_of_what_is_no_directory(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="ENOTDIR"):
        kernel.opendir(kernel.mknod("f").node)


def test_an_odd_offset(kernel: Kernel) -> None:
    fh = kernel.opendir().fh
    assert kernel.readdir(fh, offset=1000) == []
    with pytest.raises(Refused, match="EINVAL"):
        kernel.readdir(fh, offset=(1 << 64) - 1)
    assert kernel.ask(FSYNCDIR, ROOT, struct.pack("<QII", fh, 1, 0)) == b""
    kernel.releasedir(ROOT, fh)
    with pytest.raises(Refused, match="EBADF"):
        kernel.readdir(fh)


def test_destroy_closes_everything(kernel: Kernel) -> None:
    node = kernel.mknod("f").node
    before = len(os.listdir("/proc/self/fd"))
    kernel.open(node)
    kernel.opendir()
    assert kernel.ask(38, 0) == b""
    assert len(os.listdir("/proc/self/fd")) == before
    assert kernel.disk.open_directories == 0
    with pytest.raises(Refused, match="EIO"):
        kernel.getattr(node)
    kernel.init()
    with pytest.raises(Refused, match="ESTALE"):
        kernel.getattr(node)


def test_release_of_a_file_that_is_no_file(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="EBADF"):
        kernel.ask(RELEASE, ROOT, struct.pack("<QIIQ", 12345, 0, 0, 0))
