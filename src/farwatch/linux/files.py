"""System calls on files that ``os`` lacks, or lacks the flags of.

Each is called as the system call that its section 2 manual page describes.
Names are bytes, relative to a directory descriptor.  Every function may be
called by many threads at once, and raises OSError.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import Any, NamedTuple

from farwatch.linux.libc import (
    declare,
    fail,
    syscall,
)

OMIT = -(1 << 63)
"""For utimensat: leave this time as it is (UTIME_OMIT)."""
NOW = OMIT + 1
"""For utimensat: set this time to the present (UTIME_NOW)."""

# linux/fs.h
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08
FALLOC_FL_ZERO_RANGE = 0x10
FALLOC_FL_INSERT_RANGE = 0x20

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_EACCESS = 0x200
AT_STATX_FORCE_SYNC = 0x2000
AT_STATX_DONT_SYNC = 0x4000

# linux/stat.h
STATX_BASIC_STATS = 0x000007FF
STATX_BTIME = 0x00000800
STATX_MNT_ID = 0x00001000
STATX_MNT_ID_UNIQUE = 0x00004000
STATX_ATTR_MOUNT_ROOT = 0x00002000

_SECOND = 1_000_000_000
_TIMES = struct.Struct("=qqqq")
_SPECIAL = {OMIT: (0, (1 << 30) - 2), NOW: (0, (1 << 30) - 1)}
# linux/stat.h: UTIME_OMIT and UTIME_NOW are values of tv_nsec.

_renameat2 = declare(
    "renameat2",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    checked=False,
)
_utimensat = declare(
    "utimensat", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, checked=False
)
_linkat = declare(
    "linkat",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    checked=False,
)
_fallocate = declare("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_copy_file_range = declare(
    "copy_file_range",
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint,
    result=ctypes.c_ssize_t,
)
_statx = declare(
    "statx",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_void_p,
    checked=False,
)
_syncfs = declare("syncfs", ctypes.c_int)
_ioctl = declare("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, checked=False)
# 437 and 439 on every machine: newer than the common numbering.
_faccessat2 = syscall(439, 439, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
_openat2 = syscall(437, 437, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)

_OPEN_HOW = struct.Struct("=QQQ")


def renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int = 0) -> None:
    """Rename, with RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT or 0 in ``flags``."""
    if _renameat2(old_fd, old, new_fd, new, flags) < 0:
        fail(old)


def utimensat(dir_fd: int, name: bytes, atime: int, mtime: int, flags: int = 0) -> None:
    """Set times, in ns since the epoch, or OMIT or NOW.

    ``flags``: AT_SYMLINK_NOFOLLOW; AT_EMPTY_PATH with the name ``b""`` for the
    inode that ``dir_fd`` is open on, O_PATH too (Linux 5.8).
    """
    times = _PREPARED.get((atime, mtime)) or _pack(atime, mtime)
    if _utimensat(dir_fd, name, times, flags) < 0:
        fail(name)


def _pack(atime: int, mtime: int) -> bytes:
    return _TIMES.pack(*_timespec(atime), *_timespec(mtime))


def _timespec(time: int) -> tuple[int, int]:
    return _SPECIAL.get(time) or divmod(time, _SECOND)


_PREPARED = {(a, m): _pack(a, m) for a in (OMIT, NOW) for m in (OMIT, NOW)}


def linkat(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int = 0) -> None:
    """Make a hard link.  AT_EMPTY_PATH and ``b""`` link ``old_fd`` (CAP_DAC_READ_SEARCH)."""
    if _linkat(old_fd, old, new_fd, new, flags) < 0:
        fail(new)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Change a file's extent, ``FALLOC_FL_``… or 0; bytes."""
    _fallocate(fd, mode, offset, length)


