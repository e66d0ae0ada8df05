"""The FUSE protocol, 7.31 to 7.45, as declarations.

The source of every number is ``include/uapi/linux/fuse.h``; the struct of a
declaration is named in its docstring.  All integers are in the byte order of
the machine, which on every machine that farwatch runs on is little endian.

A request is ``IN_HEADER`` and then what its opcode says; a reply is
``OUT_HEADER`` and then a payload, or no payload and a negative errno.  A
notification is an ``OUT_HEADER`` whose ``unique`` is 0 and whose ``error`` is a
positive ``Notify`` code.  Names end with a NUL that the length includes.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

MAJOR = 7
OLDEST_MINOR = 31
NEWEST_MINOR = 45
ROOT_ID = 1
"""``FUSE_ROOT_ID``: the node id of the mount's root."""

IN_HEADER = Struct("<IIQQIIIHH")
"""``fuse_in_header``: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""
OUT_HEADER = Struct("<IiQ")
"""``fuse_out_header``: len, error, unique."""


class Opcode(IntEnum):
    """``enum fuse_opcode``."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Notify(IntEnum):
    """``enum fuse_notify_code``."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8
    PRUNE = 9


class Init(IntFlag):
    """``FUSE_*`` init flags, ``flags`` in bits 0-31 and ``flags2`` in bits 32-63."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40


INIT_IN_SHORT = Struct("<4I")
"""``fuse_init_in`` before 7.36: major, minor, max_readahead, flags."""
INIT_IN = Struct("<5I44x")
"""``fuse_init_in`` with ``FUSE_INIT_EXT``: the same and flags2."""
INIT_OUT = Struct("<4I2H2I2H2I24x")
"""``fuse_init_out``: major, minor, max_readahead, flags, max_background,
congestion_threshold, max_write, time_gran, max_pages, map_alignment, flags2,
max_stack_depth."""


class Valid(IntFlag):
    """``FATTR_*``: which fields of a SETATTR are meant."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCKOWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


class Open(IntFlag):
    """``FOPEN_*``: what an open file is to be like, in ``OPEN_OUT``."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    STREAM = 1 << 4
    NOFLUSH = 1 << 5
    PARALLEL_DIRECT_WRITES = 1 << 6
    PASSTHROUGH = 1 << 7


GETATTR_FH = 1 << 0
OPEN_KILL_SUIDGID = 1 << 0
"""In ``open_flags`` of OPEN_IN and CREATE_IN (7.33)."""
WRITE_CACHE = 1 << 0
"""In ``write_flags`` of WRITE_IN: by no program, but from the pages of a mapping."""
WRITE_KILL_SUIDGID = 1 << 2
"""In ``write_flags`` of WRITE_IN (7.31)."""
FSYNC_FDATASYNC = 1 << 0
IOCTL_DIR = 1 << 4
LK_FLOCK = 1 << 0
"""In ``lk_flags`` of LK_IN: flock(2)'s, else fcntl(2)'s."""
EXPIRE_ONLY = 1 << 0

