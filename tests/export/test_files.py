"""Opening: regular files only, with harmless flags only."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.events import Key
from farwatch.export.tree import SetAttr
from farwatch.linux.credentials import capget
from tests.export.exporting import ROOT, USER, Stage, open_descriptors

pytestmark = pytest.mark.root

# As Linux's asm-generic/fcntl.h has them; O_LARGEFILE is added by the kernel.
O_LARGEFILE = 0o100000
PASSED = os.O_ACCMODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC | os.O_NOATIME


@pytest.fixture(autouse=True)
def no_leak(stage: Stage) -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def _made(stage: Stage, mode: int, rdev: int = 0) -> Key:
    return stage.export.mknod(stage.export.root_key, b"name", mode, rdev, ROOT)[0]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 0o3, os.O_PATH])
def test_what_is_no_file_is_not_opened(stage: Stage, flags: int) -> None:
    export, root = stage.export, stage.export.root_key
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        key = _made(stage, kind | 0o666, os.makedev(1, 5))
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            export.open(key, flags)
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            export.create(root, b"name", 0o644, flags, ROOT)
        with pytest.raises(FileExistsError):
            export.create(root, b"name", 0o644, flags | os.O_EXCL, ROOT)
        export.unlink(root, b"name")
    with pytest.raises(IsADirectoryError):
        export.open(root, flags)
    link, _ = export.symlink(root, b"link", b"name", ROOT)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        export.open(link, flags)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(flags=st.integers(0, 0xFFFFFFFF))
def test_other_flags_are_left_out(stage: Stage, flags: int) -> None:
    (stage.source / "name").write_bytes(b"content")
    key, _ = stage.export.lookup(stage.export.root_key, b"name")
    fd = stage.export.open(key, flags)
    try:
        have = fcntl.fcntl(fd, fcntl.F_GETFL)
        if flags & os.O_SYNC & ~os.O_DSYNC:
            flags |= os.O_DSYNC  # as the kernel does
        assert have & PASSED == flags & PASSED
        assert have & ~PASSED == os.O_NONBLOCK | O_LARGEFILE
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        assert stage.export.getattr(key).st_size == (0 if flags & os.O_TRUNC else 7)
    finally:
        os.close(fd)


def test_a_lease_is_not_waited_for(stage: Stage) -> None:
    (stage.source / "name").write_bytes(b"content")
    key, _ = stage.export.lookup(stage.export.root_key, b"name")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(stage.source / "name", os.O_RDWR)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(BlockingIOError):
            stage.export.open(key, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            stage.export.create(stage.export.root_key, b"name", 0o600, os.O_RDWR, ROOT)
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(stage.export.open(key, os.O_RDONLY))
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_direct_io_may_lie_anywhere(stage: Stage) -> None:
    """A client's buffers, and where they go to, know nothing of this disk's blocks."""
    export, root = stage.export, stage.export.root_key
    flags = os.O_RDWR | os.O_DIRECT
    _, _, fd = export.create(root, b"name", 0o600, flags, ROOT)
    try:
        assert export.write_from(fd, [memoryview(b"!content")[1:]], 3) == 7
    finally:
        os.close(fd)
    fd = export.open(export.lookup(root, b"name")[0], flags)
    try:
        found = bytearray(8)
        assert export.read_into(fd, [memoryview(found)[1:]], 4) == 6
        assert found == b"\0ontent\0"
    finally:
        os.close(fd)


def test_a_file_without_a_name_gets_one(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    key, status, fd = export.tmpfile(root, 0o640, os.O_RDWR | os.O_TRUNC, USER)
    try:
        assert (status.st_uid, status.st_gid, status.st_nlink) == (1000, 1000, 0)
        assert os.listdir(stage.source) == []
        assert export.write_from(fd, [memoryview(b"con"), memoryview(b"tent")], 0) == 7
        assert export.setattr(key, fd, SetAttr(mode=0o600, size=3), ROOT).st_size == 3
        linked, status = export.link(key, root, b"name", fd)
        assert linked == key
        assert status.st_nlink == 1
        assert export.lookup(root, b"name")[0] == key
        assert (stage.source / "name").read_bytes() == b"con"
    finally:
        os.close(fd)


def test_a_file_without_a_name_may_be_bound_to_stay_so(stage: Stage) -> None:
    key, _, fd = stage.export.tmpfile(stage.export.root_key, 0o640, os.O_RDWR | os.O_EXCL, ROOT)
    try:
        with pytest.raises(FileNotFoundError):
            stage.export.link(key, stage.export.root_key, b"name", fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o2644])
@pytest.mark.parametrize("how", ["size", "open size", "write", "open", "create"])
def test_set_id_bits_go_when_asked(stage: Stage, how: str, mode: int) -> None:
    """As they do natively for a user who has not CAP_FSETID and is in no such group."""
    export, root = stage.export, stage.export.root_key
    key = _made(stage, stat.S_IFREG | mode)
    before = capget()
    for kill in (False, True):
        fd = export.open(key, os.O_RDWR)
        try:
            if how == "size":
                export.setattr(key, None, SetAttr(size=5, kill_suidgid=kill), ROOT)
            elif how == "open size":
                export.setattr(key, fd, SetAttr(size=5, kill_suidgid=kill), ROOT)
            elif how == "write":
                export.write_from(fd, [memoryview(b"x")], 0, kill_suidgid=kill)
            elif how == "open":
                os.close(export.open(key, os.O_WRONLY | os.O_TRUNC, kill_suidgid=kill))
            else:
                flags = os.O_WRONLY | os.O_TRUNC
                made = export.create(root, b"name", 0o600, flags, ROOT, kill_suidgid=kill)
                os.close(made[2])
        finally:
            os.close(fd)
        # Root's own group owns the file, so a set-gid bit without group execution may stay.
        stays = mode & ~0o6000 | (0o2000 if mode & 0o2010 == 0o2000 else 0)
        assert export.getattr(key).st_mode & 0o7777 == (stays if kill else mode)
    assert capget() == before


def test_set_gid_directories(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    shared, _ = export.mkdir(root, b"shared", 0o777, ROOT)
    export.setattr(shared, None, SetAttr(gid=2000, mode=0o2777), ROOT)
    _, below = export.mkdir(shared, b"directory", 0o755, USER)
    assert (below.st_mode & 0o7777, below.st_uid, below.st_gid) == (0o2755, 1000, 2000)
    _, file = export.mknod(shared, b"file", 0o2755, 0, USER)
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid) == (0o755, 1000, 2000)
    _, file = export.mknod(shared, b"roots", 0o2755, 0, ROOT)
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid) == (0o2755, 0, 2000)
    _, file, fd = export.create(shared, b"created", 0o2711, os.O_RDWR, USER)
    os.close(fd)
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid) == (0o711, 1000, 2000)
    _, link = export.symlink(shared, b"link", b"x", USER)
    assert (link.st_uid, link.st_gid) == (1000, 2000)
