"""System calls on one of two trees that are to behave alike, and what they have returned.

Every call takes the ``Tree`` that it works in, and then what a test has drawn.  What it
returns can be compared: descriptors are numbers of slots, what a stat tells is without what
two trees cannot have in common (inode and device numbers, the present time).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from farwatch.linux.files import (
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    STATX_BTIME,
    copy_file_range,
    fallocate,
    linkat,
    renameat2,
    statx,
    utimensat,
)

EARLIER_NS = 1_600_000_000 * 1_000_000_000
"""What no clock says any more: a time before it was set by a test."""

Outcome = tuple[str, Any]


class Where(NamedTuple):
    """A path below the tree's top, or below the directory that is open in a slot."""

    path: bytes
    slot: int | None = None


class NoSlot(Exception):
    """Nothing is open there."""


class Tree:
    """One of the two: its top, and what a program has open in it."""

    def __init__(self, top: bytes) -> None:
        self._top = top
        self._open: dict[int, int] = {}

    def at(self, where: Where) -> bytes:
        """A path that leads there, whatever the length of the top's own."""
        top = self._top if where.slot is None else b"/proc/self/fd/%d" % self.fd(where.slot)
        return top + b"/" + where.path if where.path else top

    def fd(self, slot: int) -> int:
        """The descriptor in a slot.  Raises NoSlot."""
        fd = self._open.get(slot)
        if fd is None:
            raise NoSlot
        return fd

    def put(self, slot: int, fd: int) -> None:
        """Keep a descriptor, in place of the one that was there."""
        before = self._open.get(slot)
        self._open[slot] = fd
        if before is not None:
            os.close(before)

    def close(self, slot: int) -> None:
        """Close a slot's descriptor.  Raises NoSlot."""
        fd = self.fd(slot)
        del self._open[slot]
        os.close(fd)

    def close_all(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])


def _time(ns: int) -> int | str:
    return ns if ns < EARLIER_NS else "now"


def seen(status: os.stat_result) -> tuple[Any, ...]:
    """What two trees have in common of a node."""
    return (
        oct(status.st_mode),
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        None if stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_rdev,
        status.st_blksize,
        # A file's changes only if its content is not the client's kernel's to keep.
        None if stat.S_ISREG(status.st_mode) else _time(status.st_atime_ns),
        _time(status.st_mtime_ns),
        _time(status.st_ctime_ns),
    )


# Names -----------------------------------------------------------------------------


def mkdir(tree: Tree, where: Where, mode: int) -> None:
    os.mkdir(tree.at(where), mode)


def mknod(tree: Tree, where: Where, mode: int, device: int) -> None:
    os.mknod(tree.at(where), mode, device)


def symlink(tree: Tree, target: bytes, where: Where) -> None:
    os.symlink(target, tree.at(where))


def readlink(tree: Tree, where: Where) -> bytes:
    return os.readlink(tree.at(where))


def link(tree: Tree, old: Where, new: Where, flags: int) -> None:
    linkat(AT_FDCWD, tree.at(old), AT_FDCWD, tree.at(new), flags)


def link_open(tree: Tree, slot: int, new: Where) -> None:
    """As in open(2), O_TMPFILE: a name for an open file."""
    old = b"/proc/self/fd/%d" % tree.fd(slot)
    linkat(AT_FDCWD, old, AT_FDCWD, tree.at(new), AT_SYMLINK_FOLLOW)


def unlink(tree: Tree, where: Where) -> None:
    os.unlink(tree.at(where))


def rmdir(tree: Tree, where: Where) -> None:
    os.rmdir(tree.at(where))


def rename(tree: Tree, old: Where, new: Where, flags: int) -> None:
    renameat2(AT_FDCWD, tree.at(old), AT_FDCWD, tree.at(new), flags)


def listdir(tree: Tree, where: Where) -> list[tuple[str, bool, bool, bool]]:
    with os.scandir(os.fsdecode(tree.at(where))) as entries:
        return sorted(
            (
                entry.name,
                entry.is_dir(follow_symlinks=False),
                entry.is_file(follow_symlinks=False),
                entry.is_symlink(),
            )
            for entry in entries
        )


# Attributes ------------------------------------------------------------------------


def lstat(tree: Tree, where: Where) -> tuple[Any, ...]:
    return seen(os.lstat(tree.at(where)))


def fstat(tree: Tree, slot: int) -> tuple[Any, ...]:
    return seen(os.fstat(tree.fd(slot)))


def has_birth_time(tree: Tree, where: Where) -> bool:
    found = statx(AT_FDCWD, tree.at(where), AT_SYMLINK_NOFOLLOW)
    return bool(found.mask & STATX_BTIME) and found.btime > EARLIER_NS


def access(tree: Tree, where: Where, mode: int) -> bool:
    return os.access(tree.at(where), mode, effective_ids=True)


