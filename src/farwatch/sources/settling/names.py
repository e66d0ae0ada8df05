"""What a name holds, what it owes, and what was seen of it: the state of one batch.

Only what is known is here, and what follows from it; ledger.py changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple

from farwatch.events import Key, Place
from farwatch.sources.settling.masks import CREATE, DELETE


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""The client was never told what a name holds, nor that it is free."""

Holder = Key | None | Literal[Unknown.UNKNOWN]
"""What a name holds: a node, nothing, or nobody knows."""

Bit = tuple[int, Key]
"""A CREATE or DELETE bit, and the node that it is about."""


class Move(NamedTuple):
    """A rename, as one of its two names sees it."""

    node: Key | None
    leaves: bool


class Name:
    """One name during one batch: what it holds, what is owed to it, what was seen."""

    __slots__ = ("holds", "in_batch", "moves", "next_move", "owed", "place", "seen")

    def __init__(self, place: Place, holds: Holder) -> None:
        self.place = place
        self.holds: Holder = holds
        # The values say which thread did it.
        self.owed: dict[Bit, int] = {}
        self.seen: dict[Bit, int] = {}
        # All of the batch, also what the walk has not come to.
        self.in_batch: dict[Key, int] = {}
        self.moves: list[Move] = []
        self.next_move = 0

    def see(self, bits: int, node: Key, thread: int) -> None:
        """Note bits that were read."""
        for bit in (CREATE, DELETE):
            if bits & bit:
                self.seen[bit, node] = thread

    def owe(self, bits: int, node: Key, thread: int) -> None:
        """Note bits that were read and not told."""
        for bit in (CREATE, DELETE):
            if bits & bit:
                self.owed[bit, node] = thread

    def can(self, bit: int, node: Key) -> bool:
        """Whether some record of this batch says that it happened."""
        return (bit, node) in self.seen

    def can_leave_later(self, node: Key) -> bool:
        """Whether a record of the batch may still take ``node`` away from the name."""
        return self.next_move < len(self.moves) or bool(self.in_batch.get(node, 0) & DELETE)

    def is_left_by_rename(self, node: Key) -> bool:
        """Whether the next rename that touches the name takes ``node`` away from it.

        In an exchange the other node's arrival is reported before.
        """
        coming = self.moves[self.next_move : self.next_move + 2]
        if coming and not coming[0].leaves and coming[0].node != node:
            del coming[0]
        return bool(coming) and coming[0] == (node, True)

    def next_debt(self, target: Holder) -> Bit:
        """The debt that can be paid now; what the disk holds comes last."""
        holds = self.holds
        if holds is not None and holds is not UNKNOWN and (DELETE, holds) in self.owed:
            return DELETE, holds
        return min(self.owed, key=lambda debt: (debt[0] != CREATE, debt[1] == target))

    def can_pay(self, bit: int, node: Key) -> bool:
        """Whether the name can live it: come if it is away, go if it is there."""
        holds = self.holds
        if holds is not None and holds is not UNKNOWN and not self.can(DELETE, holds):
            return False
        return bit == CREATE or holds == node or self.can(CREATE, node)


class Names:
    """The names of one batch that need a state, and which nodes are directories.

    ``told`` says what the client had been told before the batch, ``owned`` are the
    names that the server's own threads touch.
    """

    def __init__(self, told: Callable[[Place], Holder], owned: Container[Place]) -> None:
        self.by_place: dict[Place, Name] = {}
        self.directories: set[Key] = set()
        self._inside: dict[Key, list[Name]] = {}
        self._about: dict[Key, list[Name]] = {}
        self._told = told
        self._owned = owned

    def at(self, place: Place) -> Name:
        """The name, which has a state from now on."""
        name = self.by_place.get(place)
        if name is None:
            # A client knows its own changes before their records are read.
            holds = UNKNOWN if place in self._owned else self._told(place)
            name = self.by_place[place] = Name(place, holds)
            self._inside.setdefault(place.directory, []).append(name)
        return name

    def expect(self, name: Name, mask: int, node: Key) -> None:
        """A record of the batch, which the walk may not have come to, is about both."""
        if node not in name.in_batch:
            self._about.setdefault(node, []).append(name)
        name.in_batch[node] = name.in_batch.get(node, 0) | mask

    def about(self, node: Key) -> Sequence[Name]:
        """Those of which records of the batch, other than renames, say this node."""
        return self._about.get(node, ())

    def inside(self, directory: Key) -> Sequence[Name]:
        """Those of them that are in the directory."""
        return self._inside.get(directory, ())
