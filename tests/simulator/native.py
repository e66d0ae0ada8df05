"""What inotify says of a disk's facts: the truth that a far watcher is held against.

A model of fs/notify of one instance, kept as small as it can be: test_native has the
kernel's own inotify confirm it, on a directory where the same is done.

    fact with a place   the directory's mark hears it with the name, then the node's without;
                        DELETE, CREATE and RENAME are the directory's alone
    RENAME              MOVED_FROM and MOVED_TO with one cookie
    without             the node's mark alone
    DELETE_SELF         and the mark ends: IGNORED
    equal to the last   of what waits to be read: not queued
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from farwatch.events import Key, Place
from farwatch.linux.inotify import IN_EXCL_UNLINK, IN_MASK_ADD, IN_ONESHOT
from tests.simulator import facts
from tests.simulator.facts import Fact, kinds


class Told(NamedTuple):
    """One event, as a program reads it.

    ``watch``  what the test calls the watch
    ``by``     who made what it tells: a client's number, 0 for the host, None for nobody
    """

    watch: str
    mask: int
    cookie: int
    name: bytes
    by: int | None = None

    @property
    def plain(self) -> Told:
        """As inotify_event_info is compared: who made it is not part of it, nor the cookie."""
        return self._replace(cookie=0, by=None)

    def __str__(self) -> str:
        name = f" {self.name.decode()}" if self.name else ""
        cookie = f" #{self.cookie}" if self.cookie else ""
        return f"{self.watch}: {kinds(self.mask)}{name}{cookie}"


def paired(events: list[Told]) -> list[Told]:
    """The same with cookies numbered as they come: 1, 2, …"""
    numbers: dict[int, int] = {0: 0}
    return [
        event._replace(cookie=numbers.setdefault(event.cookie, len(numbers))) for event in events
    ]


class Native:
    """One inotify instance on the disk.

    ``who`` says whose a thread is; ``hears`` which of their facts are heard at all.
    """

    def __init__(
        self,
        who: Callable[[int], int | None] = lambda thread: None,
        hears: Callable[[Fact], bool] = lambda fact: True,
    ) -> None:
        self._who = who
        self._hears = hears
        self.told: list[Told] = []
        self._marks: dict[Key, tuple[str, int]] = {}
        self._cookie = 0

    def add(self, watch: str, node: Key, mask: int) -> None:
        """inotify_add_watch; an existing watch keeps its name, and with MASK_ADD its mask."""
        name, before = self._marks.get(node, (watch, 0))
        self._marks[node] = (name, mask | before if mask & IN_MASK_ADD else mask)

    def remove(self, node: Key) -> None:
        """inotify_rm_watch."""
        if node in self._marks:
            self._tell(self._marks.pop(node)[0], facts.IGNORED, 0, b"")

    def watches(self, node: Key) -> bool:
        """Whether the node has a mark."""
        return node in self._marks

    def hear(self, fact: Fact) -> None:
        """One fact of the disk's."""
        if not self._hears(fact):
            return
        kind = fact.mask & facts.ALL | fact.mask & facts.RENAME
        if kind == facts.RENAME and fact.place is not None and fact.new_place is not None:
            self._cookie += 1
            is_dir = fact.mask & facts.ISDIR
            self._to_directory(facts.MOVED_FROM | is_dir, fact.place, self._cookie, fact)
            self._to_directory(facts.MOVED_TO | is_dir, fact.new_place, self._cookie, fact)
        elif kind & facts.NAMES and fact.place is not None:
            self._to_directory(fact.mask, fact.place, 0, fact)
        else:
            if fact.place is not None:
                self._to_directory(fact.mask, fact.place, 0, fact)
            self._to_node(fact)

    def _to_directory(self, mask: int, place: Place, cookie: int, fact: Fact) -> None:
        self._raise(place.directory, mask, cookie, place.name, fact)

    def _to_node(self, fact: Fact) -> None:
        mask = fact.mask
        if mask & facts.SELF:
            # fsnotify_inoderemove and fsnotify_move say nothing of directories.
            mask &= facts.ALL
        self._raise(fact.node, mask, 0, b"", fact)
        if mask & facts.DELETE_SELF:
            self.remove(fact.node)

    def _raise(self, node: Key, mask: int, cookie: int, name: bytes, fact: Fact) -> None:
        watch, wanted = self._marks.get(node, ("", 0))
        if not wanted & mask & facts.ALL:
            return
        if wanted & IN_EXCL_UNLINK and fact.unlinked:
            return
        self._tell(watch, mask, cookie, name, self._who(fact.thread))
        if wanted & IN_ONESHOT:
            self.remove(node)

    def _tell(self, watch: str, mask: int, cookie: int, name: bytes, by: int | None = None) -> None:
        event = Told(watch, mask, cookie, name, by)
        if not self.told or self.told[-1].plain != event.plain:
            self.told.append(event)
