"""Finds who answers a request, and has it answered with the view's lock held, or without.

What the client has been told is under that lock; reads, writes and syncs are done without it, so
that a slow disk does not hold up events.

A request says something besides what it asks for: that somebody is active in the client, that
what a node is has changed, or that the client's kernel knows many nodes by replays alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from farwatch.abi.fuse import Opcode
from farwatch.abi.steps import BatchFlag
from farwatch.events import Place
from farwatch.session.delivery import Delivery
from farwatch.session.interest import Interest
from farwatch.session.marked import Marked
from farwatch.session.request import Handler, Payload, Placed, Request, handler_of
from farwatch.session.view import View

QUIET = frozenset(
    (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.IOCTL)
)
"""These say nothing of what programs, or an agent, are about to do."""
_WITHOUT_LOCK = frozenset(
    (
        Opcode.READ,
        Opcode.WRITE,
        Opcode.FSYNC,
        Opcode.FALLOCATE,
        Opcode.LSEEK,
        Opcode.COPY_FILE_RANGE,
        Opcode.SYNCFS,
    )
)
_TOUCHING = frozenset((Opcode.RELEASE, Opcode.SETATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR))
"""After these a node may not be as it was when it was last looked at."""
_PRUNED_AT_ONCE = 64
_LEAST_SCAN_PAUSE = 0.25
_SCAN_SHARE = 30
"""A scan is asked for at most after this many times as long as the last one took."""


class Dispatch:
    """The requests of one client."""

    def __init__(
        self,
        view: View,
        handlers: Mapping[int, Handler],
        marked: Marked,
        interest: Interest,
        delivery: Delivery,
        on_prunable: Callable[[], None] | None,
    ) -> None:
        """``on_prunable`` is called when it is worth pruning; None if the kernel cannot."""
        self._view = view
        self._handlers = handlers
        self._marked = marked
        self._interest = interest
        self._delivery = delivery
        self._on_prunable = on_prunable
        self._scan_asked = 0.0

    def answer(self, request: Request) -> Payload | Placed | None:
        """The payload of the reply, or None if there is none yet.

        Raises what handlers raise, and OSError ENOSYS where there is none.
        """
        opcode = request.opcode
        handler = handler_of(self._handlers, opcode)
        if opcode in _WITHOUT_LOCK:
            return handler(request)
        with self._view.lock:
            if opcode not in QUIET:
                self._note_activity()
            if opcode in _TOUCHING and self._view.known.nodes:
                self._note_touch(request.node)
            return handler(request)

    def answer_marked(self, request: Request) -> Payload | Placed | None:
        """The same, of one that an agent makes."""
        with self._view.lock:
            if self._on_prunable is not None and len(self._view.replayed) >= _PRUNED_AT_ONCE:
                self._on_prunable()
            return self._marked.answer(request)

    def _note_touch(self, node_id: int) -> None:
        """The client itself changes what a node is, or has done so."""
        node = self._view.nodes.by_id.get(node_id)
        if node is not None:
            known = self._view.known
            known.touched(None, node.key)
            for directory, name in node.names:
                known.touched(Place(directory.key, name), node.key)

    def _note_activity(self) -> None:
        """Somebody is active in the client, who may be about to place a watch."""
        now = time.monotonic()
        pause = max(_LEAST_SCAN_PAUSE, _SCAN_SHARE * self._interest.scan_seconds)
        if now - self._scan_asked > pause:
            self._scan_asked = now
            self._delivery.ask(BatchFlag.SCAN)
