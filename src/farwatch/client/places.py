"""Where watches are, and what was seen there: for a connection that is made again.

Another session of the server knows nothing of the watches, and what happened in between
nobody has told.  So each is placed again by its path, and what is there is compared with
what was seen when it was placed, or heard since:

    the path holds another inode, or nothing     DELETE_SELF, IGNORED
    a name is gone, is there, holds another      DELETE, CREATE
    what left one name is at another, unchanged  MOVED_FROM and MOVED_TO with one cookie
    another size or mtime; another ctime         MODIFY; ATTRIB

A name of which an event was heard since is not known as it was: of such a file a MODIFY is
told, rather than none.  Where there is too much to compare, Q_OVERFLOW.

What is there is read when a watch is placed, before it is placed, for the watch would hear the
reading.  What is heard from then on is noted, and what has changed before the watch was there,
as the inode's times say, is not known any more.  On a new connection it is read before the
server marks it and after, until there is no difference: then nothing has happened in between
that would be in neither, or in both, of what was read and what is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.abi.fsnotify import Event
from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.asking import Path, path_bytes
from farwatch.client.differences import (
    MOST_NAMES,
    NOWHERE,
    Identity,
    Named,
    Names,
    Seen,
    compare,
    fact_of,
    seen_of,
    tell_changed,
    tell_names,
)
from farwatch.client.fsnotify import Fsnotify, Group, NodeId
from farwatch.client.inodes import Inode
from farwatch.client.kernel import Kernel
from farwatch.client.walking import Walk
from farwatch.events import Mask
from farwatch.linux.inotify import IN_DONT_FOLLOW

_MOST_LOOKS = 8
"""Looks at something that changes at each of them."""
_SIZE = 32768
_DOTS = (b".", b"..")


class Place:
    """A watched inode: by which path, and what was seen of it."""

    def __init__(self, path: bytes, follow: bool, seen: Seen, names: Names | None) -> None:
        self.path = path
        self.follow = follow
        self.seen: Seen | None = seen
        self.ino, self.is_dir = seen.ino, seen.is_dir
        self.names = names
        """None: too many to remember."""


class _Found(NamedTuple):
    """An inode that is where it was: what was seen there, and what is there now.

    ``placed`` is the sequence up to which that holds what the server tells of it.
    """

    inode: Inode
    before: Place
    now: Place
    placed: int


class Places:
    """All of them, by node."""

    def __init__(self) -> None:
        self._places: dict[NodeId, Place] = {}
        self._noted: list[list[Event]] = []

    def __len__(self) -> int:
        return len(self._places)

    # While the connection is up ----------------------------------------------------------

    async def watch(self, kernel: Kernel, group: Group, path: Path, mask: int) -> int:
        """inotify_add_watch(2), remembered; the watch descriptor.

        Raises what ``Watches.add_watch`` raises, and then remembers nothing.
        """
        with self.noting() as noted:
            place = await self.look(kernel, path_bytes(path), follow=not mask & IN_DONT_FOLLOW)
            wd = await kernel.add_watch(group, path, mask)
            node = group.watched(wd)
            if node is not None:
                self.add(node, place, noted)
        if node is not None:
            await self.confirm(kernel, node)
        return wd

    async def look(self, kernel: Kernel, path: bytes, *, follow: bool) -> Place:
        """What is at a path now.  Raises OSError."""
        with Walk(kernel) as walk:
            inode = (await walk.to(path, follow=follow)).inode
            seen = seen_of(walk.attributes or await kernel.getattr(inode))
            names = await _list(kernel, inode) if seen.is_dir else None
        return Place(path, follow, seen, names)

    @contextmanager
    def noting(self) -> Iterator[list[Event]]:
        """What the core is told meanwhile: for a watch that is being placed."""
        noted: list[Event] = []
        self._noted.append(noted)
        try:
            yield noted
        finally:
            self._noted.remove(noted)

    def add(self, node: NodeId, place: Place, noted: Iterable[Event] = ()) -> None:
        """A watch was placed there; ``noted`` is what was told since the look."""
        if node in self._places:
            return
        self._places[node] = place
        for fact in noted:
            self._learn(fact)

    async def confirm(self, kernel: Kernel, node: NodeId) -> None:
        """What changed between the look and the watch, of which nothing was told, is not known."""
        place, inode = self._places.get(node), kernel.inodes.get(node)
        if place is None or inode is None or place.seen is None:
            return
        before = place.seen
        try:
            now = seen_of(await kernel.getattr(inode))
        except OSError:
            return
        if now != before:
            place.ino, place.is_dir = now.ino, now.is_dir
            place.seen, place.names = None, None

    def follow(self, fact: Event) -> None:
        """The core is told a fact."""
        for noted in self._noted:
            noted.append(fact)
        if self._places:
            self._learn(fact)

    def _learn(self, fact: Event) -> None:
        if fact.mask & Mask.Q_OVERFLOW:
            for place in self._places.values():
                place.seen, place.names = None, None
            return
        went = fact.mask & (Mask.DELETE | Mask.MOVED_FROM | Mask.RENAME)
        self._note(NodeId(fact.parent, fact.parent_generation), fact.name, went=bool(went))
        self._note(NodeId(fact.new_parent, fact.new_parent_generation), fact.new_name, went=False)
        itself = self._places.get(NodeId(fact.node, fact.generation))
        if itself is not None:
            itself.seen = None

    def _note(self, directory: NodeId, name: bytes, *, went: bool) -> None:
        place = self._places.get(directory)
        if place is None or place.names is None or not name:
            return
        if went:
            place.names.pop(name, None)
        elif len(place.names) < MOST_NAMES:
            place.names[name] = None
        else:
            place.names = None

    def prune(self, core: Fsnotify) -> None:
        """Forgets places without a watch."""
        for node in [node for node in self._places if not core.is_marked(node)]:
            del self._places[node]

    # On a new connection -----------------------------------------------------------------

    async def resume(self, kernel: Kernel) -> None:
        """Places every watch of the kernel's core again, and tells what has changed.

        Raises OSError if the connection is lost again: then nothing has been told.
        """
        core = kernel.core
        self.prune(core)
        found: dict[NodeId, _Found] = {}
        kernel.hold_back()
        try:
            for node, place in self._places.items():
                again = await self._find(kernel, node, place)
                if again is not None:
                    found[node] = again
            self._tell(kernel, found)
        finally:
            kernel.hear_again()
            for each in found.values():
                kernel.inodes.release(each.inode)
        await kernel.catch_up()

    async def _find(self, kernel: Kernel, node: NodeId, place: Place) -> _Found | None:
        """The inode that is where one was, marked and held; None if it is another."""
        try:
            now = await self.look(kernel, place.path, follow=place.follow)
            for _ in range(_MOST_LOOKS):
                if now.ino != place.ino or now.is_dir != place.is_dir:
                    return None
                with Walk(kernel) as walk:
                    inode = (await walk.to(place.path, follow=place.follow)).inode
                    placed = await kernel.mark_again(inode, kernel.core.union(node))
                    before, now = now, await self.look(kernel, place.path, follow=place.follow)
                    if _same(before, now):
                        return _Found(kernel.inodes.hold(inode), place, now, placed)
            # It never stands still: what has happened cannot be told apart from what is told.
            now.names = None
            with Walk(kernel) as walk:
                inode = (await walk.to(place.path, follow=place.follow)).inode
                return _Found(kernel.inodes.hold(inode), place, now, 0)
        except ConnectionError:
            raise
        except OSError:
            return None

    def _tell(self, kernel: Kernel, found: dict[NodeId, _Found]) -> None:
        core = kernel.core
        for node in core.marked():
            if node not in found:
                core.fsnotify(fact_of(Mask.DELETE_SELF, NOWHERE, b"", node))
        core.reconnected(
            {node: each.inode.id for node, each in found.items()},
            {each.inode.id: each.placed for each in found.values()},
        )
        kernel.adopt([each.inode for each in found.values()])
        self._places = {each.inode.id: each.now for each in found.values()}
        gone: dict[Identity, Named] = {}
        come: list[Named] = []
        for inode, before, now, _ in found.values():
            if inode.is_dir and (before.names is None or now.names is None):
                core.overflow()
            elif before.names is not None and now.names is not None:
                compare(core, inode.id, before.names, now.names, gone, come)
            if now.seen is not None:
                tell_changed(core, NOWHERE, b"", inode.id, before.seen, now.seen)
        tell_names(core, gone, come)


def _same(one: Place, other: Place) -> bool:
    return (one.seen, one.names) == (other.seen, other.names)


async def _list(kernel: Kernel, inode: Inode) -> Names | None:
    """What a directory's names hold, None if there are too many; raises no event here."""
    body = fuse.OPEN_IN.pack(0, 0)
    opened = answers.opened(await kernel.ask(Opcode.OPENDIR, inode.node, body))
    names: Names = {}
    offset = 0
    try:
        while len(names) < MOST_NAMES:
            body = fuse.READ_IN.pack(opened.handle, offset, _SIZE, 0, 0, 0, 0)
            data = await kernel.ask(Opcode.READDIRPLUS, inode.node, body)
            part = list(answers.dirents(data, plus=True))
            if not part or part[-1].next_offset == offset:
                return names
            for each in part:
                if each.entry is not None:
                    kernel.inodes.untold(each.entry)
                    names[each.name] = seen_of(each.entry.attributes)
                elif each.name not in _DOTS:
                    names[each.name] = None
            offset = part[-1].next_offset
        return None
    finally:
        kernel.inodes.flush()
        await kernel.ask(
            Opcode.RELEASEDIR, inode.node, fuse.RELEASE_IN.pack(opened.handle, 0, 0, 0)
        )
