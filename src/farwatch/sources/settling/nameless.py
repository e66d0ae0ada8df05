"""Records of an inode alone: link counts that something explains, and deaths.

Both stand before what explains them, so they wait: to the end of the batch, or longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from farwatch.events import Key, Kind, Place, Record
from farwatch.sources.settling.masks import (
    ATTRIB,
    DELETE,
    DELETE_SELF,
    ISDIR,
    KINDS,
    MIDLIFE,
    NAMES,
    OVERFLOW,
    SELF,
)
from farwatch.sources.settling.memory import Carried, Memory
from farwatch.sources.settling.names import UNKNOWN, Unknown
from farwatch.sources.settling.telling import Telling

_MOST_BETWEEN: Final = 64
"""Records between a link count and what explains it, if nobody knows of which threads they are."""
_MOST_BESIDE: Final = 1024
"""The same of other threads, while that of the count is seen no more."""
_BESIDE: Final = MIDLIFE & ~ATTRIB
_ANY: Final = b""
_ANY_DIRECTORY: Final = b"/"
"""Expected: whichever node the rename replaced, by what was renamed (no key is so short)."""


class Nameless:
    """The inode-only records of one batch, and those that are carried."""

    def __init__(self, memory: Memory, telling: Telling) -> None:
        self._memory = memory
        self._telling = telling
        # Thread and node: the index of the last record, and the bits that wait.
        self._read: dict[tuple[int, Key], tuple[int, int]] = {}
        self._replaced: set[tuple[int, Key]] = set()
        self._counted: set[tuple[int, Key]] = set(memory.carried)
        # By thread: where the rename is told of which nobody knows what it replaced, and to
        # which name.
        self._renamed: dict[int, tuple[int, Place]] = {}
        # And if that was a directory's: what it replaced, as far as the client believes.
        self._believed: dict[int, Key] = {}
        # Thread and node: where an ATTRIB is told of a directory that may have come later.
        self._merged: dict[tuple[int, Key], int] = {}
        for _, node in memory.carried:
            telling.mark_as_link(node)

    def read(self, index: int, mask: int, thread: int, node: Key | None) -> None:
        """A record of an inode alone: its count and its death wait, the rest is told."""
        if mask & OVERFLOW or node is None:
            self._overflow(mask)
            return
        own = thread in self._memory.own
        waits = mask & DELETE_SELF
        if mask & ATTRIB and not own:
            if mask & ISDIR:
                if (thread, node) in self._replaced:
                    mask &= ~ATTRIB
                elif mask & _BESIDE:
                    kinds = KINDS[mask & MIDLIFE]
                    self._merged[thread, node] = self._telling.position + kinds.index(Kind.ATTRIB)
            else:
                mask &= ~ATTRIB
                waits |= ATTRIB
                self._telling.mark_as_link(node)
                self._counted.add((thread, node))
        if mask & MIDLIFE and not own:
            self._telling.midlife(mask, None, node)
        if waits:
            before = self._read.get((thread, node), (0, 0))[1]
            self._read[thread, node] = (index, before | waits | mask & ISDIR)

    def _overflow(self, mask: int) -> None:
        """Nothing is known of what was lost: nothing is waited for any more."""
        if not mask & OVERFLOW:
            return
        carried, self._memory.carried = self._memory.carried, {}
        for (thread, node), (waits, _) in carried.items():
            self._tell(node, waits, thread)
        self._memory.expect_nothing()
        self._telling.nameless(Kind.OVERFLOW, None, False, 0)

    # Link counts that were reported

    def is_counted(self, thread: int, node: Key) -> bool:
        """Whether the thread was seen to change the node's link count."""
        return (thread, node) in self._counted

    def is_counted_by_anyone(self, node: Key) -> bool:
        """Whether any thread was."""
        return any(node == about for _, about in self._counted)

    # What a rename replaced

    def expect_replaced(
        self, thread: int, gone: Key | Unknown, place: Place, *, is_dir: bool
    ) -> None:
        """The rename to the place that is told next replaces the node: its link count follows."""
        if gone is UNKNOWN:
            self._memory.expected[thread] = _ANY_DIRECTORY if is_dir else _ANY
            self._renamed[thread] = self._telling.position, place
            believed = self._memory.believed(place) if is_dir else None
            if believed is not None:
                self._believed[thread] = believed
                self._take_back_count(thread, believed)
            return
        self._take_back_count(thread, gone)
        self._memory.expected[thread] = gone
        self._memory.departed.add(gone)
        self._replaced.add((thread, gone))
        self._telling.replaces(self._telling.position, gone)

    def _take_back_count(self, thread: int, gone: Key) -> None:
        """A directory's link count was told with what it was merged with, as a change of mode.

        Whether there was one as well nobody knows; of what was replaced at once it is no loss.
        """
        told = self._merged.pop((thread, gone), None)
        if told is not None:
            self._telling.take_back(told)

    def meet_expectation(self, records: Sequence[Record], index: int) -> None:
        """The record after a thread's rename: the link count of what that replaced?

        If the rename was in an earlier batch and nobody knows what it replaced, if anything,
        it may as well be the first record of a removal, of which the next is still to be read.
        """
        mask, thread, place, node, _ = records[index]
        expected, renamed = self._memory.expected.pop(thread), self._renamed.pop(thread, None)
        believed = self._believed.pop(thread, None)
        if place is not None and place.name == SELF:
            node, place = place.directory, None
        is_any = expected in (_ANY, _ANY_DIRECTORY)
        if is_any and bool(mask & ISDIR) != (expected == _ANY_DIRECTORY):
            # A directory replaces directories only, and nothing else does.
            return
        if is_any and mask & ISDIR and not mask & DELETE_SELF and node != believed:
            # Directories have an ATTRIB of their own, by chmod: take it for that, unless it is
            # of what the client believes to have been there.
            return
        if is_any and renamed and node and self._memory.is_elsewhere(renamed[1], node):
            return
        following = _next_of_thread(records, index) if is_any else None
        if following is not None and following.node == node and following.mask & NAMES:
            return
        if place is None and node is not None and mask & ATTRIB and (is_any or expected == node):
            is_known = expected == node or following is not None or renamed is not None
            if not (is_known or mask & ISDIR or thread in self._memory.own):
                self._memory.perhaps_replaced.add((thread, node))
                return
            self._replaced.add((thread, node))
            self._memory.departed.add(node)
            if renamed is not None:
                self._telling.replaces(renamed[0], node)

    # The end of the batch

    def close(self, records: Sequence[Record], flush: bool) -> None:
        """Drop what is explained, carry what may still be, tell the rest."""
        memory = self._memory
        waiting = self._waiting(len(records))
        if not waiting:
            return
        memory.carried = {}
        explained = self._explanations(records)
        removed = _removals(records) if _has_death(waiting) else {}
        last = {record.thread: index for index, record in enumerate(records)}
        for (thread, node), (index, carried) in waiting.items():
            waits = carried.waits
            before_name = node in removed and (bool(waits & ATTRIB) or index < removed[node])
            if (thread, node) in explained:
                waits &= ~ATTRIB
                memory.perhaps_replaced.discard((thread, node))
            elif not flush and self._may_be_explained(
                thread, node, carried, not thread or last.get(thread, index) <= index
            ):
                memory.carried[thread, node] = carried
                continue
            elif (thread, node) in memory.perhaps_replaced:
                # No name of it went by itself: it was replaced, by a rename that was told as
                # one that replaces nothing, or nothing that is known.
                if waits & ATTRIB and not waits & DELETE_SELF:
                    self._telling.nameless(Kind.DELETE, node, False, thread, linked=True)
                waits &= ~ATTRIB
                memory.perhaps_replaced.discard((thread, node))
                memory.departed.add(node)
            if thread in memory.own and node not in memory.departed:
                continue
            self._tell(node, waits, thread, before_name=before_name)

    def _waiting(self, count: int) -> dict[tuple[int, Key], tuple[int, Carried]]:
        """What waits at the end of a batch of so many records, by thread and node.

        Each with the index of its last record, -1 if that is of an earlier batch.
        """
        waiting = {
            key: (-1, Carried(waits, age + count))
            for key, (waits, age) in self._memory.carried.items()
        }
        for key, (index, waits) in self._read.items():
            _, before = waiting.get(key, (index, Carried(0, count - index)))
            waiting[key] = index, Carried(before.waits | waits, before.age)
        return waiting

    def _explanations(self, records: Sequence[Record]) -> set[tuple[int, Key]]:
        """(thread, node) of everything that changes a link count by itself."""
        explained = set(self._replaced)
        for mask, thread, place, node, _ in records:
            if mask & NAMES and place is not None and node is not None:
                explained.add((thread, node))
        return explained

    def _may_be_explained(self, thread: int, node: Key, carried: Carried, is_last: bool) -> bool:
        """Whether the thread has not gone on since: its very next event may explain it.

        A source that is never empty for long would put it off for ever, for the thread may do
        nothing more, or not be known.
        """
        if thread in self._memory.own:
            return False
        if not carried.waits & ATTRIB and node in self._memory.departed:
            return False
        most = _MOST_BESIDE if thread else _MOST_BETWEEN
        return is_last and (bool(carried.waits & DELETE_SELF) or carried.age < most)

    def _tell(self, node: Key, waits: int, thread: int, *, before_name: bool = False) -> None:
        is_dir = bool(waits & ISDIR)
        if waits & ATTRIB:
            self._telling.nameless(Kind.ATTRIB, node, is_dir, thread, linked=True)
        if waits & DELETE_SELF:
            self._memory.departed.discard(node)
            self._telling.nameless(Kind.DEATH, node, is_dir, thread, linked=before_name)


def _next_of_thread(records: Sequence[Record], index: int) -> Record | None:
    """The thread's next record that is not of the same inode alone."""
    _, thread, _, node, _ = records[index]
    for later in range(index + 1, len(records)):
        record = records[later]
        if record.thread != thread or (record.place is None and record.node == node):
            continue
        return record
    return None


def _has_death(waiting: Mapping[tuple[int, Key], tuple[int, Carried]]) -> bool:
    return any(carried.waits & DELETE_SELF for _, carried in waiting.values())


def _removals(records: Sequence[Record]) -> dict[Key | None, int]:
    """The index of the last record that says of a node that a name of it went.

    One that is merged stands where something else was: then it counts as the last of all.
    """
    return {
        record.node: index if record.mask & (NAMES | MIDLIFE) == DELETE else len(records)
        for index, record in enumerate(records)
        if record.mask & DELETE
    }
