"""What a client asks: BEGIN, MARK and TAKE, and FSNOTIFY of the dialects that were posted.

    not begun ──BEGIN──> begun ──TAKE──> taking: nothing is sent, all of it is taken
    (posted: begun from the first)

What is refused, and how

    EPERM    MARK or TAKE before BEGIN
    EBUSY    BEGIN again
    EPROTO   BEGIN of a version below ours
    EINVAL   a wrong length, an unknown mode or flag, LIMBO with a mask, a mask without a
             kind, BEGIN or TAKE on another node than the root, TAKE with room for less than
             the largest notification
    ESTALE   MARK on a node that the client was not told of, or has forgotten; of another
             generation; or whose inode is gone
    ENOSPC   MARK, when there are too many marks, and endings that nobody takes; or too many
             groups on one node (POSTED)

A MARK that has to wait for what happened before it is parked.
"""

from __future__ import annotations

import errno
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from farwatch.abi.fsnotify import (
    BEGIN,
    BEGIN_IN,
    BEGIN_OUT,
    KINDS,
    MARK,
    MARK_OUT,
    TAKE,
    TAKE_IN,
    VERSION,
    Dialect,
    Malformed,
    MarkFlag,
    Marking,
    Mode,
    Reason,
    decode_marking,
)
from farwatch.abi.fsnotify_posted import (
    AGGREGATED_IN,
    POSTED_OPCODE,
    decode_posted_marking,
)
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.fsnotify.marks import Marks
from farwatch.session.fsnotify.outbox import LARGEST, Outbox
from farwatch.session.fsnotify.telling import Telling
from farwatch.session.request import Handler, Request, fail
from farwatch.session.settings import Settings
from farwatch.session.view import View

_KINDS = int(KINDS)
_FLAGS = int(MarkFlag.LIMBO)
_MOST_PARKED = 1 << 16
_LARGEST_ANSWER = 1 << 20
"""Bytes of the largest answer to TAKE."""


class Answer(NamedTuple):
    """The late answer to a request: its payload, or an errno."""

    unique: int
    payload: bytes = b""
    error: int = 0


class _Waiting(NamedTuple):
    """A MARK that waits until the reading with this number is over."""

    unique: int
    node: Node
    marking: Marking
    drain: int


