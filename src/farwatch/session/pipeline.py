r"""From the source to the agent: read, settle, plan, hand over.

In a thread of its own (``run``), or in the server's, between requests (``deliver``).

    read until empty --> drop what concerns nobody --> settle --> plan --> answer WAIT
            \--something is lost--> compare what was known with the disk --/   (upkeep.py)

It never waits for the agent or for the client's kernel, and notifies neither: a thread
that reads the source must not depend on what the source's events are for.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Protocol

from farwatch.events import Key, Mask, Place, Record
from farwatch.session.concerned import Concerned
from farwatch.session.fsnotify.subscription import Subscription
from farwatch.session.openmodes import OpenModes
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.showing import show
from farwatch.session.upkeep import Upkeep
from farwatch.sources.settling import UNKNOWN, Holder, Settler, collect

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.01
"""How long a link count that nothing has explained yet is held back."""
_MOST_FLUSHES = 100
"""How often half an exchange is held back once more that the disk says is whole: its thread was
kept from running between its two events.  A second, by then."""
_STOP, _LOOK = b"x", b"."
_SELF = b"."
_DELETE_SELF = int(Mask.DELETE_SELF)
_OPEN = int(Mask.OPEN)
_NAMES = int(Mask.CREATE | Mask.DELETE | Mask.RENAME)
_OVERFLOW = int(Mask.Q_OVERFLOW)
_MANY = 1024
"""Records after which a source may have more than it has given at once."""


class Source(Protocol):
    """What a pipeline reads: ``sources.fanotify``, or one client's share of it."""

    @property
    def wanted(self) -> int:
        """The kinds that reading makes which are asked for now (Mask bits)."""

    def want(self, mask: int) -> None:
        """Ask for exactly these of the READING kinds from now on."""

    def read(self, limit: int = ...) -> list[Record]:
        """What has happened; an empty list if nothing waits."""

    def queued(self) -> int:
        """How many events wait to be read."""

    def fileno(self) -> int:
        """For poll: readable when something happened."""


class Pipeline:
    """Runs until ``stop``.  Owns nothing but a pipe to be woken by."""

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
        self._place_of = place_of
        self._modes = modes
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
        self._settler = Settler(own)
        self._concerned = Concerned(self._matters)
        self._is_reading = self._has_lost = False
        self._half_held = 0
        self._upkeep = Upkeep(session, source, session.export, self._read_by_anybody)
        self.due: float | None = None
        """When ``deliver`` is to be called if nothing comes (``time.monotonic``)."""
        self._sleeps_until: float | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def stop(self) -> None:
        """Ends ``run``, from another thread."""
        os.write(self._wake_write, _STOP)

    def wake(self) -> None:
        """Has ``run`` call ``notify`` if the session has a notification, from another thread."""
        with suppress(BlockingIOError):
            os.write(self._wake_write, _LOOK)

    def wake_at(self, when: float) -> None:
        """Has ``run`` ask the session for answers then, from another thread."""
        until = self._sleeps_until
        if until is None or when < until:
            self.wake()

    def close(self) -> None:
        """Close the pipe; ``run`` has returned."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def run(self) -> None:
        """Deliver until ``stop`` is called."""
        poll = select.poll()
        poll.register(self._source.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = poll.poll(self._pause())
            for fd, _ in ready:
                if fd == self._wake_read and _STOP in os.read(fd, 4096):
                    return
            if ready or self._is_due():
                self.deliver(flush=not ready)
            else:
                self._answer()
            self.keep_up()

    def _pause(self) -> float | None:
        """Milliseconds until something is to be done though nothing happens."""
        # Before it is asked: whoever has something earlier meanwhile wakes in any case.
        self._sleeps_until = None
        dues = (self.due, self._session.due, self._upkeep.due)
        whens = [when for when in dues if when is not None]
        if not whens:
            return None
        self._sleeps_until = min(whens)
        return max(self._sleeps_until - time.monotonic(), 0) * 1000

    def _is_due(self) -> bool:
        return self.due is not None and time.monotonic() >= self.due

    def deliver(self, *, flush: bool = False) -> None:
        """Deliver what the source has; for a thread that waits for it in its own way.

        ``flush`` says that nothing came until ``due``.
        """
        try:
            self._batch(flush and not self._awaits_half())
        except Exception:
            log.exception("a batch of events could not be delivered")
            self.gap("events could not be delivered")
        self.due = time.monotonic() + _FLUSH_SECONDS if self._settler.carrying else None
        # Last of all: the agent may share the CPU, and starts when this thread waits.
        self._answer()
        if self._session.has_notice:
            self.notify()

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
        self._answer()
        if self._session.has_notice:
            self.notify()

    def _read_by_anybody(self) -> int:
        return self.reading()

    def _answer(self) -> None:
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

    def _batch(self, flush: bool) -> None:
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
            is_all = self._settle_and_plan(flush)
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
            return Settler(self._own)
        return Settler((), subscription.may_be_replaced)

    def _settle_and_plan(self, flush: bool) -> bool:
        """Whether everything is told that had happened when this began."""
        settler = self._settler
        records = self._read_with_modes()
        # One event that was read at once is what somebody waits for; it needs no more.
        changes = settler.lone(records[0]) if len(records) == 1 else None
        own: frozenset[Place] = frozenset()
        if changes is None and (records or flush) and not settler.is_own(records):
            records, disk = collect(records, self._read_with_modes, self._at, settler)
            if self._subscription is None:
                own = self._changed_by_the_client(records)
            if not self._has_lost:
                changes = settler.settle(records, disk, self._told, flush=flush)
        if self._has_lost:
            self._has_lost = False
            self.gap("the source's queue has overflowed")
            return False
        if log.isEnabledFor(logging.DEBUG):
            show(records, changes or [])
        if changes:
            self._session.deliver(changes, own)
        return not settler.carrying and (len(records) < _MANY or not self._source.queued())

    def _read_with_modes(self) -> list[Record]:
        records = self._read()
        if not records or not self._source.wanted & _OPEN:
            return records
        return self._modes.learn(records, self._read)

    def _read(self) -> list[Record]:
        """What concerns the client, in the source's order."""
        records = self._source.read()
        if _OVERFLOW in [record[0] for record in records]:
            self._has_lost = True
        me = threading.get_native_id()
        if me not in self._own:
            # What this thread does itself (a log in the export's file system) is nobody's;
            # but it may be the last to let go of an inode that it has just looked at.
            records = [
                record for record in records if record.thread != me or record.mask & _DELETE_SELF
            ]
        return self._concerned.among(records)

    def _matters(self, record: Record) -> bool:
        return self._session.interest.concerns(record) or self._is_below(record)

    def _is_below(self, record: Record) -> bool:
        """Whether this is about an unknown directory itself, and its parent is known.

        The source does not name the parent, which is told by the child's name.
        """
        if record.place is None or record.place.name != _SELF or record.node is None:
            return False
        if record.mask & _DELETE_SELF:
            # To look at it would keep it alive, and hold up its end for watchers of SRC.
            return False
        place = self._place_of(record.node)
        return place is not None and place.directory in self._session.view.nodes.by_key

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
