"""One client: the bytes of a request in, the bytes of a reply out.

No descriptor is read or written here but by the export that the session is given.

    before INIT      only INIT is answered, all else EIO
    negotiated       everything
    after DESTROY    as before INIT, with nothing told and nothing open
    INIT again       the same, and negotiated anew

Two threads use a session: the server's, which calls ``receive``, and the source's, which
calls ``deliver``; either sends what ``answer`` returns.  What the client has been told is
under the view's lock, which whatever is called here takes itself.

What a client consists of is put together anew at each INIT (assembly.py): whoever uses a part
asks the session which it is now.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from farwatch.abi import fuse
from farwatch.abi.fuse import Init, Opcode
from farwatch.events import Change, Key, Kind, Place
from farwatch.export.backing import BackingFiles
from farwatch.export.tree import Export
from farwatch.linux.processes import Process
from farwatch.session.agents import Held, KnownThreads
from farwatch.session.assembly import assemble
from farwatch.session.channel import answered
from farwatch.session.dispatch import QUIET
from farwatch.session.fsnotify.requests import Answer
from farwatch.session.naming import CHANGES
from farwatch.session.negotiation import NOTHING_AGREED, Agreed, negotiate
from farwatch.session.planning import Disk
from farwatch.session.replay import is_reserved
from farwatch.session.reply import Reply, failed, replied
from farwatch.session.request import (
    Payload,
    Placed,
    Request,
    Views,
    fail,
    split_extensions,
    written,
)
from farwatch.session.settings import Settings
from farwatch.session.surroundings import Lasting, Surroundings

log = logging.getLogger(__name__)

_NOWHERE: Mapping[Key, Place | None] = MappingProxyType({})
_INIT = int(Opcode.INIT)
_WRITE = int(Opcode.WRITE)
_NO_REPLY = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET))
_OF_NAMES = frozenset((Kind.CREATE, Kind.DELETE, Kind.RENAME, Kind.EXCHANGE))


class Session:
    """One client kernel of one export; see the top of the file."""

    def __init__(
        self,
        export: Export,
        settings: Settings,
        disk: Disk,
        access_mode: Callable[[int, Key], int | None],
        backing: BackingFiles | None = None,
        hold: Callable[[int], Held] = Process,
    ) -> None:
        """``hold`` takes the id of a thread of an agent that has no mark (session/agents.py)."""
        self._settings = settings
        self._known = KnownThreads(hold)
        self.unheard: set[bytes] = set()
        """First bytes of the keys of nodes of which nothing is heard."""
        self._lasting = Lasting(
            export, settings, disk, access_mode, backing, self._known, self.unheard
        )
        self.agreed: Agreed | None = None
        self.is_behind: Callable[[], bool] = lambda: True
        """Whether something that has happened may not have been delivered yet."""
        self.must_catch_up: Callable[[], bool] = lambda: False
        """The same, for requests that wait until that has been delivered."""
        self.client_of: Callable[[int], int] = lambda thread: 0
        """The number of the client that a thread of the server serves, 0 for any other."""
        self.on_asked: Callable[[], None] = lambda: None
        """Called, with the view's lock held, when ``reading`` or ``hears_itself`` may be others
        and the client is to be answered so: the source is to be asked before."""
        self.was_step = False
        """Whether the last request belonged to a step of the agent's: then ``answer`` and
        ``reading`` say what they said before it."""
        self.told_first: frozenset[int] = frozenset()
        """Opcodes: what happened before such a request was done is to be told before the
        reply.  See ``answering``; of a client that keeps no marks there are none."""
        self.prunable = threading.Event()
        """Set when there is something in ``take_prunable``."""
        self.doubtful = threading.Event()
        """Set when there is something in ``take_doubts``, or ``look_at_progress`` is due."""
        self.is_written_elsewhere: Callable[[Key], bool] = lambda key: True
        """Whether somebody but the client may have a file open for writing."""
        self.on_written: Callable[[int, Key], None] = lambda thread, key: None
        """Called when the client has closed what a thread of its could write without the server:
        it may have it mapped still."""
        self.can_invalidate = False
        """Whether somebody sends what ``take_doubts`` gives: to be set before INIT."""
        self._around = Surroundings(
            self._is_behind,
            self._must_catch_up,
            self._client_of,
            self._is_written_elsewhere,
            self._on_written,
            self._on_asked,
            self.doubtful.set,
            self.prunable.set,
            self._destroy,
        )
        self._start()

    def _start(self) -> None:
        parts = assemble(
            self._lasting,
            self._around,
            self.agreed or NOTHING_AGREED,
            can_invalidate=self.can_invalidate,
        )
        self.view = parts.view
        self.interest = parts.interest
        self.delivery = parts.delivery
        self.channel = parts.channel
        self.waiting = parts.waiting
        self.subscription = parts.subscription
        self.told_first = frozenset()
        self._planner = parts.planner
        self._dispatch = parts.dispatch
        self._parts = parts

    # The server's thread ---------------------------------------------------------

    def receive(
        self,
        data: memoryview,
        payload: Views | None = None,
        room: Views | None = None,
    ) -> Reply | None:
        """Answers one request; None if it has no answer, or none yet.

        ``data`` is the whole request, and does not change meanwhile.  A transport that has
        content elsewhere spares a copy of it: it gives a WRITE's in ``payload``, and
        ``data`` ends with the arguments; and a READ may put it in ``room``, then the reply
        is no more than its header, which counts what is in the room.
        Never raises for anything that the bytes say.
        """
        try:
            length, opcode, unique, node, uid, gid, pid, extended, _ = fuse.IN_HEADER.unpack_from(
                data
            )
        except struct.error:
            log.debug("a request of %d bytes has no header; it cannot be answered", len(data))
            return None
        body = data[fuse.IN_HEADER.size : length]
        if opcode == _WRITE:
            payload = written(data, length, payload)
            request = Request(
                opcode, unique, node, uid, gid, pid, body[: fuse.WRITE_IN.size], payload
            )
        else:
            request = Request(opcode, unique, node, uid, gid, pid, body, (), room)
        try:
            if extended:
                request = self._with_groups(request, 8 * extended)
            answer = self._answer(request)
        except OSError as error:
            return None if opcode in _NO_REPLY else failed(unique, error.errno or errno.EIO)
        except (struct.error, ValueError) as error:
            # At DEBUG: whoever sends such could fill the log.
            log.debug("bad request: opcode %d: %s", opcode, error)
            return None if opcode in _NO_REPLY else failed(unique, errno.EINVAL)
        except Exception:
            log.exception("opcode %d failed; this is a fault of farwatch's", opcode)
            return None if opcode in _NO_REPLY else failed(unique, errno.EIO)
        if answer is None:
            return None
        return replied(unique, answer)

    def _with_groups(self, request: Request, length: int) -> Request:
        """The request without its extensions, which tell groups if that was agreed."""
        body, groups = split_extensions(request.body, length)
        if self.agreed is None or Init.CREATE_SUPP_GROUP not in self.agreed.flags:
            raise fail(errno.EINVAL, "extensions that were not agreed on")
        return request._replace(body=body, groups=groups)

    def _answer(self, request: Request) -> Payload | Placed | None:
        opcode = request.opcode
        is_marked = is_reserved(request.uid) or self._known.knows(request.pid)
        self.was_step = is_marked and opcode not in QUIET
        if opcode == _INIT:
            return self._init(request)
        if self.agreed is None:
            raise fail(errno.EIO, "no INIT yet")
        if is_marked:
            return self._dispatch.answer_marked(request)
        return self._dispatch.answer(request)

    def _init(self, request: Request) -> Payload:
        """INIT: once, or again from a guest that was reset and could not say DESTROY."""
        agreed, answer = negotiate(request.body, self._settings)
        self._parts.close()
        self.agreed = agreed
        self._start()
        return answer

    def _destroy(self) -> None:
        self._parts.close()
        self.agreed = None
        self.subscription = None
        self.told_first = frozenset()

    # What surrounds it: whom the parts ask is set later ------------------------------

    def _is_behind(self) -> bool:
        return self.is_behind()

    def _must_catch_up(self) -> bool:
        return self.must_catch_up()

    def _client_of(self, thread: int) -> int:
        return self.client_of(thread)

    def _is_written_elsewhere(self, key: Key) -> bool:
        return self.is_written_elsewhere(key)

    def _on_written(self, thread: int, key: Key) -> None:
        self.on_written(thread, key)

    def _on_asked(self) -> None:
        if self.subscription is not None and self.subscription.has_begun:
            self.told_first = CHANGES
        self.on_asked()

    # The source's thread ---------------------------------------------------------

    def deliver(
        self,
        changes: list[Change],
        own: frozenset[Place],
        places: Mapping[Key, Place | None] = _NOWHERE,
    ) -> None:
        """Plans the replays of a settled batch; ``answer`` then says what to send.

        Or tells a client that keeps its own marks: then ``next_notice`` says what to send.
        ``own`` are the names that the server itself changed in the batch, ``places`` where
        directories are that the client does not know.
        """
        with self.view.lock:
            if self.delivery.has_gap:
                self._hold_back(changes)
                return
            self._tell(changes, own, places)

    def make_good(self, changes: list[Change]) -> None:
        """Tells a part of the difference that a gap has made; as ``deliver``."""
        with self.view.lock:
            self._tell(changes, frozenset(), _NOWHERE, is_needed=True)

    def _tell(
        self,
        changes: list[Change],
        own: frozenset[Place],
        places: Mapping[Key, Place | None],
        *,
        is_needed: bool = False,
    ) -> None:
        self._follow(changes)
        if self.subscription is not None:
            self.subscription.deliver(changes)
        else:
            self.delivery.add(self._planner.plan(changes, own, places), is_needed=is_needed)

    def _follow(self, changes: list[Change]) -> None:
        """What the watchers know from now on; what they were told otherwise is left out."""
        known, view = self.view.known, self.view
        view.raises_own = not self.hears_itself
        if known.is_used and self.subscription is not None and view.raises_own:
            me = self.client
            changes = [change for change in changes if self.client_of(change.thread) != me]
        known.follow(changes)

    def _hold_back(self, changes: list[Change]) -> None:
        """Nobody is told for now; where nothing is known, it is noted where to look."""
        for change in changes:
            if change.kind in _OF_NAMES:
                self.view.known.suspect((change.place, change.new_place))

    # Whoever sends ---------------------------------------------------------------

    def answer(self) -> Reply | None:
        """An answer to a request that was parked, if there is something to say.

        That is the agent's WAIT, or what waits for a lock; for a client that keeps its own
        marks there may be more than one: ask until there is none.
        """
        subscription = self.subscription
        if subscription is not None and subscription.may_have_answer:
            with self.view.lock:
                late = subscription.next_answer()
            if late is not None:
                return _answered(late)
        if self.waiting.may_have_answer:
            with self.view.lock:
                reply = self.waiting.next_answer()
            if reply is not None:
                return reply
        if not self.delivery.has_answer:
            return None
        with self.view.lock:
            interrupted = self.delivery.take_interrupted()
            if interrupted is not None:
                return failed(interrupted, errno.EINTR)
            answer = self.delivery.next_answer()
        if answer is None:
            return None
        return replied(answer[0], answered(answer[1]))

    @property
    def due(self) -> float | None:
        """When ``answer`` is to be asked though nothing happens (``time.monotonic``)."""
        subscription = self.subscription
        marks = subscription.due if subscription is not None else None
        whens = (marks, self.delivery.due, self.waiting.due)
        return min((when for when in whens if when is not None), default=None)

    @property
    def has_notice(self) -> bool:
        """Whether ``next_notice`` has something."""
        subscription = self.subscription
        return subscription is not None and subscription.has_notice

    @property
    def has_lost(self) -> bool:
        """Whether notifications were dropped, and what is left was not taken yet."""
        subscription = self.subscription
        return subscription is not None and subscription.has_lost

    def next_notice(self, room: int | None = None) -> Reply | None:
        """The next notification, header included, each once; None if there is none.

        To be taken when it can be sent, and by one thread: what is not taken waits here.
        ``room`` is how many bytes can be sent; an event that needs more becomes a Q_OVERFLOW,
        and if that has no room either nothing is taken.
        """
        subscription = self.subscription
        if subscription is None or not subscription.has_notice:
            return None
        with self.view.lock:
            notice = subscription.next_notice(room)
        return (notice.header, notice.payload) if notice is not None else None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Between doing a request of ``told_first`` and sending its reply.

        Whoever answers it then has everything delivered that has happened, and sends the
        notifications that there are before the reply.  What happened after the request was
        done is no notification yet, if the client raises the events of its own doing itself.
        """
        subscription = self.subscription
        if subscription is None:
            yield
            return
        with self.view.lock:
            subscription.begin_answering()
        try:
            yield
        finally:
            with self.view.lock:
                subscription.end_answering()

    # The invalidator's thread ----------------------------------------------------

    def look_at_progress(self) -> bool:
        """Doubts what waits to be replayed for too long; whether to look again in a while."""
        with self.view.lock:
            return self.view.belief.look_at_progress()

    def take_doubts(self) -> list[Reply]:
        """Notifications of what the client's kernel is to ask about again; [] if of nothing."""
        with self.view.lock:
            return self.view.belief.doubts.take()

    def take_outdated(self) -> Sequence[Reply]:
        """Notifications to be sent before the reply that ``receive`` has returned."""
        return self.view.belief.doubts.take_outdated()

    def doubt(self, keys: Iterable[Key]) -> None:
        """These nodes may have become others without any event."""
        with self.view.lock:
            for key in keys:
                node = self.view.nodes.by_key.get(key)
                if node is not None:
                    self.view.belief.doubt(node)

    # The pruner's thread ---------------------------------------------------------

    def take_prunable(self) -> list[int]:
        """Ids of nodes that only replays have made known; none while there are replays."""
        with self.view.lock:
            if not self.delivery.is_idle:
                return []
            self.prunable.clear()
            nodes = list(self.view.replayed)
            self.view.replayed.clear()
        return nodes

    # All of them -----------------------------------------------------------------

    @property
    def export(self) -> Export:
        """What is served."""
        return self._lasting.export

    @property
    def is_owed(self) -> bool:
        """Whether the source's thread has something to do that no event tells it."""
        return self.view.known.is_wanting or self.delivery.can_make_good

    @property
    def client(self) -> int:
        """The number of this client among the server's."""
        return self._settings.client

    @property
    def reading(self) -> int:
        """The kinds (Mask bits) that the source is to be asked for, besides its own."""
        if self.subscription is not None:
            return self.interest.reading | self.subscription.reading
        return self.interest.reading

    @property
    def hears_itself(self) -> bool:
        """Whether the client is to be told what it has done itself: its reads and writes, too."""
        return self.subscription is not None and self.subscription.hears_itself

    def close(self) -> None:
        """Close everything that the client has left open."""
        with self.view.lock:
            self._parts.close()
            self._known.close()


def _answered(late: Answer) -> Reply:
    return failed(late.unique, late.error) if late.error else replied(late.unique, late.payload)
