"""Many pieces of memory, moved by one call: the same bytes as by Python's own calls."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.linux.pages import MOST, PAGE, Area

START = 1 << 40
PAGES = 64


@pytest.fixture
def area() -> Area:
    view = memoryview(mmap.mmap(-1, PAGES * PAGE))
    view[:] = random.Random(0).randbytes(PAGES * PAGE)
    return Area(view, START)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    made = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


def places(count: int) -> list[int]:
    chance = random.Random(1)
    return [START + PAGE * number for number in chance.sample(range(PAGES), count)]


def held(area: Area, some: list[int], size: int) -> bytes:
    whole = b"".join(area.view[at - START : at - START + PAGE] for at in some)
    return whole[:size]


@pytest.mark.parametrize("count", [1, 2, 63])
@pytest.mark.parametrize("last", [1, PAGE - 1, PAGE])
def test_written_and_read_in_their_order(area: Area, fd: int, count: int, last: int) -> None:
    some = places(count)
    pages = area.pages(some, last)
    assert pages is not None
    assert (len(pages), pages.size) == (count, PAGE * (count - 1) + last)
    content = held(area, some, pages.size)
    assert b"".join(pages) == content
    assert pages.write(fd, 3) == pages.size
    assert os.pread(fd, pages.size + 10, 3) == content
    before = bytes(area.view)
    for view in pages:
        view[:] = bytes(len(view))
    assert bytes(area.view) != before
    assert pages.read(fd, 3) == pages.size
    assert bytes(area.view) == before


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 4 * PAGE, 9 * PAGE])
def test_no_more_than_the_first_bytes(area: Area, fd: int, size: int) -> None:
    some = places(4)
    pages = area.pages(some, 100)
    assert pages is not None
    first = pages.first(size)
    assert first.size == min(size, pages.size)
    assert b"".join(first) == held(area, some, first.size)
    os.pwrite(fd, b"x" * 5 * PAGE, 0)
    before = held(area, some, 4 * PAGE)
    assert first.read(fd, 0) == first.size
    assert held(area, some, 4 * PAGE) == b"x" * first.size + before[first.size :]


def test_as_many_as_there_may_be(area: Area, fd: int) -> None:
    some = [START + PAGE * (number % PAGES) for number in range(MOST)]
    pages = area.pages(some, PAGE)
    assert pages is not None
    assert pages.write(fd, 0) == MOST * PAGE
    assert os.pread(fd, MOST * PAGE, 0) == held(area, some, MOST * PAGE)


@pytest.mark.parametrize(
    "wrong",
    [
        0,
        START - 1,
        START - PAGE,
        START + PAGES * PAGE - PAGE + 1,
        START + PAGES * PAGE,
        (1 << 64) - 1,
    ],
)
def test_none_outside(area: Area, wrong: int) -> None:
    for place in range(3):
        some = places(3)
        some[place] = wrong
        assert area.pages(some, 1) is None


def test_a_call_that_fails(area: Area, fd: int) -> None:
    pages = area.pages(places(2), PAGE)
    assert pages is not None
    with pytest.raises(OSError, match="Invalid") as refused:
        pages.read(fd, -1)
    assert refused.value.errno == errno.EINVAL
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file") as refused:
            pages.write(read_only, 0)
        assert refused.value.errno == errno.EBADF
    finally:
        os.close(read_only)
