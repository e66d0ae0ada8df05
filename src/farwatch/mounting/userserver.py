"""The server process of an ordinary user's mount."""

from __future__ import annotations

import os
from collections.abc import Callable

from farwatch.export.noted import NotedExport
from farwatch.export.pinned import PinnedExport
from farwatch.export.tree import Export
from farwatch.linux.mounts import MOUNT_ATTR_RDONLY, attributes_of
from farwatch.mounting.options import Options
from farwatch.mounting.server import MAX_WRITE, Inherited, running, until_ready
from farwatch.serving.confinement import settle_memory
from farwatch.serving.openers import open_modes_of_anybody
from farwatch.serving.server import Server
from farwatch.serving.start import this_start
from farwatch.session.invalidating import Invalidator
from farwatch.session.pruning import Pruner
from farwatch.session.session import Session
from farwatch.session.settings import CACHING, Cache, Caching, Marks, Settings
from farwatch.sources.inotify import InotifySource
from farwatch.sources.mountsource import MountSource


def serve_as_user(inherited: Inherited, on_ready: Callable[[], None]) -> None:
    """Serves until the file system is unmounted; ``inherited.tree`` is SRC itself.

    ``on_ready`` is called once, when the mount answers and an agent delivers.
    """
    device, source, tree, options = inherited[:4]
    os.umask(0)
    os.chdir("/")
    root = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    with _export(root, source) as export:
        modes = open_modes_of_anybody(export)
        session = Session(
            export, _settings(options, options.over(attributes_of(tree))), export, modes.mode
        )
        settle_memory()
        with (
            Server(export, source, session, modes, device.send) as server,
            running(Pruner(session, device.send), "pruner"),
            running(Invalidator(session, device.send), "invalidator"),
        ):
            device.serve(server.receive, until_ready(server, on_ready))


def _export(root: int, source: MountSource) -> Export:
    return NotedExport(root, source) if isinstance(source, InotifySource) else PinnedExport(root)


def _settings(options: Options, attributes: int) -> Settings:
    start = this_start()
    return Settings(
        start.generation,
        start.hidden_name,
        knows_pids=True,
        max_write=MAX_WRITE,
        caching=_caching(options),
        fsnotify=options.fsnotify,
        marks=Marks.BY_THREAD,
        owner=os.geteuid(),
        is_read_only=bool(attributes & MOUNT_ATTR_RDONLY),
    )


def _caching(options: Options) -> Caching:
    """Nothing for long: not every change is heard of."""
    return CACHING[Cache.AUTO if options.cache is Cache.COHERENT else options.cache]
