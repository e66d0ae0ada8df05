"""Clients that come and go: a thread for each, on one source.

admitted ──its thread──> serving ──gone, or stop──> closed ──everything read──> over
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from farwatch.abi.stream import Malformed
from farwatch.linux.identity import ROOT, Identity, Who
from farwatch.serving.client import Client
from farwatch.serving.feeds import SharedSource
from farwatch.session.settings import Settings
from farwatch.transports.stream.connection import Connection

log = logging.getLogger(__name__)

MOST_CLIENTS = 1000
_END_SECONDS = 5.0
"""For clients to end that the disk holds up."""


class Full(Exception):
    """There are as many clients as there may be."""


class Clients:
    """Everybody who is served.  Owns nothing that it is given.

    ``open_export`` gives a descriptor of the exported directory, which the caller owns;
    ``settings`` are those of a session, by the client's number.
    """

    def __init__(
        self,
        shared: SharedSource,
        open_export: Callable[[], int],
        settings: Callable[[int], Settings],
        most: int = MOST_CLIENTS,
    ) -> None:
        self._shared = shared
        self._open_export = open_export
        self._settings = settings
        self._most = most
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def admit(self, connection: Connection, who: Who | None, name: str) -> None:
        """Serve one more, who is ``who``, or says so itself (None: root).

        Takes the connection over.  Raises Full.
        """
        thread = threading.Thread(
            target=self._run, args=(connection, who, name), name=name, daemon=True
        )
        with self._lock:
            if len(self._threads) >= self._most:
                raise Full
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise Full from None

    def _run(self, connection: Connection, who: Who | None, name: str) -> None:
        try:
            with ExitStack() as stack:
                stack.callback(connection.close)
                self._serve(stack, connection, who, name)
        except Exception:
            log.exception("%s failed; this is a fault of farwatch's", name)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _serve(self, stack: ExitStack, connection: Connection, who: Who | None, name: str) -> None:
        identity = Identity()
        feed = self._shared.join()
        stack.callback(self._shared.leave, feed)
        # As root again: what the source is asked for may change.
        stack.callback(identity.become, ROOT)
        try:
            mount_fd = self._open_export()
        except OSError as error:
            log.error("%s cannot be served: %s", name, error.strerror)
            return
        client = Client(mount_fd, feed, identity, who, self._settings(feed.client))
        stack.callback(client.close)
        log.info("client %d is %s", feed.client, name)
        try:
            end = connection.serve(client, self._stop)
        except Malformed as error:
            end = f"what it sends is not FUSE: {error}"
        log.info("client %d is gone%s", feed.client, f": {end}" if end else "")
        # Before its files are closed, which may take long.
        connection.close()

    def stop(self) -> None:
        """End them all; those that the disk holds up are given a few seconds."""
        self._shared.end()
        os.eventfd_write(self._stop, 1)
        end = time.monotonic() + _END_SECONDS
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            os.close(self._stop)
