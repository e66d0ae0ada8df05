"""Writing as somebody for whom the kernel takes set-id bits away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from farwatch.linux.credentials import CAP_FSETID, capget, capset

__all__ = ["killing_set_id"]


@contextmanager
def killing_set_id() -> Iterator[None]:
    """Leave CAP_FSETID out: a write or truncation then clears S_ISUID and S_ISGID.

    For this thread only.  It is what a client asks for with the KILL_SUIDGID
    flags of ``linux/fuse.h`` (7.33), having seen that its caller lacks the capability.
    """
    before = capget()
    capset(before._replace(effective=before.effective & ~CAP_FSETID))
    try:
        yield
    finally:
        capset(before)
