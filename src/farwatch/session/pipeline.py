r"""From the source to the agent: read, settle, plan, hand over.

In a thread of its own (serving/sourcethread.py), or in the server's, between requests.

    read until empty --> drop what concerns nobody --> settle --> plan --> answer WAIT
            |                       (intake.py)                     |
            \--something is lost--> compare what was known with the disk   (upkeep.py)

It never waits for the agent or for the client's kernel, and notifies neither: a thread
that reads the source must not depend on what the source's events are for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container

from farwatch.events import Key, Mask, Place, Record
from farwatch.session.fsnotify.subscription import Subscription
from farwatch.session.intake import Intake, Source
from farwatch.session.openmodes import OpenModes
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.showing import show
from farwatch.session.upkeep import Upkeep
from farwatch.sources.settling import UNKNOWN, Holder, Settler, collect

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.01
"""How long a link count that nothing has explained yet is held back."""
_COUNT_SECONDS = 0.001
"""How long a rename is held back of which it is unknown what it replaces: the link count of
that is what its thread does next."""
_MOST_FLUSHES = 100
"""How often half an exchange is held back once more that the disk says is whole: its thread was
kept from running between its two events.  A second, by then."""
_NAMES = int(Mask.CREATE | Mask.DELETE | Mask.RENAME)
_MANY = 1024
"""Records after which a source may have more than it has given at once."""


class Pipeline:
    """For one client, and the one thread that delivers to it.  Owns nothing."""

    def __init__(
        self,
        source: Source,
        session: Session,
        node_at: Callable[[Key, bytes], Key | None],
        place_of: Callable[[Key], Place | None],
        modes: OpenModes,
        send: Callable[[Reply], None],
        own: Container[int],
        client_of: Callable[[int], int] | None = None,
    ) -> None:
        """``own`` are the threads that serve the client.

        ``client_of`` says which client a thread serves, by its number, 0 for none; without it
        there is one.
        """
        self._source = source
        self._session = session
        self._node_at = node_at
        self._intake = Intake(source, session, place_of, modes, own)
        self._send = send
        self._own = own
        self.notify: Callable[[], None] = lambda: None
        """Called when the session has a notification."""
        self.reading: Callable[[], int] = lambda: source.wanted
        """Gives the kinds that reading makes which this client or another is told."""
        self._subscription: Subscription | None = None
        session.is_behind = session.must_catch_up = self.is_behind
        number = session.client
        session.client_of = client_of or (lambda thread: number if thread in own else 0)
        self._settler = self._new_settler(None)
        self._is_reading = self._has_come = False
        self._half_held = 0
        self._upkeep = Upkeep(session, source, session.export, self._read_by_anybody)
        self.due: float | None = None
        """When ``deliver`` is to be called if nothing comes (``time.monotonic``)."""

    @property
    def is_due(self) -> bool:
        """Whether ``due`` has come."""
        return self.due is not None and time.monotonic() >= self.due

    def deliver(self, *, flush: bool = False) -> None:
        """Deliver what the source has; for a thread that waits for it in its own way.

        ``flush`` says that nothing came until ``due``; that nothing came that concerns the
        client is found here.
        """
        # Asked once: what falls due while the batch is read has not been looked at in it.
        is_due = self.is_due
        try:
            self._batch(flush, is_due)
        except Exception:
            log.exception("a batch of events could not be delivered")
            self.gap("events could not be delivered")
        self.due = self._next_due(is_due)
        # Last of all: the agent may share the CPU, and starts when this thread waits.
        self.answer()
        if self._session.has_notice:
            self.notify()

    def _next_due(self, was_due: bool) -> float | None:
        if not self._settler.carrying:
            return None
        if not self._has_come and self.due is not None and not was_due:
            # What concerns nobody is no reason to wait for longer: there may be no end of it.
            return self.due
        wait = _COUNT_SECONDS if self._settler.awaits_count else _FLUSH_SECONDS
        return time.monotonic() + wait

    def _awaits_half(self) -> bool:
        if not self._settler.held or not self._settler.awaits_half(self._at, self._told):
            self._half_held = 0
            return False
        self._half_held += 1
        return self._half_held <= _MOST_FLUSHES

    def gap(self, why: str = "the source was away") -> None:
        """Something may have happened that the source does not report.

        For the thread that delivers.  What is watched is compared with the disk, a little at
        each ``keep_up``.
        """
        self._upkeep.lose(why)
        subscription = self._session.subscription
        self._settler = self._new_settler(subscription)
        if subscription is not None:
            subscription.lose()

    @property
    def keep_up_due(self) -> float | None:
        """When ``keep_up`` is to be called though nothing happens (``time.monotonic``)."""
        return self._upkeep.due

    def keep_up(self) -> None:
        """A little of what is not in a hurry; for the thread that delivers.

        Looks at what is newly watched, so that a gap can be made good; and makes one good.
        """
        due = self._upkeep.due
        if due is None or due > time.monotonic():
            return
        try:
            self._upkeep.step()
        except Exception:
            log.exception("what is watched could not be compared with the disk")
        self.answer()
        if self._session.has_notice:
            self.notify()

    def _read_by_anybody(self) -> int:
        return self.reading()

    def answer(self) -> None:
        """Send what the session has answers for by now."""
        while (answer := self._session.answer()) is not None:
            self._send(answer)

    def is_behind(self) -> bool:
        """Whether something waits to be read, or was read and is not planned yet."""
        return (
            self._is_reading
            or self._settler.carrying
            or self._upkeep.is_comparing
            or self._source.queued() > 0
        )

    def _batch(self, flush: bool, is_due: bool) -> None:
        session = self._session
        if self._upkeep.is_comparing:
            self._upkeep.note()
            return
        now, is_all = time.time_ns(), False
        # With the lock, which the server's thread holds while it answers a request: if that
        # makes the events, waiting here is cheaper than fighting for Python's own lock.
        with session.view.lock:
            session.view.drains.begin()
            self._is_reading = True
            if session.subscription is not self._subscription:
                self._subscription = session.subscription
                self._settler = self._new_settler(self._subscription)
        try:
            is_all = self._settle_and_plan(flush, is_due)
        finally:
            with session.view.lock:
                session.view.drains.end()
                self._is_reading = False
                if is_all:
                    self._upkeep.heard(now)

    def _new_settler(self, subscription: Subscription | None) -> Settler:
        # Who keeps its own marks is told what it has done itself, or has it left out when
        # that is settled.
        if subscription is None:
            return Settler(self._own, self._is_unseen, self._believed, self._is_elsewhere)
        return Settler(
            (),
            lambda place, node: (
                subscription.may_be_replaced(place, node) or self._is_unseen(place, node)
            ),
            self._believed,
            self._is_elsewhere,
        )

    def _is_elsewhere(self, place: Place, key: Key) -> bool:
        """Whether the client knows as many names of a file as it has links, and not this one."""
        node = self._session.view.nodes.by_key.get(key)
        if node is None or node.is_dir or not 0 < node.nlink <= len(node.names):
            return False
        return all(Place(directory.key, name) != place for directory, name in node.names)

    def _is_unseen(self, place: Place, _node: Key | None) -> bool:
        """Whether nobody was told of the directory: what it holds may be known by another name."""
        return place.directory not in self._session.view.nodes.by_key

    def _settle_and_plan(self, flush: bool, is_due: bool) -> bool:
        """Whether everything is told that had happened when this began."""
        settler = self._settler
        records = self._intake.begin()
        self._has_come = bool(records)
        if not records and is_due and not self._source.queued():
            flush = True
        flush = flush and not self._awaits_half()
        # One event that was read at once is what somebody waits for; it needs no more.
        changes = settler.lone(records[0]) if len(records) == 1 else None
        own: frozenset[Place] = frozenset()
        if changes is None and (records or flush) and not settler.is_own(records):
            records, disk = collect(records, self._intake.read, self._at, settler)
            if self._subscription is None:
                own = self._changed_by_the_client(records)
            if not self._intake.has_lost:
                changes = settler.settle(records, disk, self._told, flush=flush)
        if self._intake.has_lost:
            self._intake.has_lost = False
            self.gap("the source's queue has overflowed")
            return False
        if log.isEnabledFor(logging.DEBUG):
            show(records, changes or [])
        if changes:
            self._session.deliver(changes, own, self._intake.places)
        return not settler.carrying and (len(records) < _MANY or not self._source.queued())

    def _at(self, place: Place) -> Key | None:
        return self._node_at(place.directory, place.name)

    def _told(self, place: Place) -> Holder:
        if self._subscription is not None:
            return self._subscription.holds(place)
        view = self._session.view
        directory = view.nodes.by_key.get(place.directory)
        if directory is None or view.drains.is_early(directory, place.name):
            return UNKNOWN
        child = view.nodes.child(directory, place.name)
        return UNKNOWN if child is None else child.key

    def _believed(self, place: Place) -> Key | None:
        return self.held_as_told(place)[0]

    def held_as_told(self, place: Place) -> tuple[Key | None, bool]:
        """What the client was told that a name holds, and whether that is of what is read now.

        It is not if the client has looked the name up perhaps after what is being read.
        """
        holder = self._told(place)
        if holder is not UNKNOWN:
            return holder, True
        nodes = self._session.view.nodes
        directory = nodes.by_key.get(place.directory)
        child = nodes.child(directory, place.name) if directory is not None else None
        return (child.key if child is not None else None), False

    def _changed_by_the_client(self, records: list[Record]) -> frozenset[Place]:
        """Names of which the batch itself says when the client changed them."""
        own = self._own
        return frozenset(
            place
            for record in records
            if record.mask & _NAMES and record.thread in own
            for place in (record.place, record.new_place)
            if place is not None
        )
