"""What is read from the source, and what of it is left out: the first step of a batch.

    read ──> not what this thread does itself ──> what concerns the client (concerned.py)
         ──> how it was opened, while opens are asked for (openmodes.py), which may read on

For the thread that delivers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container
from typing import Protocol

from farwatch.events import Key, Mask, Place, Record
from farwatch.session.concerned import Concerned
from farwatch.session.openmodes import OpenModes
from farwatch.session.session import Session

_ROUNDS = 3
_SELF = b"."
_DELETE_SELF = int(Mask.DELETE_SELF)
_OPEN = int(Mask.OPEN)
_OVERFLOW = int(Mask.Q_OVERFLOW)


class Source(Protocol):
    """What is read: ``sources.fanotify``, or one client's share of it."""

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


class Intake:
    """Reads one source for one client."""

    def __init__(
        self,
        source: Source,
        session: Session,
        place_of: Callable[[Key], Place | None],
        modes: OpenModes,
        own: Container[int],
    ) -> None:
        """``own`` are the threads that serve the client."""
        self._source = source
        self._session = session
        self._place_of = place_of
        self._modes = modes
        self._own = own
        self._concerned = Concerned(self._matters)
        self.places: dict[Key, Place | None] = {}
        """Where directories were that the client does not know, and that the batch is about,
        before what has come since was read."""
        self.has_lost = False
        """Whether the source has lost something; whoever makes that good resets it."""

    def begin(self) -> list[Record]:
        """The first of a batch, as ``read``."""
        self.places.clear()
        return self.read()

    def read(self) -> list[Record]:
        """What concerns the client, in the source's order; an empty list if nothing waits."""
        records = self._read()
        if not records or not self._source.wanted & _OPEN:
            return records
        return self._modes.learn(records, self._read)

    def _read(self) -> list[Record]:
        records = self._read_on(self._source.read())
        if _OVERFLOW in [record[0] for record in records]:
            self.has_lost = True
        me = threading.get_native_id()
        if me not in self._own:
            # What this thread does itself (a log in the export's file system) is nobody's;
            # but it may be the last to let go of an inode that it has just looked at.
            records = [
                record for record in records if record.thread != me or record.mask & _DELETE_SELF
            ]
        return self._concerned.among(records)

    def _read_on(self, records: list[Record]) -> list[Record]:
        """The records, and more if some are of directories that the client does not know.

        What is done to a directory itself says no name, so the disk is asked, which may be later
        than what was read: whatever has taken the name from it is read next, and says it.
        """
        more = records
        for _ in range(_ROUNDS):
            unknown = [record for record in more if self._is_of_unknown(record)]
            if not unknown:
                break
            for record in unknown:
                self._is_below(record)
            more = self._source.read()
            records = records + more
        return records

    def _is_of_unknown(self, record: Record) -> bool:
        is_itself = record.place is not None and record.place.name == _SELF
        return is_itself and not self._session.interest.concerns(record)

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
        if record.node not in self.places:
            self.places[record.node] = self._place_of(record.node)
        place = self.places[record.node]
        return place is not None and place.directory in self._session.view.nodes.by_key
