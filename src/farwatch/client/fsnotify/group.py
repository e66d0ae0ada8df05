"""An inotify instance: fs/notify/inotify/inotify_user.c.

A group has at most one watch on an inode.  Watch descriptors count from 1 and are not used
again; one is valid until its IGNORED is queued.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from farwatch.client.fsnotify.inodes import Inodes
from farwatch.client.fsnotify.mark import Mark, NodeId
from farwatch.client.fsnotify.masks import IGNORED, Asked, asked
from farwatch.client.fsnotify.queue import EventQueue, InotifyEvent


class Group:
    """One group of a ``Fsnotify``, which makes them; ``close`` gives it up.

    Every method raises ValueError once it is closed.
    """

    def __init__(self, inodes: Inodes, *, limit: int, on_close: Callable[[Group], None]) -> None:
        self._inodes = inodes
        self._queue = EventQueue(limit)
        self._on_close = on_close
        self._watches: dict[int, Mark] = {}
        self._last = 0
        self._closed = False

    @property
    def has_events(self) -> bool:
        """Whether ``read`` has something."""
        return len(self._queue) > 0

    @property
    def on_event(self) -> Callable[[], None] | None:
        """Called at each event that is queued; it must not call this group or its core."""
        return self._queue.on_event

    @on_event.setter
    def on_event(self, call: Callable[[], None] | None) -> None:
        self._queue.on_event = call

    def check_watch(self, node: NodeId, mask: int, *, is_dir: bool) -> Asked:
        """Whether ``add_watch`` would do it; raises what that would raise, changes nothing."""
        self._check_open()
        wish = asked(mask)
        if wish.only_directory and not is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        inode = self._inodes.get(node)
        if wish.creates and inode is not None and self in inode.marks:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return wish

    def add_watch(self, node: NodeId, mask: int, *, is_dir: bool, after: int = 0) -> int:
        """Watch a node; the watch descriptor, which is the same if there is a watch.

        The mask is inotify_add_watch(2)'s: kinds, IN_MASK_ADD, IN_MASK_CREATE, IN_ONLYDIR,
        IN_ONESHOT, IN_EXCL_UNLINK; IN_DONT_FOLLOW says nothing here.  Without IN_MASK_ADD it
        replaces what the watch had, flags included.

        Kinds that are new are not heard of facts numbered up to ``after``.

        Raises OSError(EINVAL) for a mask without a valid bit or with others, FileExistsError
        where IN_MASK_CREATE finds a watch, NotADirectoryError for IN_ONLYDIR.
        """
        wish = self.check_watch(node, mask, is_dir=is_dir)
        mark = self._inodes.mark(self, self._last + 1, node, wish, is_dir=is_dir, placed=after)
        if mark.wd > self._last:
            self._last = mark.wd
            self._watches[mark.wd] = mark
        return mark.wd

    def rm_watch(self, wd: int) -> NodeId:
        """Remove a watch, which queues IGNORED; the node that it was on.

        Raises OSError(EINVAL) for a descriptor that is not valid (any more).
        """
        self._check_open()
        mark = self._watches.get(wd)
        if mark is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"watch {wd}")
        self._inodes.unmark(mark)
        return mark.node

    def watched(self, wd: int) -> NodeId | None:
        """The node that a valid watch descriptor is on."""
        mark = self._watches.get(wd)
        return None if mark is None else mark.node

    def read(self, count: int | None = None) -> list[InotifyEvent]:
        """Take the oldest events out of the queue, at most ``count``; empty if none wait."""
        self._check_open()
        return self._queue.take(count)

    def close(self) -> None:
        """Give up the watches and what waits to be read; nobody is told.  Twice is once."""
        if self._closed:
            return
        self._closed = True
        for mark in tuple(self._watches.values()):
            self._inodes.unmark(mark, tell=False)
        self._queue.clear()
        self._on_close(self)

    def put(self, event: InotifyEvent) -> None:
        """Queue an event (for the core)."""
        self._queue.put(event)

    def overflow(self) -> None:
        """Queue Q_OVERFLOW, if none waits (for the core)."""
        self._queue.overflow()

    def lose(self, mark: Mark, *, tell: bool) -> None:
        """A mark is gone (for the core)."""
        del self._watches[mark.wd]
        if tell:
            self._queue.put(InotifyEvent(mark.wd, IGNORED, 0, b""))

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the group is closed")
