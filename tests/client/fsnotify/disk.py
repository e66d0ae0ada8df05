"""The same operations on a real directory, and real inotify instances that watch it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from farwatch.abi.inotify import InotifyEvent, parse
from farwatch.linux.files import renameat2
from farwatch.linux.inotify import Inotify


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A new directory on a file system that nobody else looks at.

    A process that finds files by their handles (a server of the file system does, for each
    event of it) holds their names for a moment, and so puts DELETE_SELF off.
    """
    shared_memory = Path("/dev/shm")
    place = shared_memory if os.access(shared_memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="farwatch-", dir=place) as root:
        yield Path(root)


class Disk:
    """A directory on a local file system; use as a context manager.

    Every operation raises OSError as its system call does.
    """

    def __init__(self, root: Path, groups: int) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._modes = 0
        self.groups = [Inotify() for _ in range(groups)]
        self._buffer = bytearray(1 << 20)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)
        for group in self.groups:
            group.close()

    def open(self, path: bytes, flags: int) -> int:
        return os.open(path or b".", flags | os.O_CLOEXEC, 0o644, dir_fd=self._root)

    def read(self, fd: int) -> None:
        os.pread(fd, 1, 0)

    def write(self, fd: int) -> None:
        os.pwrite(fd, b"x", 0)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fchmod(self, fd: int) -> None:
        os.fchmod(fd, 0o700)

    def close(self, fd: int) -> None:
        os.close(fd)

    def chmod(self, path: bytes) -> None:
        os.chmod(path or b".", 0o700, dir_fd=self._root)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._path(path), size)

    def mkdir(self, path: bytes) -> None:
        os.mkdir(path or b".", dir_fd=self._root)

    def link(self, path: bytes, new: bytes) -> None:
        os.link(path or b".", new or b".", src_dir_fd=self._root, dst_dir_fd=self._root)

    def unlink(self, path: bytes) -> None:
        os.unlink(path or b".", dir_fd=self._root)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(path or b".", dir_fd=self._root)

    def rename(self, path: bytes, new: bytes, *, exchange: bool) -> None:
        renameat2(self._root, path or b".", self._root, new or b".", 2 if exchange else 0)

    def add_watch(self, group: int, path: bytes, mask: int) -> int:
        return self.groups[group].add(self._path(path), mask)

    def rm_watch(self, group: int, wd: int) -> None:
        self.groups[group].remove(wd)

    def heard(self, group: int) -> list[InotifyEvent]:
        """All that waits in a group."""
        events: list[InotifyEvent] = []
        while True:
            try:
                size = self.groups[group].read(self._buffer)
            except BlockingIOError:
                return events
            events += parse(bytes(self._buffer[:size]))

    def _path(self, path: bytes) -> bytes:
        return b"/proc/self/fd/%d/%s" % (self._root, path)
