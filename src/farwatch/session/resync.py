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

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from farwatch.abi import fuse
from farwatch.events import Change, Key, Kind, Mask, Place, Record
from farwatch.export.nodes import Node
from farwatch.session.differences import SLACK, Differences
from farwatch.session.interest import Interest
from farwatch.session.known import Known
from farwatch.session.stamps import Entry, Stamp
from farwatch.session.survey import Survey, Surveyed
from farwatch.session.view import View

PATIENCE = 2.0
"""Seconds after which it is said how far it is; and again after each so many."""
_ROUNDS = 8
"""How often what has changed meanwhile is looked at again: then the disk may be newer than
what was read, and a change be told twice."""
_SLICE = 64
_OVERFLOW = int(Mask.Q_OVERFLOW)
_NAMES = int(Mask.CREATE | Mask.DELETE | Mask.RENAME)
_BILLION = 1_000_000_000

log = logging.getLogger(__name__)


class Resync:
    """One comparison, from a gap to the changes that make it good."""

    def __init__(self, view: View, interest: Interest, known: Known, export: Surveyed) -> None:
        self._view = view
        self._interest = interest
        self._known = known
        self._survey = Survey(export)
        self._whole: dict[Key, bool] = {}
        """The directories, and whether all their names were known."""
        self._suspects: set[Place] = set()
        self._since = 0
        self._touched: dict[Place, bool] = {}
        self._touched_nodes: dict[Key, None] = {}
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
            yield from self._survey.look_into(key, None if is_whole else self._told_names(key))
            self._advance()
        for place in self._suspects:
            self._survey.look_at(place)
        for key in nodes:
            self._survey.look_at_node(key)
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
        self._known.settle(self._survey.found, self._survey.nodes)
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

    def _told_names(self, key: Key) -> list[bytes]:
        with self._view.lock:
            node = self._view.nodes.by_key.get(key)
            return list(node.children) if node is not None and node.children else []

    def _look_again(self) -> None:
        """At everything that has been touched meanwhile."""
        places, self._touched = self._touched, {}
        for place, is_of_names in places.items():
            if is_of_names or self._whole.get(place.directory):
                self._suspects.add(place)
            self._survey.look_at(place)
        nodes, self._touched_nodes = self._touched_nodes, {}
        for key in nodes:
            if key in self._survey.nodes:
                self._survey.look_at_node(key)

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
            for key in self._survey.found:
                if self._whole[key]:
                    before[key] = dict(known.get(key, {}))
                    continue
                node = nodes.by_key.get(key)
                told[key] = list(node.children.items()) if node and node.children else []
        for key, children in told.items():
            before[key] = {name: self._told(child) for name, child in children}
        old: dict[Place, Entry] = {}
        new: dict[Place, Entry] = {}
        for key, names in self._survey.found.items():
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
        comparison = Differences(old, new, self._since, self._survey.stamp)
        changes = comparison.changes()
        if self._survey.unlisted:
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
        packed = self._survey.nodes.get(key)
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
