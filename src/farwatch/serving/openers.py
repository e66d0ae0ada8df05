"""How files are opened by others, for a source that does not know by whom.

Whoever has the file open is looked for: first among those who were found last, for it is often
the same who opens files; then among all the processes that may be looked at.  That takes
milliseconds, so it is not done all the time: how a file is open that is not looked for follows
from its close.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from farwatch.events import Key
from farwatch.export.tree import Export
from farwatch.linux.openers import access_mode
from farwatch.session.openmodes import OpenModes

_SHARE = 2
"""A search is made at most after so many times as long as the last one took."""
_MOST_KNOWN = 4


class AnyOpener:
    """Looks for whoever has a file open, but for this process."""

    def __init__(self, status: Callable[[Key], os.stat_result]) -> None:
        """``status`` gives a node's status; OSError if it is gone."""
        self._status = status
        self._not_before = 0.0
        self._again: Key | None = None
        """What was searched for in vain once, and may be searched for once more."""
        self._known: deque[int] = deque(maxlen=_MOST_KNOWN)
        """The processes that were found last."""

    def mode(self, thread: int, node: Key) -> int | None:
        """The access mode of an open of the node; None if there is none, or none is looked for."""
        if thread:
            return None
        try:
            status = self._status(node)
        except OSError:
            return None
        mode = self._look(self._known, status)
        start = time.monotonic()
        if mode is None and (start >= self._not_before or node == self._again):
            mode = self._look(_processes(), status)
            end = time.monotonic()
            self._not_before = end + _SHARE * (end - start)
            # Linux 6.10 and later tell of an open before the opener has its descriptor.
            self._again = node if mode is None and node != self._again else None
        return mode

    def _look(self, processes: Iterable[int], status: os.stat_result) -> int | None:
        """The first of the processes that has the file open says how."""
        for process in processes:
            mode = access_mode(process, status.st_dev, status.st_ino)
            if mode is not None:
                if process in self._known:
                    self._known.remove(process)
                self._known.appendleft(process)
                return mode
        return None


def _processes() -> Iterator[int]:
    """The other processes of this user's, or all if that is root; the newest first."""
    user, me = os.geteuid(), os.getpid()
    for process in sorted(map(int, filter(str.isdigit, os.listdir("/proc"))), reverse=True):
        with suppress(OSError):
            if process != me and not (user and os.stat(f"/proc/{process}").st_uid != user):
                yield process


def open_modes_of_anybody(export: Export) -> OpenModes:
    """Tells how files of the export are open in this user's other processes; root's are all."""
    return OpenModes(AnyOpener(export.getattr).mode, knows_nobody=True)
