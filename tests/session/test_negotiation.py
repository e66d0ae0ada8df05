"""INIT: what is agreed with kernels of every age."""

from __future__ import annotations

import errno
import struct

import pytest

from farwatch.session.session import Session
from tests.session.kernel import (
    FLAGS2_6_18,
    FLAGS_6_18,
    FORGET,
    GETATTR,
    INIT,
    LOOKUP,
    OPEN,
    Kernel,
    Refused,
    in_session,
    settings,
)
from tests.session.memory import MemoryDisk

# Bits of linux/fuse.h 7.41, by hand.
INIT_EXT = 1 << 30
WRITEBACK_CACHE, CACHE_SYMLINKS, EXPLICIT_INVAL_DATA = 1 << 16, 1 << 23, 1 << 25
POSIX_LOCKS, FLOCK_LOCKS, POSIX_ACL, DONT_MASK = 1 << 1, 1 << 10, 1 << 20, 1 << 6
ATOMIC_O_TRUNC, NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT = 1 << 3, 1 << 17, 1 << 24
HANDLE_KILLPRIV_V1, SUBMOUNTS, SETXATTR_EXT = 1 << 19, 1 << 27, 1 << 29
EXPORT_SUPPORT, AUTO_INVAL_DATA, HAS_IOCTL_DIR, MAX_PAGES = 1 << 4, 1 << 12, 1 << 11, 1 << 22
SECURITY_CTX, HAS_INODE_DAX, CREATE_SUPP_GROUP, HAS_EXPIRE_ONLY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
DIRECT_IO_ALLOW_MMAP, PASSTHROUGH, NO_EXPORT, HAS_RESEND, ALLOW_IDMAP = (
    1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8,
)  # fmt: skip
ALL = 0xFFFFFFFF
KEEPS_MARKS = 1 << 29
"""In flags2: nothing is passed through for who asks for that."""


@pytest.fixture
def fresh(disk: MemoryDisk) -> Kernel:
    return Kernel(disk)


def passing_through(disk: MemoryDisk) -> Kernel:
    session = Session(in_session(disk), settings(passthrough=True), disk, lambda thread, key: None)
    return Kernel(disk, session)


def test_linux_6_18(fresh: Kernel) -> None:
    major, minor, readahead, flags, background, congestion, write, gran, pages, _, flags2, depth = (
        fresh.init(45)
    )
    assert (major, minor, readahead) == (7, 45, 1 << 17)
    assert write == 1 << 17
    assert pages == write // 4096
    assert gran == 1
    assert 0 < congestion <= background
    assert depth == 0
    wanted = EXPORT_SUPPORT | AUTO_INVAL_DATA | HAS_IOCTL_DIR | MAX_PAGES | INIT_EXT
    assert flags & wanted == wanted
    assert flags2 & HAS_EXPIRE_ONLY


@pytest.mark.parametrize("minor", range(31, 46))
def test_every_minor_version_is_met(disk: MemoryDisk, minor: int) -> None:
    fresh = Kernel(disk)
    answer = fresh.init(minor, ALL, ALL, long=minor >= 36)
    assert answer[:2] == (7, minor)
    assert bool(answer[10]) == (minor >= 36)
    fresh.getattr(1)


def test_a_newer_minor_version_is_answered_with_ours(fresh: Kernel) -> None:
    assert fresh.init(99, ALL, ALL)[1] == 45


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 45), (1, 1), (0, 0)])
def test_too_old(fresh: Kernel, major: int, minor: int) -> None:
    with pytest.raises(Refused) as refused:
        fresh.init(minor, major=major, long=False)
    assert refused.value.errno == errno.EPROTO
    assert fresh.session.agreed is None


def test_a_higher_major_is_asked_to_come_again(fresh: Kernel) -> None:
    answer = fresh.init(0, major=8)
    assert answer[0] == 7
    with pytest.raises(Refused) as refused:
        fresh.getattr(1)
    assert refused.value.errno == errno.EIO
    assert fresh.init(45)[:2] == (7, 45)
    fresh.getattr(1)


@pytest.mark.parametrize(
    ("bit", "why"),
    [
        (WRITEBACK_CACHE, "hides sizes and times of the remote side"),
        (CACHE_SYMLINKS, "trusts what is cached"),
        (EXPLICIT_INVAL_DATA, "trusts what is cached"),
        (POSIX_ACL, "where the file system has no access control lists"),
        (DONT_MASK, "the umask matters where there are such lists"),
        (ATOMIC_O_TRUNC, "an open would change the file"),
        (NO_OPEN_SUPPORT, "opens are wanted"),
        (NO_OPENDIR_SUPPORT, "the agent's descriptor is known by its fh"),
        (HANDLE_KILLPRIV_V1, "V2 is"),
        (SUBMOUNTS, "there are none"),
        (SETXATTR_EXT, "says something of access control lists only"),
    ],
)
def test_never_negotiated(fresh: Kernel, bit: int, why: str) -> None:
    assert not fresh.init(45, ALL, ALL)[3] & bit, why


