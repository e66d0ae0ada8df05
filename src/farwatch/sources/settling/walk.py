"""One batch, from its first record to what its names owe at the end.

Names that nothing else in the batch touches are told as they were read.  If any
other is among them, a Crowd reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from farwatch.events import Change, Key, Place, Record
from farwatch.sources.settling.crowd import Crowd, crowded
from farwatch.sources.settling.masks import DELETE_SELF, RENAME, SELF, STRUCTURE
from farwatch.sources.settling.memory import Memory
from farwatch.sources.settling.moves import ends
from farwatch.sources.settling.nameless import Nameless
from farwatch.sources.settling.names import Holder
from farwatch.sources.settling.telling import Telling


def walk(
    memory: Memory,
    records: Sequence[Record],
    disk: Mapping[Place, Key | None],
    told: Callable[[Place], Holder],
    flush: bool,
) -> list[Change]:
    """The changes of one batch, ordered; see Settler.settle."""
    own = memory.own
    owned = set(ends(record for record in records if record[1] in own and record[0] & STRUCTURE))
    telling = Telling(memory.departed, owned)
    nameless = Nameless(memory, telling)
    crowd = None
    tracked = crowded(records) | owned
    if memory.anticipated:
        tracked.update(memory.anticipated.keys() & {record.place for record in records})
    if tracked or memory.suspects or any(record[0] & RENAME for record in records):
        crowd = Crowd(memory, records, disk, told, owned, nameless, telling)
        crowd.survey(tracked)
    _read(memory, records, crowd, nameless, telling)
    if crowd is not None:
        # A batch of nothing explains nothing.
        crowd.close(judges=bool(records) or flush)
    nameless.close(records, flush)
    return telling.result()


def _read(
    memory: Memory,
    records: Sequence[Record],
    crowd: Crowd | None,
    nameless: Nameless,
    telling: Telling,
) -> None:
    """Each record, to whom it concerns."""
    expected, own = memory.expected, memory.own
    for index, (mask, thread, place, node, _) in enumerate(records):
        telling.thread = thread
        if expected and thread in expected:
            nameless.meet_expectation(records, index)
        if place is None:
            if mask & DELETE_SELF and crowd is not None and node is not None:
                crowd.read_death(node)
            nameless.read(index, mask, thread, node)
        elif place.name == SELF:
            nameless.read(index, mask, thread, place.directory)
        elif crowd is not None:
            crowd.read(index, mask, thread, place, node)
        elif thread not in own:
            telling.as_read(mask, place, node)
