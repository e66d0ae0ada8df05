"""INIT: what client kernel and server agree on."""

from __future__ import annotations

import errno
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fsnotify import HAVE_FSNOTIFY, Dialect
from farwatch.abi.fsnotify_posted import (
    PARENTED_INIT,
    PARENTED_MINOR,
    POSTED_INIT,
    POSTED_MINOR,
)
from farwatch.abi.fuse import Init
from farwatch.session.request import fail
from farwatch.session.settings import Marks, Settings

_PAGE = 4096

ALWAYS = (
    Init.ASYNC_READ
    | Init.POSIX_LOCKS
    | Init.EXPORT_SUPPORT
    | Init.BIG_WRITES
    | Init.FLOCK_LOCKS
    | Init.HAS_IOCTL_DIR
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.HANDLE_KILLPRIV_V2
    | Init.MAX_PAGES
    | Init.INIT_EXT
    | Init.CREATE_SUPP_GROUP
    | Init.HAS_EXPIRE_ONLY
    | Init.DIRECT_IO_ALLOW_MMAP
)
"""Taken whenever the kernel offers it.

Left out, because replay does not work with it: WRITEBACK_CACHE (it hides sizes and times
that are made elsewhere), ALLOW_IDMAP (it blanks the user id that marks a replay),
EXPLICIT_INVAL_DATA and CACHE_SYMLINKS (they trust what is cached).
"""
_WITH_ACLS = Init.POSIX_ACL | Init.SETXATTR_EXT | Init.DONT_MASK
"""Access control lists are the client's kernel's to check.  What they do to the modes of new
files, and to the umask, only the file system knows, which has the default ones."""
_BY_ONE_THREAD = Init.DONT_MASK | Init.CREATE_SUPP_GROUP
"""What is done in a caller's name with his umask, or a group of his: the umask is the whole
process's, and where callers are checked here their groups are known."""


class Agreed(NamedTuple):
    """The outcome: the protocol's minor version and flags.

    ``fsnotify``  how the client keeps its own marks; None: it keeps none.  POSTED may turn out
                  to be AGGREGATED.
    """

    minor: int
    flags: Init
    fsnotify: Dialect | None = None

    @property
    def passthrough(self) -> bool:
        """Whether open files may name a backing file."""
        return Init.PASSTHROUGH in self.flags

    @property
    def noflush(self) -> bool:
        """Whether open files may do without FLUSH."""
        return fuse.has_noflush(self.minor)

    @property
    def masks(self) -> bool:
        """Whether the umask is applied here, and not by the client's kernel."""
        return Init.DONT_MASK in self.flags

    @property
    def posix_acl(self) -> bool:
        """Whether the client's kernel goes by access control lists, and asks for them."""
        return Init.POSIX_ACL in self.flags

    @property
    def long_setxattr(self) -> bool:
        """Whether SETXATTR is ``SETXATTR_IN``."""
        return Init.SETXATTR_EXT in self.flags

    @property
    def locks(self) -> bool:
        """Whether locks of any kind come here, rather than stay in the client's kernel."""
        return bool(self.flags & (Init.POSIX_LOCKS | Init.FLOCK_LOCKS))

    @property
    def posix_locks(self) -> bool:
        """Whether fcntl(2)'s locks come here: FLUSH is what ends a process's."""
        return Init.POSIX_LOCKS in self.flags


NOTHING_AGREED = Agreed(0, Init(0))
"""Before the first INIT."""


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
    offered = low & ~int(Init.INIT_EXT)
    if fuse.has_init_ext(minor) and low & Init.INIT_EXT and len(body) >= fuse.INIT_IN.size:
        offered = low | fuse.INIT_IN.unpack_from(body)[4] << 32
    dialect = _dialect(minor, offered, low, len(body), settings)
    wanted = ALWAYS & ~settings.refused
    if settings.posix_acl:
        wanted |= _WITH_ACLS
    if settings.checks_permissions:
        wanted &= ~_BY_ONE_THREAD
    if settings.marks is Marks.BY_THREAD or dialect is Dialect.PARENTED:
        # Only root can take a group; and what that dialect asks by is the same bit.
        wanted &= ~Init.CREATE_SUPP_GROUP
    # What is passed through is done by the program's thread: nobody knew whose it was.
    if settings.passthrough and fuse.takes_passthrough(minor) and dialect is None:
        wanted |= Init.PASSTHROUGH
    flags = Init(offered & wanted)
    agreed = Agreed(min(minor, fuse.NEWEST_MINOR), flags, dialect)
    bits = int(flags) | (_FLAG[dialect] if dialect is not None else 0)
    answer = fuse.INIT_OUT.pack(
        fuse.MAJOR,
        agreed.minor,
        readahead,
        bits & 0xFFFF_FFFF,
        64,
        48,
        settings.max_write,
        1,
        settings.max_write // _PAGE,
        0,
        bits >> 32,
        1 if agreed.passthrough else 0,
    )
    return agreed, answer


_FLAG = {
    Dialect.CURRENT: HAVE_FSNOTIFY,
    Dialect.POSTED: POSTED_INIT,
    Dialect.AGGREGATED: POSTED_INIT,
    Dialect.PARENTED: PARENTED_INIT,
}


def _dialect(minor: int, offered: int, low: int, size: int, settings: Settings) -> Dialect | None:
    """How a client keeps its own marks, if it asks to.

    The posted flags have been given away since; of those they are told by what can only be
    asked for in the old way.
    """
    allowed = settings.fsnotify
    if offered & HAVE_FSNOTIFY and Dialect.CURRENT in allowed:
        return Dialect.CURRENT
    if (
        low & POSTED_INIT
        and minor == POSTED_MINOR
        and size == fuse.INIT_IN_SHORT.size
        and not allowed.isdisjoint((Dialect.POSTED, Dialect.AGGREGATED))
    ):
        return Dialect.POSTED if Dialect.POSTED in allowed else Dialect.AGGREGATED
    if offered & PARENTED_INIT and minor == PARENTED_MINOR and Dialect.PARENTED in allowed:
        return Dialect.PARENTED
    return None
