"""The whole of a file system, from a mount that shows only a part of it.

Most file systems have one id (``f_fsid``) throughout.  btrfs has another one in each
subvolume, and fanotify takes and reports the one of the top of the file system: a mark asked
for in a subvolume is refused (EXDEV), though one at the top covers all subvolumes.  The top
need not be mounted anywhere for that: its handle is always the same, and opens it by way of
any mount of the file system.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from farwatch.linux.handles import fsid, magic, open_by_handle

_PATH = os.O_PATH | os.O_CLOEXEC
BTRFS = 0x9123683E
"""``BTRFS_SUPER_MAGIC`` of linux/magic.h."""
_TOP_OF_BTRFS = struct.pack("=IiQQI", 20, 0x4D, 256, 5, 0)
"""``struct btrfs_fid`` (fs/btrfs/export.h) of type FILEID_BTRFS_WITHOUT_PARENT: the first
object of the tree BTRFS_FS_TREE_OBJECTID, of any generation."""


def open_whole(fd: int) -> int:
    """A descriptor (O_PATH) on the mount of ``fd`` that stands for its whole file system.

    In btrfs it is on the top of the file system, else on what ``fd`` is open on.  The caller
    owns it.  To find the top takes CAP_DAC_READ_SEARCH, and ``fd`` must not be an O_PATH
    descriptor; without, it is on what ``fd`` is open on there too.
    """
    if magic(fd) == BTRFS:
        with suppress(OSError):
            return open_by_handle(fd, _TOP_OF_BTRFS, _PATH)
    return os.open(b"/proc/self/fd/%d" % fd, _PATH)


def whole_fsid(fd: int) -> bytes:
    """The 8 bytes by which fanotify reports the file system of ``fd``; see ``open_whole``.

    Zeros where it has no id (FUSE, NFS).
    """
    whole = open_whole(fd)
    try:
        return fsid(whole)
    finally:
        os.close(whole)
