"""One client of one server, through lost connections.

    CLOSED ── connect ──► UP ── the connection is lost ──► DOWN ── connected again ──► UP
      ▲                    │                                │ (only if it reconnects)
      └────── close ───────┴────────────────────────────────┘

The groups and marks (``core``) outlive a connection; the kernel layer, with its inodes and
open files, does not.  Where nobody reconnects, the watches hear UNMOUNT and IGNORED.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from farwatch.abi.fsnotify import Mode
from farwatch.client import sockets, vhost
from farwatch.client.errors import Misuse, ProtocolError
from farwatch.client.fsnotify import Fsnotify
from farwatch.client.kernel import Kernel
from farwatch.client.link import Link
from farwatch.client.places import Places
from farwatch.client.protocol import Caller
from farwatch.client.url import VhostUser, parse

_T = TypeVar("_T")
_MODES = {"local": None, "remote": Mode.REMOTE, "merged": Mode.MERGED}
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
"""Seconds between two attempts to connect again; each is twice as long as the one before."""


class Client:
    """See the top of the file.

    ``url``         where the server is: ``farwatch.client.url``
    ``mode``        "local", "remote" or "merged"
    ``token``       what the server wants to be told, for tcps
    ``tls``         for tcps; None: the system's certificates
    ``caller``      on whose behalf it works; this process's user by default
    ``umask``       taken from the modes of what is made
    ``reconnects``  whether a lost connection is made again; not through vhost-user
    ``seconds``     for how long an answer is waited for

    Raises Misuse for a URL or a mode that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "local",
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        caller: Caller | None = None,
        umask: int = 0o022,
        reconnects: bool = False,
        seconds: float = 60.0,
    ) -> None:
        self._url = parse(url)
        if mode not in _MODES:
            raise Misuse(f"{mode}: not a mode: local, remote or merged")
        self._mode = _MODES[mode]
        self._token = token
        self._tls = tls
        self._caller = caller or Caller(os.getuid(), os.getgid(), os.getpid())
        self._umask = umask
        self._reconnects = reconnects and not isinstance(self._url, VhostUser)
        self._seconds = seconds
        self.core = Fsnotify()
        self._places = Places()
        self._link: Link | None = None
        self._kernel: Kernel | None = None
        self._again: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when a connection was lost or made again."""

    # Life ------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connects.

        Raises OSError: ConnectionRefusedError with the server's reason, TimeoutError,
        ProtocolError for a server that is none.  Misuse if it is connected.
        """
        if self._link is not None:
            raise Misuse("connected already")
        self._link, self._kernel = await self._connected()
        self._link.on_lost = self._lost
        self._kernel.on_fact = self._places.follow

    async def _connected(self) -> tuple[Link, Kernel]:
        link = Link(self._caller, seconds=self._seconds)
        try:
            if isinstance(self._url, VhostUser):
                carrier: vhost.VhostCarrier | sockets.SocketCarrier = await vhost.connect(
                    self._url.path, link, seconds=self._seconds
                )
            else:
                carrier = await sockets.connect(
                    self._url, link, token=self._token, tls=self._tls, seconds=self._seconds
                )
        except BaseException:
            link.close()
            raise
        kernel = Kernel(
            link.ask,
            link.tell,
            mode=self._mode,
            caller=self._caller,
            umask=self._umask,
            core=self.core,
        )
        await link.start(carrier, kernel)
        return link, kernel

    async def close(self) -> None:
        """Disconnects: open files are closed, watches end without a word.  Twice is once."""
        again, self._again = self._again, None
        if again is not None:
            again.cancel()
            await asyncio.wait([again])
        link, self._link = self._link, None
        self._kernel = None
        if link is not None:
            link.close()
            await link.closed()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # What it is ------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""
        return self._link is not None and self._link.lost is None

    @property
    def mode(self) -> str:
        """What the server has agreed to: "local", "remote" or "merged"."""
        agreed = self.kernel.mode
        return "local" if agreed is None else agreed.name.lower()

    @property
    def number(self) -> int:
        """This client's number at the server, as in ``Event.client``; 0 in local mode."""
        return self.kernel.number

    @property
    def kernel(self) -> Kernel:
        """The kernel layer of this connection.  Raises Misuse if there is none."""
        if self._kernel is None:
            raise Misuse("not connected")
        return self._kernel

    async def run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Runs an operation of ``kernel``'s.

        It goes on to its end even if the caller is cancelled.  Raises what it raises, and
        ConnectionError if the connection is lost meanwhile.
        """
        if self._link is None:
            operation.close()
            raise Misuse("not connected")
        return await self._link.run(operation)

    # Lost connections --------------------------------------------------------------------

    def _lost(self, error: ConnectionError) -> None:
        if self._kernel is not None:
            self._kernel.is_over = True
        if self._reconnects and not isinstance(error, ProtocolError):
            if self._again is None:
                self._again = asyncio.get_running_loop().create_task(self._connect_again())
        else:
            self.core.unmount()
        self._changed()

    async def _connect_again(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                link, kernel = await self._connected()
            except (ProtocolError, ConnectionRefusedError) as error:
                if isinstance(error, ProtocolError):
                    self.core.unmount()
                    break
                continue
            except OSError:
                continue
            kernel.on_fact = self._places.follow
            try:
                await link.run(self._places.resume(kernel))
            except OSError:
                link.close()
                await link.closed()
                continue
            except BaseException:
                link.close()
                await link.closed()
                raise
            before, self._link, self._kernel = self._link, link, kernel
            if before is not None:
                before.close()
            self._again = None
            link.on_lost = self._lost
            if link.lost is not None:
                self._lost(link.lost)
            break
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()
