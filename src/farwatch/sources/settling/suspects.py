"""Renames that merging may hide: the same node, the same two names, once more.

A name from which, or to which, such a rename can have gone is suspected when the
disk disagrees at the end of a batch.  The next batch may explain it; if it does
not, the renames are told again, or each end of them on its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.masks import CREATE, DELETE, ISDIR, RENAME
from farwatch.sources.settling.memory import Memory
from farwatch.sources.settling.moves import Moves
from farwatch.sources.settling.names import UNKNOWN, Name, Names
from farwatch.sources.settling.telling import Telling


class Suspects:
    """The names that the batch before left suspected, and those of this one."""

    def __init__(
        self,
        memory: Memory,
        disk: Mapping[Place, Key | None],
        names: Names,
        moves: Moves,
        ledger: Ledger,
        telling: Telling,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._names = names
        self._moves = moves
        self._ledger = ledger
        self._telling = telling
        self._before, memory.suspects = memory.suspects, {}
        for move in dict.fromkeys(move for about in self._before.values() for move in about):
            if move.mask & RENAME:
                if move.mask & ISDIR and move.node is not None:
                    names.directories.add(move.node)
                moves.note(move)

    def keep(self) -> None:
        """A batch of nothing explains nothing: they stay as they are."""
        self._memory.suspects = self._before

    # What the batch has not explained, before its names are closed

    def repeat_renames(self) -> None:
        """A node that came back to a name may have left it as it did before."""
        if not self._before:
            return
        moves: dict[Key, list[Record]] = {}
        for move in self._moves.seen:
            if move.node is not None:
                moves.setdefault(move.node, []).append(move)
        for node, taken in moves.items():
            self._take_home(node, taken)

    def _take_home(self, node: Key, taken: list[Record]) -> None:
        """Repeat the renames that lead from where a node is to where the disk has it."""
        disk, names = self._disk, self._names.by_place
        astray = [
            move.place
            for move in taken
            if move.place in self._before
            and names[move.place].holds == node
            and disk.get(move.place, node) != node
        ]
        if not astray:
            return
        at, way = astray[0], list[Record]()
        for move in taken:
            if move.place == at and move.new_place is not None and disk.get(at) != node:
                way.append(move)
                at = move.new_place
        if disk.get(at) != node or names[at].holds == node:
            return
        for mask, thread, place, _, new_place in way:
            if place is not None and new_place is not None:
                self._memory.anticipated[place] = (RENAME, node)
                self._memory.anticipated[new_place] = (RENAME, node)
                self._ledger.repeat(mask, thread, names[place], node, names[new_place])

    # What is suspected, after its names are closed

    def suspect_all(self) -> None:
        """Look at each name, if any was renamed."""
        if self._moves.seen:
            for name in list(self._names.by_place.values()):
                self._suspect(name)

    def _suspect(self, name: Name) -> None:
        """At the very end: the disk disagrees, and a rename may be hidden.

        It may also be something of which no record has been read: wait for one more
        batch.  If that explains nothing, tell each end of the name on its own.
        """
        place, target, holds = name.place, self._disk.get(name.place, UNKNOWN), name.holds
        if target is UNKNOWN or holds is UNKNOWN or holds == target:
            return
        about = self._moves.touching(place)
        if place not in self._before:
            if about and target is not None and name.can(CREATE, target):
                about.append(Record(CREATE, name.seen[CREATE, target], place, target))
            if about:
                self._memory.suspects[place] = about
            return
        if holds is not None:
            if any(move.place == place and move.node == holds for move in about):
                self._demand_half(about[0], name, holds, None)
            else:
                name.see(DELETE, holds, about[0].thread)
                self._ledger.demand(name, DELETE, holds)
        if any(move.new_place == place and move.node == target for move in about):
            self._demand_half(about[0], name, target, target)
        for mask, thread, _, node, _ in self._before[place]:
            if name.holds is None and mask & CREATE and node is not None and node == target:
                name.see(CREATE, node, thread)
                self._ledger.demand(name, CREATE, node)

    def _demand_half(self, move: Record, name: Name, node: Key | None, holds: Key | None) -> None:
        """Half of a rename, if that is all that can be known."""
        if node is None:
            return
        self._telling.thread = move.thread
        is_dir = ISDIR if node in self._names.directories else 0
        old, new = (name.place, None) if holds is None else (None, name.place)
        self._telling.rename(is_dir, old, node, new, move.thread in self._memory.own)
        self._memory.anticipated[name.place] = (RENAME, node)
        name.holds = holds
