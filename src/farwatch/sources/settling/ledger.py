"""What names hold is kept true, and what they owe is paid.

Everything here tells what the name has lived through, as far as records say so:
what nobody reported is not invented, the name is only taken to be as it has to be.

    make_free     before something comes: what the name holds went
    leave_again   the same, if that was a rename that was seen once
    make_hold     before something goes: it came, by a CREATE or by a rename seen before
    make_way      before a rename: a DELETE that is owed is paid, else it replaces
    pay_before    before something comes to stay
    close         at the end of the batch, or before the directory goes
"""

from __future__ import annotations

from collections.abc import Mapping

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.masks import CREATE, DELETE, ISDIR
from farwatch.sources.settling.memory import Memory
from farwatch.sources.settling.moves import Moves
from farwatch.sources.settling.nameless import Nameless
from farwatch.sources.settling.names import UNKNOWN, Holder, Name, Names
from farwatch.sources.settling.telling import Telling


class Ledger:
    """Changes the names of one batch, and tells what happened to them."""

    def __init__(
        self,
        memory: Memory,
        disk: Mapping[Place, Key | None],
        names: Names,
        moves: Moves,
        nameless: Nameless,
        telling: Telling,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._names = names
        self._moves = moves
        self._nameless = nameless
        self._telling = telling

    # One event of a name

    def do(self, name: Name, bit: int, node: Key, thread: int) -> None:
        """Tell that ``node`` came to the name, or left it."""
        is_dir = node in self._names.directories
        if bit == DELETE and is_dir:
            self.empty_directory(node)
        name.holds = node if bit == CREATE else None
        if thread in self._memory.own:
            self._telling.supersede(name.place)
        elif bit == CREATE:
            self._telling.create(name.place, node, is_dir, thread)
        else:
            self._telling.delete(name.place, node, is_dir, thread)

    def _pay(self, name: Name, bit: int, node: Key) -> None:
        """Tell what is owed, or what a record says and may have happened twice."""
        thread = name.owed.pop((bit, node), name.seen.get((bit, node), 0))
        self.do(name, bit, node, thread)

    def demand(self, name: Name, bit: int, node: Key) -> None:
        """Tell what the disk says, once more; its record may be on its way."""
        self._telling.mark_as_link(node)
        self._pay(name, bit, node)
        self._memory.anticipated[name.place] = (bit, node)

    # What has to be so before a record

    def make_free(self, name: Name) -> None:
        """Let go what the name holds, as far as a record says that it went."""
        gone = name.holds
        if gone is None or gone is UNKNOWN:
            return
        if name.can(DELETE, gone):
            self._pay(name, DELETE, gone)
        name.holds = None

    def let_go(self, name: Name, node: Key) -> None:
        """Before the death of a node: that it left the name, if that is owed."""
        is_last = name.next_move == len(name.moves)
        if is_last and name.holds == node and (DELETE, node) in name.owed:
            self._pay(name, DELETE, node)

    def make_hold(self, name: Name, node: Key) -> None:
        """Make the name hold the node, as far as a record says that it came."""
        if name.holds == node:
            return
        if name.holds is not UNKNOWN and name.can(CREATE, node):
            self.make_free(name)
            self._telling.mark_as_link(node)
            self._pay(name, CREATE, node)
        elif name.holds is not UNKNOWN:
            self._move_here(name, node)
        name.holds = node

    def make_way(self, name: Name, node: Key, thread: int, own: bool, *, is_dir: bool) -> None:
        """Before a rename: what the name holds is deleted, if that is owed, or is replaced."""
        gone = name.holds
        if gone is None:
            return
        if gone == node:
            # Else the client has looked early, and seen what this rename brings.
            if name.can(DELETE, node):
                self._pay(name, DELETE, node)
        elif gone is not UNKNOWN and (DELETE, gone) in name.owed:
            self.make_free(name)
        elif not own:
            if gone is not UNKNOWN:
                self.empty_directory(gone)
            self._nameless.expect_replaced(thread, gone, name.place, is_dir=is_dir)

    def pay_before(self, name: Name, node: Key) -> None:
        """Before a node comes to a free name to stay: it is the last chance to pay."""
        if name.owed and not name.can_leave_later(node):
            self._pay_all(name, None)
            self.make_free(name)

    def empty_directory(self, directory: Key) -> None:
        """Before a directory goes: everything in it has gone."""
        for name in self._names.inside(directory):
            self.close(name, None)

    # Renames

    def rename(self, mask: int, thread: int, old: Name, node: Key, new: Name, own: bool) -> None:
        """A rename of what the one name holds to the other."""
        self.make_way(new, node, thread, own, is_dir=bool(mask & ISDIR))
        self._telling.rename(mask, old.place, node, new.place, own)
        old.holds, new.holds = None, node

    def exchange(self, mask: int, old: Name, node: Key, new: Name, other: Key, own: bool) -> None:
        """Two names exchange what they hold."""
        self.make_hold(old, node)
        self.make_hold(new, other)
        self._telling.exchange(mask, old.place, node, new.place, other, own)
        old.holds, new.holds = other, node

    def repeat(self, mask: int, thread: int, old: Name, node: Key, new: Name) -> None:
        """The same rename again, or the same exchange."""
        own = thread in self._memory.own
        self._telling.thread = thread
        for other in self._moves.seen:
            swapped = other.place == new.place and other.new_place == old.place
            if swapped and other.node == new.holds and self._disk.get(old.place) == new.holds:
                assert other.node is not None
                self.exchange(mask, old, node, new, other.node, own)
                return
        self.rename(mask, thread, old, node, new, own)

    def _move_here(self, name: Name, node: Key) -> None:
        """If a rename was seen that brings the node to the name, it happened twice."""
        for mask, thread, place, _, _ in self._moves.bringing(node, name.place):
            old = self._names.by_place[place] if place is not None else name
            if old.holds == node and old is not name:
                self.make_free(name)
                self.repeat(mask, thread, old, node, name)
                return

    def may_leave_again(self, name: Name) -> bool:
        """Whether what the name holds was seen to leave it by a rename: it came back since."""
        return bool(self._leaving(name))

    def leave_again(self, name: Name) -> None:
        """Before something comes: what the name holds left it, by the same rename again."""
        moves = self._leaving(name)
        if moves:
            mask, thread, _, node, new_place = moves[-1]
            assert node is not None
            assert new_place is not None
            self.repeat(mask, thread, name, node, self._names.by_place[new_place])

    def _leaving(self, name: Name) -> list[Record]:
        node = name.holds
        if node is None or node is UNKNOWN or name.can(DELETE, node):
            return []
        moves = self._moves.taking(node, name.place)
        return [move for move in moves if move.new_place is not None]

    # The end

    def close(self, name: Name, target: Holder) -> None:
        """At the end: pay what is owed, then demand what the disk says."""
        self._pay_all(name, target)
        holds = name.holds
        if target is UNKNOWN or holds is UNKNOWN or holds == target:
            return
        if holds is not None and name.can(DELETE, holds):
            self.demand(name, DELETE, holds)
        if name.holds is None and target is not None and self._may_be_linked(name, target):
            self.demand(name, CREATE, target)

    def _pay_all(self, name: Name, target: Holder) -> None:
        """Pay each debt once, in whatever order the name can live them."""
        owed = name.owed
        while owed:
            bit, node = name.next_debt(target)
            if name.can_pay(bit, node):
                if name.holds != node:
                    self.make_hold(name, node)
                if (bit, node) in owed:
                    self.make_free(name)
                if (bit, node) in owed:
                    self.make_hold(name, node)
            owed.pop((bit, node), None)

    def _may_be_linked(self, name: Name, node: Key) -> bool:
        """Whether a CREATE can hide a second one: a link, whose count was reported."""
        return name.can(CREATE, node) and self._nameless.is_counted_by_anyone(node)
