"""One client: the bytes of a request in, the bytes of a reply out.

No descriptor is read or written here but by the export that the session is given.

    before INIT      only INIT is answered, all else EIO
    negotiated       everything
    after DESTROY    as before INIT, with nothing told and nothing open
    INIT again       the same, and negotiated anew

Two threads use a session: the server's, which calls ``receive``, and the source's, which
calls ``deliver``; either sends what ``answer`` returns.  What the client has been told is
under the view's lock; reads, writes and syncs are done without it, so that a slow disk
does not hold up events.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from farwatch.abi import fuse
from farwatch.abi.control import BatchFlag
from farwatch.abi.fsnotify import Dialect
from farwatch.abi.fuse import Init, Opcode
from farwatch.events import Change, Key, Kind, Place
from farwatch.export.backing import BackingFiles
from farwatch.export.nodes import Node, NodeTable
from farwatch.export.noted import NotedExport
from farwatch.export.tree import Export
from farwatch.linux.processes import Process
from farwatch.session.agents import Held, KnownThreads
from farwatch.session.answers import Answers
from farwatch.session.attributes import Attributes
from farwatch.session.callers import Callers
from farwatch.session.catchingup import CatchingUp
from farwatch.session.channel import Channel, answered
from farwatch.session.content import Content
from farwatch.session.delivery import Delivery
from farwatch.session.files import OpenDirectories, OpenFiles, ReplayOpens
from farwatch.session.fsnotify.requests import Answer
from farwatch.session.fsnotify.subscription import Subscription
from farwatch.session.graves import Graves
from farwatch.session.interest import Interest
from farwatch.session.ioctls import Ioctls
from farwatch.session.leases import patient
from farwatch.session.listing import Listing
from farwatch.session.locks import Locks
from farwatch.session.marked import Marked
from farwatch.session.matching import ByMark, InOrder
from farwatch.session.naming import CHANGES, Naming
from farwatch.session.negotiation import Agreed, negotiate
from farwatch.session.noting import noted
from farwatch.session.permission import access, guarded, no_control_channel
from farwatch.session.planning import Disk, Planner
from farwatch.session.readonly import read_only
from farwatch.session.replay import Replay, is_reserved
from farwatch.session.reply import Reply, failed, replied
from farwatch.session.request import (
    Handler,
    Payload,
    Placed,
    Request,
    Views,
    fail,
    first,
    split_extensions,
)
from farwatch.session.settings import CACHING, Cache, Caching, Marks, Settings
from farwatch.session.untelling import untell
from farwatch.session.view import Name, View
from farwatch.session.waiting import Waiting

log = logging.getLogger(__name__)

_WITHOUT_LOCK = frozenset(
    (
        Opcode.READ,
        Opcode.WRITE,
        Opcode.FSYNC,
        Opcode.FALLOCATE,
        Opcode.LSEEK,
        Opcode.COPY_FILE_RANGE,
        Opcode.SYNCFS,
    )
)
_QUIET = frozenset(
    (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.IOCTL)
)
_INIT = int(Opcode.INIT)
_WRITE = int(Opcode.WRITE)
_WRITE_END = fuse.IN_HEADER.size + fuse.WRITE_IN.size
_NO_REPLY = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET))
_TOUCHING = frozenset((Opcode.RELEASE, Opcode.SETATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR))
"""After these a node may not be as it was when it was last looked at."""
_OF_NAMES = frozenset((Kind.CREATE, Kind.DELETE, Kind.RENAME, Kind.EXCHANGE))
_PRUNED_AT_ONCE = 64
_LEAST_SCAN_PAUSE = 0.25
_SCAN_SHARE = 30
"""A scan is asked for at most after this many times as long as the last one took."""


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
        self._export = export
        self._settings = settings
        self._disk = disk
        self._access_mode = access_mode
        self._backing = backing
        self._known = KnownThreads(hold)
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
        self.unheard: set[bytes] = set()
        """First bytes of the keys of nodes of which nothing is heard."""
        self.can_invalidate = False
        """Whether somebody sends what ``take_doubts`` gives: to be set before INIT."""
        self._start()

    def _start(self) -> None:
        export, settings = self._export, self._settings
        # Who keeps marks waits for the end of what it has removed, and would wait for ever.
        keeps_marks = settings.checks_permissions or (
            self.agreed is not None and self.agreed.fsnotify is not None
        )
        graves = Graves(export, is_used=export.keeps_removed and not keeps_marks)
        self.view = view = View(
            NodeTable(
                export.root_key,
                settings.generation,
                settings.base,
                graves,
            ),
            self._caching(),
            self.doubtful.set,
        )
        view.is_behind = self._is_behind
        view.guise = export.guise
        self.interest = Interest(view.nodes)
        noflush = self.agreed is not None and self.agreed.noflush
        passthrough = self.agreed is not None and self.agreed.passthrough
        self._files = OpenFiles(
            self._backing if passthrough else None,
            noflush,
            settings.caching.direct,
            settings.base,
        )
        view.belief.unheard = self.unheard
        self._files.on_closed = self._on_closed
        view.belief.is_written = self._is_written
        export.held = self._held_by(self._files, graves)
        self._directories = OpenDirectories(settings.base)
        masks = self.agreed is not None and self.agreed.masks
        self._naming = Naming(export, view, self._files, graves, masks=masks)
        callers = Callers(knows_pids=settings.knows_pids)
        content = Content(export, view, self._files, self._naming, callers, settings.max_write)
        listing = Listing(export, view, self._directories, self._naming)
        attributes = Attributes(export, view, self._files, self._naming, callers, self.agreed)
        self._planner = Planner(view, self.interest, self._disk, self._access_mode)
        is_by_thread = settings.marks is Marks.BY_THREAD
        self._answers = Answers(
            view,
            self._naming.attributes,
            self._links_on_disk,
            ReplayOpens(self._files, self._directories),
            self._is_agent,
            InOrder(view) if is_by_thread else ByMark(),
        )
        self.delivery = Delivery(
            view, self._answers.armed, self._planner.otherwise, settings.longest_wait
        )
        self.delivery.on_gap = self._on_gap
        self.channel = Channel(
            settings, view, self.delivery, self.interest, self._planner, self._known
        )
        view.cancel = self._cancel
        self._marked = Marked(
            view,
            settings.hidden_name,
            self._naming,
            self._answers,
            self._handler,
            is_by_path=is_by_thread,
        )
        self._scan_asked = 0.0
        self.waiting = Waiting()
        self._locks = Locks(
            self._files,
            self.waiting,
            CatchingUp(view, self._is_behind),
            knows_pids=settings.knows_pids,
            has_signals=settings.longest_wait is None,
        )
        self._files.tells_closes = self.agreed is not None and self.agreed.posix_locks
        self._files.needs_flush = self._locks.needs_flush
        self.subscription = self._subscribed()
        self.told_first = frozenset()
        view.is_truthful = self.subscription is not None
        self._prunes = self.agreed is not None and fuse.has_prune(self.agreed.minor)
        self._handlers: dict[int, Handler] = {
            **self._naming.handlers,
            **attributes.handlers,
            **(attributes.xattr_handlers if settings.xattrs else {}),
            **content.quick,
            **content.slow,
            **self._locks.handlers(
                takes_locks=self.agreed is not None and self.agreed.locks,
            ),
            Opcode.OPEN: patient(content.open, self.waiting),
            **listing.handlers,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.IOCTL: Ioctls(
                self._files, self._directories, view.belief.doubt, self.channel.ioctl
            ).ioctl,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.DESTROY: self._destroy,
            **self._watching(),
        }
        if settings.checks_permissions:
            self._handlers[Opcode.IOCTL] = no_control_channel
        if is_by_thread:
            self._handlers[Opcode.ACCESS] = access(self._must_allow)
        if settings.is_read_only:
            self._handlers = read_only(self._handlers)
        if isinstance(export, NotedExport):
            self._handlers = noted(self._handlers, export, self._files)

    def _on_closed(self, node: Node, opener: int) -> None:
        self.on_written(opener, node.key)

    def _is_written(self, node: Node) -> bool:
        return self._files.is_written(node) or self.is_written_elsewhere(node.key)

    @staticmethod
    def _held_by(files: OpenFiles, graves: Graves) -> Callable[[Key], int | None]:
        """Finds what may have no name any more, by what is open or was removed."""

        def held(key: Key) -> int | None:
            fd = graves.held(key)
            return files.held(key) if fd is None else fd

        return held

    def _caching(self) -> Caching:
        """As it was asked for, if it can be had: it takes a kernel that lets names expire."""
        caching = self._settings.caching
        if not caching.coherent or (
            self.can_invalidate
            and self.agreed is not None
            and Init.HAS_EXPIRE_ONLY in self.agreed.flags
        ):
            return caching
        return CACHING[Cache.AUTO]

    def _watching(self) -> dict[int, Handler]:
        """The handlers of a client that keeps its own marks."""
        if self.subscription is None or self.agreed is None or self.agreed.fsnotify is None:
            return {}
        if not self._settings.checks_permissions:
            return self.subscription.handlers
        return guarded(self.subscription.handlers, self._must_be_readable)

    def _must_be_readable(self, node_id: int) -> None:
        self._export.must_be_readable(self._naming.node(node_id).key)

    def _must_allow(self, node_id: int, mode: int) -> None:
        self._export.must_allow(self._naming.node(node_id).key, mode)

    def _subscribed(self) -> Subscription | None:
        """The marks of a client that keeps its own.

        Without an agent there is nobody to replay: a client that keeps none is told nothing.
        """
        dialect = self.agreed.fsnotify if self.agreed is not None else None
        if dialect is None and self._settings.checks_permissions:
            dialect = Dialect.CURRENT
        if dialect is None:
            return None
        return Subscription(
            dialect,
            self._settings,
            self.view,
            self._disk,
            self._client_of,
            self._must_catch_up,
            self._on_asked,
        )

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
            payload = _written(data, length, payload)
            request = Request(
                opcode, unique, node, uid, gid, pid, body[: fuse.WRITE_IN.size], payload
            )
        else:
            request = Request(opcode, unique, node, uid, gid, pid, body, (), room)
        try:
            if extended:
                request = self._with_groups(request, 8 * extended)
            answer = self._dispatch(request)
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

    def _dispatch(self, request: Request) -> Payload | Placed | None:
        opcode = request.opcode
        is_marked = is_reserved(request.uid) or self._known.knows(request.pid)
        self.was_step = is_marked and opcode not in _QUIET
        if opcode == _INIT:
            return self._init(request)
        if self.agreed is None:
            raise fail(errno.EIO, "no INIT yet")
        if is_marked:
            with self.view.lock:
                if self._prunes and len(self.view.replayed) >= _PRUNED_AT_ONCE:
                    self.prunable.set()
                return self._marked.answer(request)
        handler = self._handler(opcode)
        if opcode in _WITHOUT_LOCK:
            return handler(request)
        with self.view.lock:
            if opcode not in _QUIET:
                self._note_activity()
            if opcode in _TOUCHING and self.view.known.nodes:
                self._note_touch(request.node)
            return handler(request)

    def _handler(self, opcode: int) -> Handler:
        handler = self._handlers.get(opcode)
        if handler is None:
            raise fail(errno.ENOSYS)
        return handler

    def _note_touch(self, node_id: int) -> None:
        """The client itself changes what a node is, or has done so."""
        node = self.view.nodes.by_id.get(node_id)
        if node is not None:
            self.view.known.touched(None, node.key)
            for directory, name in node.names:
                self.view.known.touched(Place(directory.key, name), node.key)

    def _note_activity(self) -> None:
        """Somebody is active in the client, who may be about to place a watch."""
        now = time.monotonic()
        pause = max(_LEAST_SCAN_PAUSE, _SCAN_SHARE * self.interest.scan_seconds)
        if now - self._scan_asked > pause:
            self._scan_asked = now
            self.delivery.ask(BatchFlag.SCAN)

    def _init(self, request: Request) -> Payload:
        """INIT: once, or again from a guest that was reset and could not say DESTROY."""
        agreed, answer = negotiate(request.body, self._settings)
        self._close_all()
        self.agreed = agreed
        self._start()
        return answer

    def _close_all(self) -> None:
        self.waiting.forget()
        self._locks.close()
        self._files.close()
        self._directories.close()
        self.view.nodes.close()

    def _destroy(self, request: Request) -> Payload:
        self._close_all()
        self.agreed = None
        self.subscription = None
        self.told_first = frozenset()
        return b""

    def _releasedir(self, request: Request) -> Payload:
        fh = fuse.RELEASE_IN.unpack_from(request.body)[0]
        # The agent's may be one of a server that has died, and so unknown as a directory.
        self.channel.closed(fh)
        self._directories.release(fh)
        return b""

    def _interrupt(self, request: Request) -> Payload | None:
        (unique,) = fuse.INTERRUPT_IN.unpack_from(request.body)
        self.delivery.interrupt(unique)
        self._locks.interrupt(unique)
        self.waiting.interrupt(unique)
        if self.subscription is not None:
            self.subscription.interrupt(unique)
        return None

    def _is_agent(self, thread: int) -> bool:
        return self.channel.is_agent(thread)

    def _is_behind(self) -> bool:
        return self.is_behind()

    def _must_catch_up(self) -> bool:
        return self.must_catch_up()

    def _on_asked(self) -> None:
        if self.subscription is not None and self.subscription.has_begun:
            self.told_first = CHANGES
        self.on_asked()

    def _client_of(self, thread: int) -> int:
        return self.client_of(thread)

    def _links_on_disk(self, node: Node) -> int:
        try:
            return self._export.getattr(node.key).st_nlink
        except OSError:
            return 0

    def _cancel(self, replay: Replay, at: Name) -> None:
        """The client has changed a name that a replay is about (rule: own after remote)."""
        if replay.done or replay.cancelled:
            return
        replay.cancelled = True
        replay.instead = self._planner.after_cancel(replay, at)

    # The source's thread ---------------------------------------------------------

    def deliver(self, changes: list[Change], own: frozenset[Place]) -> None:
        """Plans the replays of a settled batch; ``answer`` then says what to send.

        Or tells a client that keeps its own marks: then ``next_notice`` says what to send.
        ``own`` are the names that the server itself changed in the batch.
        """
        with self.view.lock:
            if self.delivery.has_gap:
                self._hold_back(changes)
                return
            self._tell(changes, own)

    def make_good(self, changes: list[Change]) -> None:
        """Tells a part of the difference that a gap has made; as ``deliver``."""
        with self.view.lock:
            self._tell(changes, frozenset(), is_needed=True)

    def _tell(
        self, changes: list[Change], own: frozenset[Place], *, is_needed: bool = False
    ) -> None:
        self._follow(changes)
        if self.subscription is not None:
            self.subscription.deliver(changes)
        else:
            self.delivery.add(self._planner.plan(changes, own), is_needed=is_needed)

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

    def _on_gap(self, dropped: list[Replay]) -> list[Replay]:
        untell(self.view, dropped)
        return self._planner.let_go()

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

    def doubt(self, keys: Iterable[Key]) -> None:
        """These nodes may have become others without any event."""
        with self.view.lock:
            for key in keys:
                node = self.view.nodes.by_key.get(key)
                if node is not None:
                    self.view.belief.doubt(node)

    def distrust(self) -> None:
        """There was a gap in what is heard: all that the client believes is doubtful."""
        with self.view.lock:
            self.view.distrust()

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

    @property
    def export(self) -> Export:
        """What is served."""
        return self._export

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
            self._close_all()
            self._known.close()


def _written(data: memoryview, length: int, payload: Views | None) -> Views:
    """What a WRITE has behind its arguments, no more than its header tells of."""
    if payload is None:
        return (data[_WRITE_END:length],)
    return first(payload, max(0, length - len(data)))


def _answered(late: Answer) -> Reply:
    return failed(late.unique, late.error) if late.error else replied(late.unique, late.payload)
