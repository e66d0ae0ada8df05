"""After a gap: what was known is compared with the disk, and the difference is told.

    gap --> look at everything that somebody may watch --> look again at what has changed
            meanwhile, until nothing has --> compare --> list[Change], as any settled batch

What is compared:

    a directory that is known to be watched   all its names (session/known.py)
    another that the client's kernel holds    the names that the client was told, and those
                                              of which something is known to be lost
    a node that is watched itself             its attributes, and whether it is there

What the source reports while this goes on is part of the gap: it says only where to look
again.  What the client itself changes meanwhile is not told to it: the planner leaves out
names that the client has changed since the source's reading began, which is here the
beginning of it all.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from farwatch.abi import fuse
from farwatch.events import Change, Key, Kind, Mask, Place, Record
from farwatch.export.nodes import Node
from farwatch.session.differences import SLACK, Differences
from farwatch.session.interest import Interest
from farwatch.session.known import Entry, Known, Stamp, entry_of, stamp, stamp_of
from farwatch.session.view import View

PATIENCE = 2.0
"""Seconds after which it is said how far it is; and again after each so many."""
_ROUNDS = 8
"""How often what has changed meanwhile is looked at again: then the disk may be newer than
what was read, and a change be told twice."""
_SLICE = 64
_GONE = frozenset((errno.ESTALE, errno.ENOENT, errno.ENOTDIR))
_OVERFLOW = int(Mask.Q_OVERFLOW)
_NAMES = int(Mask.CREATE | Mask.DELETE | Mask.RENAME)
_BILLION = 1_000_000_000

log = logging.getLogger(__name__)


class Surveyed(Protocol):
    """What is asked of the export, from another thread than the server's."""

    def names(self, directory: Key) -> list[bytes]:
        """All names of a directory.  Raises OSError ESTALE if it is gone."""

    def lookup(self, directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        """Key and attributes of the node at a name.  Raises OSError."""

    def getattr(self, node: Key) -> os.stat_result:
        """The inode's status.  Raises OSError ESTALE if it is gone."""


class Resync:
    """One comparison, from a gap to the changes that make it good."""

    def __init__(self, view: View, interest: Interest, known: Known, export: Surveyed) -> None:
        self._view = view
        self._interest = interest
        self._known = known
        self._export = export
        self._whole: dict[Key, bool] = {}
        """The directories, and whether all their names were known."""
        self._suspects: set[Place] = set()
        self._since = 0
        self._touched: dict[Place, bool] = {}
        self._touched_nodes: dict[Key, None] = {}
        self._found: dict[Key, dict[bytes, Entry]] = {}
        self._unlisted: list[Key] = []
        self._nodes: dict[Key, bytes] = {}
        self._done = self._total = 0
        self._began = self._said = time.monotonic()
        self.clean = 0
        """When there was nothing that had not been noted: ns since the epoch, 0 for never."""
        self.is_lost = False
        """Whether the source has lost something since this began."""
        self.changes: list[Change] = []
        """The difference, when ``run`` is over."""

    def note(self, records: Sequence[Record]) -> None:
        """What the source has reported meanwhile."""
        for mask, _, place, node, new_place in records:
            if mask & _OVERFLOW and node is None:
                self.is_lost = True
            for at in (place, new_place):
                if at is not None:
                    self._touched[at] = self._touched.get(at, False) or bool(mask & _NAMES)
            if node is not None:
                self._touched_nodes[node] = None

    def run(self, read: Callable[[], int]) -> Iterator[None]:
        """Compares, a little at each step; ``read`` has ``note`` hear what there is, and counts.

        Takes the view's lock where it looks at what was told, and never for long.
        """
        with self._view.lock:
            self._whole = self._directories()
            nodes = self._lone_nodes()
            self._suspects = set(self._known.suspects)
            self._since = self._known.since
        self._total = len(self._whole) + len(nodes)
        for key, is_whole in self._whole.items():
            yield from self._survey(key, is_whole=is_whole)
            self._advance()
        for place in self._suspects:
            self._look_at(place)
        for key in nodes:
            self._look_at_node(key)
            self._advance()
            if self._done % _SLICE == 0:
                yield
        for _ in range(_ROUNDS):
            now = time.time_ns()
            if not read() and not (self._touched or self._touched_nodes):
                self.clean = now
                break
            yield
            self._look_again()
        old, new = self._names()
        self.changes = self._compare(old, new, nodes)
        self._conclude()

    def settle(self) -> None:
        """The changes are told: what was found is known.  Called with the view's lock held."""
        self._known.settle(self._found, self._nodes)
        if self.clean:
            self._known.confirm(self.clean)

    # What is compared -------------------------------------------------------------

    def _directories(self) -> dict[Key, bool]:
        found = dict.fromkeys(self._known.directories, True)
        for node in self._view.nodes.by_id.values():
            if node.children and node.key and node.key not in found:
                found[node.key] = False
        for place in self._known.suspects:
            if self._interest.live(place.directory) is not None:
                found.setdefault(place.directory, False)
        return found

    def _lone_nodes(self) -> list[Key]:
        """Nodes that no name of these leads to, and those that are watched themselves."""
        found = dict.fromkeys(self._known.nodes)
        for node in self._view.nodes.by_id.values():
            if node.key and not node.names and not node.dead and node.lookups:
                found[node.key] = None
        return list(found)

    # Looking ----------------------------------------------------------------------

    def _survey(self, key: Key, *, is_whole: bool) -> Iterator[None]:
        """All names of a directory, or those that were told."""
        found = self._found[key] = {}
        try:
            names = self._export.names(key) if is_whole else self._told_names(key)
        except OSError as error:
            if error.errno not in _GONE:
                log.warning("a watched directory cannot be listed: %s", error.strerror)
                self._unlisted.append(key)
                del self._found[key]
            return
        for index, name in enumerate(names):
            entry = self._look(key, name)
            if entry is not None:
                found[name] = entry
            if index % _SLICE == _SLICE - 1:
                yield
        yield

    def _told_names(self, key: Key) -> list[bytes]:
        with self._view.lock:
            node = self._view.nodes.by_key.get(key)
            return list(node.children) if node is not None and node.children else []

    def _look(self, directory: Key, name: bytes) -> Entry | None:
        try:
            return entry_of(*self._export.lookup(directory, name))
        except OSError:
            return None

    def _look_at(self, place: Place) -> None:
        names = self._found.get(place.directory)
        if names is None:
            return
        entry = self._look(*place)
        if entry is not None:
            names[place.name] = entry
        else:
            names.pop(place.name, None)

    def _look_at_node(self, key: Key) -> None:
        status = self._status(key)
        if status is not None:
            self._nodes[key] = status
        else:
            self._nodes.pop(key, None)

    def _look_again(self) -> None:
        """At everything that has been touched meanwhile."""
        places, self._touched = self._touched, {}
        for place, is_of_names in places.items():
            if is_of_names or self._whole.get(place.directory):
                self._suspects.add(place)
            self._look_at(place)
        nodes, self._touched_nodes = self._touched_nodes, {}
        for key in nodes:
            if key in self._nodes:
                self._look_at_node(key)

    def _status(self, key: Key) -> bytes | None:
        try:
            return stamp_of(self._export.getattr(key))
        except OSError:
            return None

    def _stamp(self, key: Key) -> Stamp | None:
        status = self._status(key)
        return stamp(status) if status is not None else None

    # Comparing --------------------------------------------------------------------

    def _names(self) -> tuple[dict[Place, Entry], dict[Place, Entry]]:
        """What was known of names, as of now, and what they were found to hold.

        Without those that the client has changed itself meanwhile: it knows best.
        """
        known, nodes = self._known.directories, self._view.nodes
        told: dict[Key, list[tuple[bytes, Node]]] = {}
        before: dict[Key, dict[bytes, Entry]] = {}
        with self._view.lock:
            own = self._view.changed_places()
            for key in self._found:
                if self._whole[key]:
                    before[key] = dict(known.get(key, {}))
                    continue
                node = nodes.by_key.get(key)
                told[key] = list(node.children.items()) if node and node.children else []
        for key, children in told.items():
            before[key] = {name: self._told(child) for name, child in children}
        old: dict[Place, Entry] = {}
        new: dict[Place, Entry] = {}
        for key, names in self._found.items():
            was = before[key]
            for name, entry in was.items():
                old[Place(key, name)] = entry
            for name, entry in names.items():
                place = Place(key, name)
                if self._whole[key] or name in was or place in self._suspects:
                    new[place] = entry
        for place in own:
            old.pop(place, None)
            new.pop(place, None)
        return old, new

    def _told(self, child: Node) -> Entry:
        """What the client was told of a child: if that is newer than events, it says nothing."""
        if not child.attr:
            return Entry(child.key, child.is_dir)
        _, size, _, _, mtime, ctime, _, mtime_ns, ctime_ns, mode, nlink, uid, gid, *_ = (
            fuse.ATTR.unpack(child.attr)
        )
        told = Stamp(
            mtime * _BILLION + mtime_ns, ctime * _BILLION + ctime_ns, size, mode, uid, gid, nlink
        )
        is_new = told.ctime >= self._since - SLACK
        return Entry(child.key, child.is_dir, b"" if is_new else told.packed())

    def _compare(
        self, old: Mapping[Place, Entry], new: Mapping[Place, Entry], nodes: Sequence[Key]
    ) -> list[Change]:
        comparison = Differences(old, new, self._since, self._stamp)
        changes = comparison.changes()
        if self._unlisted:
            changes.append(Change(Kind.OVERFLOW, None, None))
        named = {entry.key for entry in old.values()}
        named.update(entry.key for entry in new.values())
        with self._view.lock:
            for key in nodes:
                changes += self._of_node(key, comparison, is_named=key in named)
        return changes

    def _of_node(self, key: Key, comparison: Differences, *, is_named: bool) -> list[Change]:
        """What has become of a node that no name tells of."""
        node = self._view.nodes.by_key.get(key)
        packed = self._nodes.get(key)
        if packed is None:
            if is_named or node is None or node.dead:
                return []
            return [Change(Kind.DEATH, None, key, node.is_dir, linked=True)]
        before = self._known.nodes.get(key)
        if is_named or before is None or node is None:
            return []
        place = self._view.place_of(node)
        return comparison.of_content(before, Entry(key, node.is_dir, packed), place)

    # Saying -----------------------------------------------------------------------

    def _advance(self) -> None:
        """One more is compared."""
        self._done += 1
        now = time.monotonic()
        if now - self._said >= PATIENCE:
            self._said = now
            log.info("compared %d of %d directories and files", self._done, self._total)

    def _conclude(self) -> None:
        log.info(
            "%d directories and files compared in %.1f s: %d changes to be told",
            self._total,
            time.monotonic() - self._began,
            len(self.changes),
        )
