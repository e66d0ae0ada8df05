"""A disk in memory that tells what is done to it, as the kernel's VFS tells fsnotify.

Whoever changes it (a session for its client, a host's program) is ``thread`` while it does.
Names are dentries: an open file keeps the one that it was opened by, is heard under its
name also when that is gone, and its inode is gone when neither a name nor an opener is left.

    made            CREATE (an open that makes the file: OPEN after it)
    linked          ATTRIB of the node alone, CREATE
    unlinked        ATTRIB of the node alone, DELETE_SELF if it was the last and is not open, DELETE
    removed (rmdir) DELETE_SELF, DELETE
    renamed         RENAME; ATTRIB of what was replaced, alone; MOVE_SELF; DELETE_SELF of that
    exchanged       RENAME, MOVE_SELF, and the same of the other
    closed          CLOSE_*; DELETE_SELF if that was all that there was of it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from farwatch.events import Key, Place
from farwatch.export.content import Content
from farwatch.export.setid import Groups, no_groups
from farwatch.export.tree import OMIT, Caller, DirEntry, SetAttr
from tests.session.memory import RENAME_EXCHANGE, Inode, MemoryDirectory, MemoryDisk
from tests.simulator import facts
from tests.simulator.dentries import Dentry, Opening
from tests.simulator.facts import Fact


class WatchedDirectory(MemoryDirectory):
    """A directory that a session has open for listing."""

    def __init__(self, disk: WatchedDisk, inode: Inode, opening: Opening) -> None:
        super().__init__(disk, inode)
        self._watched = disk
        self._opening = opening

    def read(self, offset: int, size_hint: int) -> list[DirEntry]:
        found = super().read(offset, size_hint)
        self._watched.tell_of(facts.ACCESS, self._opening)
        return found

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._watched.close_opening(self._opening)


class WatchedDisk(MemoryDisk):
    """The disk; ``listeners`` hear each fact as it happens."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Fact], None]] = []
        self.thread = 0
        self.keeps: Callable[[Key], bool] = lambda key: False
        """Whether some server keeps a node alive though nothing else does (mutation)."""
        self._dentries: dict[tuple[int, bytes], Dentry] = {}
        self._by_inode: dict[int, list[Dentry]] = {}
        self._openings: dict[int, list[Opening]] = {}
        self._descriptors: dict[int, Opening] = {}
        self._dead: set[int] = set()
        self._kept: list[Dentry] = []
        self._renaming = False
        super().__init__()

    @contextmanager
    def acting(self, thread: int) -> Iterator[None]:
        """What is done within is done by this thread."""
        before, self.thread = self.thread, thread
        try:
            yield
        finally:
            self.sweep()
            self.thread = before

    # Telling

    def _raise(
        self,
        mask: int,
        inode: Inode,
        place: Place | None,
        new_place: Place | None = None,
        *,
        unlinked: bool = False,
    ) -> None:
        mask |= facts.ISDIR if inode.is_dir else 0
        fact = Fact(mask, inode.key, place, self.thread, new_place, unlinked)
        for hear in self.listeners:
            hear(fact)

    def tell_of(self, mask: int, opening: Opening) -> None:
        """Something is done through an open file."""
        dentry = opening.dentry
        self._raise(
            mask,
            opening.inode,
            dentry.place if dentry is not None else None,
            unlinked=dentry is not None and not dentry.hashed,
        )

    def _tell_at(self, mask: int, inode: Inode, place: Place | None = None) -> None:
        """Something is done to a node, by a name of it if it has one."""
        dentry = self._dentry_of(inode, place)
        self._raise(mask, inode, dentry.place if dentry is not None else None)

    def _dentry_of(self, inode: Inode, place: Place | None = None) -> Dentry | None:
        names = self._by_inode.get(inode.ino, [])
        any_name = names[0] if names else None
        return next((dentry for dentry in names if dentry.place == place), any_name)

    # Names

    def _add(self, directory: Inode, name: bytes, inode: Inode) -> None:
        is_link = not inode.is_dir and inode.nlink > 0
        super()._add(directory, name, inode)
        dentry = Dentry(directory, name, inode)
        self._dentries[directory.ino, name] = dentry
        self._by_inode.setdefault(inode.ino, []).append(dentry)
        if is_link:
            self._raise(facts.ATTRIB, inode, None)
        self._raise(facts.CREATE, inode, dentry.place)

    def _remove(self, directory: Inode, name: bytes) -> None:
        inode = directory.children[name]
        super()._remove(directory, name)
        dentry = self._unname(directory, name)
        if self._renaming:
            return
        if not inode.is_dir:
            self._raise(facts.ATTRIB, inode, None)
        self._let_go(dentry)
        self._raise(facts.DELETE, inode, dentry.place)

    def _unname(self, directory: Inode, name: bytes) -> Dentry:
        dentry = self._dentries.pop((directory.ino, name))
        dentry.hashed = False
        self._by_inode[dentry.inode.ino].remove(dentry)
        return dentry

    def _let_go(self, dentry: Dentry) -> None:
        """One less uses the dentry; fsnotify_inoderemove, if it lets the inode go by that."""
        inode = dentry.inode
        if dentry.opens or dentry.hashed or inode.nlink:
            return
        if self.keeps(inode.key):
            self._kept.append(dentry)
            return
        if inode.ino not in self._dead:
            self._dead.add(inode.ino)
            self._raise(facts.DELETE_SELF, inode, None)
        if not self._openings.get(inode.ino) and inode.key in self._inodes:
            self._drop(inode)

    def _rename(self, old: Place, new: Place, flags: int) -> None:
        source, target = self._directory(old.directory), self._directory(new.directory)
        inode, other = source.children.get(old.name), target.children.get(new.name)
        before = self._dentries.get((source.ino, old.name))
        replaced = self._dentries.get((target.ino, new.name))
        self._renaming = True
        try:
            super()._rename(old, new, flags)
        finally:
            self._renaming = False
        if inode is None or before is None or inode is other:
            return
        self._place(before, target, new.name)
        if flags & RENAME_EXCHANGE and replaced is not None and other is not None:
            self._place(replaced, source, old.name)
            for moved, start, end in ((inode, old, new), (other, new, old)):
                self._raise(facts.RENAME, moved, start, end)
                self._raise(facts.MOVE_SELF, moved, None)
            return
        self._raise(facts.RENAME, inode, old, new)
        if replaced is not None and other is not None:
            self._raise(facts.ATTRIB, other, None)
        self._raise(facts.MOVE_SELF, inode, None)
        if replaced is not None:
            self._let_go(replaced)

    def _place(self, dentry: Dentry, parent: Inode, name: bytes) -> None:
        key = (dentry.parent.ino, dentry.name)
        if self._dentries.get(key) is dentry:
            del self._dentries[key]
        dentry.parent, dentry.name = parent, name
        self._dentries[parent.ino, name] = dentry

    # Contents

    def create(
        self, directory: Key, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Key, os.stat_result, int]:
        key, status, fd = super().create(directory, name, mode, flags, caller)
        self._descriptors[fd] = self.open_at(Place(directory, name), flags)
        return key, status, fd

    def open(
        self, node: Key, flags: int, *, place: Place | None = None, kill_suidgid: bool = False
    ) -> int:
        fd = super().open(node, flags, place=place, kill_suidgid=kill_suidgid)
        self._descriptors[fd] = self._opening(self._inode(node), place, flags)
        return fd

    def open_at(self, place: Place, flags: int) -> Opening:
        """Somebody opens what a name holds."""
        return self._opening(self._directory(place.directory).children[place.name], place, flags)

    def _opening(self, inode: Inode, place: Place | None, flags: int) -> Opening:
        opening = Opening(inode, self._dentry_of(inode, place), flags)
        self._openings.setdefault(inode.ino, []).append(opening)
        self.tell_of(facts.OPEN, opening)
        if flags & os.O_TRUNC and opening.writes:
            self.tell_of(facts.MODIFY, opening)
        return opening

    def close_opening(self, opening: Opening) -> None:
        """The last descriptor of an open file is gone."""
        self.tell_of(facts.CLOSE_WRITE if opening.writes else facts.CLOSE_NOWRITE, opening)
        self._openings[opening.inode.ino].remove(opening)
        if opening.dentry is not None:
            opening.dentry.opens -= 1
            self._let_go(opening.dentry)

    def sweep(self) -> None:
        """Sees which descriptors have been closed: whoever has one closes it by itself."""
        for fd, opening in list(self._descriptors.items()):
            try:
                os.fstat(fd)
            except OSError:
                del self._descriptors[fd]
                self.close_opening(opening)
        kept, self._kept = self._kept, []
        for dentry in kept:
            self._let_go(dentry)

    def read_into(  # type: ignore[override]
        self, fd: int, buffers: Sequence[memoryview], offset: int
    ) -> int:
        size = Content.read_into(fd, buffers, offset)
        if size:
            self.tell_of(facts.ACCESS, self._descriptors[fd])
        return size

    def read_at(self, fd: int, size: int, offset: int) -> bytes:  # type: ignore[override]
        found = Content.read_at(fd, size, offset)
        if found:
            self.tell_of(facts.ACCESS, self._descriptors[fd])
        return found

    def write_from(  # type: ignore[override]
        self,
        fd: int,
        buffers: Sequence[memoryview],
        offset: int,
        *,
        kill_suidgid: bool = False,
        groups: Groups = no_groups,
    ) -> int:
        size = Content.write_from(fd, buffers, offset, kill_suidgid=kill_suidgid, groups=groups)
        if size:
            self.tell_of(facts.MODIFY, self._descriptors[fd])
        return size

    def opendir(self, node: Key) -> WatchedDirectory:
        inode = self._directory(node)
        opening = self._opening(inode, None, os.O_RDONLY)
        self.open_directories += 1
        return WatchedDirectory(self, inode, opening)

    # Attributes

    def setattr(
        self,
        node: Key,
        fd: int | None,
        changes: SetAttr,
        caller: Caller,
        *,
        place: Place | None = None,
        groups: Groups = no_groups,
    ) -> os.stat_result:
        status = super().setattr(node, fd, changes, caller, place=place, groups=groups)
        told: list[int] = []
        if changes.uid is not None or changes.gid is not None:
            told.append(facts.ATTRIB)
        if changes.mode is not None:
            told.append(facts.ATTRIB)
        if changes.size is not None:
            told.append(facts.MODIFY)
        accessed, modified = changes.atime_ns != OMIT, changes.mtime_ns != OMIT
        if accessed or modified:
            both = facts.ATTRIB if accessed and modified else facts.MODIFY
            told.append(both if modified else facts.ACCESS)
        for mask in told:
            if fd is not None:
                # notify_change takes the dentry, which is no path: nothing is "unlinked".
                dentry = self._descriptors[fd].dentry
                at = dentry.place if dentry is not None else None
                self._raise(mask, self._descriptors[fd].inode, at)
            else:
                self._tell_at(mask, self._inode(node), place)
        return status

    def setxattr(
        self,
        node: Key,
        name: bytes,
        value: bytes,
        flags: int,
        caller: Caller,
        *,
        place: Place | None = None,
        kill_sgid: bool = False,
    ) -> None:
        super().setxattr(node, name, value, flags, caller, place=place, kill_sgid=kill_sgid)
        self._tell_at(facts.ATTRIB, self._inode(node), place)

    def removexattr(self, node: Key, name: bytes, *, place: Place | None = None) -> None:
        super().removexattr(node, name, place=place)
        self._tell_at(facts.ATTRIB, self._inode(node), place)
