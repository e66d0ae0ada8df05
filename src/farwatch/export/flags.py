"""The ioctls on files that tell and set what chattr(1) does: FS_IOC_….

Numbers and ``struct fsxattr`` are those of linux/fs.h.  The client's kernel has checked who
may do so (``vfs_fileattr_set``), since Linux 5.13; an older one passes them on unchecked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from farwatch.export.anchor import failure
from farwatch.linux.files import ioctl

__all__ = ["COMMANDS", "SETTING", "pass_on"]

GETFLAGS = 0x8008_6601
SETFLAGS = 0x4008_6602
GETVERSION = 0x8008_7601
FSGETXATTR = 0x801C_581F
FSSETXATTR = 0x401C_5820
COMMANDS = frozenset((GETFLAGS, SETFLAGS, GETVERSION, FSGETXATTR, FSSETXATTR))
SETTING = frozenset((SETFLAGS, FSSETXATTR))

_FLAGS = struct.Struct("=I")
"""FS_IOC_GETFLAGS and its like have a long in their numbers, and are about an int."""
_XATTR = struct.Struct("=5I8x")
"""``struct fsxattr``: fsx_xflags, fsx_extsize, fsx_nextents, fsx_projid, fsx_cowextsize."""
_LOCKED_FLAGS = 0x10 | 0x20
"""FS_IMMUTABLE_FL, FS_APPEND_FL: for CAP_LINUX_IMMUTABLE only (ioctl_iflags(2))."""
_LOCKED_XFLAGS = 0x08 | 0x10
"""FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND."""


def pass_on(fd: int, command: int, given: bytes, uid: int) -> bytes:
    """Does one of COMMANDS on a file or directory that is open; what it gives back.

    ``uid`` is who asks: as long as that is not root only the owner may set anything, and not
    the flags that take a capability.  Raises OSError: EPERM, EINVAL for too few bytes, and
    what the file system says: ENOTTY or EOPNOTSUPP if it has no such flags.
    """
    layout = _XATTR if command in (FSGETXATTR, FSSETXATTR) else _FLAGS
    if command in SETTING:
        if len(given) < layout.size:
            raise failure(errno.EINVAL)
        _may_set(fd, command, layout.unpack_from(given)[0], uid)
    memory = ctypes.create_string_buffer(given[: layout.size], max(layout.size, 8))
    ioctl(fd, command, memory)
    return b"" if command in SETTING else memory.raw[: layout.size]


def _may_set(fd: int, command: int, wanted: int, uid: int) -> None:
    if uid == 0:
        return
    if os.fstat(fd).st_uid != uid:
        raise failure(errno.EPERM)
    ask, locked = (GETFLAGS, _LOCKED_FLAGS) if command == SETFLAGS else (FSGETXATTR, _LOCKED_XFLAGS)
    (before,) = _FLAGS.unpack_from(pass_on(fd, ask, b"", uid))
    if (before ^ wanted) & locked:
        raise failure(errno.EPERM)
