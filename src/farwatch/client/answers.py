"""What the server's answers say, checked as a kernel would check them (fs/fuse).

Every function raises ProtocolError for what no server may answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISDIR
from typing import NamedTuple

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fsnotify import Mode
from farwatch.client.errors import ProtocolError, theirs

_BILLION = 1_000_000_000
_SIGN = 1 << 63
_TYPES = frozenset((S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK))
PATH_MAX = 4096
"""limits.h, the NUL included."""
NAME_MAX = 255
"""limits.h."""


class Attributes(NamedTuple):
    """What stat(2) says of an inode; times in nanoseconds since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory's."""
        return S_ISDIR(self.mode)

    def status(self) -> os.stat_result:
        """The same as the standard library has it; ``st_dev`` is 0."""
        times = (self.atime_ns, self.mtime_ns, self.ctime_ns)
        return os.stat_result(
            (
                self.mode,
                self.ino,
                0,
                self.nlink,
                self.uid,
                self.gid,
                self.size,
                *(moment // _BILLION for moment in times),
            ),
            {
                "st_atime": self.atime_ns / _BILLION,
                "st_mtime": self.mtime_ns / _BILLION,
                "st_ctime": self.ctime_ns / _BILLION,
                "st_atime_ns": self.atime_ns,
                "st_mtime_ns": self.mtime_ns,
                "st_ctime_ns": self.ctime_ns,
                "st_rdev": self.rdev,
                "st_blocks": self.blocks,
                "st_blksize": self.blksize,
            },
        )


class Entry(NamedTuple):
    """The node that a name holds."""

    node: int
    generation: int
    attributes: Attributes


class Opened(NamedTuple):
    """An open file or directory at the server."""

    handle: int
    flags: int


class Dirent(NamedTuple):
    """A name in a directory; ``entry`` where READDIRPLUS has told what it holds.

    ``kind`` is ``DT_``… of readdir(3), 0 for unknown.
    """

    name: bytes
    ino: int
    kind: int
    next_offset: int
    entry: Entry | None = None


def attributes(data: bytes | memoryview) -> Attributes:
    """``struct fuse_attr``."""
    with theirs("attributes"):
        (
            ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
            mode, nlink, uid, gid, rdev, blksize, _,
        ) = fuse.ATTR.unpack(data)  # fmt: skip
    if S_IFMT(mode) not in _TYPES or mode >> 16:
        raise ProtocolError(f"attributes of a file of no type: mode {mode:#o}")
    if size >= _SIGN:
        raise ProtocolError(f"attributes of a file of {size} bytes")
    major, minor = (rdev & 0xFFF00) >> 8, (rdev & 0xFF) | (rdev >> 12 & 0xFFF00)
    return Attributes(
        ino,
        mode,
        nlink,
        uid,
        gid,
        os.makedev(major, minor),
        size,
        blocks,
        blksize,
        _moment(atime, atime_ns),
        _moment(mtime, mtime_ns),
        _moment(ctime, ctime_ns),
    )


def _moment(seconds: int, nanoseconds: int) -> int:
    if nanoseconds >= _BILLION:
        raise ProtocolError(f"a time with {nanoseconds} nanoseconds")
    return (seconds - 2 * _SIGN if seconds >= _SIGN else seconds) * _BILLION + nanoseconds


def attr_out(data: bytes) -> Attributes:
    """``struct fuse_attr_out``."""
    return attributes(memoryview(data)[fuse.ATTR_OUT_HEAD.size :])


def entry(data: bytes | memoryview) -> Entry:
    """``struct fuse_entry_out``.  Node 0 is a name that holds nothing."""
    with theirs("an entry"):
        node, generation, *_ = fuse.ENTRY_OUT_HEAD.unpack_from(data)
    rest = memoryview(data)[fuse.ENTRY_OUT_HEAD.size :]
    if node == 0:
        if len(rest) != fuse.ATTR.size:
            raise ProtocolError(f"an entry of {len(data)} bytes")
        return Entry(0, 0, Attributes(*[0] * 12))
    return Entry(node, generation, attributes(rest))


def made(data: bytes | memoryview) -> Entry:
    """``struct fuse_entry_out`` of what was just made: it is there."""
    found = entry(data)
    if not found.node:
        raise ProtocolError("something was made, and is not there")
    return found


def opened(data: bytes | memoryview) -> Opened:
    """``struct fuse_open_out``."""
    with theirs("an open"):
        handle, flags, _ = fuse.OPEN_OUT.unpack(data)
    return Opened(handle, flags)


def created(data: bytes) -> tuple[Entry, Opened]:
    """The answer to CREATE."""
    view = memoryview(data)
    return made(view[: fuse.ENTRY_OUT_SIZE]), opened(view[fuse.ENTRY_OUT_SIZE :])


def written(data: bytes, asked: int) -> int:
    """``struct fuse_write_out``: no more than was ``asked``."""
    with theirs("a write"):
        size, _ = fuse.WRITE_OUT.unpack(data)
    if size > asked:
        raise ProtocolError(f"{size} bytes written of {asked}")
    return int(size)


def number(data: bytes) -> int:
    """``struct fuse_lseek_out``."""
    with theirs("a position"):
        return int(fuse.LSEEK_OUT.unpack(data)[0])


def size_of_xattr(data: bytes) -> int:
    """``struct fuse_getxattr_out``."""
    with theirs("an attribute's size"):
        size, _ = fuse.GETXATTR_OUT.unpack(data)
    if size > 1 << 16:
        raise ProtocolError(f"an extended attribute of {size} bytes")
    return int(size)


def xattr_names(data: bytes) -> list[bytes]:
    """The answer to LISTXATTR."""
    if data and not data.endswith(b"\0"):
        raise ProtocolError("an attribute's name without its end")
    return data.split(b"\0")[:-1]


def link_target(data: bytes) -> bytes:
    """The answer to READLINK."""
    if b"\0" in data or len(data) >= PATH_MAX or not data:
        raise ProtocolError(f"a symbolic link of {len(data)} bytes")
    return data


def statfs(data: bytes) -> os.statvfs_result:
    """The answer to STATFS."""
    with theirs("a file system's sizes"):
        blocks, free, available, files, files_free, bsize, longest, frsize, _ = (
            fuse.STATFS_OUT.unpack(data)
        )
    return os.statvfs_result(
        (bsize, frsize, blocks, free, available, files, files_free, files_free, 0, longest)
    )


def dirents(data: bytes, *, plus: bool) -> Iterator[Dirent]:
    """The answer to READDIR or READDIRPLUS, with "." and ".."."""
    view, start = memoryview(data), 0
    while start < len(view):
        found = None
        if plus:
            found = entry(view[start : start + fuse.ENTRY_OUT_SIZE])
            start += fuse.ENTRY_OUT_SIZE
        with theirs("a directory entry"):
            ino, following, length, kind = fuse.DIRENT.unpack_from(view, start)
        name = bytes(view[start + fuse.DIRENT.size : start + fuse.DIRENT.size + length])
        if not 0 < length <= NAME_MAX or len(name) != length or b"/" in name or b"\0" in name:
            raise ProtocolError(f"a directory entry with a name of {length} bytes")
        start += fuse.dirent_size(length)
        yield Dirent(name, ino, kind, following, found if found and found.node else None)


class Server(NamedTuple):
    """The answer to INIT, as far as a client needs it."""

    minor: int
    flags: int
    max_write: int


def init_out(data: bytes) -> Server:
    """``struct fuse_init_out``."""
    with theirs("INIT"):
        major, minor, _, low, _, _, max_write, _, _, _, high, _ = fuse.INIT_OUT.unpack(data)
    if major != fuse.MAJOR or minor < fuse.OLDEST_MINOR:
        raise ProtocolError(f"the server speaks FUSE {major}.{minor}, 7.31 is needed")
    if max_write < 4096:
        raise ProtocolError(f"the server takes writes of {max_write} bytes only")
    return Server(minor, low | high << 32, max_write)


def begun(data: bytes) -> fsnotify.Begin:
    """The answer to BEGIN."""
    with theirs("BEGIN"):
        version, mode, supported, _, client = fsnotify.BEGIN_OUT.unpack(data)
        answer = fsnotify.Begin(version, Mode(mode), supported, client)
    if version != fsnotify.VERSION:
        raise ProtocolError(f"the server speaks version {version} of fsnotify")
    return answer


class Marked(NamedTuple):
    """The answer to MARK: what of it can be told, and the last event before it."""

    kinds: int
    sequence: int


def marked(data: bytes) -> Marked:
    """``MARK_OUT``."""
    with theirs("MARK"):
        kinds, _, sequence = fsnotify.MARK_OUT.unpack(data)
    return Marked(kinds, sequence)
