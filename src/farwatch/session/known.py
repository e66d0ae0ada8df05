"""What the watchers of one client have been told of the disk, so that a gap can be made good.

    names    of each directory that is known to be watched: what each name holds, and the
             inode's stamp (stamps.py) when that was last told
    nodes    of each node that is watched itself: its stamp

A directory is listed once, when its watch is first seen; from then on what is told of its
names, and what the client does there itself, keeps it right:

    wanted --begin--> being taken --took--> unconfirmed --confirm--> known
      ^                                          |                     |
      +------------------ lose ------------------+      unwatched, dead --> nothing

What was looked at is right if the source has lost nothing until then: so a listing, and a
stamp that was looked at again, count only when the source has been read to its end, and
nothing was missing (``confirm``).  If something was (``lose``) they do not count.

A change makes a stamp stale: nobody looks at once, because that is worth nothing until
there is a gap.  What is still stale then is compared by its times with ``since``, when
everything that had happened was known.

Every method is called with the view's lock held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from farwatch.events import Change, Key, Kind, Place
from farwatch.session.stamps import CONTENT, Entry

MOST_NAMES = 1 << 20
"""Names that are kept, of all directories together: some hundred bytes each."""
_ANY = b""
_TOUCHES = frozenset((Kind.MODIFY, Kind.ATTRIB, Kind.CLOSE_WRITE))


class Known:
    """What the watchers of one client know; see the top of the file."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self.directories: dict[Key, dict[bytes, Entry]] = {}
        self.nodes: dict[Key, bytes] = {}
        """The stamps of what is watched itself, files too."""
        self._wanted: dict[Key, bool] = {}
        self._taking: dict[Key, list[tuple[bytes, Key, Entry | None]]] = {}
        self._stale: dict[Place, Key] = {}
        self._stale_nodes: set[Key] = set()
        self._unconfirmed: set[Key] = set()
        self._looked: list[tuple[Place, Entry]] = []
        self._looked_nodes: list[tuple[Key, bytes]] = []
        self._count = 0
        self.since = 0
        """When everything was known that had happened: ns since the epoch (``time.time_ns``)."""
        self.suspects: dict[Place, None] = {}
        """Names in other directories of which something was not told."""

    # What is watched --------------------------------------------------------------

    def watch(self, nodes: Mapping[Key, bool]) -> None:
        """From now on just these nodes are watched; the values say which are directories."""
        for key in [key for key in self._all() if key not in nodes]:
            self.unwatch(key)
        for key, is_dir in nodes.items():
            self.watch_also(key, is_dir)

    def watch_also(self, key: Key, is_dir: bool) -> None:
        """One node more is watched."""
        if key not in self.nodes and key not in self._taking:
            self._wanted.setdefault(key, is_dir)

    def unwatch(self, key: Key) -> None:
        """A node is not watched any more, or is gone."""
        self._wanted.pop(key, None)
        self._taking.pop(key, None)
        self.nodes.pop(key, None)
        self._stale_nodes.discard(key)
        self._unconfirmed.discard(key)
        names = self.directories.pop(key, None)
        if names is not None:
            self._count -= len(names)

    def _all(self) -> list[Key]:
        return [*self._wanted, *self._taking, *self.nodes]

    # Looking at the disk ----------------------------------------------------------

    @property
    def is_used(self) -> bool:
        """Whether anything is known, or about to be.  Needs no lock."""
        return bool(self.nodes or self._taking)

    @property
    def is_wanting(self) -> bool:
        """Whether something is watched that was not looked at.  Needs no lock."""
        return bool(self._wanted)

    @property
    def stale(self) -> int:
        """How many stamps are to be looked at again.  Needs no lock."""
        return len(self._stale) + len(self._stale_nodes)

    def begin(self) -> tuple[Key, bool] | None:
        """What is to be looked at next, and whether it is a directory; None if nothing is."""
        if not self._wanted:
            return None
        key, is_dir = next(iter(self._wanted.items()))
        del self._wanted[key]
        self._taking[key] = []
        return key, is_dir

    def took(self, key: Key, itself: bytes, names: dict[bytes, Entry] | None) -> bool:
        """What was begun has been looked at; without ``names`` it is no directory.

        False if there is no room for its names: then only the node itself is known.
        """
        since = self._taking.pop(key, None)
        if since is None:
            return True
        self.nodes[key] = itself
        self._unconfirmed.add(key)
        if names is None:
            return True
        if self._count + len(names) > self._most:
            return False
        self.directories[key] = names
        self._count += len(names)
        for name, holder, entry in since:
            self._hold(Place(key, name), holder, entry)
        return True

    def take_stale(self, most: int) -> tuple[list[tuple[Place, Key]], list[Key]]:
        """Names and nodes whose stamps are to be looked at again, and looked at now."""
        names = [self._stale.popitem() for _ in range(min(most, len(self._stale)))]
        nodes = [self._stale_nodes.pop() for _ in range(min(most, len(self._stale_nodes)))]
        return names, nodes

    def looked(self, names: list[tuple[Place, Entry]], nodes: list[tuple[Key, bytes]]) -> None:
        """What was found there."""
        self._looked += names
        self._looked_nodes += nodes

    def confirm(self, now: int) -> None:
        """Everything that had happened at this time (``time.time_ns``) has been read."""
        self.since = now
        if self._unconfirmed:
            self._unconfirmed.clear()
        if not (self._looked or self._looked_nodes):
            return
        looked, self._looked = self._looked, []
        for place, entry in looked:
            names = self.directories.get(place.directory)
            held = names.get(place.name) if names is not None else None
            if names is None or held is None or held.key != entry.key:
                continue
            if not held.stamp and place not in self._stale:
                names[place.name] = entry
        nodes, self._looked_nodes = self._looked_nodes, []
        for key, packed in nodes:
            if key in self.nodes and key not in self._stale_nodes:
                self.nodes[key] = packed

    def lose(self) -> None:
        """Something has happened that was not read."""
        self._looked, self._looked_nodes = [], []
        for key in list(self._unconfirmed):
            is_dir = key in self.directories
            self.unwatch(key)
            self._wanted[key] = is_dir

    # What is told, and what the client does itself --------------------------------

    def follow(self, changes: Iterable[Change]) -> None:
        """The watchers are told this."""
        if not self.is_used:
            return
        for change in changes:
            kind, place, node, is_dir, new_place, other, _, _ = change
            if kind in _TOUCHES:
                self.touched(place, node)
            elif kind is Kind.CREATE:
                self.created(place, node, is_dir)
            elif kind is Kind.DELETE:
                self.removed(place, node)
            elif kind is Kind.RENAME:
                self.removed(place, node)
                self.created(new_place, node, is_dir)
            elif kind is Kind.EXCHANGE:
                self.created(new_place, node, is_dir)
                self.created(place, other, False)
            elif kind is Kind.DEATH and node is not None:
                self.unwatch(node)

    def created(self, place: Place | None, key: Key | None, is_dir: bool) -> None:
        """A name holds this node."""
        if place is not None and key is not None:
            self._hold(place, key, Entry(key, is_dir))
            self.touched(None, key)

    def removed(self, place: Place | None, key: Key | None) -> None:
        """A name does not hold this node any more."""
        if place is not None and key is not None:
            self._hold(place, key, None)
            self.touched(None, key)

    def freed(self, place: Place) -> Entry | None:
        """A name holds nothing any more; what it held, as far as that is known."""
        names = self.directories.get(place.directory)
        before = names.get(place.name) if names is not None else None
        self._hold(place, _ANY if before is None else before.key, None)
        if before is not None:
            self.touched(None, before.key)
        return before

    def moved(self, old: Place, new: Place, entry: Entry | None) -> None:
        """The client has renamed a name; ``entry`` is what it held, if nothing is known of it."""
        entry = self.freed(old) or entry
        self.freed(new)
        if entry is not None:
            self.created(new, entry.key, entry.is_dir)

    def exchanged(self, one: Place, other: Place) -> None:
        """The client has had two names exchange what they hold."""
        first, second = self.freed(one), self.freed(other)
        for place, entry in ((one, second), (other, first)):
            if entry is not None:
                self.created(place, entry.key, entry.is_dir)

    def touched(self, place: Place | None, key: Key | None) -> None:
        """The node, told of by this name, is not as it was looked at."""
        if key in self.nodes:
            assert key is not None
            self._stale_nodes.add(key)
            self.nodes[key] = b""
        names = self.directories.get(place.directory) if place is not None else None
        if place is None or names is None:
            return
        entry = names.get(place.name)
        if entry is not None and entry.key == key:
            names[place.name] = entry._replace(stamp=b"")
            self._stale[place] = entry.key

    def _hold(self, place: Place, key: Key, entry: Entry | None) -> None:
        """``entry`` None: the name is free, if it held ``key``."""
        taking = self._taking.get(place.directory)
        if taking is not None:
            taking.append((place.name, key, entry))
            return
        names = self.directories.get(place.directory)
        if names is None:
            return
        before = names.get(place.name)
        if entry is not None:
            names[place.name] = entry
            self._stale[place] = key
            self._count += before is None
        elif before is not None and key in (before.key, _ANY):
            del names[place.name]
            self._stale.pop(place, None)
            self._count -= 1

    # A gap ------------------------------------------------------------------------

    def suspect(self, places: Collection[Place | None]) -> None:
        """Something of these names was not told."""
        for place in places:
            if place is None or place.directory in self.directories:
                continue
            if len(self.suspects) < self._most:
                self.suspects[place] = None

    def restore(self, place: Place, entry: Entry | None) -> None:
        """What was told last of a name was dropped: it is as it was before."""
        names = self.directories.get(place.directory)
        if names is None:
            self.suspect((place,))
            return
        before = names.pop(place.name, None)
        self._stale.pop(place, None)
        self._count -= before is not None
        if entry is not None:
            names[place.name] = entry
            self._count += 1

    def differs(self, place: Place | None, key: Key, how: bytes) -> None:
        """What was told of the node was dropped; ``how`` is CONTENT or METADATA."""
        if key in self.nodes and self.nodes[key] != CONTENT:
            self.nodes[key] = how
            self._stale_nodes.discard(key)
        names = self.directories.get(place.directory) if place is not None else None
        entry = names.get(place.name) if names is not None and place is not None else None
        if names is None or place is None or entry is None or entry.key != key:
            return
        if entry.stamp != CONTENT:
            names[place.name] = entry._replace(stamp=how)
        self._stale.pop(place, None)

    def settle(
        self, found: Mapping[Key, Mapping[bytes, Entry]], nodes: Mapping[Key, bytes]
    ) -> None:
        """The difference is told: what was found is known, where it is still told so."""
        for directory, entries in found.items():
            names = self.directories.get(directory)
            if names is None:
                continue
            for name, entry in entries.items():
                held = names.get(name)
                if held is not None and held.key == entry.key:
                    names[name] = entry
                    self._stale.pop(Place(directory, name), None)
        for key, packed in nodes.items():
            if key in self.nodes:
                self.nodes[key] = packed
                self._stale_nodes.discard(key)
        self.suspects.clear()
