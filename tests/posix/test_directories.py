"""Directories on a mount: listings while they change, removed directories, the longest paths."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.export.directories import Directories, Directory, DirEntry

pytestmark = pytest.mark.root

MANY = 150


@contextmanager
def listing(path: Path) -> Iterator[Directory]:
    """The directory, to be read by its positions (getdents64)."""
    with Directories(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as directories:
        with directories.opendir(directories.root_key) as directory:
            yield directory


def read_on(directory: Directory, offset: int) -> list[DirEntry]:
    found: list[DirEntry] = []
    while some := directory.read(offset, 700):
        found += some
        offset = some[-1].next_offset
    return found


def test_a_listing_while_entries_come_and_go(tops: tuple[Path, Path]) -> None:
    for top in tops:
        for number in range(MANY):
            (top / f"stays{number}").touch()
            (top / f"goes{number}").touch()
        with listing(top) as directory:
            found = directory.read(0, 3000)
            for number in range(MANY):
                (top / f"goes{number}").unlink()
                (top / f"comes{number}").touch()
            found += read_on(directory, found[-1].next_offset)
        names = [entry.name for entry in found if entry.name.startswith(b"stays")]
        assert sorted(names) == sorted(b"stays%d" % number for number in range(MANY)), top
        kept = [entry for entry in found if entry.name.startswith(b"stays")]
        for entry in kept[::50]:
            assert entry.ino == os.lstat(os.path.join(os.fsencode(top), entry.name)).st_ino


def test_a_place_in_a_listing_stays_good(tops: tuple[Path, Path]) -> None:
    for top in tops:
        for number in range(MANY):
            (top / f"n{number}").touch()
        with listing(top) as directory:
            first = read_on(directory, 0)
            middle = len(first) // 2
            gone = {entry.name for entry in first[::7] if entry.name.startswith(b"n")}
            for name in gone:
                os.unlink(os.path.join(os.fsencode(top), name))
            expected = [entry.name for entry in first[middle + 1 :] if entry.name not in gone]
            # Back to where it was, twice, and with another descriptor.
            for _ in range(2):
                again = read_on(directory, first[middle].next_offset)
                assert [entry.name for entry in again] == expected, top
        with listing(top) as another:
            later = read_on(another, first[middle].next_offset)
            assert [entry.name for entry in later] == expected, top


IN_REMOVED: tuple[Callable[[int], object], ...] = (
    lambda fd: os.mkdir("x", dir_fd=fd),
    lambda fd: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd),
    lambda fd: os.open("x", os.O_RDONLY, dir_fd=fd),
    lambda fd: os.symlink("x", "y", dir_fd=fd),
    lambda fd: os.stat("..", dir_fd=fd).st_nlink,
    lambda fd: os.rename(".", "x", src_dir_fd=fd, dst_dir_fd=fd),
    lambda fd: os.unlink("x", dir_fd=fd),
    os.listdir,
    lambda fd: os.fchmod(fd, 0o700),
    lambda fd: oct(os.fstat(fd).st_mode),
    lambda fd: os.fstat(fd).st_nlink,
)


def test_a_removed_directory(tops: tuple[Path, Path]) -> None:
    outcomes = []
    for top in tops:
        (top / "d").mkdir()
        fd = os.open(top / "d", os.O_RDONLY | os.O_DIRECTORY)
        (top / "d").rmdir()
        outcomes.append([_said(call, fd) for call in IN_REMOVED])
        os.close(fd)
    assert outcomes[0] == outcomes[1]


def _said(call: Callable[[int], object], fd: int = -1) -> object:
    try:
        return call(fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def test_paths_as_long_as_they_may_be(tops: tuple[Path, Path]) -> None:
    outcomes = []
    for top in tops:
        before = os.getcwd()
        try:
            os.chdir(top)
            for _ in range(18):
                os.mkdir("d" * 250)
                os.chdir("d" * 250)
            Path("deep").write_bytes(b"x")
            said: list[object] = [os.path.getsize("deep"), os.listdir(".")]
            os.chdir(top)
            longest = "/".join(["d" * 250] * 16)
            said.append(os.path.isdir(longest))
            said += [_said(_stat_path(length)) for length in (4094, 4095, 4096, 4097)]
            os.symlink("t" * 4095, "longest")
            said.append(os.readlink("longest"))
        finally:
            os.chdir(before)
        outcomes.append(said)
    assert outcomes[0] == outcomes[1]


def _stat_path(length: int) -> Callable[[int], object]:
    return lambda _: os.stat(("./" * length)[:length]).st_nlink