@pytest.mark.parametrize("bit", [ALLOW_IDMAP, SECURITY_CTX, HAS_INODE_DAX, NO_EXPORT, HAS_RESEND])
def test_never_negotiated_of_the_upper_half(disk: MemoryDisk, bit: int) -> None:
    # ALLOW_IDMAP would blank the user id that marks a replay.
    assert not passing_through(disk).init(45, ALL, ALL)[10] & bit


def test_nothing_is_agreed_that_was_not_offered(fresh: Kernel) -> None:
    answer = fresh.init(45, 0, 0)
    assert (answer[3], answer[10]) == (0, 0)
    for bit in range(32):
        flags = Kernel(fresh.disk).init(45, 1 << bit, 0)[3]
        assert flags in (0, 1 << bit)


def test_the_upper_half_counts_only_with_init_ext(disk: MemoryDisk) -> None:
    assert Kernel(disk).init(45, ALL & ~INIT_EXT, ALL)[10] == 0
    assert Kernel(disk).init(35, ALL, ALL)[10] == 0
    assert Kernel(disk).init(45, ALL, ALL, long=False)[10] == 0


@pytest.mark.parametrize(
    ("minor", "flags2", "agreed"),
    [(39, ALL, False), (40, ALL, True), (45, ALL, True), (45, ALL & ~PASSTHROUGH, False)],
)
def test_passthrough(disk: MemoryDisk, minor: int, flags2: int, agreed: bool) -> None:
    kernel = passing_through(disk)
    answer = kernel.init(minor, ALL, flags2 & ~KEEPS_MARKS)
    assert bool(answer[10] & PASSTHROUGH) == agreed
    # Depth 0 would switch it off in the kernel: fs/fuse/inode.c, process_init_reply.
    assert answer[11] == (1 if agreed else 0)


def test_passthrough_is_not_taken_unless_the_server_may(fresh: Kernel) -> None:
    answer = fresh.init(45, ALL, ALL)
    assert not answer[10] & PASSTHROUGH
    assert answer[11] == 0


@pytest.mark.parametrize(("minor", "noflush"), [(31, False), (34, False), (35, True), (45, True)])
def test_open_without_flush_since_7_35(disk: MemoryDisk, minor: int, noflush: bool) -> None:
    disk.do_file("f")
    fresh = Kernel(disk)
    fresh.init(minor, FLAGS_6_18, FLAGS2_6_18, long=minor >= 36)
    opened = fresh.open(fresh.lookup("f").node)
    assert bool(opened.flags & 1 << 5) == noflush
    fresh.session.close()


@pytest.mark.parametrize("length", range(16))
def test_a_cut_off_init_is_refused(fresh: Kernel, length: int) -> None:
    with pytest.raises(Refused) as refused:
        fresh.ask(INIT, 0, struct.pack("<4I", 7, 45, 0, ALL)[:length])
    assert refused.value.errno == errno.EINVAL
    assert fresh.session.agreed is None


@pytest.mark.parametrize("length", range(16, 64))
def test_a_half_long_init_counts_as_a_short_one(fresh: Kernel, length: int) -> None:
    body = struct.pack("<5I44x", 7, 45, 0, ALL, ALL)[:length]
    answer = fresh.ask(INIT, 0, body)
    assert struct.unpack_from("<I", answer, 32) == (0,)


@pytest.mark.parametrize("opcode", [LOOKUP, GETATTR, OPEN])
def test_nothing_else_comes_before_init(fresh: Kernel, opcode: int) -> None:
    with pytest.raises(Refused) as refused:
        fresh.ask(opcode, 1, bytes(64))
    assert refused.value.errno == errno.EIO


def test_forget_before_init_has_no_answer(fresh: Kernel) -> None:
    assert fresh.try_ask(FORGET, 1, bytes(8)) is None


def test_a_second_init_starts_anew(kernel: Kernel) -> None:
    """A guest that was reset has sent no DESTROY, and knows no node any more."""
    kernel.disk.do_file("f")
    node = kernel.lookup("f").node
    kernel.init(31, 0, long=False)
    with pytest.raises(Refused) as refused:
        kernel.getattr(node)
    assert refused.value.errno == errno.ESTALE
    assert kernel.getattr(kernel.lookup("f").node).mode == 0o100644
