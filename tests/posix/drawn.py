"""What the random calls are about: few names, so that they meet; all the flags there are.

Whatever can be drawn is in a list, of which one is as likely as another; what is to be drawn
more often stands there more often.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import product
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from farwatch.linux.files import (
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    NOW,
    OMIT,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)
from tests.posix.acls import ACCESS, DEFAULT, acl
from tests.posix.actor import User
from tests.posix.calls import Where

TEAM, OTHERS = 62001, 62002
ROOT = User(0, (0,))
ANN = User(61001, (61001, TEAM, OTHERS))
BOB = User(61002, (61002, TEAM))
CAT = User(61003, (OTHERS,))
USERS = (ROOT, ANN, BOB, CAT)

_NAMES = (b"a", b"b", b"c", b"d")
_SHALLOW = [*_NAMES, b"e"]
_DEEPER = [b"/".join(pair) for pair in product((b"a", b"b", b"c", b"d"), _NAMES)]
_DEEPEST = [b"/".join(path) for path in product((b"a", b"b"), (b"b", b"d"), _NAMES)]
_AWKWARD = [
    b"", b".", b"a/", b"a/.", b"b/a/", b"a/../b", b"a/b/../a", b"a/\xff\xfe", b"b/" + b"n" * 255,
    b"b/" + b"n" * 256, b"b/" + b"n" * 1025, b"/".join([b"a"] * 2100), b"./" * 2000 + b"a",
]  # fmt: skip
SLOTS = 4
_SLOTS = list(range(SLOTS))
_WHERES = [
    *map(Where, _SHALLOW * 3 + _DEEPER * 2 + _DEEPEST + _AWKWARD),
    *(Where(name, slot) for name, slot in product(_NAMES, _SLOTS)),
]
_TARGETS = [b"a", b"b", b"c", b"a/b", b"b/a", b"../a", b"nowhere", b"x" * 4095, b"x" * 4096, b""]
_OWNERS = [
    owner
    for owner in product((-1, 0, ANN.uid, BOB.uid, CAT.uid), (-1, 0, ANN.uid, TEAM, OTHERS))
    if owner != (-1, -1)
]
"""Without (-1, -1): FUSE lets everybody say that of a file with set-id bits, to no effect."""
_MODES = [
    0, 0o400, 0o604, 0o640, 0o644, 0o664, 0o666, 0o700, 0o750, 0o755, 0o770, 0o777, 0o1777,
    0o2775, 0o2777, 0o4755, 0o6755, 0o2644, 0o2755, 0o3777, 0o6777, 0o070, 0o007,
]  # fmt: skip
_UMASKS = [0, 0o002, 0o022, 0o027, 0o077]
_KINDS = [0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR]
_NODES = [kind | mode for kind, mode in product(_KINDS, (0o666, 0o777, 0o640, 0o2755, 0o6777))]
_DEVICES = [0, 0, os.makedev(1, 3), os.makedev(0x123, 0x12345), os.makedev(7, 200)]
_RENAMINGS = [
    *[0] * 6, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_WHITEOUT,
    RENAME_NOREPLACE | RENAME_WHITEOUT, RENAME_NOREPLACE | RENAME_EXCHANGE, 64,
]  # fmt: skip
_LINKINGS = [0, 0, AT_SYMLINK_FOLLOW]
_OPENINGS = [
    0, 0, 0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC,
    os.O_CREAT | os.O_TRUNC, os.O_NOFOLLOW, os.O_NOATIME, os.O_CREAT | os.O_NOFOLLOW,
    os.O_SYNC, os.O_APPEND, os.O_CREAT | os.O_APPEND, os.O_DIRECTORY,
]  # fmt: skip
_FLAGS = [
    *(mode | more for mode, more in product((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR),
                                            _OPENINGS)),
    *[os.O_PATH, os.O_PATH | os.O_NOFOLLOW, os.O_DIRECTORY, os.O_DIRECTORY, os.O_DIRECTORY] * 2,
]  # fmt: skip
_NAMELESS = [
    os.O_TMPFILE | os.O_RDWR, os.O_TMPFILE | os.O_RDWR, os.O_TMPFILE | os.O_WRONLY,
    os.O_TMPFILE | os.O_RDWR | os.O_EXCL, os.O_TMPFILE,
]  # fmt: skip
_TIMES = [
    NOW, NOW, OMIT, OMIT, 0, 1, 999_999_999, 1_234_567_890_123_456_789, -1_500_000_000,
    -(1 << 62),
]  # fmt: skip
_FOLLOWING = [0, AT_SYMLINK_NOFOLLOW]
_DATA = [b"1", b"some words", b"x" * 40, b"y" * 5000]
_SIZES = [0, 1, 5, 100, 4095, 4096, 10_000]
_OFFSETS = [0, 1, 7, 100, 4000, 4096, 9_999, 100_000]
_FAR = [*_OFFSETS, -1, (1 << 63) - 1]
_WHENCES = [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE, 99]
_ALLOCATIONS = [
    0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
]  # fmt: skip
"""Without FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE: FUSE refuses these itself."""

_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, ``struct vfs_cap_data`` version 2 (linux/capability.h)."""
_XATTRS = [
    "user.x", "user.x", "user.y", "trusted.x", "security.capability", "security.x", "nowhere.x",
    "user.", "user." + "n" * 250, "user." + "n" * 251, ACCESS, DEFAULT,
]  # fmt: skip
_VALUES = [b"", b"value", b"v" * 2000, _CAPABILITY, _CAPABILITY]
_XATTR_FLAGS = [0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]
_NAMED: list[dict[tuple[str, int], int]] = [
    {},
    {("user", ANN.uid): 7},
    {("user", BOB.uid): 0, ("group", TEAM): 6},
    {("user", CAT.uid): 4},
    {("group", OTHERS): 7},
    {("group", TEAM): 0, ("group", OTHERS): 5},
]
_ACLS = [
    acl(owner, named, group, mask if named else None, other)
    for (owner, group), mask, other, named in product(
        ((7, 5), (6, 0), (4, 7)), (7, 5, 0), (0, 4, 7), _NAMED
    )
]
_ACL_NAMES = [ACCESS, ACCESS, DEFAULT]

