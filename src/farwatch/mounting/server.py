"""The server's process: answers the kernel, and delivers what the source reports.

It lives in a mount namespace that holds nothing but /proc and a bind mount of the export,
so that it keeps no other mount of the host busy, and reaches no file but the export's.
All opens go through that bind mount, which the source is told to ignore.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from farwatch.events import Key
from farwatch.export.backing import BackingFiles
from farwatch.export.tree import Export
from farwatch.linux.namespace import enter_private_root
from farwatch.linux.openers import access_mode
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from farwatch.session.pruning import Pruner
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from farwatch.sources.fanotify import FanotifySource
from farwatch.transports.devfuse import DevFuse

log = logging.getLogger(__name__)

_EXPORT = "/export"
MAX_WRITE = 1 << 20


_NO_ROOT = {
    errno.EINVAL: "a mount namespace cannot be made in a plain chroot (enter it by pivot_root,"
    " as container runtimes do)",
    errno.EPERM: "a mount namespace cannot be made here (CAP_SYS_ADMIN is needed)",
}


class Unservable(Exception):
    """The server cannot start here; one line says why."""


class Inherited(NamedTuple):
    """What the server's process is given; it owns all of it."""

    device: DevFuse
    source: FanotifySource
    tree: int
    """A detached clone of the mount that the export is on, from the export down."""


def serve(inherited: Inherited, on_ready: Callable[[], None]) -> None:
    """Serves until the file system is unmounted.

    ``on_ready`` is called once, when the mount answers and an agent delivers.
    """
    device, source, tree = inherited
    os.umask(0)
    # Root's own groups must not count when a set-gid bit is to be kept for a caller.
    os.setgroups([])
    _import_late()
    try:
        enter_private_root({_EXPORT: tree})
    except OSError as error:
        raise Unservable(_NO_ROOT.get(error.errno or 0, str(error.strerror))) from error
    os.close(tree)
    mount_fd = os.open(_EXPORT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    source.silence(mount_fd)
    with Export(mount_fd) as export, BackingFiles(device.fileno()) as backing:
        modes = OpenModes(_access_mode_of(export))
        session = Session(export, _settings(), export, modes.mode, backing)
        own = frozenset((threading.get_native_id(),))
        pipeline = Pipeline(
            source, session, export.node_at, export.place_of, modes, device.send, own
        )
        pruner = Pruner(session, device.send)
        threads = [
            threading.Thread(target=pipeline.run, name="source", daemon=True),
            threading.Thread(target=pruner.run, name="pruner", daemon=True),
        ]
        _settle_memory()
        for thread in threads:
            thread.start()
        try:
            device.serve(session.receive, _between(session, device, source, on_ready))
        finally:
            pipeline.stop()
            pruner.stop()
            for thread in threads:
                thread.join()
            pipeline.close()
            session.close()


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not look at it time and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _settings() -> Settings:
    return Settings(
        generation=int(time.time()) & 0xFFFF_FFFF,
        hidden_name=b".farwatch-" + secrets.token_hex(8).encode(),
        passthrough=True,
        max_write=MAX_WRITE,
    )


def _between(
    session: Session, device: DevFuse, source: FanotifySource, on_ready: Callable[[], None]
) -> Callable[[], None]:
    """What the server does after each request."""
    is_ready = False

    def after() -> None:
        nonlocal is_ready
        answer = session.answer()
        if answer is not None:
            device.send(answer)
        if session.reading != source.wanted:
            source.want(session.reading)
        if not is_ready and session.channel.is_ready:
            is_ready = True
            on_ready()

    return after


def _access_mode_of(export: Export) -> Callable[[int, Key], int | None]:
    def found(thread: int, node: Key) -> int | None:
        try:
            status = export.getattr(node)
        except OSError:
            return None
        return access_mode(thread, status.st_dev, status.st_ino)

    return found


def _import_late() -> None:
    """What Python would import only when something goes wrong, by then out of reach."""
    import encodings.idna  # noqa: F401
    import linecache  # noqa: F401
    import traceback  # noqa: F401

    ctypes.CDLL(None)
