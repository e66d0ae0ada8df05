"""Collecting a batch: the records, and the disk as it is after them."""

from __future__ import annotations

from collections.abc import Callable

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.settler import Settler


def collect(
    records: list[Record],
    read: Callable[[], list[Record]],
    node_at: Callable[[Place], Key | None],
    settler: Settler,
    rounds: int = 3,
) -> tuple[list[Record], dict[Place, Key | None]]:
    """One batch, and what the disk holds at the names that settle() asks for.

    ``records`` were read, ``read`` empties the queue, ``node_at`` looks at the disk.  What is read
    after a look may have changed what it saw, so those names are looked at again,
    at most ``rounds`` times: then the disk can be newer than the records are.
    """
    disk: dict[Place, Key | None] = {}
    stale = settler.places(records)
    for left in reversed(range(rounds)):
        if not stale:
            break
        for place in stale:
            disk[place] = node_at(place)
        fresh = read() if left else []
        if not fresh:
            break
        records += fresh
        touched = {place for record in fresh for place in (record.place, record.new_place)}
        stale = {p for p in settler.places(records) if p not in disk or p in touched}
    return records, disk
