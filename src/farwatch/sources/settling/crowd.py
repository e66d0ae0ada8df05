"""The names that several records of a batch touch, and those records.

Merging can have put such records out of order.  A name with one event is in order,
and so is one that was only renamed, unless a node came back to a name that it had
left (then it can have left again, by the same rename).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.entries import Entries
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.masks import DELETE, ISDIR, NAMES, RENAME, STRUCTURE
from farwatch.sources.settling.memory import Memory
from farwatch.sources.settling.moves import Moves, ends
from farwatch.sources.settling.nameless import Nameless
from farwatch.sources.settling.names import UNKNOWN, Holder, Move, Names
from farwatch.sources.settling.renames import Renames
from farwatch.sources.settling.suspects import Suspects
from farwatch.sources.settling.telling import Telling


def crowded(records: Iterable[Record]) -> set[Place]:
    """The names that merging can have put out of order.

    There is none in a batch of a queue that was read at once.
    """
    found: set[Place] = set()
    once: set[Place] = set()
    moves: list[Record] = []
    for record in records:
        mask, _, place, _, _ = record
        if not mask & STRUCTURE or place is None:
            continue
        if mask & RENAME:
            moves.append(record)
        elif place in once or mask & NAMES == NAMES:
            found.add(place)
        else:
            once.add(place)
    if moves:
        found |= once.intersection(ends(moves))
        found.update(ends(_returning(moves)))
    return found


def _returning(moves: Sequence[Record]) -> list[Record]:
    """The renames of nodes that were renamed to where they had been renamed from."""
    if len(moves) < 2:
        return []
    left: set[tuple[Place | None, Key | None]] = set()
    returned: set[Key | None] = set()
    for _, _, place, node, new_place in moves:
        left.add((place, node))
        if (new_place, node) in left:
            returned.add(node)
    return [move for move in moves if move.node in returned] if returned else []


class Crowd:
    """Reads the records of one batch that have to do with each other.

    ``tracked`` are the names that need a state even if nobody renames them,
    ``owned`` those that the server's own threads touch.
    """

    def __init__(
        self,
        memory: Memory,
        records: Sequence[Record],
        disk: Mapping[Place, Key | None],
        told: Callable[[Place], Holder],
        owned: Set[Place],
        nameless: Nameless,
        telling: Telling,
    ) -> None:
        self._own = memory.own
        self._records = records
        self._disk = disk
        self._telling = telling
        self._names = names = Names(told, owned)
        self._moves = moves = Moves()
        self._ledger = ledger = Ledger(memory, disk, names, moves, nameless, telling)
        self._entries = Entries(memory.anticipated, names, ledger, nameless, telling)
        self._renames = Renames(records, memory.anticipated, names, moves, ledger, telling)
        self._suspects = Suspects(memory, disk, names, moves, ledger, telling)

    def survey(self, tracked: Set[Place]) -> None:
        """Give the names their state, and find what they are going to see."""
        names = self._names
        for end in ends(self._moves.seen):
            names.at(end)
        for mask, _, place, node, new_place in self._records:
            if mask & RENAME:
                if place is not None:
                    names.at(place).moves.append(Move(node, leaves=True))
                if new_place is not None:
                    names.at(new_place).moves.append(Move(node, leaves=False))
        for mask, _, place, node, _ in self._records:
            if not mask & NAMES or place is None or node is None:
                continue
            if place in tracked or place in names.by_place:
                names.expect(names.at(place), mask, node)

    def read(self, index: int, mask: int, thread: int, place: Place, node: Key | None) -> None:
        """One record of a name.  The server's own walk along, and tell nothing."""
        own = thread in self._own
        if mask & RENAME:
            self._renames.read(index, own)
        elif node is not None and mask & NAMES and place in self._names.by_place:
            bits = mask & (NAMES | ISDIR) if own else mask
            self._entries.read(bits, thread, self._names.by_place[place], node)
        elif not own:
            self._read_alone(mask, place, node)

    def read_death(self, node: Key) -> None:
        """The node's death: its names have gone by now, so what they owe is told here.

        At the end of the batch a watcher would hear of later changes elsewhere before.
        """
        for name in self._names.about(node):
            self._ledger.let_go(name, node)

    def _read_alone(self, mask: int, place: Place, node: Key | None) -> None:
        """A record of a name that nothing else in the batch touches."""
        if mask & DELETE and mask & ISDIR and node is not None:
            self._telling.as_read(mask & ~DELETE, place, node)
            self._ledger.empty_directory(node)
            mask &= DELETE | ISDIR
        self._telling.as_read(mask, place, node)

    def close(self, judges: bool) -> None:
        """Pay what is owed, demand what the disk says, suspect where it still disagrees."""
        if judges:
            self._suspects.repeat_renames()
        for name in list(self._names.by_place.values()):
            self._ledger.close(name, self._disk.get(name.place, UNKNOWN))
        if judges:
            self._suspects.suspect_all()
        else:
            self._suspects.keep()
