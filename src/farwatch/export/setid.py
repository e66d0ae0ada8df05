"""Writing as somebody for whom the kernel takes set-id bits away.

Who has no CAP_FSETID loses S_ISUID and S_ISGID of a file that he writes, truncates or gives
away (``setattr_should_drop_suidgid`` of fs/attr.c).  One thing stays: S_ISGID of a file that
its group cannot execute, for who is in that group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from stat import S_ISGID, S_IXGRP

from farwatch.linux.credentials import CAP_FSETID, capget, capset, setgroups

__all__ = ["Groups", "killing_set_id", "no_groups"]

Groups = Callable[[], Sequence[int]]
"""Asks for the groups that the caller is in; asked only where they make a difference."""


def no_groups() -> Sequence[int]:
    """Of somebody who is in no group, as far as is known."""
    return ()


@contextmanager
def killing_set_id(fd: int | None = None, groups: Groups = no_groups) -> Iterator[None]:
    """Leave CAP_FSETID out.  ``fd`` is open (O_PATH, too) on what is written.

    For this thread only, which is in no groups.  It is what a client asks for with the
    KILL_SUIDGID flags of ``linux/fuse.h`` (7.33), having seen that its caller lacks the
    capability.
    """
    taken = groups() if fd is not None and _keeps_set_gid(fd) else ()
    before = capget()
    if taken:
        setgroups(taken)
    capset(before._replace(effective=before.effective & ~CAP_FSETID))
    try:
        yield
    finally:
        capset(before)
        if taken:
            setgroups(())


def _keeps_set_gid(fd: int) -> bool:
    return os.fstat(fd).st_mode & (S_ISGID | S_IXGRP) == S_ISGID
