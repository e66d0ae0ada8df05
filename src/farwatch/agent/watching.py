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

from farwatch.abi.control import Watched, WatchFlag
from farwatch.agent.channel import Channel
from farwatch.agent.mountpoint import MountPoint
from farwatch.linux import fdinfo

_IDLE_MILLISECONDS = 1000
_SETTLE_SECONDS = 0.02
"""Between a sign of activity in the client and the scan: whoever looked at a directory
has placed its watch by then."""
_ALL_EVENTS = 0xFFF


class Watching:
    """Scans when asked, and once a second; tells the server when the answer changed."""

    def __init__(self, mount: MountPoint, root: int, on_gone: Callable[[], None]) -> None:
        self._mount = mount
        self._channel = Channel(root)
        self._on_gone = on_gone
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.by_path = False
        """Whether somebody in the client wants descriptors or listens on a mount."""
        self.asks = False
        """Whether somebody in the client may hold up an open."""
        self._told: tuple[int, list[Watched]] | None = None
        self._scanned_once = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait for its first scan."""
        self._thread.start()
        self._scanned_once.wait()

    def ask(self) -> None:
        """Scan soon; from any thread."""
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass

    def _run(self) -> None:
        _leave_the_cpu()
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._mount.fileno(), select.POLLPRI)
        mount_ids = self._mount.mount_ids()
        try:
            while mount_ids:
                self._scan(mount_ids)
                self._scanned_once.set()
                ready = dict(poll.poll(_IDLE_MILLISECONDS))
                if self._wake_read in ready:
                    time.sleep(_SETTLE_SECONDS)
                    os.read(self._wake_read, 4096)
                if self._mount.fileno() in ready:
                    mount_ids = self._mount.mount_ids()
        except OSError:
            # The server is gone, and with it the mount.
            pass
        finally:
            self._scanned_once.set()
            self._on_gone()

    def _scan(self, mount_ids: set[int]) -> None:
        start = time.monotonic()
        scan = fdinfo.scan(self._mount.device, mount_ids)
        flags, watches = summarize(scan)
        self.by_path = bool(flags & WatchFlag.BY_PATH)
        self.asks = bool(flags & WatchFlag.ASKS)
        microseconds = int((time.monotonic() - start) * 1e6)
        if (flags, watches) != self._told:
            self._channel.watch(flags, microseconds, watches)
            self._told = (flags, watches)


def _leave_the_cpu() -> None:
    """This thread may run anywhere: its scans are not to hold up the replays."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


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
