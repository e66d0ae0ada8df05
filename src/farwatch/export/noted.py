"""An export that says what it does itself, for a source that cannot tell whose an event is.

Everything here that raises an event is done within ``source.doing``, which is told the names
and nodes that it concerns.  What only reads is said while somebody is told of reading.

What is done to descriptors by others than the export itself (closing, locking) is done
within ``about``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from farwatch.events import READING, Key, Mask, Place
from farwatch.export.attributes import SetAttr
from farwatch.export.directories import Directory, DirEntry
from farwatch.export.pinned import PinnedExport
from farwatch.export.setid import Groups, no_groups
from farwatch.export.tree import Caller
from farwatch.linux.files import RENAME_EXCHANGE
from farwatch.linux.pages import Pages
from farwatch.sources.inotify import Doing, InotifySource

_CREATE = int(Mask.CREATE)
_DELETE = int(Mask.DELETE)
_MOVED_FROM = int(Mask.MOVED_FROM)
_MOVED_TO = int(Mask.MOVED_TO)
_READING = int(READING)


class NotedDirectory(Directory):
    """A directory that is read and closed within ``reading``."""

    def __init__(
        self,
        fd: int,
        buffer: ctypes.Array[ctypes.c_char],
        tag: int,
        reading: Callable[[], AbstractContextManager[object]],
    ) -> None:
        super().__init__(fd, buffer, tag)
        self._reading = reading

    def read(self, offset: int, size_hint: int) -> list[DirEntry]:
        """As Directory's."""
        with self._reading():
            return super().read(offset, size_hint)

    def close(self) -> None:
        """As Directory's."""
        with self._reading():
            super().close()


