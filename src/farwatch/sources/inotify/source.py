"""The InotifySource: the queue, and the server's own events in it.

Whoever empties the queue notes beside each event what the server is doing at the moment.
An operation of the server's has the queue emptied before it and after it.  So events of
others that came before are not taken for its own, nor merged with them by the kernel; and
those that came meanwhile are, if they are of the names and nodes that it concerns.

An event waits to be read until whatever the server was doing is over: only then is all
known of what that concerns.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from farwatch.abi.inotify import parse
from farwatch.events import READING, Key, Mask, Place, Record
from farwatch.linux.inotify import Inotify
from farwatch.sources.fanotify import NoSource
from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.heard import Heard
from farwatch.sources.inotify.marks import Marks
from farwatch.sources.inotify.nodes import Nodes
from farwatch.sources.inotify.reading import Reading
from farwatch.sources.inotify.tenants import Told

_READ_SIZE = 1 << 16
_EVENT_SIZE = 16
"""Of ``struct inotify_event`` without a name."""
_IGNORED = int(Mask.IGNORED)
_OVERFLOW = int(Mask.Q_OVERFLOW)
_UNMOUNT = int(Mask.UNMOUNT)


class InotifySource:
    """What changes in what is followed; owns its inotify instance.

    ``read`` is for one thread, the rest for any.
    """

    is_silent = True
    """Always: what the server does itself is told apart in another way."""

    def __init__(self, instance: Inotify) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._marks = Marks(instance)
        self._buffer = bytearray(_READ_SIZE)
        self._queue: deque[Heard] = deque()
        self._doings: tuple[Doing, ...] = ()
        self._wanted = 0
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.epoll()
        self._poll.register(instance.fileno(), select.EPOLLIN)
        self._poll.register(self._bell, select.EPOLLIN)
        self._reading = Reading(self._widen, self._marks.tells, self._marks.keys)
        self._nodes: Nodes | None = None

    @classmethod
    def open(cls) -> Self:
        """Watch nothing yet.  Raises NoSource."""
        try:
            return cls(Inotify())
        except OSError as error:
            raise NoSource(
                error.errno,
                f"no inotify instance: {os.strerror(error.errno or 0)}"
                " (fs.inotify.max_user_instances limits them for each user)",
            ) from error

    def attach(self, nodes: Nodes) -> None:
        """Say what nodes are asked of: the export, once, before anything is followed."""
        self._nodes = nodes
        self._reading.attach(nodes)

    def learn_from(self, told: Callable[[Place], Told]) -> None:
        """Say who knows what the client was told that a name holds."""
        self._reading.told = told

    # What is followed (export.pins.Follower) ------------------------------------------

    def follow(self, node: Key, fd: int, status: os.stat_result) -> None:
        """Mark a node; ``fd`` (O_PATH) stays the caller's."""
        with self._lock:
            self._marks.add(node, fd, status)

    def unfollow(self, node: Key) -> None:
        """Take a node's mark away; what it has heard can still be read."""
        with self._lock:
            self._marks.remove(node)

    def _widen(self, node: Key, fd: int) -> None:
        with self._lock:
            self._marks.widen(node, fd)

    @property
    def wanted(self) -> int:
        """The kinds that reading makes which are asked for now (Mask bits)."""
        return self._wanted

    def want(self, mask: int) -> None:
        """Ask for exactly these of the READING kinds from now on, of every mark."""
        wanted = int(mask) & int(READING)
        if wanted == self._wanted:
            return
        with self._lock:
            self._wanted = wanted
            self._marks.want(wanted)
            nodes = self._marks.keys()
        for node in nodes:
            with suppress(OSError):
                self._renew(node)

    def _renew(self, node: Key) -> None:
        assert self._nodes is not None, "nothing is followed before attach()"
        fd = self._nodes.open_node(node)
        try:
            with self._lock:
                self._marks.renew(node, fd)
        finally:
            os.close(fd)

    # What the server does itself -------------------------------------------------------

    @contextmanager
    def doing(self, *nodes: Key, names: Mapping[Place, int] | None = None) -> Iterator[Doing]:
        """In its ``with`` this thread does what concerns these nodes and names; see Doing."""
        doing = Doing(nodes, names or {})
        with self._lock:
            self._drain()
            self._doings = (*self._doings, doing)
        try:
            yield doing
        finally:
            with self._lock:
                self._drain()
                self._doings = tuple(other for other in self._doings if other is not doing)
                doing.is_over = True
                if self._queue:
                    os.eventfd_write(self._bell, 1)

    # Reading ------------------------------------------------------------------------------

    def read(self, limit: int = 0) -> list[Record]:
        """What has happened; an empty list if nothing waits.

        The kernel bounds the queue (fs.inotify.max_queued_events), so ``limit`` is not
        needed.  May take some milliseconds, for the other half of a rename.
        """
        heard = self._take()
        return self._reading.records(heard, self._take, self._wait) if heard else []

    def _take(self) -> list[Heard]:
        """What was heard and cannot be an operation's that is not over."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        heard: list[Heard] = []
        with self._lock:
            self._drain()
            queue = self._queue
            while queue and all(doing.is_over for doing in queue[0].doings):
                heard.append(queue.popleft())
        return heard

    def _wait(self, seconds: float) -> None:
        """Until something may be there to be taken, but not longer."""
        self._poll.poll(seconds)

    def _drain(self) -> None:
        """Empty the kernel's queue into ours.  With the lock."""
        marks, doings, append = self._marks, self._doings, self._queue.append
        while True:
            try:
                size = self._instance.read(self._buffer)
            except BlockingIOError:
                return
            for wd, mask, cookie, name in parse(bytes(memoryview(self._buffer)[:size])):
                if mask & _OVERFLOW:
                    append(Heard(None, mask, cookie, name, ()))
                    continue
                mark = marks.of(wd)
                if mask & _IGNORED:
                    marks.ended(wd)
                elif mark is not None and not mask & _UNMOUNT:
                    append(Heard(mark, mask, cookie, name, doings))

    def queued(self) -> int:
        """How many events wait to be read, about."""
        answer = fcntl.ioctl(self._instance, termios.FIONREAD, b"\0\0\0\0")
        size: int = struct.unpack("=i", answer)[0]
        return size // _EVENT_SIZE + len(self._queue)

    # As any source of a mount's ----------------------------------------------------------

    def silence(self, mount_fd: int) -> None:
        """Nothing: inotify knows no mounts."""

    def be_silent(self, *, is_silent: bool) -> None:
        """Nothing."""

    def fileno(self) -> int:
        """For poll: readable when something happened.  ValueError once closed."""
        return self._poll.fileno()

    def close(self) -> None:
        """Stop watching.  Closing twice does nothing."""
        self._poll.close()
        self._instance.close()
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