Row = tuple[str, Sequence[Sequence[Any]]]

TABLE: list[Row] = [
    ("mkdir", (_WHERES, _MODES)),
    ("mknod", (_WHERES, _NODES, _DEVICES)),
    ("symlink", (_TARGETS, _WHERES)),
    ("link", (_WHERES, _WHERES, _LINKINGS)),
    ("link_open", (_SLOTS, _WHERES)),
    ("unlink", (_WHERES,)),
    ("rmdir", (_WHERES,)),
    ("rename", (_WHERES, _WHERES, _RENAMINGS)),
    ("rename", (_WHERES, _WHERES, _RENAMINGS)),
    ("readlink", (_WHERES,)),
    ("listdir", (_WHERES,)),
    ("lstat", (_WHERES,)),
    ("lstat", (_WHERES,)),
    ("fstat", (_SLOTS,)),
    ("has_birth_time", (_WHERES,)),
    ("access", (_WHERES, range(8))),
    ("chmod", (_WHERES, _MODES)),
    ("fchmod", (_SLOTS, _MODES)),
    ("chown", (_WHERES, _OWNERS, (True, False))),
    ("fchown", (_SLOTS, _OWNERS)),
    ("utimens", (_WHERES, _TIMES, _TIMES, _FOLLOWING)),
    ("umask", (_UMASKS,)),
    ("statvfs", (_WHERES,)),
    ("setxattr", (_WHERES, _XATTRS, _VALUES, _XATTR_FLAGS)),
    ("setxattr", (_WHERES, _ACL_NAMES, _ACLS, _XATTR_FLAGS)),
    ("getxattr", (_WHERES, _XATTRS)),
    ("listxattr", (_WHERES,)),
    ("removexattr", (_WHERES, _XATTRS)),
    ("fsetxattr", (_SLOTS, _XATTRS, _VALUES)),
    ("open", (_SLOTS, _WHERES, _FLAGS, _MODES)),
    ("open", (_SLOTS, _WHERES, _FLAGS, _MODES)),
    ("open", (_SLOTS, _WHERES, _FLAGS, _MODES)),
    ("open", (_SLOTS, _WHERES, _FLAGS, _MODES)),
    ("open", (_SLOTS, _WHERES, _NAMELESS, _MODES)),
    ("close", (_SLOTS,)),
    ("read", (_SLOTS, _SIZES)),
    ("pread", (_SLOTS, _SIZES, _FAR)),
    ("write", (_SLOTS, _DATA)),
    ("write", (_SLOTS, _DATA)),
    ("pwrite", (_SLOTS, _DATA, _FAR)),
    ("lseek", (_SLOTS, [*_OFFSETS, -1], _WHENCES)),
    ("truncate", (_WHERES, _SIZES)),
    ("ftruncate", (_SLOTS, _SIZES)),
    ("allocate", (_SLOTS, _ALLOCATIONS, _OFFSETS, _SIZES)),
    ("copy", (_SLOTS, _OFFSETS, _SLOTS, _OFFSETS, _SIZES)),
    ("fsync", (_SLOTS,)),
]
"""Names of ``calls.CALLS``, and what each argument may be."""

OPENED = [
    (0, Where(b"b/a"), os.O_RDWR, 0),
    (1, Where(b"a"), os.O_DIRECTORY, 0),
    (2, Where(b"a/a"), os.O_RDONLY, 0),
]
"""What everybody has open to begin with: slot, and the other arguments of ``open``."""

Call = tuple[str, tuple[Any, ...]]


def _arguments(row: Row) -> SearchStrategy[Call]:
    name, pools = row
    return st.tuples(st.just(name), st.tuples(*map(st.sampled_from, pools)))


users = st.integers(0, len(USERS) - 1)


def calls(*, gives_set_id: bool) -> SearchStrategy[Call]:
    """Any of them; without ``gives_set_id`` chmod(2) gives no set-id bits."""
    rows = TABLE if gives_set_id else [_without_set_id(row) for row in TABLE]
    return st.sampled_from(rows).flatmap(_arguments)


def _without_set_id(row: Row) -> Row:
    name, pools = row
    if name not in {"chmod", "fchmod"}:
        return row
    return name, (pools[0], [mode for mode in pools[1] if not mode & 0o6000])
