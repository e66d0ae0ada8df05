"""The Settler: what is kept between batches, what needs no walk, what is held back."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from farwatch.events import Change, Key, Kind, Place, Record
from farwatch.sources.settling import exchanges
from farwatch.sources.settling.crowd import crowded
from farwatch.sources.settling.masks import (
    CREATE,
    DELETE,
    DELETE_SELF,
    ISDIR,
    KINDS,
    MIDLIFE,
    NAMES,
    RENAME,
    SELF,
    STRUCTURE,
)
from farwatch.sources.settling.memory import Memory
from farwatch.sources.settling.moves import ends
from farwatch.sources.settling.names import UNKNOWN, Holder
from farwatch.sources.settling.walk import walk

_FEW = 8
"""Records in a batch that is looked at for being plain."""


class Settler:
    """Settles one source's batches, in the order in which they were read.

    ``own`` holds the thread ids of the server that serves the client.  ``is_awaited`` says
    whether a name to which a node is renamed may hold another one, whose link count is to be
    told in its place: before MOVE_SELF.  ``believed`` is what a name holds, if that is all that
    can be said: when ``told`` says UNKNOWN.  ``is_elsewhere`` says of a node that it is known
    not to be at a name, having as many others as links.
    """

    def __init__(
        self,
        own: Container[int] = (),
        is_awaited: Callable[[Place, Key | None], bool] = lambda place, node: False,
        believed: Callable[[Place], Key | None] = lambda place: None,
        is_elsewhere: Callable[[Place, Key], bool] = lambda place, node: False,
    ) -> None:
        self._memory = Memory(own, believed, is_elsewhere)
        self._is_awaited = is_awaited
        self.held: list[Record] = []
        """A whole batch, when it ends between the two halves of an exchange, or between a
        rename and the awaited link count of what that replaced."""
        self._held_disk: dict[Place, Key | None] = {}
        self.awaits_count = False
        """Whether it is held back for a link count, which is what its thread does next."""

    @property
    def carrying(self) -> bool:
        """Whether something waits for its explanation; then settle again soon, with flush."""
        return bool(self._memory.carried or self.held or self._memory.suspects)

    def awaits_half(
        self, at: Callable[[Place], Key | None], told: Callable[[Place], Holder]
    ) -> bool:
        """Whether what is held back is half an exchange that the disk says is whole.

        Then it is too early for ``flush``.  ``at`` looks at the disk, ``told`` is as for
        settle().
        """
        return exchanges.awaited(self.held, at, self._occupant(told))

    def places(self, records: Sequence[Record]) -> set[Place]:
        """The names whose state on the disk settle() has to be told.

        Those are the names that merging can have put out of order, and those that
        are suspected from before.
        """
        if self.held:
            records = [*self.held, *records]
        found = crowded(records)
        for about in self._memory.suspects.values():
            found.update(ends(about))
        return found

    def settle(
        self,
        records: Sequence[Record],
        disk: Mapping[Place, Key | None],
        told: Callable[[Place], Holder],
        *,
        flush: bool = False,
    ) -> list[Change]:
        """The changes of one batch, ordered.

        ``disk`` says what the names of places() hold, read after the records
        were; see collect().  ``told(place)`` is what the client had been told, before
        this batch, that the name holds.  ``flush`` says that the queue has been
        empty for a while: what is carried is not going to be explained.
        """
        if len(records) <= _FEW and not disk:
            changes = self._plain(records)
            if changes is not None:
                return changes
        was_held = bool(self.held)
        if self.held:
            records = [*self.held, *records]
            disk = {**self._held_disk, **disk}
            self.held, self._held_disk, self.awaits_count = [], {}, False
        if not flush:
            occupant = self._occupant(told)
            is_half = exchanges.ends_in_half(records, disk, occupant, self._memory.own)
            if is_half or (not was_held and self._ends_in_replacing(records, told)):
                self.held, self._held_disk = list(records), dict(disk)
                self.awaits_count = not is_half
                return []
        changes = walk(self._memory, records, disk, told, flush)
        if flush:
            self._memory.expect_nothing()
        return changes

    def _occupant(self, told: Callable[[Place], Holder]) -> Callable[[Place], Holder]:
        """What a name may hold to which something is renamed: to wait in vain does no harm."""
        believed = self._memory.believed

        def occupant(place: Place) -> Holder:
            holder = told(place)
            if holder is UNKNOWN:
                key = believed(place)
                return UNKNOWN if key is None else key
            return holder

        return occupant

    def _ends_in_replacing(
        self, records: Sequence[Record], told: Callable[[Place], Holder]
    ) -> bool:
        """Whether a thread's last is a rename onto something of which more is awaited."""
        last = {record.thread: record for record in records}
        for mask, thread, place, node, new_place in last.values():
            if thread in self._memory.own:
                continue
            if mask & RENAME and new_place is not None and self._is_awaited(new_place, node):
                is_half = any(
                    other.place == new_place and other.new_place == place for other in records
                )
                if not is_half and told(new_place) is UNKNOWN:
                    return True
        return False

    def lone(self, record: Record) -> list[Change] | None:
        """The changes of a batch of one record; None if it may be one with others.

        Then it is to be settled as any batch.
        """
        if record.mask & NAMES == NAMES or record.place is None:
            return None
        return self._plain((record,))

    def is_own(self, records: Sequence[Record]) -> bool:
        """Whether a batch tells nothing, being all of the server's own doing, and plain.

        Nothing waits from before, and no name has more than one event, nor a rename.  Then
        settle() would tell nothing and remember nothing: it need not be asked.  That is what
        a queue gives that is read after each change that the client makes.
        """
        memory = self._memory
        if self.held or not memory.is_clear:
            return False
        own, departed = memory.own, memory.departed
        once: set[Place] = set()
        for mask, thread, place, node, _ in records:
            dies = place.directory if place is not None and place.name == SELF else node
            if thread not in own or (mask & DELETE_SELF and dies in departed):
                return False
            names = mask & STRUCTURE
            if names:
                if place is None or names & (names - 1) or names == RENAME or place in once:
                    return False
                once.add(place)
        return True

    def _plain(self, records: Sequence[Record]) -> list[Change] | None:
        """The changes of a few records that need no walk; None if they do.

        Nothing waits from before, and each is of a name (not a rename, not the
        server's), with at most one event of its own.  That is what a queue gives that is
        read at once, and there the time until the event is told counts.
        """
        memory = self._memory
        if self.held or not memory.is_clear:
            return None
        changes: list[Change] = []
        once: set[Place] = set()
        for mask, thread, place, node, _ in records:
            names = mask & STRUCTURE
            if place is None or place.name == SELF or thread in memory.own:
                return None
            if names:
                if names & (names - 1) or names == RENAME or place in once:
                    return None
                once.add(place)
            is_dir = bool(mask & ISDIR)
            if names == CREATE:
                changes.append(Change(Kind.CREATE, place, node, is_dir, thread=thread))
            changes += [
                Change(kind, place, node, is_dir, thread=thread) for kind in KINDS[mask & MIDLIFE]
            ]
            if names == DELETE:
                if node is not None:
                    memory.departed.add(node)
                changes.append(Change(Kind.DELETE, place, node, is_dir, thread=thread))
        return changes
