"""Writes archives as the kernel unpacks them: cpio, "newc", not compressed.

Each entry is a header of 13 hexadecimal numbers of 8 digits after "070701", the name with
its NUL, and the data, name and data padded to 4 bytes; "TRAILER!!!" ends an archive
(Documentation/driver-api/early-userspace/buffer-format.rst).  Archives may be joined,
each beginning at a multiple of 4; of a name that comes twice the last one stays.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

FIELDS = 13
DIRECTORY = stat.S_IFDIR | 0o755


class Archive:
    """An archive that is being written.  Everything in it belongs to root."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._made = {PurePosixPath("/")}

    def add(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file with the content ``data``."""
        self._entry(path, stat.S_IFREG | mode, data, 0)

    def copy(self, source: Path, path: str | None = None) -> None:
        """A regular file of this machine, by default under its own path."""
        status = source.stat()
        mode = stat.S_IFREG | stat.S_IMODE(status.st_mode)
        self._entry(path or str(source), mode, source.read_bytes(), int(status.st_mtime))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._entry(path, stat.S_IFLNK | 0o777, os.fsencode(target), 0)

    def directory(self, path: str) -> None:
        """A directory, and those above it."""
        self._directories(PurePosixPath(path))

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self._entry(path, stat.S_IFCHR | 0o600, b"", 0, (major, minor))

    def close(self) -> None:
        """Write the end.  The file stays the caller's."""
        self._write("TRAILER!!!", 0, b"", 0, (0, 0))

    def _entry(
        self, path: str, mode: int, data: bytes, time: int, device: tuple[int, int] = (0, 0)
    ) -> None:
        where = PurePosixPath(path)
        self._directories(where.parent)
        self._write(str(where), mode, data, time, device)

    def _directories(self, path: PurePosixPath) -> None:
        for directory in (*reversed(path.parents), path):
            if directory not in self._made:
                self._made.add(directory)
                self._write(str(directory), DIRECTORY, b"", 0, (0, 0))

    def _write(self, path: str, mode: int, data: bytes, time: int, device: tuple[int, int]) -> None:
        self._inode += 1
        name = os.fsencode(path.lstrip("/")) + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        numbers = (self._inode, mode, 0, 0, links, time, len(data), 0, 0, *device, len(name), 0)
        assert len(numbers) == FIELDS
        header = b"070701" + b"".join(b"%08x" % number for number in numbers)
        self._file.write(_padded(header + name) + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
