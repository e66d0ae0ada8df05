"""One client that keeps its own marks: what a session needs to know of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from farwatch.abi.fsnotify import Dialect, Mode
from farwatch.events import Change, Key, Place
from farwatch.export.nodes import Node
from farwatch.session.fsnotify.marks import Marks
from farwatch.session.fsnotify.outbox import Notice, Outbox
from farwatch.session.fsnotify.requests import Answer, Requests
from farwatch.session.fsnotify.telling import Telling
from farwatch.session.planning import Disk
from farwatch.session.request import Handler
from farwatch.session.settings import Settings
from farwatch.session.view import View
from farwatch.sources.settling import Holder


class Subscription:
    """From INIT to the next INIT or DESTROY."""

    def __init__(
        self,
        dialect: Dialect,
        settings: Settings,
        view: View,
        disk: Disk,
        client_of: Callable[[int], int],
        is_behind: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._disk = disk
        self._view = view
        self._outbox = Outbox(dialect, settings.most_notices)
        self._marks = Marks(view.nodes, settings.most_marks, settings.most_in_limbo, view.known)
        self._telling = Telling(
            view,
            self._marks,
            self._outbox,
            settings.client,
            client_of,
            disk.place_of,
            self._status,
        )
        self._requests = Requests(
            settings,
            view,
            self._marks,
            self._outbox,
            self._telling,
            is_behind,
            on_change,
            self._is_gone,
        )

    @property
    def handlers(self) -> dict[int, Handler]:
        """For the opcodes of the dialect."""
        return self._requests.handlers

    @property
    def dialect(self) -> Dialect:
        """Which of the posted ones it is may not be known before the first request."""
        return self._outbox.dialect

    @property
    def reading(self) -> int:
        """The kinds (Mask bits) that reading makes which are watched."""
        return self._marks.reading

    @property
    def hears_itself(self) -> bool:
        """Whether the client is told what it has done itself."""
        return self._telling.mode is Mode.REMOTE

    @property
    def due(self) -> float | None:
        """When ``next_answer`` is to be asked though nothing happens (``time.monotonic``)."""
        return self._requests.due

    @property
    def may_have_answer(self) -> bool:
        """Whether ``next_answer`` is worth asking.  May be read without the lock."""
        return self._requests.may_have_answer

    @property
    def has_notice(self) -> bool:
        """Whether there is a notification.  May be read without the lock."""
        return not self._requests.is_taking and bool(self._outbox)

    @property
    def has_lost(self) -> bool:
        """Whether events were left out of what waits.  May be read without the lock."""
        return self._outbox.has_lost

    @property
    def has_begun(self) -> bool:
        """Whether anything is told yet."""
        return self._telling.mode is not None

    def begin_answering(self) -> None:
        """See ``Session.answering``."""
        self._telling.begin_answering()

    def end_answering(self) -> None:
        """The reverse."""
        self._telling.end_answering()

    def deliver(self, changes: Sequence[Change]) -> None:
        """Tells a settled batch."""
        self._telling.tell(changes)

    def lose(self) -> None:
        """The source has lost something: what it had said of names is not known any more."""
        self._telling.told.clear()

    def holds(self, place: Place) -> Holder:
        """What a name held before the batch that is being settled."""
        return self._telling.told.holds(place)

    def may_be_replaced(self, place: Place, node: Key | None) -> bool:
        """Whether another node than this has a mark, and had the name when the client asked."""
        nodes = self._view.nodes
        directory = nodes.by_key.get(place.directory)
        child = nodes.child(directory, place.name) if directory is not None else None
        return child is not None and child.key != node and bool(self._marks.of(child))

    def next_notice(self, room: int | None) -> Notice | None:
        """The next notification; see ``Session.next_notice``."""
        return None if self._requests.is_taking else self._outbox.take(room)

    def next_answer(self) -> Answer | None:
        """A late answer to a request."""
        return self._requests.next_answer()

    def interrupt(self, unique: int) -> None:
        """A signal is to end a request."""
        self._requests.interrupt(unique)

    def _status(self, key: Key) -> os.stat_result | None:
        try:
            return self._disk.getattr(key)
        except OSError:
            return None

    def _is_gone(self, node: Node) -> bool:
        return self._status(node.key) is None
