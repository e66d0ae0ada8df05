"""The daemon: one guest at a time, from its front end's connection to its end.

    made ──run──> listening ──connected──> serving ──gone──> ended (with ``keep``: listening)
                      └──────────── SIGTERM, SIGINT, SIGHUP ──────────────┘

Each connection has a session of its own, with ids and file handles that no earlier one had.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack

from farwatch.abi.fuse import Init
from farwatch.abi.vhost_user import Protocol
from farwatch.export.tree import Export
from farwatch.linux.signals import asked_to_end
from farwatch.serving.confinement import become_server, settle_memory
from farwatch.serving.limits import raise_files_limit
from farwatch.serving.listening import ListeningSocket
from farwatch.serving.refused import Refused
from farwatch.serving.server import Server, open_modes
from farwatch.serving.shared import SharedDirectory
from farwatch.serving.start import this_start
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from farwatch.transports.vhost.backend import Backend
from farwatch.transports.vhost.state import PROTOCOL_FEATURES
from farwatch.transports.vhost.state import Options as DeviceOptions
from farwatch.virtiofsd.options import Options

log = logging.getLogger(__name__)

MAX_WRITE = 1 << 20
_HEADERS = 4096
_LOOK_SECONDS = 0.0003
"""More than a guest's fstat takes in all (`python -m bench --only guest`): the next request
of a program that makes one after the other comes within that."""
_REQUEST_QUEUES = 64
"""As many as a front end may want (QEMU: ``num-request-queues``); one that it does not start
costs next to nothing.  A guest has no use for more than it has processors."""
_LONGEST_WAIT = 1.0
"""Seconds.  Nothing in a guest can interrupt a request that is parked: whoever is to die
while it waits dies with its answer."""
_NOTIFY_BUFFER = 1024
"""Bytes of a buffer for notifications: the largest, a rename's with two names, fits."""


class Daemon:
    """A virtio-fs device on a shared directory."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._backend = Backend(_device(options))

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serves until the front end is gone, or a signal comes.

        ``on_ready`` is called when the socket listens and nothing can fail any more; it may
        fork.  No file of the host's is there any more to be opened.
        Raises Refused, with nothing left behind.
        """
        options = self._options
        if os.geteuid() != 0:
            raise Refused("sharing a directory needs root", remedy="run it with sudo")
        with ExitStack() as stack:
            stack.callback(self._backend.close)
            raise_files_limit(options.rlimit_nofile)
            shared = stack.enter_context(
                SharedDirectory(options.shared_dir, readonly=options.readonly)
            )
            listening = stack.enter_context(_listening(options))
            wakeup = stack.enter_context(asked_to_end())
            self._backend.stop_at(wakeup)
            become_server()
            shared.enter(is_confined=options.is_confined)
            settle_memory()
            on_ready()
            listening.write_pid()
            self._serve(listening, shared, wakeup)

    def _serve(self, listening: ListeningSocket, shared: SharedDirectory, wakeup: int) -> None:
        while True:
            connection = _accepted(listening, wakeup)
            if connection is None:
                return
            log.info("a front end has connected")
            self._serve_one(connection, shared)
            if not self._options.keep:
                return
            log.info("the front end is gone; waiting for the next")

    def _serve_one(self, connection: socket.socket, shared: SharedDirectory) -> None:
        with ExitStack() as stack:
            stack.enter_context(connection)
            source = stack.enter_context(shared.watch())
            export = stack.enter_context(Export(shared.open()))
            modes = open_modes(export)
            settings = _settings(self._options)._replace(
                posix_acl=self._options.posix_acl and export.has_acls()
            )
            session = Session(export, settings, export, modes.mode)
            server = stack.enter_context(
                Server(
                    export,
                    source,
                    session,
                    modes,
                    self._backend.send,
                    is_threaded=False,
                    wake=self._backend.wake,
                )
            )
            self._backend.serve(
                connection,
                server.receive,
                server.after,
                due=lambda: server.due,
                tick=server.tick,
                beside=(source.fileno(), server.drain),
                instance=settings.base,
                speaker=session,
            )


def _listening(options: Options) -> ListeningSocket:
    if options.fd is not None:
        return ListeningSocket.inherited(options.fd)
    assert options.socket_path is not None
    return ListeningSocket.create(options.socket_path, options.socket_group)


def _accepted(listening: ListeningSocket, wakeup: int) -> socket.socket | None:
    """The next connection, or None if the daemon is to end."""
    poll = select.poll()
    poll.register(listening.fileno(), select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while True:
        if any(fd == wakeup for fd, _ in poll.poll()):
            return None
        try:
            return listening.accept()
        except (BlockingIOError, ConnectionError):
            continue


def _device(options: Options) -> DeviceOptions:
    """Without a tag of its own there is no configuration space: QEMU has one.

    With one, that tells the guest the number of queues, whatever the front end has been told.
    """
    features = int(PROTOCOL_FEATURES)
    # On an only CPU whoever is to ask next would wait for whoever looks.
    look = _LOOK_SECONDS if len(os.sched_getaffinity(0)) > 1 else 0.0
    device = DeviceOptions(max_request=MAX_WRITE + _HEADERS, look_seconds=look)
    if options.notifications:
        device = device._replace(notify_buf_size=_NOTIFY_BUFFER)
    if options.tag is None:
        return device._replace(
            request_queues=_REQUEST_QUEUES, protocol_features=features & ~Protocol.CONFIG
        )
    return device._replace(tag=options.tag, protocol_features=features)


def _settings(options: Options) -> Settings:
    start = this_start()
    refused = Init(0)
    if not options.readdirplus:
        refused |= Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO
    if not options.flock:
        refused |= Init.FLOCK_LOCKS
    if not options.posix_lock:
        refused |= Init.POSIX_LOCKS
    return Settings(
        start.generation,
        start.hidden_name,
        max_write=MAX_WRITE,
        caching=options.caching,
        longest_wait=_LONGEST_WAIT,
        base=start.base,
        refused=refused,
        xattrs=options.xattrs,
        fsnotify=options.fsnotify,
    )
