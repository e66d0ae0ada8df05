"""Masks as plain integers, and the kinds that are in them.

Arithmetic on an IntFlag costs a microsecond a time.
"""

from __future__ import annotations

from farwatch.events import Kind, Mask

CREATE = int(Mask.CREATE)
DELETE = int(Mask.DELETE)
RENAME = int(Mask.RENAME)
ATTRIB = int(Mask.ATTRIB)
DELETE_SELF = int(Mask.DELETE_SELF)
ISDIR = int(Mask.ISDIR)
OVERFLOW = int(Mask.Q_OVERFLOW)
NAMES = CREATE | DELETE
STRUCTURE = NAMES | RENAME

_MIDLIFE = (
    (int(Mask.OPEN), Kind.OPEN),
    (int(Mask.ACCESS), Kind.ACCESS),
    (int(Mask.MODIFY), Kind.MODIFY),
    (ATTRIB, Kind.ATTRIB),
    (int(Mask.CLOSE_WRITE), Kind.CLOSE_WRITE),
    (int(Mask.CLOSE_NOWRITE), Kind.CLOSE_NOWRITE),
)
"""What happens to a file between CREATE and DELETE, in that order."""
MIDLIFE = sum(bit for bit, _ in _MIDLIFE)


def _kinds_in(bits: int) -> tuple[Kind, ...]:
    """The kinds of a merged mask between CREATE and DELETE, as a file lives."""
    return tuple(kind for bit, kind in _MIDLIFE if bits & bit)


KINDS = {bits: _kinds_in(bits) for bits in range(MIDLIFE + 1) if not bits & ~MIDLIFE}
"""Every mask of midlife bits, expanded: looked up once a record."""

SELF = b"."
"""The name under which fanotify reports events of a directory itself."""
