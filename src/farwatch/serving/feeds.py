"""One source for many clients: each has a feed of its own.

    fanotify ──pull──> feed of client 1 ──read──> its pipeline     in its thread
                 └───> feed of client 2 ──read──> …

Whoever pulls reads the source until it is empty and puts what there was into every feed;
that is the source's thread, woken by the kernel, and each client that wants to be sure
that it has heard everything.  Nobody waits for a client: a feed that is not read drops
what it has, and says so by an overflow.

A change is a client's doing if the thread says so that made it.  Thread ids are used
again, so a record is told by the client's number in place of its thread's id from the
moment it is read, as a negative number; and a client's thread does not end before
everything has been read that it may have made.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, KeysView

from farwatch.events import READING, Key, Mask, Record
from farwatch.session.intake import Source

MOST_WAITING = 1 << 16
"""Records in a feed."""
_MOST_QUIET = 64
_READING = int(READING)
_ISDIR = int(Mask.ISDIR)
_DELETE_SELF = int(Mask.DELETE_SELF)
_SELF = b"."
_LOST = Record(int(Mask.Q_OVERFLOW), 0, None, None)


def thread_of(client: int) -> int:
    """What stands for the thread of a client's in a record."""
    return -client


def client_of(thread: int) -> int:
    """The number of the client that has made a record, 0 for none of them."""
    return -thread if thread < 0 else 0


class SharedSource:
    """The source, and the feeds of those who share it.  Does not own the source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._feeds: list[Feed] = []
        self._threads: dict[int, int] = {}
        self._last = 0
        self._is_over = False

    def join(self) -> Feed:
        """A feed for the calling thread, whose changes are from now on its client's."""
        with self._lock:
            self._last += 1
            feed = Feed(self, self._last)
            self._feeds.append(feed)
            self._threads[threading.get_native_id()] = thread_of(feed.client)
        return feed

    def leave(self, feed: Feed) -> None:
        """The feed's thread has done its last work for the client and may end after this.

        Needs CAP_SYS_ADMIN in this thread, as ``want`` does.
        """
        waiting = 0 if self._is_over else self._source.queued()
        while waiting > 0 and (read := self.pull()):
            waiting -= read
        with self._lock:
            self._feeds.remove(feed)
            del self._threads[threading.get_native_id()]
            feed.close()
            self._ask()

    def end(self) -> None:
        """Nobody is told anything from now on, and the source may be closed."""
        with self._lock:
            self._is_over = True

    def pull(self) -> int:
        """Read the source into the feeds; how many records there were."""
        with self._lock:
            records = [] if self._is_over else self._source.read()
            if not records:
                return 0
            threads = self._threads
            batch = _Batch(
                [
                    record._replace(thread=threads[record.thread])
                    if record.thread in threads
                    else record
                    for record in records
                ]
            )
            for feed in self._feeds:
                feed.put(batch)
        return len(records)

    def catch_up(self) -> None:
        """Have everything in the feeds that has happened."""
        # In this order: whoever has emptied the queue holds the lock until all is in the feeds.
        if not self._is_over and (self._source.queued() or self._lock.locked()):
            self.pull()

    def queued(self) -> int:
        """How many records wait in the source itself."""
        return 0 if self._is_over else self._source.queued()

    @property
    def reading(self) -> int:
        """The kinds that reading makes which some feed wants (Mask bits)."""
        return self._source.wanted

    def want(self, feed: Feed, mask: int) -> None:
        """Have the source report what some feed wants.  Needs CAP_SYS_ADMIN in this thread."""
        with self._lock:
            feed.wanted = mask & _READING
            self._ask()

    def _ask(self) -> None:
        union = 0
        for feed in self._feeds:
            union |= feed.wanted
        if union != self._source.wanted and not self._is_over:
            self._source.want(union)

    def run(self, stop: int, failed: Callable[[BaseException], None]) -> None:
        """Pulls whenever there is something, until ``stop`` is readable."""
        poll = select.poll()
        poll.register(self._source.fileno(), select.POLLIN)
        poll.register(stop, select.POLLIN)
        try:
            while all(fd != stop for fd, _ in poll.poll()):
                self.pull()
        except BaseException as error:  # noqa: BLE001 - no source is no server; who is told ends it
            failed(error)


