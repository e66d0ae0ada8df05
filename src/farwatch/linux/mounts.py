"""Mounts: mount(2), the descriptor calls beside it, and /proc/PID/mountinfo."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from farwatch.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    AT_STATX_DONT_SYNC,
    STATX_ATTR_MOUNT_ROOT,
    STATX_MNT_ID,
    STATX_MNT_ID_UNIQUE,
    statx,
)
from farwatch.linux.libc import (
    declare,
    fail,
    syscall,
)

# sys/mount.h, linux/mount.h, linux/sched.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME = 0x70
"""The three bits of which at most one is set: NOATIME, STRICTATIME, or neither (RELATIME)."""
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

_STATMOUNT_MNT_BASIC = 0x2

_MOUNT_ATTR = struct.Struct("=QQQQ")
_MNT_ID_REQ = struct.Struct("=I4xQQ")
"""``struct mnt_id_req`` of linux/mount.h, as it was first: its size, the mount, what is asked."""
_STATMOUNT_SIZE = 512
"""Bytes of ``struct statmount`` without strings."""

_mount = declare(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
    checked=False,
)
_umount2 = declare("umount2", ctypes.c_char_p, ctypes.c_int, checked=False)
_unshare = declare("unshare", ctypes.c_int)
_pivot_root = syscall(155, 41, ctypes.c_char_p, ctypes.c_char_p)
_open_tree = syscall(428, 428, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = syscall(
    429, 429, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)
_fsopen = syscall(430, 430, ctypes.c_char_p, ctypes.c_uint)
_fsconfig = syscall(
    431, 431, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int
)
_fsmount = syscall(432, 432, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_mount_setattr = syscall(
    442, 442, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_char_p, ctypes.c_size_t
)
_statmount = syscall(457, 457, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint)


def mount(
    source: bytes | None,
    target: bytes,
    fstype: bytes | None = None,
    flags: int = 0,
    data: bytes | None = None,
) -> None:
    """Attach or change a mount."""
    if _mount(source, target, fstype, flags, data) < 0:
        fail(target)


def umount(target: bytes, flags: int = 0) -> None:
    """Detach a mount: MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW."""
    if _umount2(target, flags) < 0:
        fail(target)


def open_tree(dir_fd: int, path: bytes, flags: int) -> int:
    """Open a mount; OPEN_TREE_CLONE: a detached copy of it.

    The path ``b""`` stands for ``dir_fd`` itself; submounts come along with
    AT_RECURSIVE.  The caller owns the descriptor (O_PATH, close on exec); a
    detached tree goes when it is closed.
    """
    flags |= OPEN_TREE_CLOEXEC
    return _open_tree(dir_fd, path, flags if path else flags | AT_EMPTY_PATH)


def move_mount(from_fd: int, to_path: bytes, to_fd: int = AT_FDCWD) -> None:
    """Attach the tree that ``from_fd`` is open on at ``to_path``.

    ``b""`` stands for what ``to_fd`` is open on.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(from_fd, b"", to_fd, to_path, flags)


