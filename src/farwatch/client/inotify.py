"""inotify(7) on a server: an instance with its watches and its queue."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from farwatch.client.asking import Path
from farwatch.client.client import Client
from farwatch.client.errors import Misuse
from farwatch.client.fsnotify import InotifyEvent
from farwatch.client.places import Places

LIMIT = 16384
"""Events that wait to be read: the kernel's default of fs.inotify.max_queued_events."""


class Inotify:
    """One instance; a context.  ``FileSystem.inotify`` makes them.

    Watch descriptors outlive a connection that is lost and made again.
    """

    def __init__(self, client: Client, places: Places | None, *, limit: int = LIMIT) -> None:
        """``places`` remembers what is watched, for another connection; None: nobody does."""
        self._client = client
        self._places = places
        self._group = client.core.group(limit=limit)
        self._group.on_event = self._heard
        self._woken = asyncio.Event()
        self._is_closed = False

    async def add_watch(self, path: Path, mask: int) -> int:
        """inotify_add_watch(2), with its flags; the watch descriptor.

        Raises OSError with the errno that inotify has, or that the server answers.
        """
        self._check_open()
        kernel, group = self._client.kernel, self._group
        if self._places is None:
            return await self._client.run(kernel.add_watch(group, path, mask))
        return await self._client.run(self._places.watch(kernel, group, path, mask))

    async def rm_watch(self, wd: int) -> None:
        """inotify_rm_watch(2): queues IGNORED.  Raises OSError EINVAL."""
        self._check_open()
        await self._client.run(self._client.kernel.rm_watch(self._group, wd))

    def read_now(self) -> list[InotifyEvent]:
        """The events that wait; empty if there are none."""
        self._check_open()
        events = self._group.read()
        self._woken.clear()
        return events

    async def read(self) -> list[InotifyEvent]:
        """The next events: waits until there is one."""
        while True:
            events = self.read_now()
            if events:
                return events
            await self._woken.wait()

    def _heard(self) -> None:
        self._woken.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise Misuse("the instance is closed")

    async def close(self) -> None:
        """Gives up all watches.  Twice is once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._client.is_up:
            try:
                await self._client.run(self._client.kernel.close_group(self._group))
                return
            except ConnectionError:
                pass
        self._group.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
