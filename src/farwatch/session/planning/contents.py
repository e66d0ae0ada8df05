"""What is done to inodes: MODIFY, ACCESS, ATTRIB, OPEN and the CLOSEs.

    MODIFY, ACCESS, ATTRIB    a touch.  But a WRITE or a READ, through a file that is open,
                              where a touch is not heard: somebody wants descriptors, or
                              the name is gone
    OPEN, CLOSE               an open and a close: of regular files and directories only,
                              whatever else is opened may act

The kinds that reading makes are told only if somebody is known to watch for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from stat import S_ISDIR, S_ISREG

from farwatch.abi.steps import Op, Step, Times
from farwatch.events import Change, Key, Kind
from farwatch.session.planning.batch import READING_KINDS
from farwatch.session.planning.ground import Ground, Target, touch_step
from farwatch.session.planning.opens import Kept, Opens
from farwatch.session.planning.targets import Targets
from farwatch.session.replay import Replay

_TIMES = {Kind.MODIFY: Times.MODIFY, Kind.ACCESS: Times.ACCESS, Kind.ATTRIB: Times.ATTRIB}


class Contents:
    """Plans what is done to inodes; ``access_mode`` says how a thread has one open."""

    def __init__(
        self,
        ground: Ground,
        targets: Targets,
        opens: Opens,
        access_mode: Callable[[int, Key], int | None],
    ) -> None:
        self._ground = ground
        self._interest = ground.interest
        self._targets = targets
        self._opens = opens
        self._access_mode = access_mode

    def touch(self, change: Change) -> None:
        """MODIFY, ACCESS, ATTRIB."""
        target = self._targets.find(change)
        if target is None:
            return
        kind = READING_KINDS.get(change.kind)
        if kind is not None and not self._is_watched(kind, target):
            return
        if (
            change.kind is not Kind.ATTRIB
            and not change.is_dir
            and (target.pin or self._interest.by_path)
        ):
            file = self._file_for(target, change)
            if file is not None:
                op = Op.WRITE if change.kind is Kind.MODIFY else Op.READ
                self._ground.add(Replay(Step(op, token=file.token), target.node))
                return
        self._ground.add(touch_step(target, _TIMES[change.kind]))

    def open(self, change: Change) -> None:
        """OPEN."""
        target = self._targets.find(change)
        if target is None or change.node is None:
            return
        kept_for_path = self._interest.by_path
        if not kept_for_path and not self._is_watched(READING_KINDS[Kind.OPEN], target):
            return
        if not (S_ISREG(target.node.kind) or S_ISDIR(target.node.kind)):
            return
        self._opens.keep(target, self._mode_of(change), change.thread)

    def close(self, change: Change) -> None:
        """CLOSE_WRITE, CLOSE_NOWRITE."""
        writes = change.kind is Kind.CLOSE_WRITE
        if change.node is None:
            return
        for file in self._opens.of(change.node):
            if file.writes == writes:
                if writes:
                    self._ground.refresh(self._targets.find(change))
                self._opens.close(change.node, file)
                self._close_what_merging_hid(change, change.node)
                return
        target = self._targets.find(change)
        if target is None or not (S_ISREG(target.node.kind) or S_ISDIR(target.node.kind)):
            return
        if not writes and not self._is_watched(READING_KINDS[Kind.CLOSE_NOWRITE], target):
            return
        if writes:
            self._ground.refresh(target)
        self._opens.open_and_close(target, os.O_WRONLY if writes else os.O_RDONLY)

    def _close_what_merging_hid(self, change: Change, node: Key) -> None:
        """An open and a close that were merged may stand for two closes and an open.

        Then a file would be kept for ever that nobody has open behind the mount.
        """
        thread = change.thread
        if (thread, node) not in self._ground.batch.opened:
            return
        is_left = any(file.thread == thread for file in self._opens.of(node))
        if is_left and self._access_mode(thread, node) is None:
            self._opens.close_those_of(node, thread)

    def _file_for(self, target: Target, change: Change) -> Kept | None:
        """A file to write or read through: whoever is told of paths sees no touch.

        That are fanotify groups that want descriptors, and IN_EXCL_UNLINK once the name
        is gone.  A removed file that the remote side writes is open there: it is opened
        here as well, until the remote side closes it.
        """
        writes = change.kind is Kind.MODIFY
        for file in self._opens.of(target.node.key):
            if file.writes or not writes:
                return file
        if not target.pin or not S_ISREG(target.node.kind):
            return None
        return self._opens.keep(target, os.O_RDWR if writes else os.O_RDONLY, change.thread)

    def _mode_of(self, change: Change) -> int:
        """The access mode of an open: the event does not say it."""
        if change.node is None or change.is_dir:
            return os.O_RDONLY
        batch, node = self._ground.batch, change.node
        mode = batch.next_close(node)
        if mode is None:
            mode = self._access_mode(change.thread, node)
        if mode is None:
            # Closed again: its close was merged with one of these.
            mode = batch.last_close(node)
        return os.O_RDONLY if mode is None else mode

    def _is_watched(self, kind: int, target: Target) -> bool:
        if not self._ground.batch.is_heavy:
            return bool(self._interest.reading & kind)
        directory = target.where[0] if target.where is not None else None
        return self._interest.watches(kind, target.node, directory)
