"""What the server has for one client: a real session and its real pipeline, on the disk."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from farwatch.abi.fsnotify import Dialect
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from tests.session.kernel import GENERATION, HIDDEN, in_session
from tests.simulator.disk import WatchedDisk
from tests.simulator.queue import Queue

_ANSWER = struct.Struct("<IiQ")


class Side:
    """One client's server; ``sent`` are the messages on their way to it, as bytes.

    ``room`` is how many notifications the transport takes at a time, None for any number.
    """

    def __init__(
        self,
        disk: WatchedDisk,
        number: int,
        thread: int,
        client_of: Callable[[int], int],
        *,
        offers: bool = True,
        merges: bool = True,
        room: int | None = None,
        outbox: int | None = None,
    ) -> None:
        self._disk = disk
        self.thread = thread
        self._room = room
        self.on_answer: Callable[[int, int], None] = lambda unique, error: None
        """Called with the request that the server has just answered, and the errno."""
        self.answers: deque[bytes] = deque()
        self.notices: deque[bytes] = deque()
        dialects = frozenset((Dialect.CURRENT,) if offers else ())
        settings = Settings(GENERATION, HIDDEN, client=number, fsnotify=dialects)
        if outbox is not None:
            settings = settings._replace(most_notices=outbox)
        self.session = Session(in_session(disk), settings, disk, lambda thread, key: None)
        self.queue = Queue(merges=merges)
        self._pipeline = Pipeline(
            self.queue,
            self.session,
            disk.node_at,
            disk.place_of,
            OpenModes(lambda thread, key: 0),
            self._answer,
            frozenset((thread,)),
            client_of,
        )

    def receive(self, request: bytes) -> None:
        """The serving thread takes one request."""
        with self._disk.acting(self.thread):
            reply = self.session.receive(memoryview(request))
            if reply is not None:
                self._answer(reply)
        self._after()

    @property
    def can_deliver(self) -> bool:
        """Whether the source has something."""
        return self.queue.queued() > 0

    @property
    def can_flush(self) -> bool:
        """Whether what was read is held back until the source has been quiet."""
        return self._pipeline.due is not None and not self.can_deliver

    def deliver(self, *, flush: bool = False) -> None:
        """The source's thread takes what there is."""
        self._pipeline.deliver(flush=flush)
        self._after()

    def _after(self) -> None:
        # As serving.Server.tick does after each request.
        while (reply := self.session.answer()) is not None:
            self._answer(reply)
        if self.session.reading != self.queue.wanted:
            self.queue.want(self.session.reading)
        self.pull()

    def pull(self) -> None:
        """The transport takes what notifications it has room for."""
        while self._room is None or len(self.notices) < self._room:
            notice = self.session.next_notice()
            if notice is None:
                return
            self.notices.append(_joined(notice))

    def _answer(self, reply: Reply) -> None:
        message = _joined(reply)
        _, error, unique = _ANSWER.unpack_from(message)
        self.on_answer(unique, -error)
        self.answers.append(message)

    def close(self) -> None:
        """The connection is over."""
        with self._disk.acting(self.thread):
            self.session.close()


def _joined(reply: Reply) -> bytes:
    return b"".join(bytes(part) for part in reply)
