"""GETLK, SETLK and SETLKW: the client's locks are held on the backing files.

So they are one with the locks of everybody else who uses the exported files, and the kernel
there decides.

    wanted --tried--> held                  told as soon as the client has been told what
               |                            was done before (catchingup.py)
               |
               +----> blocked: SETLK is refused (EAGAIN), SETLKW waits (waiting.py), unless
                      its owner would wait for itself (EDEADLK)

flock(2)'s lock is an open file's, and taken on its descriptor; fcntl(2)'s belongs to an owner
(owners.py).  They end as in the client: fcntl's at FLUSH, which is a process's close of any
descriptor of the file; what is left at RELEASE, when nobody has the open file any more.

The client's kernel keeps locks on directories, devices, FIFOs and sockets to itself.
"""

from __future__ import annotations

import errno
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.export import locks
from farwatch.export.nodes import Node
from farwatch.session.catchingup import CatchingUp
from farwatch.session.files import NO_FILE, OpenFile, OpenFiles
from farwatch.session.owners import Owners, Wanted
from farwatch.session.ranges import Range
from farwatch.session.request import Handler, Payload, Request, fail
from farwatch.session.waiting import Attempt, Blocked, Waiting

_KINDS = frozenset((F_RDLCK, F_WRLCK, F_UNLCK))
_DONE = b""


