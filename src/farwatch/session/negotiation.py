"""INIT: what client kernel and server agree on."""

from __future__ import annotations

import errno
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fuse import Init
from farwatch.session.request import fail
from farwatch.session.settings import Settings

_PAGE = 4096

ALWAYS = (
    Init.ASYNC_READ
    | Init.EXPORT_SUPPORT
    | Init.BIG_WRITES
    | Init.HAS_IOCTL_DIR
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.HANDLE_KILLPRIV_V2
    | Init.MAX_PAGES
    | Init.INIT_EXT
    | Init.HAS_EXPIRE_ONLY
    | Init.DIRECT_IO_ALLOW_MMAP
)
"""Taken whenever the kernel offers it.

Left out, because replay does not work with it: WRITEBACK_CACHE (it hides sizes and times
that are made elsewhere), ALLOW_IDMAP (it blanks the user id that marks a replay),
EXPLICIT_INVAL_DATA and CACHE_SYMLINKS (they trust what is cached).  Left out for now:
POSIX_ACL, and locks, which stay in the client's kernel.
"""


class Agreed(NamedTuple):
    """The outcome: the protocol's minor version and flags."""

    minor: int
    flags: Init

    @property
    def passthrough(self) -> bool:
        """Whether open files may name a backing file."""
        return Init.PASSTHROUGH in self.flags

    @property
    def noflush(self) -> bool:
        """Whether open files may do without FLUSH."""
        return fuse.has_noflush(self.minor)


def negotiate(body: memoryview, settings: Settings) -> tuple[Agreed | None, bytes]:
    """Answers an INIT.

    Returns what was agreed, or None if the kernel is to ask again with our major
    version.  Raises OSError EPROTO for a kernel that is too old.
    """
    major, minor, readahead, low = fuse.INIT_IN_SHORT.unpack_from(body)
    if major > fuse.MAJOR:
        return None, fuse.INIT_OUT.pack(fuse.MAJOR, fuse.NEWEST_MINOR, *[0] * 10)
    if major < fuse.MAJOR or minor < fuse.OLDEST_MINOR:
        raise fail(errno.EPROTO, f"FUSE {major}.{minor} is too old, 7.31 is needed")
    offered = low
    if fuse.has_init_ext(minor) and low & Init.INIT_EXT and len(body) >= fuse.INIT_IN.size:
        offered |= fuse.INIT_IN.unpack_from(body)[4] << 32
    wanted = ALWAYS & ~settings.refused
    if settings.passthrough and fuse.takes_passthrough(minor):
        wanted |= Init.PASSTHROUGH
    flags = Init(offered & wanted)
    agreed = Agreed(min(minor, fuse.NEWEST_MINOR), flags)
    answer = fuse.INIT_OUT.pack(
        fuse.MAJOR,
        agreed.minor,
        readahead,
        flags & 0xFFFF_FFFF,
        64,
        48,
        settings.max_write,
        1,
        settings.max_write // _PAGE,
        0,
        flags >> 32,
        1 if agreed.passthrough else 0,
    )
    return agreed, answer