class _Batch:
    """Records that were read together, and what of them tells whom they may concern."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.keys: set[Key] = set()
        self.has_nameless = False
        self.has_lost = False
        self.selves = 0
        """Kinds told of directories themselves, whose parents they do not name."""
        for record in records:
            if record.node is not None:
                self.keys.add(record.node)
            if record.place is None:
                self.has_nameless = True
                self.has_lost |= bool(record.mask & _LOST.mask)
                continue
            self.keys.add(record.place.directory)
            if record.new_place is not None:
                self.keys.add(record.new_place.directory)
            if record.place.name == _SELF and not record.mask & _DELETE_SELF:
                self.selves |= record.mask & ~_ISDIR

    def concerns(self, known: KeysView[Key], unwanted: int) -> bool:
        """Whether it may concern who knows these nodes; never falsely no."""
        return bool(self.selves & ~unwanted) or not known.isdisjoint(self.keys) or self.has_lost


class Feed:
    """What one client reads: a source as far as its pipeline is concerned.

    ``client``  its number
    ``wanted``  the reading kinds that it asks for
    ``known``   the nodes that it knows: what is of no known node and in no known directory
                wakes nobody.  But a record that names no name is kept a while, for the
                next one may say what it was (see session/concerned.py)
    """

    def __init__(self, shared: SharedSource, client: int) -> None:
        self.client = client
        self.wanted = 0
        self.known: Callable[[], KeysView[Key]] = {}.keys
        self._shared = shared
        self._lock = threading.Lock()
        self._batches: list[_Batch] = []
        self._quiet: deque[_Batch] = deque(maxlen=_MOST_QUIET)
        self._waiting = 0
        self._has_lost = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def reading(self) -> int:
        """The kinds that reading makes which some client wants (Mask bits)."""
        return self._shared.reading

    def put(self, batch: _Batch) -> None:
        """What was read; for SharedSource."""
        if not batch.concerns(self.known(), _READING & ~self.wanted):
            if batch.has_nameless:
                self._quiet.append(batch)
            return
        with self._lock:
            was_empty = not self._waiting and not self._has_lost
            self._waiting += len(batch.records)
            if self._waiting > MOST_WAITING:
                self._batches.clear()
                self._waiting = 0
                self._has_lost = True
            else:
                self._batches += self._quiet
                self._batches.append(batch)
            self._quiet.clear()
            if was_empty and self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def read(self, limit: int = 0) -> list[Record]:
        """Everything that has happened; what the source has by now, too."""
        self._shared.catch_up()
        with self._lock:
            batches, self._batches = self._batches, []
            has_lost, self._has_lost = self._has_lost, False
            self._waiting = 0
        unwanted = _READING & ~self.wanted
        records = [_LOST] if has_lost else []
        for batch in batches:
            records += _without(batch.records, unwanted)
        return records

    def queued(self) -> int:
        """How many records wait, here and in the source."""
        return self._waiting + self._has_lost + self._shared.queued()

    def want(self, mask: int) -> None:
        """Ask for exactly these of the reading kinds.  Needs CAP_SYS_ADMIN in this thread."""
        self._shared.want(self, mask)

    def fileno(self) -> int:
        """Readable when something was put here; ``calm`` it before reading."""
        return self._wake

    def calm(self) -> None:
        """Not readable until something is put here again."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            wake, self._wake = self._wake, -1
            if wake >= 0:
                os.close(wake)


def _without(records: list[Record], unwanted: int) -> list[Record]:
    if not unwanted:
        return records
    found = []
    for record in records:
        if record.mask & unwanted:
            mask = record.mask & ~unwanted
            if not mask & ~_ISDIR:
                continue
            record = record._replace(mask=mask)
        found.append(record)
    return found
