"""Where a change of a node itself is replayed: the table at the top, for one node.

The name that the event says is taken if the client can have been told nothing else of
it; from then on it has been told.  A directory's event may say none: then the name that
the client knows it by is taken, or that which it leaves later in the batch, or the disk's.
"""

from __future__ import annotations

from farwatch.events import Change, Key, Place
from farwatch.export.nodes import ROOT_ID
from farwatch.session.planning.ground import Ground, Target
from farwatch.session.planning.lifetimes import Lifetimes

_ITSELF = b"."
"""The name that an event of a directory has which does not say where that is."""


class Targets:
    """Finds the targets of changes."""

    def __init__(self, ground: Ground, lifetimes: Lifetimes) -> None:
        self._ground = ground
        self._lifetimes = lifetimes

    def find(self, change: Change) -> Target | None:
        """Where to replay a change of a node; None if nobody is to be told."""
        key, place, ground = change.node, change.place, self._ground
        if key is None:
            return None
        pinned = self._lifetimes.through_pin(key)
        if pinned is not None:
            return pinned
        if self._lifetimes.is_gone(key):
            return None
        if change.is_dir:
            return self._directory(key, place)
        directory = ground.directory(place) if place is not None else None
        known = ground.interest.live(key)
        if place is not None and directory is not None and not ground.is_outdated(place):
            held = ground.nodes.child(directory, place.name)
            if held is None or held.key == key:
                node = ground.obtain(key, change.is_dir, place)
                # What is open under a name that it has left is still said to be there.
                if not ground.nodes.has_left(directory, place.name, node) and (
                    held is node or ground.is_there(place, node)
                ):
                    ground.nodes.tell(directory, place.name, node)
                return Target(node, (directory, place.name))
        if known is None or known.dead:
            return None
        return Target(known, (known, b"")) if known.is_dir else ground.hide(known)

    def _directory(self, key: Key, named: Place | None) -> Target | None:
        """A directory's own change is told by its handle: its name is looked for.

        A source by marks says under which name its parent was told; an export by pins may not
        find the directory any more, because the client has forgotten it.
        """
        ground = self._ground
        node = ground.interest.live(key)
        if node is not None and node.id == ROOT_ID:
            return Target(node, (node, b""))
        if node is not None and node.names:
            return Target(node, node.names[0])
        place = ground.batch.place_of(key) or ground.disk.place_of(key)
        if place is None and named is not None and named.name != _ITSELF:
            place = named
        directory = ground.directory(place) if place is not None else None
        if place is not None and directory is not None:
            held = ground.nodes.child(directory, place.name)
            if held is None or held.key == key:
                found = ground.obtain(key, True, place)
                ground.nodes.tell(directory, place.name, found)
                return Target(found, (directory, place.name))
        return Target(node, (node, b"")) if node is not None else None