def chmod(tree: Tree, where: Where, mode: int) -> None:
    os.chmod(tree.at(where), mode)


def fchmod(tree: Tree, slot: int, mode: int) -> None:
    os.fchmod(tree.fd(slot), mode)


def chown(tree: Tree, where: Where, owner: tuple[int, int], follow: bool) -> None:
    os.chown(tree.at(where), *owner, follow_symlinks=follow)


def fchown(tree: Tree, slot: int, owner: tuple[int, int]) -> None:
    os.fchown(tree.fd(slot), *owner)


def utimens(tree: Tree, where: Where, atime: int, mtime: int, flags: int) -> None:
    utimensat(AT_FDCWD, tree.at(where), atime, mtime, flags)


def umask(tree: Tree, mask: int) -> None:
    os.umask(mask)


def statvfs(tree: Tree, where: Where) -> tuple[int, ...]:
    found = os.statvfs(tree.at(where))
    return (found.f_bsize, found.f_frsize, found.f_blocks, found.f_files, found.f_namemax)


# Extended attributes ---------------------------------------------------------------


def setxattr(tree: Tree, where: Where, name: str, value: bytes, flags: int) -> None:
    os.setxattr(tree.at(where), name, value, flags, follow_symlinks=False)


def getxattr(tree: Tree, where: Where, name: str) -> bytes:
    return os.getxattr(tree.at(where), name, follow_symlinks=False)


def listxattr(tree: Tree, where: Where) -> list[str]:
    return sorted(os.listxattr(tree.at(where), follow_symlinks=False))


def removexattr(tree: Tree, where: Where, name: str) -> None:
    os.removexattr(tree.at(where), name, follow_symlinks=False)


def fsetxattr(tree: Tree, slot: int, name: str, value: bytes) -> None:
    os.setxattr(tree.fd(slot), name, value)


# Open files ------------------------------------------------------------------------


def open_(tree: Tree, slot: int, where: Where, flags: int, mode: int) -> None:
    # O_NONBLOCK: to open a FIFO must not wait for its other end.
    tree.put(slot, os.open(tree.at(where), flags | os.O_NONBLOCK | os.O_CLOEXEC, mode))


def close(tree: Tree, slot: int) -> None:
    tree.close(slot)


def read(tree: Tree, slot: int, size: int) -> bytes:
    return os.read(tree.fd(slot), size)


def pread(tree: Tree, slot: int, size: int, offset: int) -> bytes:
    return os.pread(tree.fd(slot), size, offset)


def write(tree: Tree, slot: int, data: bytes) -> int:
    return os.write(tree.fd(slot), data)


def pwrite(tree: Tree, slot: int, data: bytes, offset: int) -> int:
    return os.pwrite(tree.fd(slot), data, offset)


def lseek(tree: Tree, slot: int, offset: int, whence: int) -> int:
    fd = tree.fd(slot)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        # Other places in a directory are the file system's own business.
        offset, whence = 0, os.SEEK_SET
    return os.lseek(fd, offset, whence)


def truncate(tree: Tree, where: Where, size: int) -> None:
    os.truncate(tree.at(where), size)


def ftruncate(tree: Tree, slot: int, size: int) -> None:
    os.ftruncate(tree.fd(slot), size)


def allocate(tree: Tree, slot: int, mode: int, offset: int, size: int) -> None:
    fallocate(tree.fd(slot), mode, offset, size)


def copy(tree: Tree, slot: int, offset: int, to: int, to_offset: int, size: int) -> int:
    return copy_file_range(tree.fd(slot), offset, tree.fd(to), to_offset, size)


def fsync(tree: Tree, slot: int) -> None:
    os.fsync(tree.fd(slot))


def set_append(tree: Tree, slot: int, on: bool) -> None:
    fd = tree.fd(slot)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    flags = flags | os.O_APPEND if on else flags & ~os.O_APPEND
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__.rstrip("_"): call
    for call in (
        mkdir, mknod, symlink, readlink, link, link_open, unlink, rmdir, rename, listdir,
        lstat, fstat, has_birth_time, access, chmod, fchmod, chown, fchown, utimens, umask,
        statvfs, setxattr, getxattr, listxattr, removexattr, fsetxattr, open_, close, read,
        pread, write, pwrite, lseek, truncate, ftruncate, allocate, copy, fsync, set_append,
    )
}  # fmt: skip
"""All of them, by name."""


def errno_name(error: OSError) -> str:
    """As errno.h calls it."""
    return errno.errorcode.get(error.errno or 0, str(error))


def outcome(tree: Tree, name: str, arguments: tuple[Any, ...]) -> Outcome:
    """What a call returns, or the name of its errno."""
    try:
        return "returned", CALLS[name](tree, *arguments)
    except OSError as error:
        return "failed", errno_name(error)
    except NoSlot:
        return "failed", "nothing open"
    except (ValueError, OverflowError) as error:
        return "failed", f"before it was made: {error}"
