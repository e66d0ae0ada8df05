"""A mark: what one group wants to hear of one inode (struct inotify_inode_mark)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from farwatch.client.fsnotify.masks import UNMOUNT, Asked
from farwatch.client.fsnotify.queue import InotifyEvent


class NodeId(NamedTuple):
    """An inode, as a server numbers them; a number that is used again has another generation."""

    node: int
    generation: int


class Owner(Protocol):
    """The group that a mark belongs to, as a mark's inode sees it."""

    def put(self, event: InotifyEvent) -> None:
        """Queue an event."""

    def lose(self, mark: Mark, *, tell: bool) -> None:
        """The mark is gone, and its watch descriptor with it; ``tell``: queue IGNORED."""


class _Late(NamedTuple):
    """Kinds that were added after the fact with this sequence."""

    kinds: int
    after: int


class Mark:
    """What one group wants to hear of one inode.

    A kind is heard from the fact on that follows the one that was the last when the kind was
    asked for.  UNMOUNT is always heard.
    """

    __slots__ = ("_late", "events", "exclude_unlinked", "node", "one_shot", "owner", "wd")

    def __init__(self, owner: Owner, wd: int, node: NodeId) -> None:
        self.owner = owner
        self.wd = wd
        self.node = node
        self.events = 0
        self.one_shot = False
        self.exclude_unlinked = False
        self._late: tuple[_Late, ...] = ()

    def change(self, asked: Asked, *, after: int) -> None:
        """Take on what was asked for; the flags are replaced or added to like the kinds."""
        added = asked.events & ~self.events
        if asked.adds:
            self.events |= asked.events
            self.one_shot |= asked.one_shot
            self.exclude_unlinked |= asked.exclude_unlinked
        else:
            self.events = asked.events
            self.one_shot = asked.one_shot
            self.exclude_unlinked = asked.exclude_unlinked
        if added:
            self._late = tuple(late._replace(kinds=late.kinds & ~added) for late in self._late)
        if added and after:
            self._late += (_Late(added, after),)

    def hears(self, mask: int, *, sequence: int, through_unlinked: bool) -> bool:
        """Whether a fact is for this mark.

        ``sequence`` is 0 for what happened here.  ``through_unlinked``: it was done through
        a name that has been removed, which IN_EXCL_UNLINK keeps out.
        """
        if through_unlinked and self.exclude_unlinked:
            return False
        wanted = mask & (self.events | UNMOUNT)
        if wanted and sequence and self._late:
            self._late = tuple(late for late in self._late if late.after >= sequence)
            for late in self._late:
                wanted &= ~late.kinds
        return bool(wanted)

    def renumbered(self, after: int) -> None:
        """Sequences begin again; facts up to this one are not for this mark."""
        self._late = (_Late(self.events, after),) if after else ()
