"""One file, changed at random places in all the ways there are, and a model of it (as fsx).

Everything that is read must be what was written last, whichever of read(2), a mapping, or
another descriptor it is read by.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

from farwatch.linux.files import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    copy_file_range,
    fallocate,
)

LARGEST = 200_000
_MOST = 40_000
_ALIGNED = 4096


class Exerciser:
    """The file at ``path``, which it makes, and what must be in it."""

    def __init__(self, path: Path, seed: int, *, direct: bool = False, mode: int = 0o644) -> None:
        """With ``direct`` it is also written past the cache; ``mode`` is the file's."""
        self._path = path
        self._random = random.Random(seed)
        self._model = bytearray()
        self.done: list[str] = []
        """What was done, the last thing last."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._other = -1
        os.fchmod(self._fd, mode)
        self._reopen()
        self._steps: list[Callable[[], None]] = [
            self._write, self._write, self._write_mapped, self._write_mapped, self._read,
            self._read, self._read_mapped, self._read_mapped, self._truncate, self._append,
            self._punch, self._zero, self._allocate, self._copy, self._read_by_another,
            self._reopen, self._sync, self._seek,
        ]  # fmt: skip
        if direct:
            self._steps += [self._write_direct, self._read_direct]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        os.close(self._other)

    def run(self, steps: int) -> None:
        """So many random steps; AssertionError where something else is read than written."""
        for _ in range(steps):
            self._random.choice(self._steps)()
            size = os.fstat(self._fd).st_size
            assert size == len(self._model), self._story(f"size {size}, not {len(self._model)}")

    def content(self) -> bytes:
        """What must be in the file."""
        return bytes(self._model)

    def _story(self, what: str) -> str:
        return "; ".join([*self.done[-12:], what])

    def _note(self, what: str, start: int, size: int) -> None:
        self.done.append(f"{what} {start}+{size}")

    def _place(self, *, within: bool = True) -> tuple[int, int]:
        end = len(self._model) if within else LARGEST
        start = self._random.randrange(end + 1)
        return start, min(self._random.randrange(1, _MOST), end - start)

    def _bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _put(self, start: int, data: bytes) -> None:
        if start > len(self._model):
            self._model.extend(bytes(start - len(self._model)))
        self._model[start : start + len(data)] = data

    def _same(self, what: str, start: int, found: bytes, size: int) -> None:
        self._note(what, start, size)
        expected = self._model[start : start + size]
        if found == expected:
            return
        pairs = enumerate(zip(found, expected, strict=False))
        first = next((i for i, (one, other) in pairs if one != other), len(found))
        raise AssertionError(self._story(f"{len(found)} bytes, differing from {start + first} on"))

    def _write(self) -> None:
        start, size = self._place(within=False)
        data = self._bytes(size)
        self._note("write", start, size)
        assert os.pwrite(self._fd, data, start) == size
        if size:
            self._put(start, data)

    def _append(self) -> None:
        data = self._bytes(self._random.randrange(1, 3000))
        self._note("append", len(self._model), len(data))
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self._put(len(self._model), data)
        if len(self._model) > 2 * LARGEST:
            self._truncate()

    def _write_mapped(self) -> None:
        start, size = self._place()
        if not size:
            return
        data = self._bytes(size)
        with mmap.mmap(self._fd, len(self._model)) as mapping:
            mapping[start : start + size] = data
            if self._random.random() < 0.3:
                mapping.flush()
        self._note("write mapped", start, size)
        self._put(start, data)

    def _read(self) -> None:
        start, size = self._place()
        self._same("read", start, os.pread(self._fd, size, start), size)

    def _read_mapped(self) -> None:
        start, size = self._place()
        if size:
            with mmap.mmap(self._fd, len(self._model), prot=mmap.PROT_READ) as mapping:
                self._same("read mapped", start, mapping[start : start + size], size)

    def _read_by_another(self) -> None:
        start, size = self._place()
        self._same("read by another", start, os.pread(self._other, size, start), size)

    def _truncate(self) -> None:
        size = self._random.randrange(LARGEST)
        self._note("truncate", size, 0)
        if self._random.random() < 0.5:
            os.ftruncate(self._fd, size)
        else:
            os.truncate(self._path, size)
        self._model = self._model[:size].ljust(size, b"\0")

    def _punch(self) -> None:
        start, size = self._place()
        if size:
            self._note("punch", start, size)
            fallocate(self._fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, size)
            self._put(start, bytes(size))

    def _zero(self) -> None:
        start, size = self._place(within=False)
        if size:
            self._note("zero", start, size)
            fallocate(self._fd, FALLOC_FL_ZERO_RANGE, start, size)
            self._put(start, bytes(size))

    def _allocate(self) -> None:
        start, size = self._place(within=False)
        if size:
            self._note("allocate", start, size)
            fallocate(self._fd, 0, start, size)
            self._model.extend(bytes(max(0, start + size - len(self._model))))

    def _copy(self) -> None:
        start, size = self._place()
        to = self._random.randrange(LARGEST)
        if not size or (start < to + size and to < start + size):
            return
        self._note(f"copy to {to} from", start, size)
        copied = 0
        while copied < size:
            copied += copy_file_range(
                self._fd, start + copied, self._fd, to + copied, size - copied
            )
        self._put(to, bytes(self._model[start : start + size]))

    def _reopen(self) -> None:
        self.done.append("reopen")
        os.close(self._fd)
        if self._other >= 0:
            os.close(self._other)
        self._fd = os.open(self._path, os.O_RDWR)
        self._other = os.open(self._path, os.O_RDONLY)

    def _sync(self) -> None:
        self.done.append("sync")
        self._random.choice((os.fsync, os.fdatasync))(self._fd)

    def _seek(self) -> None:
        """What lies in a hole reads as nothing."""
        start, _ = self._place()
        if start >= len(self._model):
            return
        hole = os.lseek(self._fd, start, os.SEEK_HOLE)
        try:
            data = os.lseek(self._fd, hole, os.SEEK_DATA)
        except OSError:
            data = len(self._model)
        self._note("hole", hole, data - hole)
        assert not any(self._model[hole:data]), self._story("there is data in a hole")

    def _write_direct(self) -> None:
        start = self._random.randrange(0, LARGEST, _ALIGNED)
        size = self._random.randrange(_ALIGNED, _MOST, _ALIGNED)
        data = self._bytes(size)
        self._note("write directly", start, size)
        fd = os.open(self._path, os.O_RDWR | os.O_DIRECT)
        try:
            with mmap.mmap(-1, size) as buffer:
                buffer[:] = data
                assert os.pwritev(fd, [buffer], start) == size
        finally:
            os.close(fd)
        self._put(start, data)

    def _read_direct(self) -> None:
        start = self._random.randrange(0, LARGEST, _ALIGNED)
        expected = max(0, min(_ALIGNED, len(self._model) - start))
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, _ALIGNED) as buffer:
                read = os.preadv(fd, [buffer], start)
                self._same("read directly", start, buffer[:read], expected)
        finally:
            os.close(fd)