class Requests:
    """One client's requests; see the top of the file.

    ``is_behind`` says whether something that has happened may not have been told yet;
    ``on_change`` is called when it is to be heard of something else, before the answer.
    """

    def __init__(
        self,
        settings: Settings,
        view: View,
        marks: Marks,
        outbox: Outbox,
        telling: Telling,
        is_behind: Callable[[], bool],
        on_change: Callable[[], None],
        is_gone: Callable[[Node], bool],
    ) -> None:
        self._settings = settings
        self._view = view
        self._marks = marks
        self._outbox = outbox
        self._telling = telling
        self._is_behind = is_behind
        self._on_change = on_change
        self._is_gone = is_gone
        self._waiting: deque[_Waiting] = deque()
        self._answers: deque[Answer] = deque()
        self._take: tuple[int, int] | None = None
        self._due: float | None = None
        self._has_heard = False
        self.is_taking = False
        """Whether the client takes what there is, and is sent nothing."""
        if outbox.dialect is Dialect.CURRENT:
            self.handlers: dict[int, Handler] = {
                BEGIN: self.begin,
                MARK: self.mark,
                TAKE: self.take,
            }
        else:
            telling.mode = Mode.REMOTE
            self.handlers = {POSTED_OPCODE: self.posted}

    # BEGIN -----------------------------------------------------------------------

    def begin(self, request: Request) -> bytes:
        """BEGIN: how the client wants its events."""
        _must_be(request, BEGIN_IN)
        version, number, flags = BEGIN_IN.unpack(request.body)
        if version < VERSION:
            raise fail(errno.EPROTO, f"version {version}")
        mode = Mode(number)
        if flags or request.node != ROOT_ID:
            raise fail(errno.EINVAL)
        if self._telling.mode is not None:
            raise fail(errno.EBUSY, "begun already")
        self._telling.mode = mode
        self._on_change()
        return BEGIN_OUT.pack(VERSION, mode, _KINDS, 0, self._settings.client)

    # MARK ------------------------------------------------------------------------

    def mark(self, request: Request) -> bytes | None:
        """MARK: what a node is watched for from now on."""
        if self._telling.mode is None:
            raise fail(errno.EPERM, "no BEGIN yet")
        marking = _decoded(Dialect.CURRENT, request)
        if marking.flags & ~_FLAGS or (marking.flags and marking.mask):
            raise fail(errno.EINVAL)
        return self._ask(request, marking)

    def posted(self, request: Request) -> bytes | None:
        """FSNOTIFY of a dialect that was posted; the first tells which of the first two."""
        if not self._has_heard:
            self._outbox.dialect = self._spoken(len(request.body))
        marking = _decoded(self._outbox.dialect, request)
        self._has_heard = True
        return self._ask(request, marking)

    def _spoken(self, size: int) -> Dialect:
        """The dialect of a request of this size."""
        if self._outbox.dialect is Dialect.PARENTED:
            return Dialect.PARENTED
        dialect = Dialect.AGGREGATED if size == AGGREGATED_IN.size else Dialect.POSTED
        return dialect if dialect in self._settings.fsnotify else self._outbox.dialect

    def _ask(self, request: Request, marking: Marking) -> bytes | None:
        node = self._named(request.node, marking.generation)
        if marking.mask and not marking.mask & _KINDS:
            raise fail(errno.EINVAL, "no kind of event")
        if not self._waiting and not self._is_behind():
            return self._apply(node, marking)
        if len(self._waiting) >= _MOST_PARKED:
            raise fail(errno.ENOSPC)
        self._view.nodes.pin(node)
        self._waiting.append(_Waiting(request.unique, node, marking, self._view.drains.begun + 1))
        return None

    def _named(self, node_id: int, generation: int | None) -> Node:
        nodes = self._view.nodes
        node = nodes.by_id.get(node_id)
        if node is None or not (node.lookups or node.id in self._marks.by_id):
            raise fail(errno.ESTALE)
        if generation is not None and generation != nodes.generation_of(node):
            raise fail(errno.ESTALE)
        return node

    def _apply(self, node: Node, marking: Marking) -> bytes:
        mask = marking.mask & _KINDS
        group = marking.group if self._outbox.dialect is Dialect.POSTED else None
        if mask:
            self._place(node, mask, group)
        elif group is not None:
            if self._marks.leave(node, group):
                self._telling.end(node, Reason.REMOVED)
        elif marking.flags & MarkFlag.LIMBO:
            self._to_limbo(node)
        else:
            self._telling.end(node, Reason.REMOVED)
        self._on_change()
        if self._outbox.dialect is not Dialect.CURRENT:
            return b""
        return MARK_OUT.pack(mask, 0, self._outbox.sequence)

    def _place(self, node: Node, mask: int, group: int | None) -> None:
        if not self._marks.has_room(node, group, self._outbox.endings):
            raise fail(errno.ENOSPC, "too many marks")
        if self._is_gone(node):
            raise fail(errno.ESTALE)
        self._marks.place(node, mask, group)

    def _to_limbo(self, node: Node) -> None:
        dropped = self._marks.to_limbo(node)
        if dropped is not None:
            self._telling.end(dropped, Reason.DROPPED)

    # TAKE ------------------------------------------------------------------------

    def take(self, request: Request) -> bytes | None:
        """TAKE: parked until there is something to say."""
        if self._telling.mode is None:
            raise fail(errno.EPERM, "no BEGIN yet")
        _must_be(request, TAKE_IN)
        room, flags = TAKE_IN.unpack(request.body)
        if flags or room < LARGEST or request.node != ROOT_ID:
            raise fail(errno.EINVAL)
        self.is_taking = True
        if self._take is not None:
            self._answers.append(Answer(self._take[0]))
        self._take = None
        room = min(room, _LARGEST_ANSWER)
        if self._outbox:
            return self._outbox.take_many(room)
        self._take = (request.unique, room)
        longest = self._settings.longest_wait
        self._due = None if longest is None else time.monotonic() + longest
        return None

    # What was parked -------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When a parked TAKE is to be answered whatever happens (``time.monotonic``)."""
        return self._due if self._take is not None else None

    @property
    def may_have_answer(self) -> bool:
        """Whether ``next_answer`` is worth asking.  May be read without the lock."""
        return bool(self._answers or self._waiting or self._take is not None)

    def next_answer(self) -> Answer | None:
        """A late answer, if one can be given."""
        if self._answers:
            return self._answers.popleft()
        if self._waiting:
            waiting = self._waiting[0]
            if self._view.drains.ended >= waiting.drain or not self._is_behind():
                self._waiting.popleft()
                return self._applied(waiting)
        if self._take is not None:
            unique, room = self._take
            is_due = self._due is not None and time.monotonic() >= self._due
            if self._outbox or is_due:
                self._take = None
                return Answer(unique, self._outbox.take_many(room))
        return None

    def _applied(self, waiting: _Waiting) -> Answer:
        try:
            return Answer(waiting.unique, self._apply(waiting.node, waiting.marking))
        except OSError as error:
            return Answer(waiting.unique, error=error.errno or errno.EIO)
        finally:
            self._view.nodes.unpin(waiting.node)

    def interrupt(self, unique: int) -> None:
        """A signal is to end a request: if that is the parked TAKE, it ends."""
        if self._take is not None and self._take[0] == unique:
            self._take = None
            self._answers.append(Answer(unique, error=errno.EINTR))


def _must_be(request: Request, layout: struct.Struct) -> None:
    if len(request.body) != layout.size:
        raise fail(errno.EINVAL, f"{len(request.body)} bytes instead of {layout.size}")


def _decoded(dialect: Dialect, request: Request) -> Marking:
    try:
        if dialect is Dialect.CURRENT:
            return decode_marking(request.body)
        return decode_posted_marking(dialect, request.body)
    except Malformed as error:
        raise fail(errno.EINVAL, str(error)) from None
