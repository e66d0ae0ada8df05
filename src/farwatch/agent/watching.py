"""Finds what is watched in the client, and notices when the mount is gone.

A thread of its own: a scan takes milliseconds, which no replay should wait for.  It is
started before the replaying thread takes its mark, because a thread inherits its fsuid.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from farwatch.abi.control import Watched, WatchFlag
from farwatch.agent.channel import Channel
from farwatch.agent.endings import SERVER_GONE
from farwatch.agent.mountpoint import MountPoint
from farwatch.linux import fdinfo
from farwatch.linux.cpus import leave_the_cpu

_IDLE_MILLISECONDS = 1000
_PACED_MILLISECONDS = 1500
"""Longer than the second after which a server answers an idle WAIT: so an idle agent
wakes once a second, and not once for that and once for a scan."""
_SETTLE_SECONDS = 0.02
"""Between a sign of activity in the client and the scan: whoever looked at a directory
has placed its watch by then."""
_ACTIVITY, _IDLE = b"a", b"i"
_ALL_EVENTS = 0xFFF


class Watching:
    """Scans when asked, and once a second; tells the server when the answer changed.

    ``on_gone`` is called in its thread when the mount or its server is gone.
    """

    def __init__(self, mount: MountPoint, root: int, on_gone: Callable[[], None]) -> None:
        self._mount = mount
        self._channel = Channel(root)
        self._on_gone = on_gone
        self._scanner = fdinfo.Scanner(mount.device)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.is_paced = False
        """Whether ``idle`` is called at least once a second."""
        self.by_path = False
        """Whether somebody in the client wants descriptors or listens on a mount."""
        self.asks = False
        """Whether somebody in the client may hold up an open."""
        self._registrations = 0
        self._told: tuple[int, int, list[Watched]] | None = None
        self._scanned_once = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait for its first scan."""
        self._thread.start()
        self._scanned_once.wait()

    def ask(self) -> None:
        """Scan soon, for somebody is active; from any thread."""
        self._wake(_ACTIVITY)

    def idle(self) -> None:
        """Scan now, since this process is awake anyway; from any thread."""
        self.is_paced = True
        self._wake(_IDLE)

    def tell_again(self) -> None:
        """Another server is there, which knows nothing yet; from any thread."""
        self._registrations += 1
        self._wake(_IDLE)

    def _wake(self, why: bytes) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, why)

    def _run(self) -> None:
        leave_the_cpu()
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._mount.fileno(), select.POLLPRI)
        try:
            mount_ids = self._mount.mount_ids()
            while mount_ids:
                # Whatever it was, descriptors or memory that were short, there is a next time.
                with suppress(OSError):
                    self._scan(mount_ids)
                self._scanned_once.set()
                pause = _PACED_MILLISECONDS if self.is_paced else _IDLE_MILLISECONDS
                ready = dict(poll.poll(pause))
                if self._wake_read in ready:
                    self._hear()
                if self._mount.fileno() in ready:
                    mount_ids = self._mount.mount_ids()
        except _ServerGone:
            pass
        finally:
            self._scanned_once.set()
            self._on_gone()

    def _hear(self) -> None:
        if _ACTIVITY in os.read(self._wake_read, 4096):
            time.sleep(_SETTLE_SECONDS)
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    def _scan(self, mount_ids: set[int]) -> None:
        start = time.monotonic()
        registration = self._registrations
        scan = self._scanner.scan(mount_ids)
        flags, watches = summarize(scan)
        self.by_path = bool(flags & WatchFlag.BY_PATH)
        self.asks = bool(flags & WatchFlag.ASKS)
        microseconds = int((time.monotonic() - start) * 1e6)
        found = (registration, flags, watches)
        if found != self._told:
            self._tell(flags, microseconds, watches)
            self._told = found

    def _tell(self, flags: int, microseconds: int, watches: list[Watched]) -> None:
        """Raises OSError if the server does not know this agent at this time."""
        try:
            self._channel.watch(flags, microseconds, watches)
        except OSError as error:
            if error.errno in SERVER_GONE:
                raise _ServerGone from None
            raise


class _ServerGone(Exception):
    """The mount's connection has ended."""


def summarize(scan: fdinfo.Scan) -> tuple[int, list[Watched]]:
    """The flags and watches of a WATCH message; node 0 stands for every node."""
    flags = 0
    if scan.unpinned:
        flags |= WatchFlag.EVERYTHING
    if scan.permission:
        flags |= WatchFlag.ASKS
    masks: dict[tuple[int, int], int] = {}
    for mark in scan:
        if isinstance(mark, fdinfo.FanotifyMark):
            flags |= WatchFlag.BY_PATH
        identity = fdinfo.decode_fuse(mark.handle) if mark.handle else None
        where = identity or (0, 0)
        masks[where] = masks.get(where, 0) | mark.mask & _ALL_EVENTS
    return flags, [Watched(node, gen, mask) for (node, gen), mask in sorted(masks.items())]
