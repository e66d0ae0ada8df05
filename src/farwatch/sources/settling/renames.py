"""RENAME of a node from one name to another, and the halves that are left of it.

Two of them may be one exchange; see exchanges.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from farwatch.events import Key, Place, Record
from farwatch.sources.settling import exchanges
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.masks import ISDIR
from farwatch.sources.settling.memory import Anticipated
from farwatch.sources.settling.moves import Moves
from farwatch.sources.settling.names import Name, Names
from farwatch.sources.settling.telling import Telling


class Renames:
    """Reads the records of renames."""

    def __init__(
        self,
        records: Sequence[Record],
        anticipated: Anticipated,
        names: Names,
        moves: Moves,
        ledger: Ledger,
        telling: Telling,
    ) -> None:
        self._records = records
        self._anticipated = anticipated
        self._names = names
        self._moves = moves
        self._ledger = ledger
        self._telling = telling
        # Second halves of exchanges, which were told with the first.
        self._paired: set[int] = set()

    def read(self, index: int, own: bool) -> None:
        """The rename that is the batch's record ``index``."""
        if index in self._paired:
            return
        mask, thread, place, node, new_place = self._records[index]
        if place is None or new_place is None or node is None:
            self._telling.rename(mask, place, node, new_place, own)
            return
        old, new = self._come_to(index, place, new_place)
        if self._anticipated:
            leaves, comes = self._anticipated.not_anticipated_ends(old, node, new)
            if not (leaves and comes):
                self._tell_half(mask, old if leaves else None, node, new if comes else None, own)
                return
        partner = exchanges.other_half(index, self._records)
        other = None if partner is None else self._records[partner].node
        if partner is not None and other is not None:
            self._paired.add(partner)
            self._come_to(partner, new_place, place)
            self._ledger.exchange(mask, old, node, new, other, own)
            return
        self._ledger.make_hold(old, node)
        self._ledger.rename(mask, thread, old, node, new, own)

    def _come_to(self, index: int, place: Place, new_place: Place) -> tuple[Name, Name]:
        """The walk has come to the rename: its names."""
        move = self._records[index]
        if move.mask & ISDIR and move.node is not None:
            self._names.directories.add(move.node)
        self._moves.note(move)
        old, new = self._names.by_place[place], self._names.by_place[new_place]
        old.next_move += 1
        new.next_move += 1
        return old, new

    def _tell_half(
        self, mask: int, old: Name | None, node: Key, new: Name | None, own: bool
    ) -> None:
        """What is left of a rename of which the disk had demanded a half, or all."""
        if old is not None:
            self._ledger.make_hold(old, node)
            self._telling.rename(mask, old.place, node, None, own)
            old.holds = None
        if new is not None:
            self._ledger.make_free(new)
            self._telling.rename(mask, None, node, new.place, own)
            new.holds = node
