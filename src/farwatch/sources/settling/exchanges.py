"""Exchanges: two RENAMEs of one thread, one after the other, places swapped.

Other threads' records may stand between the two, and a batch may end there: then
it is held until the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from farwatch.events import Key, Place, Record
from farwatch.sources.settling.masks import CREATE, RENAME, STRUCTURE
from farwatch.sources.settling.names import UNKNOWN, Holder

_BETWEEN_HALVES = 64
"""How many records of other threads may stand between the halves of an exchange."""


def other_half(index: int, records: Sequence[Record]) -> int | None:
    """The index of the rename that makes an exchange of the one at ``index``.

    It is the next record of the thread, and nothing happened to the names between.
    """
    _, thread, place, node, new_place = records[index]
    for after in range(index + 1, min(index + _BETWEEN_HALVES, len(records))):
        mask, other_thread, other_place, other, other_new = records[after]
        if other_thread == thread:
            swapped = other_place == new_place and other_new == place
            if mask & RENAME and swapped and other is not None and other != node:
                return after
            return None
        if mask & STRUCTURE and {other_place, other_new} & {place, new_place}:
            return None
    return None


def ends_in_half(
    records: Sequence[Record],
    disk: Mapping[Place, Key | None],
    told: Callable[[Place], Holder],
    own: Container[int],
) -> bool:
    """Whether a rename over something may be the first of an exchange's two.

    Its thread's next record tells: the other half, or the link count of what was
    replaced.  It is on its way, unless the thread is not seen again for long.
    """
    going_on: set[int] = set()
    for index in range(len(records) - 1, max(len(records) - _BETWEEN_HALVES, 0) - 1, -1):
        mask, thread, place, node, new_place = records[index]
        if (
            mask & RENAME
            and thread not in going_on
            and thread not in own
            and new_place is not None
            and _may_be_occupied(new_place, node, records, told)
            and disk.get(place, UNKNOWN) is not None  # type: ignore[arg-type]
            and not _completes(index, records)
        ):
            return True
        going_on.add(thread)
    return False


def awaited(
    records: Sequence[Record],
    at: Callable[[Place], Key | None],
    told: Callable[[Place], Holder],
) -> bool:
    """Whether the disk says of a rename that its other half is still to be read.

    The old name holds what the new one held: however long its thread is kept from reporting
    that, it will.  ``at`` looks at the disk.
    """
    for mask, _, place, node, new_place in reversed(records):
        if mask & RENAME and place is not None and new_place is not None:
            replaced = told(new_place)
            if replaced not in (None, UNKNOWN, node) and at(place) == replaced:
                return at(new_place) == node
    return False


def _may_be_occupied(
    place: Place, node: Key | None, records: Iterable[Record], told: Callable[[Place], Holder]
) -> bool:
    """Whether the name may hold another node when the last of the records renames onto it."""
    if told(place) not in (None, UNKNOWN, node):
        return True
    arrivals = sum(
        new_place == place or (at == place and bool(mask & CREATE))
        for mask, _, at, _, new_place in records
    )
    return arrivals > 1


def _completes(index: int, records: Sequence[Record]) -> bool:
    """Whether the rename is the second half: its thread's last record was the first."""
    _, thread, place, node, new_place = records[index]
    earlier = records[max(index - _BETWEEN_HALVES, 0) : index]
    for mask, before, other_place, other, other_new in reversed(earlier):
        if before == thread:
            swapped = other_place == new_place and other_new == place
            return bool(mask & RENAME) and swapped and other != node
    return False
