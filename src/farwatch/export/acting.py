"""In whose name a node is made: ids, the group that counts, and the umask.

    ids      setfsuid, setfsgid (``linux.credentials.acting_as``)
    groups   of the caller's supplementary ones the kernel tells the directory's, if he is in
             it: with it a new file keeps S_ISGID (FUSE_CREATE_SUPP_GROUP, 7.38)
    umask    the client's, which the backing file system leaves out where the directory has a
             default access control list: only it knows (FUSE_DONT_MASK)

A umask is the whole process's.  So it is only given where one thread makes nodes.
"""

from __future__ import annotations

import os
from types import TracebackType

from farwatch.export.anchor import Caller
from farwatch.linux.credentials import Acting, acting_as, setgroups

__all__ = ["acting_for"]


class _ActingFor:
    __slots__ = ("_acting", "_caller")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._acting = acting_as(caller.uid, caller.gid)

    def __enter__(self) -> None:
        caller = self._caller
        if caller.groups:
            setgroups(caller.groups)
        try:
            self._acting.__enter__()
        except BaseException:
            self._leave_groups()
            raise
        os.umask(caller.umask)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.umask(0)
        self._acting.__exit__(kind, error, trace)
        self._leave_groups()

    def _leave_groups(self) -> None:
        if self._caller.groups:
            setgroups(())


def acting_for(caller: Caller) -> Acting | _ActingFor:
    """In its ``with``, what this thread makes is made as the caller would have.

    Nobody's access is checked.  For a thread of root's that has no groups and whose umask
    is 0, which is so again afterwards.  Raises OSError as ``acting_as`` does.
    """
    if caller.groups or caller.umask:
        return _ActingFor(caller)
    return acting_as(caller.uid, caller.gid)
