"""All that one client consists of, put together anew at each INIT.

    what it was told      View, Interest
    what it has open      OpenFiles, OpenDirectories, Locks; Waiting: what it waits for
    its requests          Naming, Listing, Attributes, Content, Locks ... ──> Dispatch
    its agent             Planner ──> Delivery ──> Channel; the agent's own requests are
                          told apart by Matching, and done by Answers and Marked
    or marks of its own   Subscription

None of it is used after the next INIT.  What is the same before and after is ``Lasting``; what
may be another at any moment is asked for through ``Surroundings``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farwatch.abi import fuse
from farwatch.abi.fsnotify import Dialect
from farwatch.abi.fuse import Init, Opcode
from farwatch.events import Key
from farwatch.export.nodes import Node, NodeTable
from farwatch.export.tree import Export
from farwatch.session.answers import Answers
from farwatch.session.catchingup import CatchingUp
from farwatch.session.channel import Channel
from farwatch.session.delivery import Delivery
from farwatch.session.dispatch import Dispatch
from farwatch.session.files import OpenDirectories, OpenFiles, ReplayOpens
from farwatch.session.fsnotify.subscription import Subscription
from farwatch.session.graves import Graves
from farwatch.session.handlers import as_served, destroying, interrupting, of_marks, of_nodes
from farwatch.session.interest import Interest
from farwatch.session.ioctls import Ioctls
from farwatch.session.listing import Listing
from farwatch.session.locks import Locks
from farwatch.session.marked import Marked
from farwatch.session.matching import ByMark, InOrder
from farwatch.session.naming import Naming
from farwatch.session.negotiation import Agreed
from farwatch.session.planning import Planner
from farwatch.session.replay import Replay
from farwatch.session.request import Handler
from farwatch.session.settings import CACHING, Cache, Caching, Marks, Settings
from farwatch.session.standing import Standing
from farwatch.session.surroundings import Lasting, Surroundings
from farwatch.session.untelling import untell
from farwatch.session.view import View
from farwatch.session.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Parts:
    """Those of one client that a session uses itself.  Owns what the client has open."""

    view: View
    interest: Interest
    planner: Planner
    delivery: Delivery
    channel: Channel
    subscription: Subscription | None
    dispatch: Dispatch
    waiting: Waiting
    files: OpenFiles
    directories: OpenDirectories
    locks: Locks

    def close(self) -> None:
        """Close everything that the client has left open."""
        self.waiting.forget()
        self.locks.close()
        self.files.close()
        self.directories.close()
        self.view.nodes.close()


def assemble(
    lasting: Lasting, around: Surroundings, agreed: Agreed, *, can_invalidate: bool
) -> Parts:
    """The parts for what was agreed.

    ``can_invalidate`` says whether somebody sends the client's kernel what it is to doubt.
    """
    export, settings = lasting.export, lasting.settings
    graves = _graves(export, settings, agreed)
    view = _view(lasting, around, graves, _caching(settings.caching, agreed, can_invalidate))
    interest = Interest(view.nodes)
    files = _files(lasting, around, agreed)
    directories = OpenDirectories(settings.base)
    view.belief.is_written = lambda node: (
        files.is_written(node) or around.is_written_elsewhere(node.key)
    )
    export.held = _held_by(files, graves)
    naming = Naming(export, view, files, graves, masks=agreed.masks)
    planner = Planner(view, interest, lasting.disk, lasting.access_mode)
    view.cancel = planner.cancel
    is_by_thread = settings.marks is Marks.BY_THREAD
    matching = InOrder(view) if is_by_thread else ByMark()
    delivery = Delivery(view, matching.armed, planner.otherwise, settings.longest_wait)
    delivery.on_gap = _given_up(view, planner)
    path_of = Standing(view, lasting.disk.place_of).path_of
    channel = Channel(settings, view, delivery, interest, planner, lasting.known, path_of)
    waiting = Waiting()
    locks = _locks(around, settings, view, files, waiting)
    files.tells_closes = agreed.posix_locks
    files.needs_flush = locks.needs_flush
    subscription = _subscribed(lasting, around, agreed, view)
    view.is_truthful = subscription is not None
    parking = [delivery.interrupt, locks.interrupt, waiting.interrupt]
    if subscription is not None:
        parking.append(subscription.interrupt)
    handlers: dict[int, Handler] = {
        **of_nodes(lasting, agreed, view, files, naming, waiting),
        **Listing(export, view, directories, naming, channel.closed).handlers,
        **locks.handlers(takes_locks=agreed.locks),
        Opcode.IOCTL: Ioctls(files, directories, view.belief.outdated, channel.ioctl).ioctl,
        Opcode.INTERRUPT: interrupting(parking),
        Opcode.DESTROY: destroying(around.on_destroy),
    }
    if subscription is not None and agreed.fsnotify is not None:
        handlers.update(of_marks(lasting, subscription, naming))
    handlers = as_served(handlers, lasting, files, naming)
    answers = Answers(
        view,
        naming.attributes,
        _links_on(export),
        ReplayOpens(files, directories),
        channel.is_agent,
        matching,
    )
    marked = Marked(view, settings.hidden_name, naming, answers, handlers)
    on_prunable = around.on_prunable if fuse.has_prune(agreed.minor) else None
    return Parts(
        view=view,
        interest=interest,
        planner=planner,
        delivery=delivery,
        channel=channel,
        subscription=subscription,
        dispatch=Dispatch(view, handlers, marked, interest, delivery, on_prunable),
        waiting=waiting,
        files=files,
        directories=directories,
        locks=locks,
    )


# What it was told, and has open --------------------------------------------------


def _graves(export: Export, settings: Settings, agreed: Agreed) -> Graves:
    # Who keeps marks waits for the end of what it has removed, and would wait for ever.
    keeps_marks = settings.checks_permissions or agreed.fsnotify is not None
    return Graves(export, is_used=export.keeps_removed and not keeps_marks)


def _caching(wanted: Caching, agreed: Agreed, can_invalidate: bool) -> Caching:
    """As it was asked for, if it can be had: it takes a kernel that lets names expire."""
    can_expire = can_invalidate and Init.HAS_EXPIRE_ONLY in agreed.flags
    return wanted if can_expire or not wanted.coherent else CACHING[Cache.AUTO]


def _view(lasting: Lasting, around: Surroundings, graves: Graves, caching: Caching) -> View:
    export, settings = lasting.export, lasting.settings
    nodes = NodeTable(export.root_key, settings.generation, settings.base, graves)
    view = View(nodes, caching, around.on_doubt)
    view.links.is_behind = around.is_behind
    view.guise = export.guise
    view.belief.unheard = lasting.unheard
    return view


def _files(lasting: Lasting, around: Surroundings, agreed: Agreed) -> OpenFiles:
    settings = lasting.settings
    backing = lasting.backing if agreed.passthrough else None
    files = OpenFiles(backing, agreed.noflush, settings.caching.direct, settings.base)
    files.on_closed = lambda node, opener: around.on_written(opener, node.key)
    return files


def _held_by(files: OpenFiles, graves: Graves) -> Callable[[Key], int | None]:
    """Finds what may have no name any more, by what is open or was removed."""

    def held(key: Key) -> int | None:
        fd = graves.held(key)
        return files.held(key) if fd is None else fd

    return held


def _locks(
    around: Surroundings, settings: Settings, view: View, files: OpenFiles, waiting: Waiting
) -> Locks:
    return Locks(
        files,
        waiting,
        CatchingUp(view, around.is_behind),
        knows_pids=settings.knows_pids,
        has_signals=settings.longest_wait is None,
    )


# Who hears of what has happened --------------------------------------------------


def _given_up(view: View, planner: Planner) -> Callable[[list[Replay]], list[Replay]]:
    """For ``Delivery.on_gap``."""

    def on_gap(dropped: list[Replay]) -> list[Replay]:
        untell(view, dropped)
        return planner.let_go()

    return on_gap


def _links_on(export: Export) -> Callable[[Node], int]:
    """Counts a node's links on the disk; 0 if it is gone."""

    def count(node: Node) -> int:
        try:
            return export.getattr(node.key).st_nlink
        except OSError:
            return 0

    return count


def _subscribed(
    lasting: Lasting, around: Surroundings, agreed: Agreed, view: View
) -> Subscription | None:
    """The marks of a client that keeps its own.

    Without an agent there is nobody to replay: a client that keeps none is told nothing.
    """
    dialect = agreed.fsnotify
    if dialect is None and lasting.settings.checks_permissions:
        dialect = Dialect.CURRENT
    if dialect is None:
        return None
    return Subscription(
        dialect,
        lasting.settings,
        view,
        lasting.disk,
        around.client_of,
        around.must_catch_up,
        around.on_asked,
    )
