"""Descriptors that stand for nodes, for a process that may not open them by their handles.

    fresh     just looked up, perhaps about to be told to the client; the oldest go first
    kept      the client knows the node (``keep`` … ``let_go``)
    home      of a directory: the client has forgotten it, and knows something in it, of
              which only the directory's mark may tell (homes.py)
    let die   kept, but without a descriptor: the node has no name left, and its end
              must not be held up by who only knows it

A pin is an O_PATH descriptor: it gives no access, and keeps the inode, so that its number
is not used for another.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Protocol

from farwatch.events import Key
from farwatch.export.anchor import failure
from farwatch.export.homes import Homes

log = logging.getLogger(__name__)

_LEAST_FRESH = 16
_MOST_FRESH = 4096
_LEAST_SPARE = 48
_SPARE_SHARE = 8
"""One in so many of the descriptors that the process may have is spared for what is opened;
and as many pins may be fresh."""
_UNLIMITED = 1 << 20


class Follower(Protocol):
    """Who is told what is pinned: a source that has to mark every node by itself."""

    def follow(self, node: Key, fd: int, status: os.stat_result) -> None:
        """A node is pinned.  ``fd`` (O_PATH) stays the caller's.

        Called before the client is told anything of the node, and before its
        attributes are read that it will be told.
        """

    def unfollow(self, node: Key) -> None:
        """The client does not know the node any more."""


class Pins:
    """The pins of one export, for all its threads; owns their descriptors."""

    def __init__(self, follower: Follower | None = None) -> None:
        self._follower = follower
        self._lock = threading.Lock()
        self._pins: dict[Key, tuple[int, bool]] = {}
        self._kept: set[Key] = set()
        self._fresh: OrderedDict[Key, None] = OrderedDict()
        self._homes = Homes()
        limit = raise_limit()
        self._most = limit - max(_LEAST_SPARE, limit // _SPARE_SHARE)
        self._most_fresh = max(_LEAST_FRESH, min(_MOST_FRESH, limit // _SPARE_SHARE))
        self._has_said_full = False

    def __len__(self) -> int:
        return len(self._pins)

    def hold(self, node: Key, fd: int) -> bool:
        """Pin a node by a descriptor that is open on it; whether it was not pinned yet.

        ``fd`` (O_PATH) stays the caller's and is duplicated.  Raises OSError(ENFILE) if
        there is no descriptor left.
        """
        with self._lock:
            if node in self._pins:
                if node in self._fresh:
                    self._fresh.move_to_end(node)
                return False
            status = os.fstat(fd)
            self._make_room()
            self._pins[node] = os.dup(fd), stat.S_ISDIR(status.st_mode)
            if node not in self._kept:
                self._fresh[node] = None
            if self._follower is not None:
                self._follower.follow(node, fd, status)
            while len(self._fresh) > self._most_fresh:
                self._drop_oldest()
            return True

    def take(self, node: Key, *, directory: bool = False) -> int:
        """A descriptor (O_PATH) of a pinned node, the caller's.

        Raises OSError: ESTALE if it is not pinned, ENOTDIR if it is to be a directory and
        is none.
        """
        with self._lock:
            pin = self._pins.get(node)
            if pin is None:
                raise failure(errno.ESTALE)
            if directory and not pin[1]:
                raise failure(errno.ENOTDIR)
            return os.dup(pin[0])

    def keep(self, node: Key) -> None:
        """The client knows the node from now on."""
        with self._lock:
            self._kept.add(node)
            self._fresh.pop(node, None)

    def let_go(self, node: Key, inside: Collection[Key] = ()) -> None:
        """The client does not know the node any more; what it knows in there is ``inside``."""
        if self._follower is None:
            inside = ()  # Nobody marks a directory for what is in it.
        with self._lock:
            self._kept.discard(node)
            self._fresh.pop(node, None)
            for each in self._homes.forget(node, inside):
                if each not in self._kept and each not in self._fresh:
                    self._close(each)
                    if self._follower is not None:
                        self._follower.unfollow(each)

    def let_go_of(self, prefix: bytes) -> None:
        """Close the pins of all nodes whose keys begin so: their file system goes away."""
        with self._lock:
            for node in [node for node in self._pins if node.startswith(prefix)]:
                self._fresh.pop(node, None)
                self._close(node)

    def let_die(self, node: Key) -> bool:
        """Close the pin of a node that has no name left; whether that was so.

        It is followed further: whoever has it open goes on using it.
        """
        with self._lock:
            pin = self._pins.get(node)
            if pin is None or os.fstat(pin[0]).st_nlink:
                return False
            self._close(node)
            return True

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            for node in list(self._pins):
                self._close(node)
                if self._follower is not None:
                    self._follower.unfollow(node)
            self._kept.clear()
            self._fresh.clear()

    def _drop_oldest(self) -> None:
        node, _ = self._fresh.popitem(last=False)
        self._close(node)
        if self._follower is not None:
            self._follower.unfollow(node)

    def _close(self, node: Key) -> None:
        pin = self._pins.pop(node, None)
        if pin is not None:
            os.close(pin[0])

    def _make_room(self) -> None:
        while self._fresh and len(self._pins) >= self._most:
            self._drop_oldest()
        if len(self._pins) < self._most:
            return
        if not self._has_said_full:
            self._has_said_full = True
            log.warning(
                "the users of the mount know %d files, and no descriptor is left for more"
                " (they get ENFILE): raise the hard limit of open files (ulimit -Hn)",
                len(self._pins),
            )
        raise failure(errno.ENFILE)


def raise_limit() -> int:
    """Raise the process's limit of descriptors as far as it may (getrlimit(2)); the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft == hard:
        return soft if soft != resource.RLIM_INFINITY else _UNLIMITED
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else _UNLIMITED
