"""System calls on files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.linux import files
from tests.linux import areas


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a").write_bytes(b"content")
    with areas.opened(tmp_path) as fd:
        yield fd


def times(fd: int, name: str = "a") -> tuple[int, int]:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return status.st_atime_ns, status.st_mtime_ns


def test_rename_without_replacing(fd: int) -> None:
    os.close(os.open("b", os.O_CREAT, dir_fd=fd))
    with pytest.raises(FileExistsError) as caught:
        files.renameat2(fd, b"a", fd, b"b", files.RENAME_NOREPLACE)
    assert caught.value.filename == b"a"
    files.renameat2(fd, b"a", fd, b"c", files.RENAME_NOREPLACE)
    assert sorted(os.listdir(fd)) == ["b", "c"]


def test_rename_exchanges(fd: int) -> None:
    os.mkdir("b", dir_fd=fd)
    files.renameat2(fd, b"a", fd, b"b", files.RENAME_EXCHANGE)
    assert stat.S_ISDIR(os.stat("a", dir_fd=fd).st_mode)


@pytest.mark.parametrize("time", [0, 1, 999_999_999, 1_073_741_822, 1_700_000_000_123_456_789])
def test_times_are_nanoseconds(fd: int, time: int) -> None:
    files.utimensat(fd, b"a", time, time + 1)
    assert times(fd) == (time, time + 1)


def test_times_before_the_epoch(fd: int) -> None:
    files.utimensat(fd, b"a", -1, -1_500_000_000)
    assert times(fd) == (-1, -1_500_000_000)


def test_times_left_out(fd: int) -> None:
    files.utimensat(fd, b"a", 5, 6)
    files.utimensat(fd, b"a", files.OMIT, 7)
    assert times(fd) == (5, 7)
    files.utimensat(fd, b"a", files.NOW, files.OMIT)
    atime, mtime = times(fd)
    assert atime > 1_500_000_000_000_000_000
    assert mtime == 7


def test_times_of_a_link_and_of_a_descriptor(fd: int) -> None:
    os.symlink("a", "l", dir_fd=fd)
    files.utimensat(fd, b"l", 1, 2, files.AT_SYMLINK_NOFOLLOW)
    assert times(fd, "l") == (1, 2)
    pinned = os.open("a", os.O_PATH, dir_fd=fd)
    try:
        files.utimensat(pinned, b"", 3, 4, files.AT_EMPTY_PATH)
    finally:
        os.close(pinned)
    assert times(fd) == (3, 4)


@pytest.mark.root
def test_link_of_a_descriptor(fd: int) -> None:
    unnamed = os.open(".", os.O_TMPFILE | os.O_WRONLY, dir_fd=fd)
    try:
        files.linkat(unnamed, b"", fd, b"named", files.AT_EMPTY_PATH)
    finally:
        os.close(unnamed)
    assert os.stat("named", dir_fd=fd).st_nlink == 1


def test_statx_agrees_with_stat(fd: int) -> None:
    want = os.stat("a", dir_fd=fd)
    got = files.statx(fd, b"a", files.AT_STATX_FORCE_SYNC)
    for name in ("mode", "nlink", "uid", "gid", "ino", "size", "blocks", "blksize", "rdev", "dev"):
        assert getattr(got, name) == getattr(want, f"st_{name}"), name
    for name in ("atime", "mtime", "ctime"):
        assert getattr(got, name) == getattr(want, f"st_{name}_ns"), name
    assert 0 < got.btime <= got.ctime
    assert got.mask & files.STATX_BTIME
    assert files.statx(fd).ino == os.fstat(fd).st_ino
    with areas.opened(os.devnull, os.O_PATH) as null:
        assert files.statx(null).rdev == os.stat(os.devnull).st_rdev


def test_statx_from_many_threads(fd: int) -> None:
    wrong: list[int] = []
    for number in range(6):
        os.close(os.open(str(number), os.O_CREAT, dir_fd=fd))

    def work(name: bytes) -> None:
        inode = os.stat(name, dir_fd=fd).st_ino
        wrong.extend(1 for _ in range(500) if files.statx(fd, name).ino != inode)

    threads = [threading.Thread(target=work, args=(b"%d" % number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fallocate_makes_a_hole(fd: int) -> None:
    file = os.open("a", os.O_RDWR, dir_fd=fd)
    try:
        files.fallocate(file, files.FALLOC_FL_PUNCH_HOLE | files.FALLOC_FL_KEEP_SIZE, 1, 3)
        assert os.pread(file, 9, 0) == b"c\0\0\0ent"
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            files.fallocate(file, 0, 0, 0)
    finally:
        os.close(file)


def test_copy_file_range(fd: int) -> None:
    source = os.open("a", os.O_RDONLY, dir_fd=fd)
    target = os.open("b", os.O_RDWR | os.O_CREAT, dir_fd=fd)
    try:
        assert files.copy_file_range(source, 3, target, 1, 100) == 4
        assert os.pread(target, 9, 0) == b"\0tent"
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            files.copy_file_range(source, 0, target, 0, 1, 99)
    finally:
        os.close(source)
        os.close(target)


def test_openat2_stays_beneath(fd: int) -> None:
    os.close(files.openat2(fd, b"a", os.O_RDONLY, resolve=files.RESOLVE_BENEATH))
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EXDEV):
        files.openat2(fd, b"..", os.O_RDONLY, resolve=files.RESOLVE_BENEATH)


def test_ioctl_fills_a_buffer() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"abc")
        number = ctypes.c_int()
        array = (ctypes.c_int * 1)()
        buffer = bytearray(4)
        for target in (number, array, buffer, memoryview(buffer)):
            assert files.ioctl(reader, termios.FIONREAD, target) == 0
        assert (number.value, array[0]) == (3, 3)
        assert struct.unpack("=i", buffer) == (3,)
        with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOTTY):
            files.ioctl(reader, termios.TIOCGWINSZ, bytearray(64))
    finally:
        os.close(reader)
        os.close(writer)
