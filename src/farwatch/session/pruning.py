"""Has the client's kernel forget what only the agent has looked up.

A replay makes the kernel know a node that no application may ever ask for: after a
thousand files were made in a watched directory it knows a thousand nodes, each of them
live, and every later change of one would be replayed.  FUSE_NOTIFY_PRUNE (7.45) makes it
drop those that nobody pins, and keep what is watched or open; it then sends FORGET.

In a thread of its own: a notification may wait for locks of the kernel's that are held by
whoever waits for an answer of the server's.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

from farwatch.abi import fuse
from farwatch.abi.fuse import Notify
from farwatch.session.reply import Reply
from farwatch.session.session import Session

_REST_SECONDS = 0.2
"""How long nothing must have been under way: what was replayed is often asked for."""
_MOST_IDS = 500


class Pruner:
    """Prunes when there is enough to prune and a moment's rest."""

    def __init__(self, session: Session, send: Callable[[Reply], None]) -> None:
        self._session = session
        self._send = send
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until ``stop`` is called."""
        session = self._session
        while not self._stopped.is_set():
            # Wakes nobody up while there is nothing to do.
            session.prunable.wait()
            if self._stopped.wait(_REST_SECONDS):
                return
            nodes = session.take_prunable()
            for start in range(0, len(nodes), _MOST_IDS):
                self._send(notification(nodes[start : start + _MOST_IDS]))

    def stop(self) -> None:
        """Ends ``run``, from another thread."""
        self._stopped.set()
        self._session.prunable.set()


def notification(nodes: list[int]) -> Reply:
    """A FUSE_NOTIFY_PRUNE of these node ids."""
    ids = struct.pack(f"<{len(nodes)}Q", *nodes)
    size = fuse.OUT_HEADER.size + fuse.NOTIFY_PRUNE_OUT.size + len(ids)
    return (
        fuse.OUT_HEADER.pack(size, Notify.PRUNE, 0),
        fuse.NOTIFY_PRUNE_OUT.pack(len(nodes), 0, 0),
        ids,
    )
