"""The mount's server process: answers the kernel, and delivers what the source reports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from farwatch.export.backing import BackingFiles
from farwatch.export.noted import NotedExport
from farwatch.export.pinned import PinnedExport
from farwatch.export.tree import Export
from farwatch.linux.handles import name_to_handle
from farwatch.mounting.options import Options
from farwatch.serving.confinement import Unservable, become_server, confine, settle_memory
from farwatch.serving.following import following_writers
from farwatch.serving.limits import raise_files_limit
from farwatch.serving.openers import open_modes_of_anybody
from farwatch.serving.server import Server, open_modes
from farwatch.serving.start import this_start
from farwatch.serving.submounts import Arrived, Submounts
from farwatch.session.invalidating import Invalidator
from farwatch.session.openmodes import OpenModes
from farwatch.session.pruning import Pruner
from farwatch.session.session import Session
from farwatch.session.settings import CACHING, Cache, Caching, Settings
from farwatch.sources.fanotify import FanotifySource
from farwatch.sources.inotify import InotifySource
from farwatch.sources.mountsource import MountSource
from farwatch.transports.devfuse import DevFuse

__all__ = ["MAX_WRITE", "Inherited", "Unservable", "serve"]

MAX_WRITE = 1 << 20
_END_SECONDS = 1.0


class Inherited(NamedTuple):
    """What the server's process is given; it owns all of it."""

    device: DevFuse
    source: MountSource
    tree: int
    """A detached clone of the mount that the export is on, from the export down."""
    options: Options = Options()
    submounts: Sequence[Arrived] = ()
    """What is mounted below it, each a clone of its own."""
    told: socket.socket | None = None
    """Where it is said what is mounted there later."""


def serve(inherited: Inherited, on_ready: Callable[[], None]) -> None:
    """Serves until the file system is unmounted.

    ``on_ready`` is called once, when the mount answers and an agent delivers.
    """
    device, source, tree, options, arrived, told = inherited
    become_server()
    raise_files_limit(None)
    mount_fd = confine(tree)
    source.silence(mount_fd)
    with _export(mount_fd, source) as export, BackingFiles(device.fileno()) as backing:
        modes = _modes(export, source)
        caching = _caching(options, source)
        settings = _settings(options, caching)._replace(posix_acl=export.has_acls())
        if isinstance(source, InotifySource):
            # It could not tell what programs do to the backing files from what others do.
            settings = settings._replace(passthrough=False)
        session = Session(export, settings, export, modes.mode, backing)
        submounts = Submounts(export, source, session)
        submounts.take(arrived)
        settle_memory()
        with (
            _attaching(submounts, told),
            Server(export, source, session, modes, device.send) as server,
            running(Pruner(session, device.send), "pruner"),
            running(Invalidator(session, device.send), "invalidator"),
            _listening_to_opens(export, session, mount_fd, caching),
        ):
            device.serve(server.receive, until_ready(server, on_ready))


def _export(mount_fd: int, source: MountSource) -> Export:
    """The export, which tells a source what it does itself if that cannot know."""
    if isinstance(source, InotifySource):
        return NotedExport(mount_fd, source)
    if not _has_handles(mount_fd):
        return PinnedExport(mount_fd)
    return Export(mount_fd)


def _has_handles(mount_fd: int) -> bool:
    """Whether its file system names nodes for longer than a descriptor does."""
    try:
        name_to_handle(mount_fd, b"", empty_path=True)
    except OSError:
        return False
    return True


def _modes(export: Export, source: MountSource) -> OpenModes:
    """Tells how others open files: those whom the source names, or whoever does."""
    if isinstance(source, InotifySource):
        return open_modes_of_anybody(export)
    return open_modes(export)


def _caching(options: Options, source: MountSource) -> Caching:
    """What is to be cached; for long only where every change is heard of."""
    if options.cache is Cache.COHERENT and not isinstance(source, FanotifySource):
        return CACHING[Cache.AUTO]
    return CACHING[options.cache]


def _settings(options: Options, caching: Caching) -> Settings:
    start = this_start()
    return Settings(
        start.generation,
        start.hidden_name,
        passthrough=not caching.direct,
        knows_pids=True,
        max_write=MAX_WRITE,
        caching=caching,
        fsnotify=options.fsnotify,
    )


@contextmanager
def _attaching(submounts: Submounts, told: socket.socket | None) -> Iterator[None]:
    """Does what is said about mounts in a thread of its own: one may not answer for long."""
    if told is None:
        yield
        return
    thread = threading.Thread(target=submounts.run, args=(told,), name="submounts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        told.shutdown(socket.SHUT_RDWR)
        thread.join(_END_SECONDS)
        told.close()


@contextmanager
def running(notifier: Pruner | Invalidator, name: str) -> Iterator[None]:
    """Runs what notifies the kernel, in a thread of its own."""
    thread = threading.Thread(target=notifier.run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        notifier.stop()
        thread.join()


def _listening_to_opens(
    export: Export, session: Session, mount_fd: int, caching: Caching
) -> AbstractContextManager[None]:
    """Opens are only listened to where it makes a difference."""
    return following_writers(export, session, mount_fd) if caching.coherent else nullcontext()


def until_ready(server: Server, on_ready: Callable[[], None]) -> Callable[[], None]:
    """What the server does after each request, and once when an agent is at work."""
    is_ready = False

    def after() -> None:
        nonlocal is_ready
        server.after()
        if not is_ready and server.session.channel.is_ready:
            is_ready = True
            on_ready()

    return after
