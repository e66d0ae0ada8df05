"""File handles: open_by_handle_at(2), and the file system id of fstatfs(2).

A handle names an inode for as long as it lives, wherever it is renamed to, and
does not keep it alive.  Every function may be called by many threads at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading

from farwatch.linux.files import AT_EMPTY_PATH
from farwatch.linux.libc import declare, fail

Handle = bytes
"""``struct file_handle``: ``u32 handle_bytes``, ``i32 handle_type``, the handle."""

HEADER = 8
"""Bytes of a Handle before the file system's own part."""
MAX_HANDLE = 128
"""``MAX_HANDLE_SZ`` of ``fcntl.h``: most bytes of the file system's own part."""

_STATFS_SIZE = 256
_FSID = slice(56, 64)
"""``f_fsid`` in ``struct statfs`` of 64-bit Linux, after seven longs."""
_MAGIC = slice(0, 8)
"""``f_type``, its first long."""

_name_to_handle_at = declare(
    "name_to_handle_at",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    checked=False,
)
_open_by_handle_at = declare(
    "open_by_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, checked=False
)
_fstatfs = declare("fstatfs", ctypes.c_int, ctypes.c_void_p)


class _Answer(threading.local):
    """What name_to_handle_at fills in, for each thread its own."""

    def __init__(self) -> None:
        memory = (ctypes.c_uint32 * ((HEADER + MAX_HANDLE) // 4))()
        self.memory = memory
        self.address = ctypes.addressof(memory)
        self.view = memoryview(memory).cast("B")
        self.mount_id = ctypes.c_int()
        self.mount_id_address = ctypes.addressof(self.mount_id)


_answer = _Answer()


def name_to_handle(dir_fd: int, name: bytes, *, empty_path: bool = False) -> tuple[Handle, int]:
    """The handle of a name, and the id of its mount (as in mountinfo).

    A symbolic link is not followed.  With ``empty_path`` and the name ``b""``
    it is the handle of ``dir_fd`` itself.  Raises OSError: EOPNOTSUPP where the
    file system has no handles, EOVERFLOW where it needs more than 128 bytes.
    """
    answer = _answer
    memory = answer.memory
    memory[0] = MAX_HANDLE
    flags = AT_EMPTY_PATH if empty_path else 0
    if _name_to_handle_at(dir_fd, name, answer.address, answer.mount_id_address, flags) < 0:
        fail(name)
    return answer.view[: HEADER + memory[0]].tobytes(), answer.mount_id.value


def open_by_handle(mount_fd: int, handle: Handle, flags: int) -> int:
    """Open what the handle names, in the file system of ``mount_fd``.

    O_CLOEXEC is added to ``flags``.  The caller owns the descriptor.  Needs
    CAP_DAC_READ_SEARCH.  Raises OSError: ESTALE if the inode is gone, EINVAL
    for bytes that are no handle, ELOOP for a symbolic link without O_PATH.
    """
    # The kernel believes the length in the handle, so it has to be true.
    # One byte of it is enough: the kernel refuses more than MAX_HANDLE.
    if not handle or len(handle) != HEADER + handle[0]:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    fd: int = _open_by_handle_at(mount_fd, handle, flags | os.O_CLOEXEC)
    if fd < 0:
        fail()
    return fd


def fsid(fd: int) -> bytes:
    """The 8 bytes of ``f_fsid`` that fanotify reports for this file system."""
    return _statfs(fd)[_FSID]


def magic(fd: int) -> int:
    """The kind of file system, a ``..._MAGIC`` of linux/magic.h."""
    return int.from_bytes(_statfs(fd)[_MAGIC], sys.byteorder)


def _statfs(fd: int) -> bytes:
    statfs = ctypes.create_string_buffer(_STATFS_SIZE)
    _fstatfs(fd, ctypes.addressof(statfs))
    return statfs.raw
