"""Which step a request of the agent's belongs to.

by mark    the request's user id is the step's number (abi/control.py)
in order   the agent has no mark but its thread: it does the steps of a batch one after the
           other, so a request belongs to the first step, from the one that it is known to be
           on, that could send it.  A look-up does not tell which step that is: on its way to
           one name the kernel may ask for another step's
"""

from __future__ import annotations

from typing import Protocol

from farwatch.abi import fuse
from farwatch.abi.control import FIRST_UID, SEQUENCES
from farwatch.abi.fuse import Opcode
from farwatch.abi.steps import ABOUT_NAMES, Op
from farwatch.session.replay import AT, TO, Replay
from farwatch.session.request import Request
from farwatch.session.view import View

_OPEN = frozenset((Op.OPEN, Op.OPEN_CLOSE))
_ENDS: dict[int, tuple[frozenset[Op], int]] = {
    Opcode.MKNOD: (frozenset((Op.MKNOD,)), fuse.MKNOD_IN.size),
    Opcode.MKDIR: (frozenset((Op.MKDIR,)), fuse.MKDIR_IN.size),
    Opcode.SYMLINK: (frozenset((Op.SYMLINK,)), 0),
    Opcode.LINK: (frozenset((Op.LINK,)), fuse.LINK_IN.size),
    Opcode.UNLINK: (frozenset((Op.UNLINK,)), 0),
    Opcode.RMDIR: (frozenset((Op.RMDIR,)), 0),
    Opcode.RENAME: (frozenset((Op.RENAME,)), fuse.RENAME_IN.size),
    Opcode.RENAME2: (frozenset((Op.RENAME,)), fuse.RENAME2_IN.size),
    Opcode.SETATTR: (frozenset((Op.TOUCH,)), -1),
    Opcode.OPEN: (_OPEN, -1),
    Opcode.OPENDIR: (_OPEN, -1),
    Opcode.WRITE: (frozenset((Op.WRITE,)), -1),
    Opcode.READ: (frozenset((Op.READ,)), -1),
}
"""The requests that end a step: of which, and where their (first) name begins, -1 for those
that are about the node itself."""
_LOOKUP = int(Opcode.LOOKUP)


class Matching(Protocol):
    """How requests find their steps.  ``armed`` has them by number, in order."""

    armed: dict[int, Replay]

    def of(self, request: Request) -> Replay | None:
        """The step that a request belongs to; None if it belongs to none."""

    def current(self, request: Request) -> Replay | None:
        """The step that a thread is on that asks for what no step is for."""

    def is_named(self, request: Request, name: bytes) -> bool:
        """Whether a look-up of this name is of what a step is about."""

    def is_walk(self, request: Request, name: bytes) -> bool:
        """Whether it is on the way there."""


class ByMark:
    """Each request says its step."""

    def __init__(self) -> None:
        self.armed: dict[int, Replay] = {}

    def of(self, request: Request) -> Replay | None:
        """See Matching."""
        return self.armed.get(request.uid - FIRST_UID)

    current = of

    def is_named(self, request: Request, name: bytes) -> bool:
        """See Matching."""
        replay = self.of(request)
        return replay is not None and bool(replay.which(request.node, name))

    def is_walk(self, request: Request, name: bytes) -> bool:
        """See Matching."""
        return self.of(request) is not None and not self.is_named(request, name)


class InOrder:
    """The steps are done in their order."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.armed: dict[int, Replay] = {}
        self._at = 0
        """The number of the last step that is known to have been begun."""

    def of(self, request: Request) -> Replay | None:
        """See Matching."""
        if request.opcode == _LOOKUP:
            return self._named(request.node, bytes(request.body).partition(b"\0")[0])
        kinds, start = _ENDS.get(request.opcode, (frozenset(), -1))
        name = bytes(request.body[start:]).partition(b"\0")[0] if start >= 0 else None
        of_this_kind = None
        sequence = self._begun()
        while (replay := self.armed.get(sequence)) is not None:
            if not replay.done and replay.op in kinds:
                if _is_about(replay, request.node, name):
                    # A step that is refused for good is over; one like it may follow.
                    self._at = (sequence + 1) % SEQUENCES if replay.cancelled else sequence
                    return replay
                of_this_kind = of_this_kind or replay
            sequence = (sequence + 1) % SEQUENCES
        return of_this_kind

    def current(self, request: Request) -> Replay | None:
        """See Matching."""
        return self.armed.get(self._begun())

    def is_named(self, request: Request, name: bytes) -> bool:
        """See Matching."""
        return self._named(request.node, name) is not None

    def is_walk(self, request: Request, name: bytes) -> bool:
        """See Matching."""
        is_on_any = any(not replay.done for replay in self.armed.values())
        return is_on_any and not self.is_named(request, name)

    def _begun(self) -> int:
        if self._at not in self.armed:
            self._at = next(iter(self.armed), 0)
        return self._at

    def _named(self, directory: int, name: bytes) -> Replay | None:
        """The step that is armed for a name and by which what is under way may be answered.

        That is the first that changes the name: until that is done it holds the same for
        those before it, some of which are never known to be done: when a later one is begun
        they are.  Cancelled steps only if there is no other.
        """
        begun = self._begun()
        replays = [
            replay
            for replay in self._view.pending.get((directory, name), ())
            if not replay.done
            and self.armed.get(replay.sequence) is replay
            and (replay.sequence - begun) % SEQUENCES < SEQUENCES // 2
        ]
        if not replays:
            return None
        alive = [replay for replay in replays if not replay.cancelled] or replays
        return next((replay for replay in alive if replay.op in ABOUT_NAMES), alive[0])


def _is_about(replay: Replay, node: int, name: bytes | None) -> bool:
    if name is None:
        return replay.op in (Op.WRITE, Op.READ) or replay.node.id == node
    return replay.which(node, name) == (TO if replay.op == Op.LINK else AT)