def mount_setattr(fd: int, add: int, clear: int, recursive: bool, propagation: int = 0) -> None:
    """Change attributes of the mount of ``fd`` (Linux 5.12).

    ``add`` and ``clear`` are ``MOUNT_ATTR_``… bits; ``propagation`` is
    MS_PRIVATE, MS_SLAVE, MS_SHARED or 0 to leave it.
    """
    attributes = _MOUNT_ATTR.pack(add, clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(fd, b"", flags, attributes, len(attributes))


def fsmount(fstype: bytes, options: Mapping[bytes, bytes | None], attributes: int = 0) -> int:
    """A new file system, mounted and detached; the caller owns the descriptor.

    ``attributes`` are ``MOUNT_ATTR_``… bits.  An option whose value is None is a
    flag; ``source`` is the first column of /proc/mounts.
    """
    context = _fsopen(fstype, _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            _fsconfig(context, command, name, value, 0)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def unshare(flags: int) -> None:
    """Leave what the calling thread shares: CLONE_NEWNS, CLONE_FILES, CLONE_FS."""
    _unshare(flags)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Change the root mount of this namespace."""
    _pivot_root(new_root, put_old)


_STATVFS = {
    1: MOUNT_ATTR_RDONLY,
    2: MOUNT_ATTR_NOSUID,
    4: MOUNT_ATTR_NODEV,
    8: MOUNT_ATTR_NOEXEC,
    1024: MOUNT_ATTR_NOATIME,
    2048: MOUNT_ATTR_NODIRATIME,
    8192: MOUNT_ATTR_NOSYMFOLLOW,
}
"""ST_... bits of statvfs(3), as in linux/statfs.h, which are not the same numbers."""


def attributes_of(fd: int) -> int:
    """The MOUNT_ATTR_... bits of the mount that ``fd`` is on.

    MOUNT_ATTR_RDONLY also where its whole file system is read-only.
    """
    flags = os.fstatvfs(fd).f_flag
    return sum(bit for flag, bit in _STATVFS.items() if flags & flag)


def statx_mount_id(fd: int) -> int:
    """The id of the mount that ``fd`` is on, as in mountinfo (Linux 5.8).

    No server of the file system is asked.
    """
    flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
    return statx(fd, flags=flags, mask=STATX_MNT_ID).mount_id


class MountId(NamedTuple):
    """A mount's two ids, statx(2).

    ``number`` is that of mountinfo: another mount is given it, often the very next one, when
    this one has gone.  ``unique`` is never given again; 0 before Linux 6.8, which has none.
    """

    number: int
    unique: int


def statx_mount_ids(fd: int) -> MountId:
    """Both ids of the mount that ``fd`` is on (Linux 5.8).  No server is asked."""
    flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
    status = statx(fd, flags=flags, mask=STATX_MNT_ID_UNIQUE)
    unique = status.mount_id if status.mask & STATX_MNT_ID_UNIQUE else 0
    return MountId(statx_mount_id(fd), unique)


def is_attached(mount: MountId) -> bool | None:
    """Whether the mount is in this namespace, statmount(2); None if the kernel does not say."""
    if not mount.unique:
        return None
    request = _MNT_ID_REQ.pack(_MNT_ID_REQ.size, mount.unique, _STATMOUNT_MNT_BASIC)
    answer = ctypes.create_string_buffer(_STATMOUNT_SIZE)
    try:
        _statmount(request, answer, _STATMOUNT_SIZE, 0)
    except OSError as error:
        return False if error.errno == errno.ENOENT else None
    return True


def is_mount_root(fd: int) -> bool:
    """Whether ``fd`` is on the root of a mount (Linux 5.8)."""
    return bool(statx(fd, mask=STATX_MNT_ID).attributes & STATX_ATTR_MOUNT_ROOT)


class MountInfo(NamedTuple):
    """One line of mountinfo, proc_pid_mountinfo(5); escapes are undone.

    ``device`` is a st_dev; ``root`` the directory of the file system that is
    mounted; ``optional`` fields are such as ``shared:1``.
    """

    mount_id: int
    parent_id: int
    device: int
    root: bytes
    mount_point: bytes
    options: bytes
    optional: tuple[bytes, ...]
    fstype: bytes
    source: bytes
    super_options: bytes


def parse_mountinfo(text: bytes) -> list[MountInfo]:
    """Every mount in the text of /proc/PID/mountinfo, in its order."""
    return [_parse_line(line) for line in text.split(b"\n") if line]


def topmost(mount_point: bytes, mounts: Sequence[MountInfo]) -> MountInfo | None:
    """The mount that a path walk to ``mount_point`` ends on, or None if nothing is mounted there.

    A stacked mount's parent is the mount that it covers.
    """
    here = [mount for mount in mounts if mount.mount_point == mount_point]
    covered = {mount.parent_id for mount in here}
    uncovered = [mount for mount in here if mount.mount_id not in covered]
    return uncovered[-1] if uncovered else None


def _parse_line(line: bytes) -> MountInfo:
    fields = line.split(b" ")
    # Optional fields end with "-"; a root or mount point cannot be one of them.
    dash = fields.index(b"-", 6)
    major, minor = fields[2].split(b":")
    return MountInfo(
        int(fields[0]),
        int(fields[1]),
        os.makedev(int(major), int(minor)),
        _unescape(fields[3]),
        _unescape(fields[4]),
        fields[5],
        tuple(fields[6:dash]),
        _unescape(fields[dash + 1]),
        _unescape(fields[dash + 2]),
        fields[dash + 3],
    )


_ESCAPE = re.compile(rb"\\([0-7]{3})")


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), field)
