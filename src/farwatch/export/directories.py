"""Listing directories with the file system's own positions."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from farwatch.events import Key
from farwatch.export.anchor import Anchor, failure
from farwatch.linux.descriptors import Closable
from farwatch.linux.libc import syscall

__all__ = ["DirEntry", "Directories", "Directory"]

_LEAST = 280
"""``struct linux_dirent64`` with the longest name: less would be EINVAL."""
_MOST = 1 << 16
_UNKNOWN = -1
_SIGN = 1 << 63
_ENTRY = struct.Struct("=QQHB")
"""``struct linux_dirent64`` (getdents64(2)): d_ino, d_off, d_reclen, d_type, then the name."""

_getdents64 = syscall(217, 61, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)


class DirEntry(NamedTuple):
    """A name in a directory.

    ``type`` is ``DT_``… of readdir(3): 0 where the file system does not tell,
    else S_IFMT bits shifted right by 12.  ``next_offset`` (unsigned) continues
    after this entry.
    """

    name: bytes
    ino: int
    type: int
    next_offset: int


class Directory(Closable):
    """A directory open for listing; owns its descriptor.  For the export's thread."""

    def __init__(self, fd: int, buffer: ctypes.Array[ctypes.c_char], tag: int = 0) -> None:
        """``tag`` is what makes inode numbers unique, see ``numbers``."""
        self._fd = fd
        self._tag = tag
        self._buffer = buffer
        self._position = 0

    def fileno(self) -> int:
        """The descriptor, which stays owned here."""
        return self._fd

    def read(self, offset: int, size_hint: int) -> list[DirEntry]:
        """The entries from ``offset`` on, with "." and "..": none at the end.

        ``offset`` is 0 or an entry's ``next_offset``, from any earlier read.
        ``size_hint`` bounds the bytes that are read, each entry being 20 and
        its name, rounded up to 8; at least one entry comes if there is one.
        """
        if offset != self._position:
            self._seek(offset)
        size = min(max(size_hint, _LEAST), _MOST)
        self._position = _UNKNOWN
        length = _getdents64(self._fd, ctypes.addressof(self._buffer), size)
        entries = _parse(bytes(memoryview(self._buffer)[:length]), self._tag)
        self._position = entries[-1].next_offset if entries else _UNKNOWN
        return entries

    def _seek(self, offset: int) -> None:
        """Go where a client says; EINVAL or an odd place is all that it can get."""
        self._position = _UNKNOWN
        if not 0 <= offset < _SIGN << 1:
            raise failure(errno.EINVAL)
        os.lseek(self._fd, offset - (_SIGN << 1) if offset & _SIGN else offset, os.SEEK_SET)

    def sync(self, datasync: bool = False) -> None:
        """Bring the directory to the disk (fsync(2))."""
        if datasync:
            os.fdatasync(self._fd)
        else:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor.  May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _parse(data: bytes, tag: int) -> list[DirEntry]:
    entries = []
    start = 0
    while start < len(data):
        ino, next_offset, length, kind = _ENTRY.unpack_from(data, start)
        name = start + _ENTRY.size
        end = data.index(b"\0", name)
        entries.append(DirEntry(data[name:end], ino ^ tag, kind, next_offset))
        start += length
    return entries


class Directories(Anchor):
    """Opening directories for listing."""

    def __init__(self, mount_fd: int) -> None:
        super().__init__(mount_fd)
        self._entries = ctypes.create_string_buffer(_MOST)

    def opendir(self, node: Key) -> Directory:
        """Open a directory; OSError(ENOTDIR) for other nodes, ESTALE if it is gone."""
        fd, tag = self._open_listed(node)
        return Directory(fd, self._entries, tag)

    def _open_listed(self, node: Key) -> tuple[int, int]:
        """A descriptor of a directory, and its tag."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            fd = self._open_key(node, flags)
            return fd, self.guise.tag(os.fstat(fd).st_dev)
        except OSError as error:
            if error.errno != errno.ELOOP:  # a symbolic link
                raise
            raise failure(errno.ENOTDIR) from None

    @staticmethod
    def fsyncdir(directory: Directory, datasync: bool) -> None:
        """Bring a directory to the disk."""
        directory.sync(datasync)
