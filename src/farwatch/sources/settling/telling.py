"""What is told of one batch; and taken back, where the server changed a name itself.

A name that the server's own threads changed loses what is told of it in this
batch: the client has already seen later.  Other nodes' share in it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from farwatch.events import Change, Key, Kind, Place
from farwatch.sources.settling.masks import CREATE, DELETE, ISDIR, KINDS, MIDLIFE

_tuple = tuple.__new__
"""Makes a NamedTuple in half the time that its own constructor takes."""


class Telling:
    """The changes of one batch, so far.

    ``thread`` did what is told now.  ``departed`` learns the nodes of the DELETEs.
    ``owned`` are the names that the server's threads touch: what is told of those is
    noted, because it may have to be taken back.
    """

    def __init__(self, departed: set[Key], owned: Set[Place]) -> None:
        self.thread = 0
        self._departed = departed
        self._owned = owned
        self._changes: list[Change] = []
        self._linking: set[Key | None] = set()
        # What was told of each owned name, what a change that was told became, and
        # what a rename that was told replaced: by its index.
        self._mentions: dict[Place, list[int]] = {}
        self._instead: dict[int, list[Change]] = {}
        self._replaced_by: dict[int, Key] = {}

    @property
    def position(self) -> int:
        """The index of the next change that is told."""
        return len(self._changes)

    def mark_as_link(self, node: Key) -> None:
        """From now on its CREATEs are further names."""
        self._linking.add(node)

    # Telling

    def as_read(self, mask: int, place: Place, node: Key | None) -> None:
        """A whole record of a name, in the order in which a file lives."""
        if mask & CREATE:
            self.create(place, node, bool(mask & ISDIR), self.thread)
        if mask & MIDLIFE:
            self.midlife(mask, place, node)
        if mask & DELETE:
            self.delete(place, node, bool(mask & ISDIR), self.thread)

    def create(self, place: Place, node: Key | None, is_dir: bool, thread: int) -> None:
        """A name appeared."""
        linked = node in self._linking
        if self._owned:
            self._mention(place)
        self._changes.append(
            _tuple(Change, (Kind.CREATE, place, node, is_dir, None, None, linked, thread))
        )

    def midlife(self, mask: int, place: Place | None, node: Key | None) -> None:
        """What happened to a file between CREATE and DELETE."""
        is_dir, thread = bool(mask & ISDIR), self.thread
        for kind in KINDS[mask & MIDLIFE]:
            if self._owned:
                self._mention(place)
            self._changes.append(
                _tuple(Change, (kind, place, node, is_dir, None, None, False, thread))
            )

    def delete(self, place: Place, node: Key | None, is_dir: bool, thread: int) -> None:
        """A name went away."""
        if node is not None:
            self._departed.add(node)
        if self._owned:
            self._mention(place)
        self._changes.append(
            _tuple(Change, (Kind.DELETE, place, node, is_dir, None, None, False, thread))
        )

    def rename(
        self, mask: int, place: Place | None, node: Key | None, new_place: Place | None, own: bool
    ) -> None:
        """A rename, or a half of one; if the server did it, that it did."""
        if own:
            self.supersede(place)
            self.supersede(new_place)
            return
        is_dir = bool(mask & ISDIR)
        self._mention(place, new_place)
        self._changes.append(
            Change(Kind.RENAME, place, node, is_dir, new_place, thread=self.thread)
        )

    def exchange(
        self, mask: int, place: Place, node: Key, new_place: Place, other: Key, own: bool
    ) -> None:
        """Two nodes changed places; if the server did it, that it did."""
        if own:
            self.supersede(place)
            self.supersede(new_place)
            return
        is_dir = bool(mask & ISDIR)
        self._mention(place, new_place)
        self._changes.append(
            Change(Kind.EXCHANGE, place, node, is_dir, new_place, other, thread=self.thread)
        )

    def nameless(
        self, kind: Kind, node: Key | None, is_dir: bool, thread: int, *, linked: bool = False
    ) -> None:
        """Of an inode alone: a link count, a death; or of none: an overflow."""
        self._changes.append(Change(kind, None, node, is_dir, linked=linked, thread=thread))

    # Taking back

    def replaces(self, position: int, node: Key) -> None:
        """The rename that is told there replaced the node."""
        self._replaced_by[position] = node

    def take_back(self, position: int) -> None:
        """What is told there is not told."""
        self._instead[position] = []

    def supersede(self, place: Place | None) -> None:
        """The server changed this name itself: what is told of it is out of date."""
        if place is None:
            return
        for index in self._mentions.pop(place, ()):
            before = self._instead.get(index, [self._changes[index]])
            after = [kept for change in before for kept in _without(change, place)]
            if index in self._replaced_by and self._changes[index].new_place == place:
                replaced = self._replaced_by.pop(index)
                thread = self._changes[index].thread
                after.append(Change(Kind.DELETE, None, replaced, thread=thread))
            self._instead[index] = after

    def _mention(self, *places: Place | None) -> None:
        for place in places:
            if place is not None and place in self._owned:
                self._mentions.setdefault(place, []).append(len(self._changes))

    def result(self) -> list[Change]:
        """What is told, after all."""
        for index, node in self._replaced_by.items():
            self._changes[index] = self._changes[index]._replace(other=node)
        if not self._instead:
            return self._changes
        instead = self._instead
        return [
            change
            for index, told in enumerate(self._changes)
            for change in instead.get(index, (told,))
        ]


def _without(change: Change, place: Place) -> Iterator[Change]:
    """What is left of a change when one of its names is not to be spoken of."""
    kind = change.kind
    if kind is Kind.EXCHANGE:
        yield from _without_exchanged(change, place)
    elif kind is Kind.RENAME:
        old = None if change.place == place else change.place
        new = None if change.new_place == place else change.new_place
        if old is not None or new is not None:
            yield change._replace(place=old, new_place=new)
    elif change.place != place:
        yield change
    elif kind is not Kind.CREATE:
        yield change._replace(place=None)


def _without_exchanged(change: Change, place: Place) -> Iterator[Change]:
    """An exchange of which one name is not to be spoken of: two halves of renames."""
    if change.place == place:
        here, came, went = change.new_place, change.node, change.other
    else:
        here, came, went = change.place, change.other, change.node
    yield Change(Kind.RENAME, here, went, thread=change.thread)
    yield Change(Kind.RENAME, None, came, new_place=here, thread=change.thread)