def copy_file_range(
    fd_in: int, offset_in: int, fd_out: int, offset_out: int, count: int, flags: int = 0
) -> int:
    """Copy within the kernel at these offsets; the bytes copied, 0 at the end."""
    start, target = ctypes.c_int64(offset_in), ctypes.c_int64(offset_out)
    copied: int = _copy_file_range(
        fd_in, ctypes.addressof(start), fd_out, ctypes.addressof(target), count, flags
    )
    return copied


def syncfs(fd: int) -> None:
    """Bring the file system that ``fd`` is on to the disk."""
    _syncfs(fd)


class Statx(NamedTuple):
    """What is used of ``struct statx``; times in ns since the epoch.

    ``mask`` tells which are true: ``btime`` is 0 without STATX_BTIME in it,
    ``mount_id`` without STATX_MNT_ID or, then of the other kind, STATX_MNT_ID_UNIQUE.
    """

    mask: int
    blksize: int
    attributes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    ino: int
    size: int
    blocks: int
    atime: int
    btime: int
    ctime: int
    mtime: int
    rdev: int
    dev: int
    mount_id: int


# struct statx of linux/stat.h: 8 words and longs, four timestamps of 16 bytes,
# four device numbers, the mount id.
_STATX = struct.Struct("=IIQIIIH2xQQQ8xqI4xqI4xqI4xqI4xIIIIQ")
_STATX_SIZE = 256


class _Answer(threading.local):
    """What statx fills in, for each thread its own."""

    def __init__(self) -> None:
        self.memory = ctypes.create_string_buffer(_STATX_SIZE)
        self.address = ctypes.addressof(self.memory)


_answer = _Answer()


def statx(
    dir_fd: int,
    name: bytes = b"",
    flags: int = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW,
    mask: int = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
) -> Statx:
    """Ask for attributes; by default those of ``dir_fd`` itself.

    AT_STATX_FORCE_SYNC in ``flags`` makes a network file system or FUSE ask
    its server.
    """
    answer = _answer
    if _statx(dir_fd, name, flags, mask, answer.address) < 0:
        fail(name)
    (
        got,
        blksize,
        attributes,
        nlink,
        uid,
        gid,
        mode,
        ino,
        size,
        blocks,
        atime,
        atime_ns,
        btime,
        btime_ns,
        ctime,
        ctime_ns,
        mtime,
        mtime_ns,
        rdev_major,
        rdev_minor,
        dev_major,
        dev_minor,
        mount_id,
    ) = _STATX.unpack_from(answer.memory)
    return Statx(
        got,
        blksize,
        attributes,
        nlink,
        uid,
        gid,
        mode,
        ino,
        size,
        blocks,
        atime * _SECOND + atime_ns,
        btime * _SECOND + btime_ns,
        ctime * _SECOND + ctime_ns,
        mtime * _SECOND + mtime_ns,
        os.makedev(rdev_major, rdev_minor),
        os.makedev(dev_major, dev_minor),
        mount_id,
    )


def check_access(path: bytes, mode: int) -> None:
    """Ask whether this thread, by its fsuid and capabilities, may R_OK, W_OK or X_OK.

    Raises OSError(EACCES) if not.
    """
    _faccessat2(AT_FDCWD, path, mode, AT_EACCESS)


def openat2(dir_fd: int, name: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open a name, ``RESOLVE_``… bits; O_CLOEXEC is added.  The caller owns the fd."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    return _openat2(dir_fd, name, how, len(how))


def ioctl(fd: int, request: int, buffer: Any) -> int:
    """Call the driver with a ctypes object or writable buffer, without the GIL; the result.

    ``fcntl.ioctl`` keeps the GIL for buffers beyond 1 KiB, so that a call that
    parks would stop every thread.  Raises OSError; InterruptedError if a signal
    came.
    """
    # A ctypes object is a writable buffer, too; this also keeps it alive.
    memory = (ctypes.c_char * memoryview(buffer).nbytes).from_buffer(buffer)
    result: int = _ioctl(fd, request, ctypes.addressof(memory))
    if result < 0:
        fail()
    return result