ATTR = Struct("<6Q10I")
"""``fuse_attr``: ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec,
ctimensec, mode, nlink, uid, gid, rdev, blksize, flags."""
ENTRY_OUT_HEAD = Struct("<4Q2I")
"""``fuse_entry_out`` without its ``attr``: nodeid, generation, entry_valid,
attr_valid, entry_valid_nsec, attr_valid_nsec."""
ATTR_OUT_HEAD = Struct("<Q2I")
"""``fuse_attr_out`` without its ``attr``: attr_valid, attr_valid_nsec, dummy."""
GETATTR_IN = Struct("<2IQ")
"""``fuse_getattr_in``: getattr_flags, dummy, fh."""
SETATTR_IN = Struct("<2I6Q8I")
"""``fuse_setattr_in``: valid, padding, fh, size, lock_owner, atime, mtime, ctime,
atimensec, mtimensec, ctimensec, mode, unused4, uid, gid, unused5."""
MKNOD_IN = Struct("<4I")
"""``fuse_mknod_in``: mode, rdev, umask, padding."""
MKDIR_IN = Struct("<2I")
"""``fuse_mkdir_in``: mode, umask."""
RENAME_IN = Struct("<Q")
"""``fuse_rename_in``: newdir."""
RENAME2_IN = Struct("<Q2I")
"""``fuse_rename2_in``: newdir, flags, padding."""
LINK_IN = Struct("<Q")
"""``fuse_link_in``: oldnodeid."""
OPEN_IN = Struct("<2I")
"""``fuse_open_in``: flags, open_flags."""
CREATE_IN = Struct("<4I")
"""``fuse_create_in``: flags, mode, umask, open_flags."""
OPEN_OUT = Struct("<QIi")
"""``fuse_open_out``: fh, open_flags, backing_id."""
RELEASE_IN = Struct("<Q2IQ")
"""``fuse_release_in``: fh, flags, release_flags, lock_owner."""
FLUSH_IN = Struct("<Q2IQ")
"""``fuse_flush_in``: fh, unused, padding, lock_owner."""
READ_IN = Struct("<2Q2IQ2I")
"""``fuse_read_in``: fh, offset, size, read_flags, lock_owner, flags, padding."""
WRITE_IN = Struct("<2Q2IQ2I")
"""``fuse_write_in``: fh, offset, size, write_flags, lock_owner, flags, padding."""
WRITE_OUT = Struct("<2I")
"""``fuse_write_out``: size, padding."""
STATFS_OUT = Struct("<5Q4I24x")
"""``fuse_kstatfs``: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding."""
FSYNC_IN = Struct("<Q2I")
"""``fuse_fsync_in``: fh, fsync_flags, padding."""
SETXATTR_IN_COMPAT = Struct("<2I")
"""``fuse_setxattr_in`` without ``FUSE_SETXATTR_EXT``: size, flags."""
SETXATTR_IN = Struct("<4I")
"""``fuse_setxattr_in``: size, flags, setxattr_flags, padding."""
SETXATTR_KILL_SGID = 1 << 0
"""``FUSE_SETXATTR_ACL_KILL_SGID``: an access control list that is set takes S_ISGID away."""
STATX_IN = Struct("<2IQ2I")
"""``fuse_statx_in``: getattr_flags, reserved, fh, sx_flags, sx_mask."""
STATX_OUT_HEAD = Struct("<Q2I16x")
"""``fuse_statx_out`` without its ``stat``: attr_valid, attr_valid_nsec, flags."""
STATX = Struct("<2IQ3IH2x4QqI4xqI4xqI4xqI4x4I112x")
"""``fuse_statx``: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks,
attributes_mask, then atime, btime, ctime, mtime as seconds and ns, rdev_major, rdev_minor,
dev_major, dev_minor."""
EXTENSION = Struct("<2I")
"""``fuse_ext_header``: size, type.  Each extension fills whole 8 bytes, and all of them stand at
the end of a request whose header says how many they are (total_extlen, in units of 8 bytes)."""
EXTENSION_GROUPS = 32
"""``FUSE_EXT_GROUPS``: ``fuse_supp_groups`` follows, which is a number of groups, and these."""
GETXATTR_IN = Struct("<2I")
"""``fuse_getxattr_in``: size, padding."""
GETXATTR_OUT = Struct("<2I")
"""``fuse_getxattr_out``: size, padding."""
ACCESS_IN = Struct("<2I")
"""``fuse_access_in``: mask, padding."""
INTERRUPT_IN = Struct("<Q")
"""``fuse_interrupt_in``: unique."""
LK_IN = Struct("<4Q4I")
"""``fuse_lk_in``: fh, owner, the lock's start, end (included), type and pid, lk_flags, padding."""
LK_OUT = Struct("<2Q2I")
"""``fuse_lk_out``: start, end, type, pid."""
IOCTL_IN = Struct("<Q2IQ2I")
"""``fuse_ioctl_in``: fh, flags, cmd, arg, in_size, out_size."""
IOCTL_OUT = Struct("<i3I")
"""``fuse_ioctl_out``: result, flags, in_iovs, out_iovs."""
FORGET_IN = Struct("<Q")
"""``fuse_forget_in``: nlookup."""
BATCH_FORGET_IN = Struct("<2I")
"""``fuse_batch_forget_in``: count, dummy."""
FORGET_ONE = Struct("<2Q")
"""``fuse_forget_one``: nodeid, nlookup."""
FALLOCATE_IN = Struct("<3Q2I")
"""``fuse_fallocate_in``: fh, offset, length, mode, padding."""
LSEEK_IN = Struct("<2Q2I")
"""``fuse_lseek_in``: fh, offset, whence, padding."""
LSEEK_OUT = Struct("<Q")
"""``fuse_lseek_out``: offset."""
COPY_FILE_RANGE_IN = Struct("<7Q")
"""``fuse_copy_file_range_in``: fh_in, off_in, nodeid_out, fh_out, off_out, len, flags."""
DIRENT = Struct("<2Q2I")
"""``fuse_dirent``: ino, off, namelen, type; the name follows, padded to 8 bytes."""
NOTIFY_INVAL_INODE_OUT = Struct("<Q2q")
"""``fuse_notify_inval_inode_out``: ino, off, len.  A negative ``off`` means no pages."""
NOTIFY_INVAL_ENTRY_OUT = Struct("<Q2I")
"""``fuse_notify_inval_entry_out``: parent, namelen, flags; the name and a NUL follow."""
NOTIFY_PRUNE_OUT = Struct("<2IQ")
"""``fuse_notify_prune_out``: count, padding, spare; ``count`` node ids follow."""

ENTRY_OUT_SIZE = ENTRY_OUT_HEAD.size + ATTR.size
NAME_MAX = 1024
"""``FUSE_NAME_MAX``: no name in a request is longer, in bytes."""


def has_init_ext(minor: int) -> bool:
    """Whether the kernel can send 64 bits of init flags (7.36)."""
    return minor >= 36


def has_prune(minor: int) -> bool:
    """Whether the kernel takes ``FUSE_NOTIFY_PRUNE`` (7.45)."""
    return minor >= 45


def has_noflush(minor: int) -> bool:
    """Whether the kernel knows ``FOPEN_NOFLUSH`` (7.35)."""
    return minor >= 35


def takes_passthrough(minor: int) -> bool:
    """Whether an open file may name a backing file (7.40)."""
    return minor >= 40


def dirent_size(name_length: int) -> int:
    """The bytes of a directory entry with a name of this many bytes."""
    return (DIRENT.size + name_length + 7) & ~7
