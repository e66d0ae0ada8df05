"""The content of open files, by descriptors that ``files`` has opened.

Offsets and lengths come from clients: what the kernel's ``loff_t`` cannot
hold is answered with EINVAL.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from farwatch.export.anchor import failure
from farwatch.export.setid import Groups, killing_set_id, no_groups
from farwatch.linux import files
from farwatch.linux.pages import Pages

__all__ = ["Content"]

_LIMIT = (1 << 63) - 1
_MOST_COPIED = 32 << 20
"""Bytes that one copy_file_range may take: it holds up every other request."""
_MOST_VIEWS = 1024
"""IOV_MAX of ``linux/uio.h``: what one preadv(2) or pwritev(2) takes."""
_WHENCE = (os.SEEK_DATA, os.SEEK_HOLE)


class Content:
    """Positioned I/O.  Every method may be called by any thread.

    There may be any number of buffers: for more than 1,024 several calls are made, of
    which one that moves less than it could is the last; what the first ones have moved
    counts, whatever becomes of the next.
    """

    @staticmethod
    def read_into(fd: int, buffers: Sequence[memoryview] | Pages, offset: int) -> int:
        """Read at ``offset`` into writable buffers; the bytes read, 0 at the end."""
        if offset > _LIMIT:
            raise failure(errno.EINVAL)
        if isinstance(buffers, Pages):
            return buffers.read(fd, offset)
        return _moved(os.preadv, fd, buffers, offset)

    @staticmethod
    def read_at(fd: int, size: int, offset: int) -> bytes:
        """Read at ``offset``; makes no event at the end, which preadv(2) does."""
        if offset > _LIMIT:
            raise failure(errno.EINVAL)
        return os.pread(fd, size, offset)

    @staticmethod
    def write_from(
        fd: int,
        buffers: Sequence[memoryview] | Pages,
        offset: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> int:
        """Write at ``offset`` (at the end with O_APPEND); the bytes written.

        ``kill_suidgid``: takes set-id bits away, as for a caller without CAP_FSETID who is
        in these ``groups`` (see ``setid``).
        """
        if offset > _LIMIT:
            raise failure(errno.EINVAL)
        if kill_suidgid:
            with killing_set_id(fd, groups):
                return _written(fd, buffers, offset)
        return _written(fd, buffers, offset)

    @staticmethod
    def fsync(fd: int, datasync: bool) -> None:
        """Bring content and attributes to the disk; with ``datasync`` what reading needs."""
        if datasync:
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    @staticmethod
    def fallocate(
        fd: int,
        mode: int,
        offset: int,
        length: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> None:
        """Give or take space (see the manual page); ``mode`` is FALLOC_FL_… bits.

        ``kill_suidgid`` and ``groups`` as for ``write_from``.
        """
        if not (0 <= offset <= _LIMIT and 0 < length <= _LIMIT and 0 <= mode < 1 << 31):
            raise failure(errno.EINVAL)
        with killing_set_id(fd, groups) if kill_suidgid else nullcontext():
            files.fallocate(fd, mode, offset, length)

    @staticmethod
    def lseek(fd: int, offset: int, whence: int) -> int:
        """Where the next data or hole begins: SEEK_DATA and SEEK_HOLE only.

        Raises OSError: EINVAL for another ``whence``, ENXIO beyond the end.
        """
        if whence not in _WHENCE:
            raise failure(errno.EINVAL)
        if offset > _LIMIT:
            # What a program said was negative.
            raise failure(errno.ENXIO)
        return os.lseek(fd, offset, whence)

    @staticmethod
    def copy_file_range(
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
        """Copy at most 32 MiB, in the kernel; the bytes copied.

        ``kill_suidgid`` and ``groups`` as for ``write_from``.
        """
        if not (0 <= offset_in <= _LIMIT and 0 <= offset_out <= _LIMIT and length >= 0):
            raise failure(errno.EINVAL)
        if not 0 <= flags < 1 << 32:
            raise failure(errno.EINVAL)
        length = min(length, _MOST_COPIED)
        with killing_set_id(fd_out, groups) if kill_suidgid else nullcontext():
            return files.copy_file_range(fd_in, offset_in, fd_out, offset_out, length, flags)


def _written(fd: int, buffers: Sequence[memoryview] | Pages, offset: int) -> int:
    if isinstance(buffers, Pages):
        return buffers.write(fd, offset)
    return _moved(os.pwritev, fd, buffers, offset)


def _moved(
    move: Callable[[int, Sequence[memoryview], int], int],
    fd: int,
    buffers: Sequence[memoryview],
    offset: int,
) -> int:
    if len(buffers) <= _MOST_VIEWS:
        return move(fd, buffers, offset)
    done = 0
    for start in range(0, len(buffers), _MOST_VIEWS):
        some = buffers[start : start + _MOST_VIEWS]
        try:
            moved = move(fd, some, min(offset + done, _LIMIT))
        except OSError:
            if done:
                break
            raise
        done += moved
        if moved < sum(map(len, some)):
            break
    return done
