"""Mappings of one file on MNT and on SRC, and O_DIRECT.

What passes the server by (passthrough) is the same pages on both sides.  What does not, as a
file that is set-user-id, has pages of its own on MNT: what is written to a mapping there is
on SRC after msync(2), and what is written on SRC is in it once MNT has heard of that.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting.mounted import Area, wait_until

pytestmark = pytest.mark.root

PAGE = mmap.PAGESIZE
MODES = {"passthrough": 0o644, "served": 0o644 | stat.S_ISUID}


class Sides:
    """A file of two pages, open and mapped on both sides."""

    def __init__(self, area: Area, mode: int) -> None:
        path = area.src / "f"
        path.write_bytes(b"a" * 2 * PAGE)
        path.chmod(mode)
        self.path: Path = area.mnt / "f"
        self.mnt = os.open(self.path, os.O_RDWR)
        self.src = os.open(path, os.O_RDWR)
        self.on_mnt = mmap.mmap(self.mnt, 2 * PAGE)
        self.on_src = mmap.mmap(self.src, 2 * PAGE)

    def close(self) -> None:
        self.on_mnt.close()
        self.on_src.close()
        os.close(self.mnt)
        os.close(self.src)
        self.path.unlink()


@pytest.fixture
def same(area: Area) -> Iterator[Sides]:
    sides = Sides(area, MODES["passthrough"])
    yield sides
    sides.close()


@pytest.fixture
def own(area: Area) -> Iterator[Sides]:
    sides = Sides(area, MODES["served"])
    yield sides
    sides.close()


def test_the_same_pages(same: Sides) -> None:
    same.on_src[:4] = b"from"
    assert same.on_mnt[:4] == os.pread(same.mnt, 4, 0) == b"from"
    same.on_mnt[PAGE : PAGE + 4] = b"back"
    assert same.on_src[PAGE : PAGE + 4] == os.pread(same.src, 4, PAGE) == b"back"
    os.pwrite(same.src, b"src", 0)
    assert same.on_mnt[:3] == b"src"
    os.pwrite(same.mnt, b"mnt", 0)
    assert same.on_src[:3] == b"mnt"


def test_pages_of_its_own(own: Sides) -> None:
    assert own.on_mnt[:1] == b"a"
    own.on_mnt[PAGE : PAGE + 4] = b"back"
    own.on_mnt.flush()
    assert own.on_src[PAGE : PAGE + 4] == b"back"
    os.pwrite(own.mnt, b"mnt", 0)
    assert own.on_src[:3] == own.on_mnt[:3] == b"mnt"
    os.pwrite(own.src, b"src", 0)
    # Asking for its status is what makes the client look whether it has changed.
    wait_until(
        lambda: own.path.stat().st_size and own.on_mnt[:3] == b"src", "the mapping is renewed"
    )
    assert os.pread(own.mnt, 3, 0) == b"src"


def test_a_mapping_that_grows(area: Area) -> None:
    """What is mapped beyond the end is there once the file is longer, whoever makes it so."""
    path = area.src / "grows"
    path.write_bytes(b"x" * PAGE)
    fd = os.open(area.mnt / "grows", os.O_RDWR)
    try:
        with mmap.mmap(fd, PAGE) as mapped, path.open("r+b") as file:
            file.truncate(1)
            file.truncate(PAGE)
            file.seek(PAGE - 1)
            file.write(b"z")
            file.flush()
            assert (mapped[0], mapped[1], mapped[PAGE - 1]) == (ord("x"), 0, ord("z"))
    finally:
        os.close(fd)
        path.unlink()


@pytest.mark.parametrize("mode", MODES)
def test_direct(area: Area, mode: str) -> None:
    path = area.src / "direct"
    path.write_bytes(b"a" * 4 * PAGE)
    path.chmod(MODES[mode])
    fd = os.open(area.mnt / "direct", os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, PAGE)
    try:
        buffer[:] = b"d" * PAGE
        assert os.pwritev(fd, [buffer], PAGE) == PAGE
        assert path.read_bytes() == b"a" * PAGE + b"d" * PAGE + b"a" * 2 * PAGE
        path.write_bytes(b"n" * 4 * PAGE)
        # Made anew: it was empty in between, which MNT may have heard of, and not yet more.
        wait_until(lambda: os.preadv(fd, [buffer], 2 * PAGE) == PAGE, "it is longer again")
        assert buffer[:] == b"n" * PAGE
        assert os.preadv(fd, [buffer], 4 * PAGE) == 0
        if mode == "passthrough":
            with pytest.raises(OSError, match="Invalid argument"):
                os.pread(fd, 3, 1)
    finally:
        buffer.close()
        os.close(fd)
        (area.mnt / "direct").unlink()


def test_advice(area: Area) -> None:
    (area.src / "advised").write_bytes(b"a" * 4 * PAGE)
    fd = os.open(area.mnt / "advised", os.O_RDWR)
    try:
        for advice in (
            os.POSIX_FADV_NORMAL, os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_RANDOM,
            os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED, os.POSIX_FADV_NOREUSE,
        ):  # fmt: skip
            os.posix_fadvise(fd, 0, 0, advice)
        assert os.pread(fd, 5, PAGE) == b"aaaaa"
    finally:
        os.close(fd)
        (area.mnt / "advised").unlink()
