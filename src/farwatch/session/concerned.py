"""Which records can matter to the client: the first filter on their way.

A record matters if the client knows the node or its directory.  One that says no name (a
link count, a death) also matters if the next record of its thread is about the same node
and matters: the kernel reports the link count right before the name that takes the link,
and the queue may be read in between.  It tells a further link from a new file, and a file
that is gone from one that is held open.

What is done to a directory itself says no name either.  If that has gone since, or has another,
it matters if another record matters that says which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farwatch.events import Record

_MOST_THREADS = 4096
_SELF = b"."


class Concerned:
    """Filters what one client's source reads.

    ``matters`` tells of a record by itself whether it concerns the client; cheap, and
    never falsely no.
    """

    def __init__(self, matters: Callable[[Record], bool]) -> None:
        self._matters = matters
        self._alone: dict[int, Record] = {}
        """The last record of each thread, if it says no name and did not matter."""

    def among(self, records: Sequence[Record]) -> list[Record]:
        """Those that concern the client, in their order; some may have been read before."""
        matters, alone = self._matters, self._alone
        if len(records) == 1 and not alone and matters(records[0]):
            return [*records]
        mattering = [matters(record) for record in records]
        if not alone and all(mattering):
            return list(records)
        nodes = {record.node for record, does in zip(records, mattering, strict=True) if does}
        found: list[Record] = []
        for record, does in zip(records, mattering, strict=True):
            before = alone.pop(record.thread, None)
            is_nameless = record.place is None or record.place.name == _SELF
            if does or (is_nameless and record.node in nodes):
                if before is not None and before.node == record.node:
                    found.append(before)
                found.append(record)
            elif record.place is None and record.node is not None:
                if len(alone) >= _MOST_THREADS:
                    alone.clear()
                alone[record.thread] = record
        return found
