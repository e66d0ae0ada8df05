"""What is kept between batches, and what the disk demanded before its record was read.

A whole batch that is held back is the Settler's own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.masks import DELETE, RENAME
from farwatch.sources.settling.names import UNKNOWN, Bit, Name


class Anticipated(dict[Place, Bit]):
    """What the disk demanded of each name, and was told, before its record was read.

    The record, when it comes, is not told again: not if the name is as it says.
    """

    def not_anticipated(self, bits: int, name: Name, node: Key) -> int:
        """The bits of a CREATE or DELETE without the one that was demanded."""
        if not self:
            return bits
        bit, about = self.get(name.place, (0, None))
        if not bits & bit or about != node:
            return bits
        del self[name.place]
        is_so = name.holds != node if bit == DELETE else name.holds in (node, UNKNOWN)
        return bits & ~bit if is_so else bits

    def not_anticipated_ends(self, old: Name, node: Key, new: Name) -> tuple[bool, bool]:
        """Which of a rename's halves are still to be told: that it left, that it came."""
        leaves = comes = True
        if self.get(old.place) == (RENAME, node):
            del self[old.place]
            leaves = old.holds == node
        if self.get(new.place) == (RENAME, node):
            del self[new.place]
            comes = new.holds != node
        return leaves, comes


class Carried(NamedTuple):
    """Bits of inode-only records that wait, and how many records were read since the first."""

    waits: int
    age: int


class Memory:
    """The state of a Settler from one batch to the next; see the package's docstring."""

    __slots__ = (
        "anticipated",
        "believed",
        "carried",
        "departed",
        "expected",
        "is_elsewhere",
        "own",
        "perhaps_replaced",
        "suspects",
    )

    def __init__(
        self,
        own: Container[int],
        believed: Callable[[Place], Key | None] = lambda place: None,
        is_elsewhere: Callable[[Place, Key], bool] = lambda place, node: False,
    ) -> None:
        self.own = own
        self.believed = believed
        self.is_elsewhere = is_elsewhere
        # By thread and node.
        self.carried: dict[tuple[int, Key], Carried] = {}
        # By thread: which node's link count is on its way (ANY: nobody knows).
        self.expected: dict[int, Key] = {}
        # Those of ``carried`` that a rename before may have replaced.
        self.perhaps_replaced: set[tuple[int, Key]] = set()
        self.anticipated = Anticipated()
        self.departed: set[Key] = set()
        self.suspects: dict[Place, list[Record]] = {}

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits for what comes; who may still die does not count."""
        return not (self.carried or self.expected or self.anticipated or self.suspects)

    def expect_nothing(self) -> None:
        """The queue was empty for a while, or overflowed: what was on its way is not."""
        self.expected.clear()
        self.anticipated.clear()