class NotedExport(PinnedExport):
    """An export by pins, which an InotifySource follows."""

    def __init__(self, mount_fd: int, source: InotifySource) -> None:
        """``source`` stays the caller's; it can be read from now on."""
        self._source = source
        self._by_number: dict[int, Key] = {}
        """What the client's descriptors were opened on, by their numbers."""
        source.attach(self)
        super().__init__(mount_fd, source)

    def about(self, node: Key) -> AbstractContextManager[Doing]:
        """In its ``with``, what happens to the node is this thread's doing."""
        return self._source.doing(node)

    def reading(self, node: Key) -> AbstractContextManager[Doing | None]:
        """The same, for what only reads."""
        return self._source.doing(node) if self._source.wanted & _READING else nullcontext()

    def _by_fd(self, *numbers: int) -> AbstractContextManager[Doing]:
        nodes = [self._by_number.get(fd) for fd in numbers]
        return self._source.doing(*(node for node in nodes if node is not None))

    def _reading_fd(self, fd: int) -> AbstractContextManager[Doing | None]:
        return self._by_fd(fd) if self._source.wanted & _READING else nullcontext()

    @contextmanager
    def _making(self, directory: Key, name: bytes) -> Iterator[tuple[Doing, Place]]:
        place = Place(directory, name)
        with self._source.doing(names={place: _CREATE}) as doing:
            yield doing, place

    # Names -----------------------------------------------------------------------------------

    def mknod(
        self, directory: Key, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As PinnedExport's."""
        with self._making(directory, name) as (doing, place):
            made = super().mknod(directory, name, mode, rdev, caller)
            doing.concern(made[0], place)
            return made

    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As PinnedExport's."""
        with self._making(directory, name) as (doing, place):
            made = super().mkdir(directory, name, mode, caller)
            doing.concern(made[0], place)
            return made

    def symlink(
        self, directory: Key, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """As PinnedExport's."""
        with self._making(directory, name) as (doing, place):
            made = super().symlink(directory, name, target, caller)
            doing.concern(made[0], place)
            return made

    def create(
        self,
        directory: Key,
        name: bytes,
        mode: int,
        flags: int,
        caller: Caller,
        *,
        kill_suidgid: bool = False,
    ) -> tuple[Key, os.stat_result, int]:
        """As PinnedExport's."""
        with self._making(directory, name) as (doing, place):
            made = super().create(directory, name, mode, flags, caller, kill_suidgid=kill_suidgid)
            doing.concern(made[0], place)
            self._by_number[made[2]] = made[0]
            return made

    def tmpfile(
        self, directory: Key, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        """As PinnedExport's."""
        with self._source.doing() as doing:
            made = super().tmpfile(directory, mode, flags, caller)
            doing.concern(made[0])
            self._by_number[made[2]] = made[0]
            return made

    def link(
        self, node: Key, directory: Key, name: bytes, fd: int | None = None
    ) -> tuple[Key, os.stat_result]:
        """As PinnedExport's."""
        with self._making(directory, name) as (doing, place):
            doing.concern(node)
            made = super().link(node, directory, name, fd)
            doing.concern(node, place)
            return made

    def unlink(self, directory: Key, name: bytes) -> None:
        """As PinnedExport's."""
        with self._removing(directory, name):
            super().unlink(directory, name)

    def rmdir(self, directory: Key, name: bytes) -> None:
        """As PinnedExport's."""
        with self._removing(directory, name):
            super().rmdir(directory, name)

    @contextmanager
    def _removing(self, directory: Key, name: bytes) -> Iterator[None]:
        node = self.node_at(directory, name)
        nodes = () if node is None else (node,)
        with self._source.doing(*nodes, names={Place(directory, name): _DELETE}):
            yield
            if node is not None:
                self.let_die(node)

    def rename(
        self,
        old_directory: Key,
        old_name: bytes,
        new_directory: Key,
        new_name: bytes,
        flags: int,
        maker: Caller | None = None,
    ) -> None:
        """As PinnedExport's."""
        old, new = Place(old_directory, old_name), Place(new_directory, new_name)
        nodes = [self.node_at(*place) for place in (old, new)]
        names = {old: _MOVED_FROM, new: _MOVED_TO}
        if flags & RENAME_EXCHANGE:
            names = dict.fromkeys(names, _MOVED_FROM | _MOVED_TO)
        concerned = [node for node in nodes if node is not None]
        with self._source.doing(*concerned, names=names):
            super().rename(old_directory, old_name, new_directory, new_name, flags, maker)
            for node in concerned:
                self.let_die(node)

    # Nodes -----------------------------------------------------------------------------------

    def setattr(
        self,
        node: Key,
        fd: int | None,
        changes: SetAttr,
        caller: Caller,
        *,
        place: Place | None = None,
        groups: Groups = no_groups,
    ) -> os.stat_result:
        """As PinnedExport's."""
        with self.about(node):
            return super().setattr(node, fd, changes, caller, place=place, groups=groups)

    def setxattr(
        self,
        node: Key,
        name: bytes,
        value: bytes,
        flags: int,
        caller: Caller,
        *,
        place: Place | None = None,
        kill_sgid: bool = False,
    ) -> None:
        """As PinnedExport's."""
        with self.about(node):
            super().setxattr(node, name, value, flags, caller, place=place, kill_sgid=kill_sgid)

    def removexattr(self, node: Key, name: bytes, *, place: Place | None = None) -> None:
        """As PinnedExport's."""
        with self.about(node):
            super().removexattr(node, name, place=place)

    def open(
        self,
        node: Key,
        flags: int,
        *,
        place: Place | None = None,
        kill_suidgid: bool = False,
    ) -> int:
        """As PinnedExport's."""
        with self.about(node) if flags & os.O_TRUNC else self.reading(node):
            fd = super().open(node, flags, place=place, kill_suidgid=kill_suidgid)
        self._by_number[fd] = node
        return fd

    def names(self, directory: Key) -> list[bytes]:
        """As PinnedExport's."""
        with self.reading(directory):
            return super().names(directory)

    def opendir(self, node: Key) -> Directory:
        """As PinnedExport's."""
        with self.reading(node):
            fd, tag = self._open_listed(node)
        return NotedDirectory(fd, self._entries, tag, lambda: self.reading(node))

    # Content: for any export these are functions ---------------------------------------------

    def read_into(  # type: ignore[override]
        self, fd: int, buffers: Sequence[memoryview] | Pages, offset: int
    ) -> int:
        """As PinnedExport's."""
        with self._reading_fd(fd):
            return super().read_into(fd, buffers, offset)

    def read_at(  # type: ignore[override]
        self, fd: int, size: int, offset: int
    ) -> bytes:
        """As PinnedExport's."""
        with self._reading_fd(fd):
            return super().read_at(fd, size, offset)

    def write_from(  # type: ignore[override]
        self,
        fd: int,
        buffers: Sequence[memoryview] | Pages,
        offset: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> int:
        """As PinnedExport's."""
        with self._by_fd(fd):
            return super().write_from(fd, buffers, offset, kill_suidgid=kill_suidgid, groups=groups)

    def fallocate(  # type: ignore[override]
        self,
        fd: int,
        mode: int,
        offset: int,
        length: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> None:
        """As PinnedExport's."""
        with self._by_fd(fd):
            super().fallocate(fd, mode, offset, length, kill_suidgid=kill_suidgid, groups=groups)

    def copy_file_range(  # type: ignore[override]
        self,
        fd_in: int,
        offset_in: int,
        fd_out: int,
        offset_out: int,
        length: int,
        flags: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> int:
        """As PinnedExport's."""
        with self._by_fd(fd_in, fd_out):
            return super().copy_file_range(
                fd_in,
                offset_in,
                fd_out,
                offset_out,
                length,
                flags,
                kill_suidgid=kill_suidgid,
                groups=groups,
            )
