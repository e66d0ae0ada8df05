"""The queue of a fanotify group on the disk, as a pipeline reads its source.

Merges as fs/notify/fanotify does (fanotify_should_merge): a record joins the one that waits
of the same thread, directory, name and node (without a name: of the same thread and node)
and the same ISDIR; a rename joins only the very same rename.
"""

from __future__ import annotations

from farwatch.events import READING, Place, Record
from farwatch.sources.fanotify import BASE
from tests.simulator import facts
from tests.simulator.facts import Fact

_SELF = b"."
_KINDS = int(BASE) & 0x1FFFFFFF


class Queue:
    """One group's; the disk's listener, and a client's source.

    ``merges`` is off where a history is to be read as if the reader always kept up.
    """

    def __init__(self, *, merges: bool = True) -> None:
        self._merges = merges
        self._records: list[Record] = []
        self.wanted = 0

    def hear(self, fact: Fact) -> None:
        """Something has happened on the disk."""
        kind = fact.mask & ~facts.ISDIR
        if not kind & (_KINDS | self.wanted):
            return
        place = fact.place
        if fact.mask & facts.ISDIR and not kind & (facts.NAMES | facts.RENAME):
            # What happens to a directory itself is not told by its parent's handle.
            place = Place(fact.node, _SELF)
        elif kind & facts.SELF:
            place = None
        self._push(Record(fact.mask, fact.thread, place, fact.node, fact.new_place))

    def _push(self, record: Record) -> None:
        apart = facts.ISDIR | facts.RENAME
        for index, old in enumerate(self._records):
            if self._merges and old[1:] == record[1:] and old.mask & apart == record.mask & apart:
                self._records[index] = old._replace(mask=old.mask | record.mask)
                return
        self._records.append(record)

    # What a pipeline asks

    def read(self, limit: int = 1 << 22) -> list[Record]:
        """What has happened; an empty list if nothing waits."""
        records, self._records = self._records, []
        return records

    def queued(self) -> int:
        """How many records wait."""
        return len(self._records)

    def want(self, mask: int) -> None:
        """Ask for these of the READING kinds from now on."""
        self.wanted = int(mask) & int(READING)

    def fileno(self) -> int:
        """There is nothing to poll."""
        raise ValueError("a queue in memory has no descriptor")
