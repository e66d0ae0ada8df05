"""``fuse_attr``, the 88 bytes that a client is told of an inode (fuse.h).

Written from what the disk says, and changed afterwards in two ways only: another link
count, because a removal is still to be replayed; and an mtime that no file has, because the
client's pages are to go.
"""

from __future__ import annotations

import os
import struct

from farwatch.abi import fuse
from farwatch.export.guise import Seen
from farwatch.export.nodes import Node
from farwatch.linux.files import STATX_BASIC_STATS, STATX_BTIME

_BILLION = 1_000_000_000
_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF

# Offsets in fuse_attr: ino, size, blocks and three times of 8 bytes, three of 4, mode, nlink.
_MTIME_OFFSET = 4 * 8
_MTIME_NSEC_OFFSET = 6 * 8 + 4
_NLINK_OFFSET = 6 * 8 + 4 * 4
_IMPOSSIBLE_NSEC = 999_999_999


def encode_device(device: int) -> int:
    """A device number as the kernel's 32 bits (``new_encode_dev`` of kdev_t.h)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12) & _U32


def decode_device(device: int) -> int:
    """The reverse of ``encode_device``."""
    return os.makedev((device & 0xFFF00) >> 8, (device & 0xFF) | (device >> 12 & 0xFFF00))


def pack_attributes(status: os.stat_result, nlink: int, seen: Seen) -> bytes:
    """``fuse_attr`` of an inode, with a link count of its own, as it is shown."""
    atime, atime_ns = divmod(status.st_atime_ns, _BILLION)
    mtime, mtime_ns = divmod(status.st_mtime_ns, _BILLION)
    ctime, ctime_ns = divmod(status.st_ctime_ns, _BILLION)
    ino, mode, device = seen
    return fuse.ATTR.pack(
        ino,
        status.st_size,
        status.st_blocks,
        atime & _U64,
        mtime & _U64,
        ctime & _U64,
        atime_ns,
        mtime_ns,
        ctime_ns,
        mode,
        nlink,
        status.st_uid,
        status.st_gid,
        encode_device(device) if device else 0,
        status.st_blksize & _U32,
        0,
    )


def ghost_attributes(node: Node, nlink: int) -> bytes:
    """``fuse_attr`` of an inode that is gone and was never seen: its type, and no more."""
    permissions = 0o755 if node.is_dir else 0o644
    mode = node.kind | permissions
    return fuse.ATTR.pack(node.id, 0, 0, 0, 0, 0, 0, 0, 0, mode, nlink, 0, 0, 0, 4096, 0)


def no_entry(seconds: int) -> bytes:
    """``fuse_entry_out`` of a name that is not there: node 0, believed for so long."""
    return fuse.ENTRY_OUT_HEAD.pack(0, 0, seconds, 0, 0, 0) + bytes(fuse.ATTR.size)


def differs(attributes: bytes, status: os.stat_result) -> bool:
    """Whether size, mtime or ctime of this ``fuse_attr`` are not what the disk says."""
    if not attributes:
        return False
    _, size, _, _, mtime, ctime, _, mtime_ns, ctime_ns, *_ = fuse.ATTR.unpack(attributes)
    return (
        size != status.st_size
        or (mtime, mtime_ns) != _time(status.st_mtime_ns)
        or (ctime, ctime_ns) != _time(status.st_ctime_ns)
    )


def _time(nanoseconds: int) -> tuple[int, int]:
    seconds, rest = divmod(nanoseconds, _BILLION)
    return seconds & _U64, rest


def as_statx(attributes: bytes, birth_ns: int | None) -> bytes:
    """``fuse_statx`` that says the same as a ``fuse_attr``, and the time of birth if known."""
    (
        ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
        mode, nlink, uid, gid, device, blksize, _,
    ) = fuse.ATTR.unpack(attributes)  # fmt: skip
    mask = STATX_BASIC_STATS if birth_ns is None else STATX_BASIC_STATS | STATX_BTIME
    rdev = decode_device(device)
    return fuse.STATX.pack(
        mask,
        blksize,
        0,
        nlink,
        uid,
        gid,
        mode,
        ino,
        size,
        blocks,
        0,
        _signed(atime),
        atime_ns,
        *divmod(birth_ns or 0, _BILLION),
        _signed(ctime),
        ctime_ns,
        _signed(mtime),
        mtime_ns,
        os.major(rdev),
        os.minor(rdev),
        0,
        0,
    )


def _signed(seconds: int) -> int:
    return seconds - (_U64 + 1) if seconds >> 63 else seconds


def with_links(attributes: bytes, nlink: int) -> bytes:
    """The same ``fuse_attr`` with another link count."""
    return (
        attributes[:_NLINK_OFFSET] + nlink.to_bytes(4, "little") + attributes[_NLINK_OFFSET + 4 :]
    )


def impossible(attributes: bytes) -> bytes:
    """The same ``fuse_attr`` with an mtime that no file has.

    A client's kernel drops the pages of a file when it hears of another mtime in answer to
    LOOKUP or GETATTR (fuse_change_attributes), and without this a same-size overwrite would
    stay unread.  In answer to SETATTR it takes the mtime, and drops them at the next question.
    The answer is not valid for any time, so nobody is shown it.

    Another size would have it drop them in answer to SETATTR, too, but who is reading at the
    moment would read up to it.
    """
    changed = bytearray(attributes)
    struct.pack_into("<Q", changed, _MTIME_OFFSET, 1)
    struct.pack_into("<I", changed, _MTIME_NSEC_OFFSET, _IMPOSSIBLE_NSEC)
    return bytes(changed)
