"""What stands for a handle where a file system has none.

It tells an inode from all others while a descriptor of it is held, and from most that will
ever have its number:

    u32 length   i32 type NO_HANDLE   u64 device   u64 inode   s64 time of its making (ns)
"""

from __future__ import annotations

import errno
import struct
import sys

from farwatch.events import Key
from farwatch.linux.files import (
    AT_EMPTY_PATH,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_MNT_ID,
    statx,
)
from farwatch.linux.handles import Handle, name_to_handle

NO_HANDLE = 0x7F
"""A handle type that no file system has (``linux/exportfs.h``)."""
WITHOUT_HANDLES = frozenset(
    (errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS, errno.EPERM, errno.EINVAL)
)
"""What name_to_handle_at answers where there are none, or where it is forbidden (seccomp)."""
_NUMBERS = struct.Struct("=IiQQq")
_HEADER = 8
_TYPE = NO_HANDLE.to_bytes(4, sys.byteorder)


def is_unhandled(key: Key) -> bool:
    """Whether in a key something stands for the handle."""
    return key[12:16] == _TYPE


def handle_or_numbers(fd: int) -> tuple[Handle, int]:
    """The handle of what ``fd`` is open on, or what stands for it, and the id of the mount."""
    try:
        return name_to_handle(fd, b"", empty_path=True)
    except OSError as error:
        if error.errno not in WITHOUT_HANDLES:
            raise
    return numbers(fd)


def numbers(fd: int) -> tuple[Handle, int]:
    """What stands for the handle of what ``fd`` is open on, and the id of the mount."""
    found = statx(fd, b"", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
    handle = _NUMBERS.pack(_NUMBERS.size - _HEADER, NO_HANDLE, found.dev, found.ino, found.btime)
    return handle, found.mount_id
