"""A file system in memory, the queue of a fanotify group on it, and the truth.

The queue merges as fs/notify/fanotify does: a record joins the waiting one of
the same thread, directory, name and node (inode-only: of the same thread and
node) and the same ISDIR; a RENAME joins a RENAME of the same node and both names.
Every operation is cut into steps, one an event, so that a reader can come
between any two of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from farwatch.events import Key, Mask, Place, Record

ROOT = b"root"
Step = Iterator[None]


@dataclass
class Inode:
    """What a test file is: its links, its openers, and its entries if it is a directory."""

    key: Key
    is_dir: bool
    links: int = 0
    openers: int = 0
    dead: bool = False
    entries: dict[bytes, Key] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One thing that happened: the truth, before the queue."""

    what: str
    place: Place | None
    node: Key
    thread: int
    batch_of: int
    """The number of the record that carries it."""
    half: bool = False
    """The first of an exchange's two."""


class World:
    """The disk, the group's queue, and every event in its true order."""

    def __init__(self, *, merges: bool = True) -> None:
        self.inodes: dict[Key, Inode] = {ROOT: Inode(ROOT, True)}
        self.queue: list[Record] = []
        self.numbers: list[int] = []
        self.truth: list[Event] = []
        self.names: dict[Place, list[tuple[str, Key]]] = defaultdict(list)
        self.names_by: dict[Place, list[tuple[str, Key, int, int]]] = defaultdict(list)
        self.opened: list[tuple[Key, Place]] = []
        self._merges = merges
        self._made = 0
        self.records = 0

    # The queue

    def push(
        self,
        bits: int,
        thread: int,
        place: Place | None,
        node: Key | None,
        new_place: Place | None = None,
    ) -> int:
        """Queue one event, or merge it; the number of the record that has it."""
        rename = bits & Mask.RENAME
        if self._merges:
            for index, old in enumerate(self.queue):
                if (
                    old.thread == thread
                    and old.place == place
                    and old.node == node
                    and old.new_place == new_place
                    and old.mask & Mask.RENAME == rename
                    and bool(old.mask & Mask.ISDIR) == bool(bits & Mask.ISDIR)
                ):
                    self.queue[index] = old._replace(mask=old.mask | bits)
                    return self.numbers[index]
        self.queue.append(Record(int(bits), thread, place, node, new_place))
        self.records += 1
        self.numbers.append(self.records)
        return self.records

    def read(self, most: int | None = None) -> list[Record]:
        """Take what waits, or the first of it."""
        most = len(self.queue) if most is None else most
        taken, self.queue = self.queue[:most], self.queue[most:]
        self.numbers = self.numbers[most:]
        return taken

    def node_at(self, place: Place) -> Key | None:
        """What the disk holds at a name now."""
        return self.inodes[place.directory].entries.get(place.name)

    # Events

    def _note(
        self,
        what: str,
        place: Place | None,
        node: Key,
        thread: int,
        record: int,
        *,
        half: bool = False,
    ) -> None:
        self.truth.append(Event(what, place, node, thread, record, half))
        if place is not None and what in ("C", "D", "F", "T"):
            self.names[place].append((what, node))
            self.names_by[place].append((what, node, thread, record))

    def _event(self, what: str, bit: int, thread: int, place: Place | None, node: Key) -> None:
        inode = self.inodes[node]
        bits = int(bit) | (int(Mask.ISDIR) if inode.is_dir else 0)
        if place is None and inode.is_dir:
            record = self.push(bits, thread, Place(node, b"."), node)
        else:
            record = self.push(bits, thread, place, node)
        self._note(what, place, node, thread, record)

    def _link_count(self, thread: int, node: Key) -> None:
        self._event("linkcount", Mask.ATTRIB, thread, None, node)

    def _die(self, thread: int, node: Key) -> Step:
        inode = self.inodes[node]
        if not inode.links and not inode.openers and not inode.dead:
            inode.dead = True
            self._event("DEATH", Mask.DELETE_SELF, thread, None, node)
            yield

    # Operations: each a generator of steps; one that cannot be done has none.

    def _new(self, is_dir: bool) -> Inode:
        self._made += 1
        key = b"%s%d" % (b"d" if is_dir else b"i", self._made)
        inode = self.inodes[key] = Inode(key, is_dir, links=1)
        return inode

    def make(self, thread: int, place: Place, *, is_dir: bool = False, write: bool = False) -> Step:
        """mkdir, mknod, or open(O_CREAT), write and close."""
        entries = self.inodes[place.directory].entries
        if place.name in entries:
            return
        node = self._new(is_dir).key
        entries[place.name] = node
        self._event("C", Mask.CREATE, thread, place, node)
        yield
        if write and not is_dir:
            yield from self.write(thread, place, node)

    def write(self, thread: int, place: Place, node: Key) -> Step:
        """Write to an open file and close it."""
        for what, bit in (("MODIFY", Mask.MODIFY), ("CLOSE_WRITE", Mask.CLOSE_WRITE)):
            self._event(what, bit, thread, place, node)
            yield

    def write_name(self, thread: int, place: Place) -> Step:
        """Open a file by its name, write, close."""
        node = self.node_at(place)
        if node is not None and not self.inodes[node].is_dir:
            yield from self.write(thread, place, node)

    def chmod(self, thread: int, place: Place) -> Step:
        """Change the attributes of what the name holds."""
        node = self.node_at(place)
        if node is not None:
            is_dir = self.inodes[node].is_dir
            self._event("ATTRIB", Mask.ATTRIB, thread, None if is_dir else place, node)
            yield

    def link(self, thread: int, old: Place, new: Place) -> Step:
        """A further name for a file."""
        node = self.node_at(old)
        if node is None or self.inodes[node].is_dir or self.node_at(new) is not None:
            return
        self.inodes[new.directory].entries[new.name] = node
        self.inodes[node].links += 1
        self._link_count(thread, node)
        yield
        self._event("C", Mask.CREATE, thread, new, node)
        yield

    def remove(self, thread: int, place: Place) -> Step:
        """unlink or rmdir."""
        node = self.node_at(place)
        if node is None or self.inodes[node].entries:
            return
        inode = self.inodes[node]
        del self.inodes[place.directory].entries[place.name]
        inode.links -= 1
        if not inode.is_dir:
            self._link_count(thread, node)
            yield
        yield from self._die(thread, node)
        self._event("D", Mask.DELETE, thread, place, node)
        yield

    def rename(self, thread: int, old: Place, new: Place) -> Step:
        """Rename, over what is there if that can be replaced."""
        node, target = self.node_at(old), self.node_at(new)
        if node is None or node == target or self._is_above(node, new.directory):
            return
        is_dir = self.inodes[node].is_dir
        if target is not None and (
            self.inodes[target].is_dir != is_dir or self.inodes[target].entries
        ):
            return
        del self.inodes[old.directory].entries[old.name]
        self.inodes[new.directory].entries[new.name] = node
        self._rename_event(thread, old, node, new)
        yield
        if target is not None:
            self.inodes[target].links -= 1
            self._link_count(thread, target)
            yield
            yield from self._die(thread, target)

    def exchange(self, thread: int, one: Place, two: Place) -> Step:
        """renameat2 with RENAME_EXCHANGE."""
        first, second = self.node_at(one), self.node_at(two)
        if first is None or second is None or first == second:
            return
        if self._is_above(first, two.directory) or self._is_above(second, one.directory):
            return
        self.inodes[one.directory].entries[one.name] = second
        self.inodes[two.directory].entries[two.name] = first
        self._rename_event(thread, one, first, two, exchanged=True, half=True)
        yield
        self._rename_event(thread, two, second, one, exchanged=True)
        yield

    def open(self, place: Place) -> Step:
        """Hold a file open."""
        node = self.node_at(place)
        if node is not None and not self.inodes[node].is_dir:
            self.inodes[node].openers += 1
            self.opened.append((node, place))
            yield

    def write_and_close(self, thread: int, which: int) -> Step:
        """Write to a held file, which may have lost its name, and close it."""
        if not self.opened:
            return
        node, place = self.opened.pop(which % len(self.opened))
        if self.node_at(place) != node and self.inodes[node].links:
            # The dentry went elsewhere; keep to what the kernel would name for certain.
            self.inodes[node].openers -= 1
            return
        yield from self.write(thread, place, node)
        self.inodes[node].openers -= 1
        yield from self._die(thread, node)

    def _rename_event(
        self,
        thread: int,
        old: Place,
        node: Key,
        new: Place,
        *,
        exchanged: bool = False,
        half: bool = False,
    ) -> None:
        bits = int(Mask.RENAME) | (int(Mask.ISDIR) if self.inodes[node].is_dir else 0)
        record = self.push(bits, thread, old, node, new)
        if not exchanged:
            self._note("F", old, node, thread, record)
        self._note("T", new, node, thread, record, half=half)

    def _is_above(self, node: Key, directory: Key) -> bool:
        """Whether a directory would be moved into itself."""
        if node == directory:
            return True
        return any(self._is_above(child, directory) for child in self.inodes[node].entries.values())

    def directories(self) -> list[Key]:
        """Those that can be reached."""
        found = [ROOT]
        for key in found:
            children = self.inodes[key].entries.values()
            found += [child for child in children if self.inodes[child].is_dir]
        return found
