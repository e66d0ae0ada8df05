"""The mount's server process: answers the kernel, and delivers what the source reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.export.backing import BackingFiles
from farwatch.export.tree import Export
from farwatch.serving.confinement import Unservable, become_server, confine, settle_memory
from farwatch.serving.server import Server, open_modes
from farwatch.serving.start import this_start
from farwatch.session.pruning import Pruner
from farwatch.session.session import Session
from farwatch.session.settings import DIALECTS, Settings
from farwatch.sources.fanotify import FanotifySource
from farwatch.transports.devfuse import DevFuse

__all__ = ["MAX_WRITE", "Inherited", "Unservable", "serve"]

MAX_WRITE = 1 << 20


class Inherited(NamedTuple):
    """What the server's process is given; it owns all of it."""

    device: DevFuse
    source: FanotifySource
    tree: int
    """A detached clone of the mount that the export is on, from the export down."""
    fsnotify: frozenset[Dialect] = DIALECTS
    """The dialects in which the kernel may keep its own marks; none that is out does."""


def serve(inherited: Inherited, on_ready: Callable[[], None]) -> None:
    """Serves until the file system is unmounted.

    ``on_ready`` is called once, when the mount answers and an agent delivers.
    """
    device, source, tree, fsnotify = inherited
    become_server()
    mount_fd = confine(tree)
    source.silence(mount_fd)
    with Export(mount_fd) as export, BackingFiles(device.fileno()) as backing:
        modes = open_modes(export)
        session = Session(export, _settings(fsnotify), export, modes.mode, backing)
        settle_memory()
        with (
            Server(export, source, session, modes, device.send) as server,
            _pruning(session, device),
        ):
            device.serve(server.receive, _until_ready(server, on_ready))


def _settings(fsnotify: frozenset[Dialect]) -> Settings:
    start = this_start()
    return Settings(
        start.generation,
        start.hidden_name,
        passthrough=True,
        max_write=MAX_WRITE,
        fsnotify=fsnotify,
    )


@contextmanager
def _pruning(session: Session, device: DevFuse) -> Iterator[None]:
    pruner = Pruner(session, device.send)
    thread = threading.Thread(target=pruner.run, name="pruner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        pruner.stop()
        thread.join()


def _until_ready(server: Server, on_ready: Callable[[], None]) -> Callable[[], None]:
    """What the server does after each request, and once when an agent is at work."""
    is_ready = False

    def after() -> None:
        nonlocal is_ready
        server.after()
        if not is_ready and server.session.channel.is_ready:
            is_ready = True
            on_ready()

    return after
