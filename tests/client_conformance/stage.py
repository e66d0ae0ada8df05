"""Stages whose client is ``farwatch.client``: no mount, only a connection to a server.

    unix         farwatch serve DIR --listen unix:SOCKET
    vhost-user   farwatch virtiofsd, and its virtqueues, with one for notifications or without

and what becomes of events of what the client does itself, and of what others do:

    remote       all of them come from the server
    merged       the client raises its own, the server tells the others
    local        the client raises its own; it hears of nobody else
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from tests.conformance.client import Client, LocalClient
from tests.conformance.watcher import IN_READING
from tests.guest.virtiofsd import Daemon
from tests.stage import (
    POLL_SECONDS,
    READING_SECONDS,
    Stage,
    StageError,
    fanotify_masks,
    farwatch_command,
    farwatch_environment,
)

PROGRAM = ("-m", "tests.client_conformance.watcher")


class Transport(StrEnum):
    """How a client reaches the server."""

    UNIX = "unix"
    VHOST_USER = "vhost-user"
    """Without a queue for notifications, as through QEMU: the client fetches them."""
    VHOST_QUEUE = "vhost-user-queue"
    """With one."""

    def url(self, socket: Path) -> str:
        """Of a server behind this socket, as ``farwatch.client`` takes it."""
        return f"{self.removesuffix('-queue')}:{socket}"


class Mode(StrEnum):
    REMOTE = "remote"
    MERGED = "merged"
    LOCAL = "local"


def serve(directory: Path, options: Sequence[str] = ()) -> Daemon:
    """``farwatch serve`` on a socket."""
    command = farwatch_command("serve", str(directory), "--listen", "unix:{socket}", *options)
    return Daemon(command, farwatch_environment())


def virtiofsd(directory: Path, options: Sequence[str] = ()) -> Daemon:
    """``farwatch virtiofsd``, for one front end."""
    where = ("--socket-path={socket}", f"--shared-dir={directory}", "--xattr")
    return Daemon(farwatch_command("virtiofsd", *where, *options), farwatch_environment())


def server(transport: Transport, directory: Path, options: Sequence[str] = ()) -> Daemon:
    """The server that is reached so; not started."""
    if transport is Transport.UNIX:
        return serve(directory, options)
    queue = ["--notifications"] if transport is Transport.VHOST_QUEUE else []
    return virtiofsd(directory, [*queue, *options])


class ClientStage(Stage):
    """A directory, its server, and a client that is a program and no kernel.

    Through vhost-user there can be one client at a time, and the server ends with it: such a
    stage is over when its client was dropped.
    """

    watching = "/"

    def __init__(
        self,
        transport: Transport,
        mode: Mode,
        *,
        reading: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """``options`` are the server's."""
        super().__init__()
        self.name = f"{transport} {mode}"
        self.transport = transport
        self.mode = mode
        self.tells_remote = mode is not Mode.LOCAL
        self._keeps_reading = reading
        self.server = server(transport, self.acting, options)
        self._log = self._home / "client.log"

    @property
    def url(self) -> str:
        return self.transport.url(self.server.socket)

    def _start(self) -> None:
        self.server.start()

    def _stop(self) -> None:
        self.server.close()

    def another_client(self) -> Client:
        """One more, beside ``client()``, over a socket; to be closed by who asks for it."""
        return self._make_client()

    def _make_client(self) -> Client:
        command = [sys.executable, *PROGRAM, self.url, self.mode]
        client = LocalClient(self.watching, self.name, command, self._log)
        try:
            if self._keeps_reading:
                client.ask("keep")
                self.wait_for_reading(IN_READING)
        except BaseException:
            client.close()
            raise
        return client

    def drop_client(self) -> None:
        super().drop_client()
        if self.transport is not Transport.UNIX:
            self.server.stop()

    def alive(self) -> bool:
        return self.server.is_running()

    def log(self) -> str:
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return f"{self.server.log()}\n--- client\n{said}"

    def source_mask(self) -> int:
        """The mask of the server's fanotify mark, 0 if there is none."""
        masks = (mask for pid in self.server.processes() for mask in fanotify_masks(pid))
        return max(masks, default=0)

    def wait_for_reading(self, mask: int) -> None:
        if self.mode is Mode.LOCAL:
            return
        deadline = time.monotonic() + READING_SECONDS
        while mask & ~self.source_mask():
            if time.monotonic() > deadline:
                now = f"the source's mask is {self.source_mask():#x}"
                raise StageError(f"{now}; a watch wants kinds {mask:#x}\n{self.log()}")
            time.sleep(POLL_SECONDS)
