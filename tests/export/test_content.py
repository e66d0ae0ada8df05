"""Positioned I/O, and numbers that are too large for the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from farwatch.linux.files import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
from tests.export.exporting import ROOT, Stage

pytestmark = pytest.mark.root

HUGE = (1 << 63, (1 << 64) - 1)
BLOCK = 65536


@pytest.fixture
def fd(stage: Stage) -> Iterator[int]:
    _, _, fd = stage.export.create(stage.export.root_key, b"name", 0o600, os.O_RDWR, ROOT)
    try:
        yield fd
    finally:
        os.close(fd)


def test_reading_and_writing(stage: Stage, fd: int) -> None:
    export = stage.export
    assert export.write_from(fd, [memoryview(b"hel"), memoryview(b"lo")], 3) == 5
    export.fsync(fd, True)
    export.fsync(fd, False)
    first, second = bytearray(4), bytearray(10)
    assert export.read_into(fd, [memoryview(first), memoryview(second)], 0) == 8
    assert (bytes(first), bytes(second[:4])) == (b"\0\0\0h", b"ello")
    assert export.read_into(fd, [memoryview(first)], 8) == 0


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2048, 3000])
def test_any_number_of_buffers(stage: Stage, fd: int, count: int) -> None:
    """The kernel takes 1,024 in one call."""
    export = stage.export
    content = bytes(number % 251 for number in range(3 * count))
    whole = memoryview(content)
    parts = [whole[3 * number : 3 * number + 3] for number in range(count)]
    assert export.write_from(fd, parts, 5) == len(content)
    assert (stage.source / "name").read_bytes() == bytes(5) + content
    found = memoryview(bytearray(len(content) + 3))
    rooms = [found[3 * number : 3 * number + 3] for number in range(count + 1)]
    assert export.read_into(fd, rooms, 5) == len(content)
    assert bytes(found) == content + bytes(3)
    assert export.read_into(fd, rooms, 5 + len(content) - 2) == 2
    reading = os.open(stage.source / "name", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            export.write_from(reading, parts, 0)
    finally:
        os.close(reading)


def test_holes(stage: Stage, fd: int) -> None:
    export = stage.export
    export.fallocate(fd, 0, 0, 4 * BLOCK)
    export.write_from(fd, [memoryview(bytes(4 * BLOCK))], 0)
    export.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK)
    assert export.lseek(fd, 0, os.SEEK_HOLE) == BLOCK
    assert export.lseek(fd, BLOCK, os.SEEK_DATA) == 2 * BLOCK
    assert export.getattr_open(fd).st_size == 4 * BLOCK
    with pytest.raises(OSError, match="No such device or address"):
        export.lseek(fd, 4 * BLOCK, os.SEEK_DATA)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 77):
        with pytest.raises(OSError, match="Invalid argument"):
            export.lseek(fd, 0, whence)


def test_copying(stage: Stage, fd: int) -> None:
    export = stage.export
    export.write_from(fd, [memoryview(b"content")], 0)
    _, _, other = export.create(export.root_key, b"other", 0o600, os.O_RDWR, ROOT)
    try:
        assert export.copy_file_range(fd, 3, other, 1, (1 << 64) - 1, 0) == 4
        assert (stage.source / "other").read_bytes() == b"\0tent"
        for flags in (1, 1 << 40):
            with pytest.raises(OSError, match="Invalid argument"):
                export.copy_file_range(fd, 0, other, 0, 1, flags)
    finally:
        os.close(other)


@pytest.mark.parametrize("number", HUGE)
def test_numbers_that_no_file_has(stage: Stage, fd: int, number: int) -> None:
    export = stage.export
    view = memoryview(bytearray(1))
    for operation in (
        lambda: export.read_into(fd, [view], number),
        lambda: export.write_from(fd, [view], number),
        lambda: export.fallocate(fd, 0, number, 1),
        lambda: export.fallocate(fd, 0, 1, number),
        lambda: export.fallocate(fd, 0xFFFFFFFF, 0, 1),
        lambda: export.copy_file_range(fd, number, fd, 0, 1, 0),
        lambda: export.copy_file_range(fd, 0, fd, number, 1, 0),
    ):
        with pytest.raises(OSError, match="Invalid argument"):
            operation()
    # What lseek(2) says of a place before the file's beginning.
    with pytest.raises(OSError, match="No such device or address"):
        export.lseek(fd, number, os.SEEK_DATA)
