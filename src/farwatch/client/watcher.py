"""Watching paths on a server, one loop a path."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from farwatch.abi.fsnotify import Source
from farwatch.client.asking import Path
from farwatch.client.filesystem import FileSystem
from farwatch.client.fsnotify import InotifyEvent
from farwatch.client.protocol import Caller
from farwatch.events import Mask
from farwatch.linux.inotify import IN_ALL_EVENTS


class Event(NamedTuple):
    """What has happened.

    ``path``    as it was given to ``watch``
    ``name``    in that directory; b"" for the watched inode itself
    ``mask``    inotify(7)'s
    ``cookie``  the same for the two halves of a rename, else 0
    ``source``  LOCAL: this client did it; REMOTE: another, or the server's host; UNKNOWN:
                nobody did (IGNORED), or it is not known (found after a lost connection)
    ``client``  the number of the client that did it, where that is known, else 0
    """

    path: str
    name: bytes
    mask: int
    cookie: int
    source: Source
    client: int

    @property
    def is_dir(self) -> bool:
        """Whether it happened to a directory."""
        return bool(self.mask & Mask.ISDIR)


class Watcher(FileSystem):
    """A client that watches; it can do whatever a ``FileSystem`` can.

    Who has not connected it (``async with``) has it connected for as long as a loop lasts.
    It makes a lost connection again, but for vhost-user.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "remote",
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        caller: Caller | None = None,
        reconnects: bool = True,
        seconds: float = 60.0,
    ) -> None:
        super().__init__(
            url,
            mode=mode,
            token=token,
            tls=tls,
            caller=caller,
            reconnects=reconnects,
            seconds=seconds,
        )
        self._connecting = asyncio.Lock()
        self._loops = 0
        self._is_by_itself = False
        """Whether it is connected because of a loop."""

    async def watch(self, path: Path, mask: int = IN_ALL_EVENTS) -> AsyncIterator[Event]:
        """Events of one path, until its watch ends: with IGNORED, the last of them.

        An inotify instance of its own, whose mask has inotify(7)'s bits; IN_Q_OVERFLOW says
        that events were lost because nobody read.  Raises OSError as inotify_add_watch(2).
        """
        shown = os.fsdecode(path)
        async with self._while_watching(), self.inotify() as instance:
            await instance.add_watch(path, mask)
            while True:
                for event in await instance.read():
                    yield _shown(shown, event)
                    if event.mask & Mask.IGNORED:
                        return

    @asynccontextmanager
    async def _while_watching(self) -> AsyncIterator[None]:
        """Connected, and as before afterwards."""
        async with self._connecting:
            if self._link is None:
                await self.connect()
                self._is_by_itself = True
            self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1
            if self._is_by_itself and not self._loops:
                self._is_by_itself = False
                await self.close()


def _shown(path: str, event: InotifyEvent) -> Event:
    return Event(path, event.name, event.mask, event.cookie, event.source, event.client)
