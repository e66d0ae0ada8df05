"""A thread as another user, for as long as it likes: fsuid, fsgid, groups and no capability.

    root ──become──> somebody          the kernel checks all access as it does for them
             raised ↕                  every capability for a moment, the ids stay

Unlike ``credentials.acting_as``, which leaves the capabilities that spare root the checks.
A process's real and effective ids stay root's, and so do the capabilities that are permitted:
a thread that has become somebody can become somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from farwatch.linux.credentials import capget, capsetter, setfsgid, setfsuid, setgroups


class Who(NamedTuple):
    """Somebody: user, group, and the supplementary groups as far as they are known."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Who(0, 0)


class Identity:
    """Who the calling thread is.  For the thread that has made it, which is root's."""

    def __init__(self) -> None:
        now = capget()
        self._take_all = capsetter(now._replace(effective=now.permitted))
        self._give_up_all = capsetter(now._replace(effective=0))
        self._raised = Raised(self._take_all, self._give_up_all)
        self._who: Who | None = None
        self.is_root = True

    def become(self, who: Who) -> None:
        """Be somebody from now on; only root has capabilities.

        Raises OSError where the ids cannot be taken; the thread is nobody in particular
        then, and has no capability.
        """
        if who == self._who:
            return
        self._who = None
        self._take_all()
        try:
            setgroups(who.groups)
            setfsgid(who.gid)
            setfsuid(who.uid)
        except BaseException:
            self._give_up_all()
            self.is_root = False
            raise
        self.is_root = who.uid == 0
        if self.is_root:
            self._take_all()
        else:
            self._give_up_all()
        self._who = who

    @property
    def raised(self) -> Raised | Unchanged:
        """In its ``with``, the thread has all capabilities; may be nested."""
        return _UNCHANGED if self.is_root else self._raised


class Raised:
    """All capabilities, for one ``with``."""

    __slots__ = ("_depth", "_give_up_all", "_take_all")

    def __init__(self, take_all: Callable[[], None], give_up_all: Callable[[], None]) -> None:
        self._take_all = take_all
        self._give_up_all = give_up_all
        self._depth = 0

    def __enter__(self) -> Self:
        if not self._depth:
            self._take_all()
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._give_up_all()


class Unchanged(Raised):
    """Root has them already."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_nothing, _nothing)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def _nothing() -> None:
    pass


_UNCHANGED = Unchanged()


def user(name: str) -> Who:
    """A user of this host by name or number, with all groups.  Raises KeyError."""
    import pwd

    entry = pwd.getpwuid(int(name)) if name.isascii() and name.isdecimal() else pwd.getpwnam(name)
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Who(entry.pw_uid, entry.pw_gid, tuple(groups))
