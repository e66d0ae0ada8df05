"""One client's server: export, source and session joined, for any transport.

    requests ──> receive ──> reply            the transport's thread, which calls ``after``
                    │                         after each
    source ──> pipeline ──> send              a thread of its own, or the transport's

    session ──> notifications                 to ``send``; or the transport takes them from
                                              the session when it can send one

The transport calls ``receive`` and ``after``, ``tick`` when it is ``due``, and is given by
``send`` what nobody asked for at that moment.  Where it waits for more than requests it can
wait for the source as well, and call ``drain``: two threads would fight for Python's lock at
each change that the client makes.  Where it cannot, as at /dev/fuse, the source has a thread;
that one also sends the notifications, so that they keep their order, and whoever answers
requests never waits for a lock of the client's kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from farwatch.events import Key
from farwatch.export.tree import Export
from farwatch.linux.openers import access_mode
from farwatch.serving.sourcethread import SourceThread
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from farwatch.session.reply import Reply
from farwatch.session.request import Views
from farwatch.session.session import Session
from farwatch.sources.inotify import InotifySource
from farwatch.sources.mountsource import MountSource


class Server:
    """From the first request to the last; a context manager, for the transport's thread.

    Owns nothing that it is given.
    """

    def __init__(
        self,
        export: Export,
        source: MountSource,
        session: Session,
        modes: OpenModes,
        send: Callable[[Reply], None],
        *,
        is_threaded: bool = True,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """``wake`` is for a transport that takes notifications itself.

        The source's thread, if there is one, calls it when the session has one.
        """
        self.session = session
        self._source = source
        self._send = send
        # What this thread does is the client's doing; all else is remote.
        own = frozenset((threading.get_native_id(),))
        self._pipeline = Pipeline(
            source, session, export.node_at, export.place_of, modes, send, own
        )
        if isinstance(source, InotifySource):
            source.learn_from(self._pipeline.held_as_told)
        session.on_asked = self._ask_source
        self._takes = wake is not None
        if wake is None:
            self._pipeline.notify = self._notify
        elif is_threaded:
            self._pipeline.notify = wake
        self._thread = SourceThread(source, session, self._pipeline) if is_threaded else None

    def receive(
        self, data: memoryview, payload: Views | None = None, room: Views | None = None
    ) -> Reply | None:
        """Answers one request, as ``Session.receive``."""
        reply = self.session.receive(data, payload, room)
        for notification in self.session.take_outdated():
            self._send(notification)
        return reply

    def after(self) -> None:
        """What is to be done after each request.

        Nothing after a step of the agent's, which goes on when this thread waits again if
        they share a CPU.
        """
        if not self.session.was_step:
            self.tick()

    def tick(self) -> None:
        """What is to be done when ``due``."""
        session, source = self.session, self._source
        if self._thread is not None:
            if session.is_owed:
                self._thread.wake()
        else:
            if self._pipeline.is_due:
                self._pipeline.deliver(flush=True)
            self._pipeline.keep_up()
        while (answer := session.answer()) is not None:
            self._send(answer)
        when = session.waiting.due
        if when is not None and self._thread is not None:
            self._thread.wake_at(when)
        if session.reading != source.wanted:
            source.want(session.reading)
        # Not silent: perhaps for a client that kept marks, and has begun anew without.
        if session.subscription is not None or not source.is_silent:
            self._serve_marks()

    def _serve_marks(self) -> None:
        """For a client that keeps its own marks."""
        session = self.session
        if session.has_notice and not self._takes:
            if self._thread is None:
                self._notify()
            else:
                self._thread.wake()
        self._source.be_silent(is_silent=not session.hears_itself)

    def _ask_source(self) -> None:
        """A client that keeps its own marks is answered when the source has been asked."""
        self._source.want(self.session.reading)
        self._source.be_silent(is_silent=not self.session.hears_itself)

    @property
    def due(self) -> float | None:
        """When ``tick`` is to be called though nothing happens (``time.monotonic``)."""
        pipeline = self._pipeline
        dues = (
            self.session.due,
            pipeline.due,
            pipeline.keep_up_due if self._thread is None else None,
        )
        whens = [when for when in dues if when is not None]
        return min(whens, default=None)

    def drain(self) -> None:
        """The source has something, and no thread of its own."""
        self._pipeline.deliver()

    def _notify(self) -> None:
        while (notice := self.session.next_notice()) is not None:
            self._send(notice)

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.end()
        self.session.close()


def open_modes(export: Export) -> OpenModes:
    """Tells how files of the export are opened by others on this host."""

    def found(thread: int, node: Key) -> int | None:
        try:
            status = export.getattr(node)
        except OSError:
            return None
        return access_mode(thread, status.st_dev, status.st_ino)

    return OpenModes(found)
