"""fcntl(2)'s locks of a client, by their owners.

An owner is whom the client's kernel names: a process (F_SETLK), or an open file
(F_OFD_SETLK).  Each that has locks on a file needs an open file description to hold them:
that of the open file through which it comes or, if another owner has that one, one more.

    no locks --set--> holds: ranges, on one descriptor --all unlocked, or ``end``--> no locks

What an owner has locked is noted as well: for whoever asks which process holds a lock, and to
know for whom a request waits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterator
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from typing import NamedTuple

from farwatch.export import locks
from farwatch.session.files import OpenFile
from farwatch.session.ranges import Range, Ranges
from farwatch.session.request import fail

_MOST_RANGES = 1 << 16
"""Of all owners of a client; more are refused with ENOLCK."""


class Wanted(NamedTuple):
    """A lock that is asked for, by which owner, and through which open file of which node."""

    node: int
    fh: int
    owner: int
    range: Range
    pid: int


class Owner:
    """The ranges that an owner has locked in one file, and the descriptor that they are on.

    ``fh``       the open file through which it got that
    ``owns_fd``  it is no other open file's
    ``pid``      the process that has locked last
    ``itself``   equal to no other's, for as long as it has any locks of the file
    """

    __slots__ = ("fd", "fh", "itself", "mode", "number", "owns_fd", "pid", "ranges")

    def __init__(self, number: int, fh: int, fd: int, mode: int, *, owns_fd: bool) -> None:
        self.number = number
        self.fh = fh
        self.fd = fd
        self.mode = mode
        self.owns_fd = owns_fd
        self.pid = 0
        self.itself = object()
        self.ranges = Ranges()


class Owners:
    """Owns the descriptors that it has opened.  Called with the view's lock held."""

    def __init__(self) -> None:
        self._owners: dict[int, dict[int, Owner]] = {}
        """By node and number."""
        self._used: dict[int, int] = {}
        """Whose locks are on an open file's own descriptor."""
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._owners)

    def has(self, node: int) -> bool:
        """Whether anybody has locks of a file."""
        return node in self._owners

    def get(self, node: int, number: int) -> Owner | None:
        """What an owner has locked in a file, if it has locked anything."""
        return self._owners.get(node, {}).get(number)

    def against(self, node: int, number: int, wanted: Range) -> Iterator[tuple[Owner, Range]]:
        """The other owners of this client that hold what stands against a lock."""
        for owner in self._owners.get(node, {}).values():
            held = owner.ranges.conflict(wanted) if owner.number != number else None
            if held is not None:
                yield owner, held

    def unlock(self, wanted: Wanted) -> bool:
        """Whether there was anything."""
        owner = self.get(wanted.node, wanted.owner)
        if owner is None:
            return False
        self._set(owner, wanted.range)
        if not owner.ranges:
            self.end(wanted.node, owner)
        return True

    def lock(self, file: OpenFile, wanted: Wanted) -> bool:
        """Whether it could be done.

        Raises OSError: ENOLCK if no descriptor can be had for it, or there are too many.
        """
        if self._count >= _MOST_RANGES:
            raise fail(errno.ENOLCK)
        owner = self.get(wanted.node, wanted.owner)
        if owner is None:
            owner = self._new(file, wanted)
        elif not _serves(owner.mode, wanted.range.kind):
            owner = self._moved(owner, file, wanted)
        self._owners.setdefault(wanted.node, {})[owner.number] = owner
        try:
            if not self._set(owner, wanted.range):
                return False
            owner.pid = wanted.pid
            return True
        finally:
            if not owner.ranges:
                self.end(wanted.node, owner)

    def end(self, node: int, owner: Owner) -> None:
        """An owner has no locks of this file any more."""
        if owner.ranges:
            # Closing would not do: with passthrough the descriptor lives on in the kernel.
            locks.set_lock(owner.fd, F_UNLCK, 0, locks.LAST)
            self._count -= len(owner.ranges)
        if owner.owns_fd:
            os.close(owner.fd)
        else:
            del self._used[owner.fh]
        owners = self._owners.get(node, {})
        if owners.get(owner.number) is owner:
            del owners[owner.number]
            if not owners:
                del self._owners[node]

    def release(self, node: int, fh: int, closers: Container[object]) -> bool:
        """An open file is gone; whether locks have gone with it.

        ``closers`` are owners that must have closed it, without that having been told.
        """
        gone = [
            owner
            for owner in self._owners.get(node, {}).values()
            if owner.fh == fh or owner.itself in closers
        ]
        for owner in gone:
            self.end(node, owner)
        return bool(gone)

    def close(self) -> None:
        """Unlock everything."""
        for node, owners in list(self._owners.items()):
            for owner in list(owners.values()):
                self.end(node, owner)

    def _set(self, owner: Owner, wanted: Range) -> bool:
        if not locks.set_lock(owner.fd, wanted.kind, wanted.start, wanted.end):
            return False
        self._count -= len(owner.ranges)
        owner.ranges.put(wanted)
        self._count += len(owner.ranges)
        return True

    def _new(self, file: OpenFile, wanted: Wanted) -> Owner:
        mode = locks.access_of(file.fd)
        if wanted.fh in self._used:
            return Owner(wanted.owner, wanted.fh, _another(file.fd, mode), mode, owns_fd=True)
        self._used[wanted.fh] = wanted.owner
        return Owner(wanted.owner, wanted.fh, file.fd, mode, owns_fd=False)

    def _moved(self, owner: Owner, file: OpenFile, wanted: Wanted) -> Owner:
        """The same owner on a descriptor that is open for reading and writing.

        It comes with a file that is open for one of the two, after locks through one that
        is open for the other.  Shared locks are on both before they leave the first.
        """
        wider = Owner(
            wanted.owner, wanted.fh, _another(file.fd, os.O_RDWR), os.O_RDWR, owns_fd=True
        )
        wider.pid, wider.itself = owner.pid, owner.itself
        held = owner.ranges.all()
        is_shared = all(each.kind == F_RDLCK for each in held)
        if not is_shared:
            self.end(wanted.node, owner)
        if not all(self._set(wider, each) for each in held):
            # Somebody has come between: the kernel knows no way to hand over such a lock.
            self.end(wanted.node, wider)
            raise fail(errno.ENOLCK)
        if is_shared:
            self.end(wanted.node, owner)
        return wider


def _serves(mode: int, kind: int) -> bool:
    """Whether a descriptor opened so can have such a lock (fcntl(2))."""
    return mode == os.O_RDWR or (mode == os.O_WRONLY) == (kind == F_WRLCK)


def _another(fd: int, mode: int) -> int:
    try:
        return locks.another(fd, mode)
    except OSError:
        raise fail(errno.ENOLCK) from None
