"""Keeps up what the watchers know, and makes a gap good; done between batches.

    idle ──something is watched that was not listed──> listing ──> idle
      │ └──stamps are stale, for a while or many of them──> looking ──> idle
      └──gap──> comparing (resync.py) ──> telling ──> idle

A gap is

    lost        the source says that its queue has overflowed, or was away for a while
    given up    nobody replayed what was queued (delivery.py): compared when an agent waits

One slice at a time, so that whoever runs it can see to other things in between.  While it
compares, all that the source reports belongs to the gap: it is noted, and not settled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Protocol

from farwatch.events import Change, Key, Kind, Place, Record
from farwatch.session.known import Known
from farwatch.session.resync import Resync
from farwatch.session.session import Session
from farwatch.session.stamps import Entry, entry_of, stamp_of
from farwatch.session.survey import Surveyed

_STALE_SECONDS = 0.05
"""How long stamps may be stale: what is written time and again is looked at once."""
_CALM_SECONDS = 0.5
"""The same, and how long a directory must have been watched, for who keeps marks: its end is
told when nobody has it open, and whoever looks at it puts that off."""
_MANY_STALE = 256
_SLICE_SECONDS = 0.002
_SLICE = 64
_CHUNK = 256
_ATTEMPTS = 3
"""How often it is compared anew because the source has lost something meanwhile."""

log = logging.getLogger(__name__)


class Asked(Protocol):
    """What is asked of the source."""

    def read(self, limit: int = ...) -> list[Record]:
        """What has happened; an empty list if nothing waits."""

    def queued(self) -> int:
        """How many events wait to be read."""


class Upkeep:
    """For one session; used by the one thread that reads the source."""

    def __init__(
        self, session: Session, source: Asked, export: Surveyed, reading: Callable[[], int]
    ) -> None:
        """``reading`` gives the kinds that reading makes which somebody is told of now.

        Who keeps marks is told of all that its server's thread does: then nothing is listed
        for it, and at a gap it is told just that there was one.
        """
        self._session = session
        self._reading = reading
        self._source = source
        self._export = export
        self._is_lost = self._is_telling = False
        self._view = session.view
        self._resync: Resync | None = None
        self._work: Iterator[None] | None = None
        self._stale_since = 0.0

    # Whoever reads the source -----------------------------------------------------

    @property
    def is_comparing(self) -> bool:
        """Whether what the source reports is only to be noted."""
        return self._resync is not None

    def lose(self, why: str) -> None:
        """Something has happened of which nothing is known."""
        if not self._is_lost:
            log.warning("%s: what is watched is compared with the disk", why)
        self._is_lost = True

    def note(self) -> None:
        """Read what the source has to say while it is compared: where to look again.

        While the difference is told nothing is read: what happens then comes after it.
        """
        if self._resync is not None and not self._is_telling:
            self._resync.note(self._source.read())

    def heard(self, now: int) -> None:
        """Everything that had happened then (``time.time_ns``) is told.

        Called with the view's lock held.
        """
        known = self._session.view.known
        if known.stale and not self._stale_since:
            self._stale_since = time.monotonic()
        if known.nodes and not self._has_gap:
            known.confirm(now)

    @property
    def _has_gap(self) -> bool:
        return self._is_lost or self._session.delivery.has_gap

    @property
    def due(self) -> float | None:
        """When ``step`` is to be called (``time.monotonic``); None: not before something is."""
        session = self._session
        if self._work is not None or self._is_lost or session.delivery.can_make_good:
            return 0.0
        if session.delivery.has_gap:
            return None
        known = session.view.known
        calm = _STALE_SECONDS
        if session.subscription is not None:
            calm = _CALM_SECONDS
            if known.is_wanting and not known.stale:
                self._stale_since = self._stale_since or time.monotonic()
                return self._stale_since + calm
        if known.is_wanting or known.stale > _MANY_STALE:
            return 0.0
        return self._stale_since + calm if known.stale else None

    def step(self) -> None:
        """One slice of what is due."""
        if self._session.view is not self._view:
            # INIT: another kernel, that was told nothing yet.
            self._view = self._session.view
            self._work = self._resync = None
            self._is_telling = False
        work = self._work or self._next()
        self._work = work
        if work is None:
            return
        end = time.monotonic() + _SLICE_SECONDS
        try:
            for _ in work:
                if time.monotonic() >= end:
                    return
        except BaseException:
            self._resync = self._work = None
            self._cannot_make_good()
            raise
        self._work = None

    def _next(self) -> Iterator[None] | None:
        due = self.due
        if due is None or due > time.monotonic():
            return None
        delivery = self._session.delivery
        if self._is_lost or delivery.can_make_good:
            return self._make_good()
        return self._keep_up(self._view.known)

    # A gap ------------------------------------------------------------------------

    def _make_good(self) -> Iterator[None]:
        view = self._view
        with view.lock:
            view.drains.begin()
        try:
            resync = yield from self._compare()
            for _ in range(_ATTEMPTS - 1):
                if resync.is_lost:
                    resync = yield from self._compare()
            # Still: then it is compared once more when this has been told.
            self._is_lost = resync.is_lost
            self._is_telling = True
            yield from self._tell(resync)
        finally:
            self._resync = None
            self._is_telling = False
            with view.lock:
                view.drains.end()

    def _cannot_make_good(self) -> None:
        """Whoever can be told that something is missing is told so, and all goes on."""
        with self._view.lock:
            self._session.delivery.make_good()
        self._session.make_good([Change(Kind.OVERFLOW, None, None)])

    def _compare(self) -> Generator[None, None, Resync]:
        view = self._view
        self._is_lost = False
        with view.lock:
            view.known.lose()
        resync = Resync(view, self._session.interest, view.known, self._export)
        self._resync = resync
        yield from resync.run(self._read)
        return resync

    def _read(self) -> int:
        assert self._resync is not None
        records = self._source.read()
        self._resync.note(records)
        return len(records)

    def _tell(self, resync: Resync) -> Iterator[None]:
        session = self._session
        with self._view.lock:
            session.delivery.make_good()
            self._view.distrust()
        changes = iter(resync.changes)
        while chunk := list(islice(changes, _CHUNK)):
            session.make_good(chunk)
            yield
        with self._view.lock:
            resync.settle()

    # What is known ----------------------------------------------------------------

    def _keep_up(self, known: Known) -> Iterator[None]:
        while known.is_wanting:
            yield from self._list(known)
        yield from self._look(known)
        now = time.time_ns()
        if not self._source.queued():
            with self._view.lock:
                known.confirm(now)

    def _list(self, known: Known) -> Iterator[None]:
        with self._view.lock:
            begun = known.begin()
        if begun is None:
            return
        key, is_dir = begun
        if is_dir and self._session.subscription is not None and self._reading():
            with self._view.lock:
                known.took(key, b"", None)
            return
        try:
            itself = stamp_of(self._export.getattr(key))
            names = self._export.names(key) if is_dir else None
        except OSError as error:
            # Gone by now, which will be told; or it cannot be listed, and a gap will say so.
            log.debug("a watched node cannot be looked at: %s", error.strerror)
            with self._view.lock:
                known.took(key, b"", None)
            return
        found: dict[bytes, Entry] = {}
        for index, name in enumerate(names or ()):
            try:
                found[name] = entry_of(*self._export.lookup(key, name))
            except OSError:
                continue
            if index % _SLICE == _SLICE - 1:
                yield
        with self._view.lock:
            if not known.took(key, itself, found if is_dir else None):
                log.warning("too many names are watched: of some nothing can be compared")
        yield

    def _look(self, known: Known) -> Iterator[None]:
        """Looks at stale stamps again."""
        self._stale_since = 0.0
        while known.stale:
            with self._view.lock:
                names, nodes = known.take_stale(_SLICE)
            found = [entry for entry in map(self._entry, names) if entry is not None]
            stamps = [(key, stamp) for key in nodes if (stamp := self._stamp(key))]
            with self._view.lock:
                known.looked(found, stamps)
            yield

    def _entry(self, what: tuple[Place, Key]) -> tuple[Place, Entry] | None:
        place, key = what
        try:
            return place, entry_of(key, self._export.getattr(key))
        except OSError:
            return None

    def _stamp(self, key: Key) -> bytes:
        try:
            return stamp_of(self._export.getattr(key))
        except OSError:
            return b""