class Locks:
    """The locks of one client.  Called with the view's lock held; no call waits."""

    def __init__(
        self,
        files: OpenFiles,
        waiting: Waiting,
        catching_up: CatchingUp,
        *,
        knows_pids: bool,
        has_signals: bool,
    ) -> None:
        """``knows_pids``: the client's processes are this host's.

        ``has_signals``: a request is interrupted by a signal.  Where nobody does that it is
        interrupted only when the client is stopped; there EINTR would come to programs as an
        errno that none knows.
        """
        self._files = files
        self._waiting = waiting
        self._catching_up = catching_up
        self._knows_pids = knows_pids
        self._interrupted = errno.EINTR if has_signals else errno.ENOLCK
        self._owners = Owners()
        self._untold: dict[int, set[object]] = {}
        """Who has locked through an open file whose closes are not told."""
        self._reads = False
        """Whether there has been one."""
        self._flocks: dict[int, dict[int, int]] = {}
        """By node and file handle: the kind."""
        self._blocked: dict[int, Wanted] = {}
        """By request: fcntl's locks that are waited for."""

    def handlers(self, *, takes_locks: bool) -> dict[int, Handler]:
        """Those of closing, and of locks where they do not stay in the client's kernel."""
        closing: dict[int, Handler] = {Opcode.FLUSH: self.flush, Opcode.RELEASE: self.release}
        if not takes_locks:
            return closing
        return {
            **closing,
            Opcode.GETLK: self.getlk,
            Opcode.SETLK: self.setlk,
            Opcode.SETLKW: self.setlkw,
        }

    def getlk(self, request: Request) -> Payload:
        """GETLK: the lock that stands against one, or F_UNLCK."""
        fh, number, start, end, kind, _, _, _ = fuse.LK_IN.unpack_from(request.body)
        file = self._open(fh)
        node, wanted = file.node.id, _checked(start, end, kind)
        for other, held in self._owners.against(node, number, wanted):
            return fuse.LK_OUT.pack(held.start, held.end, held.kind, other.pid)
        owner = self._owners.get(node, number)
        found = locks.conflict(owner.fd if owner is not None else file.fd, kind, start, end)
        if found is None:
            return fuse.LK_OUT.pack(start, end, F_UNLCK, 0)
        pid = max(found.pid, 0) if self._knows_pids else 0
        return fuse.LK_OUT.pack(found.start, found.end, found.kind, pid)

    def setlk(self, request: Request) -> Payload | None:
        """SETLK: lock or unlock, now or never."""
        wanted, is_flock = _wanted(request)
        outcome = self._attempt(wanted, is_flock)
        if isinstance(outcome, Blocked):
            raise fail(errno.EAGAIN)
        if wanted.range.kind == F_UNLCK:
            return outcome
        return self._grant(request.unique, lambda: outcome)

    def setlkw(self, request: Request) -> Payload | None:
        """SETLKW: the same, but wait for it."""
        unique = request.unique
        wanted, is_flock = _wanted(request)
        if wanted.range.kind == F_UNLCK:
            return self.setlk(request)

        def attempt() -> Payload | Blocked:
            self._blocked.pop(unique, None)
            outcome = self._attempt(wanted, is_flock)
            if isinstance(outcome, Blocked) and not is_flock:
                self._wait_for(unique, wanted)
            return outcome

        return self._grant(unique, attempt)

    def _grant(self, unique: int, attempt: Attempt) -> Payload | None:
        granting = self._catching_up.after(attempt, self._interrupted)
        return self._waiting.answer(unique, granting, granting.interrupted)

    def needs_flush(self, node: Node) -> bool:
        """Whether a close(2) of a file that is opened for reading only may end locks.

        Almost everything is opened so, and almost nothing of that is ever locked: it need not
        be told until that happens for the first time.  Locks through what was opened before
        end when its last descriptor is closed.
        """
        return self._reads or self._owners.has(node.id)

    def flush(self, request: Request) -> Payload:
        """FLUSH: a process closes a descriptor, and loses what it has locked of the file."""
        fh, _, _, number = fuse.FLUSH_IN.unpack_from(request.body)
        node = self._files.get(fh).node.id
        owner = self._owners.get(node, number)
        if owner is not None:
            self._owners.end(node, owner)
            self._waiting.changed()
        return _DONE

    def release(self, request: Request) -> Payload:
        """RELEASE: nobody has the open file any more."""
        fh = fuse.RELEASE_IN.unpack_from(request.body)[0]
        if self._owners or self._flocks:
            file = self._files.get(fh)
            self._unflock(file, fh)
            if self._owners.release(file.node.id, fh, self._untold.pop(fh, ())):
                self._waiting.changed()
        self._files.release(fh)
        return _DONE

    def interrupt(self, unique: int) -> None:
        """A signal is to end a request: if it is waiting for a lock, it waits no more."""
        self._blocked.pop(unique, None)

    def close(self) -> None:
        """Unlock everything; the files are still open."""
        self._owners.close()
        for flocks in self._flocks.values():
            for fh in flocks:
                locks.set_flock(self._files.fd(fh), F_UNLCK)
        self._flocks.clear()
        self._blocked.clear()
        self._untold.clear()

    def _open(self, fh: int) -> OpenFile:
        file = self._files.get(fh)
        if file.fd == NO_FILE:
            raise fail(errno.EBADF)
        return file

    def _attempt(self, wanted: Wanted, is_flock: bool) -> Payload | Blocked:
        file = self._open(wanted.fh)
        if is_flock:
            return self._flock(file, wanted)
        wanted = wanted._replace(node=file.node.id)
        if wanted.range.kind == F_UNLCK:
            if self._owners.unlock(wanted):
                self._waiting.changed()
            return _DONE
        if self._owners.lock(file, wanted):
            if not file.flushes:
                self._reads = True
                self._note_untold(wanted)
            if wanted.range.kind == F_RDLCK:
                # It may have been exclusive before.
                self._waiting.changed()
            return _DONE
        return _blocked(self._in_the_way(wanted))

    def _note_untold(self, wanted: Wanted) -> None:
        # Not by its number: that may be somebody else's by the time of the release.
        owner = self._owners.get(wanted.node, wanted.owner)
        if owner is not None:
            self._untold.setdefault(wanted.fh, set()).add(owner.itself)

    def _in_the_way(self, wanted: Wanted) -> list[int]:
        against = self._owners.against(wanted.node, wanted.owner, wanted.range)
        return [owner.number for owner, _ in against]

    def _wait_for(self, unique: int, wanted: Wanted) -> None:
        """Note who waits for what.

        Raises OSError EDEADLK if those in the way wait, each for others, for this owner.
        """
        wanted = wanted._replace(node=self._open(wanted.fh).node.id)
        seen: set[int] = set()
        asked = [wanted]
        while asked:
            for number in self._in_the_way(asked.pop()):
                if number == wanted.owner:
                    raise fail(errno.EDEADLK)
                if number not in seen:
                    seen.add(number)
                    asked += [each for each in self._blocked.values() if each.owner == number]
        self._blocked[unique] = wanted

    def _flock(self, file: OpenFile, wanted: Wanted) -> Payload | Blocked:
        flocks = self._flocks.setdefault(file.node.id, {})
        kind = wanted.range.kind
        is_held = locks.set_flock(file.fd, kind)
        # Whatever becomes of it, a lock of another kind is gone (flock(2)).
        before = flocks.pop(wanted.fh, F_UNLCK)
        if is_held and kind != F_UNLCK:
            flocks[wanted.fh] = kind
        if before not in (F_UNLCK, kind):
            self._waiting.changed()
        in_the_way = [fh for fh, other in flocks.items() if F_WRLCK in (kind, other)]
        if not flocks:
            del self._flocks[file.node.id]
        return _DONE if is_held else _blocked(in_the_way)

    def _unflock(self, file: OpenFile, fh: int) -> None:
        flocks = self._flocks.get(file.node.id, {})
        if flocks.pop(fh, F_UNLCK) == F_UNLCK:
            return
        # Closing would not do: with passthrough the descriptor lives on in the kernel.
        locks.set_flock(file.fd, F_UNLCK)
        self._waiting.changed()
        if not flocks:
            del self._flocks[file.node.id]


def _blocked(by_clients: list[int]) -> Blocked:
    return Blocked.BY_A_CLIENT if by_clients else Blocked.BY_OTHERS


def _wanted(request: Request) -> tuple[Wanted, bool]:
    """What is asked for, its node apart, and whether it is flock(2)'s."""
    fh, owner, start, end, kind, pid, flags, _ = fuse.LK_IN.unpack_from(request.body)
    return Wanted(0, fh, owner, _checked(start, end, kind), pid), bool(flags & fuse.LK_FLOCK)


def _checked(start: int, end: int, kind: int) -> Range:
    if kind not in _KINDS or not 0 <= start <= end <= locks.LAST:
        raise fail(errno.EINVAL)
    return Range(start, end, kind)
