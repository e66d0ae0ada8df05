"""What was read and what became of it, in the log (FARWATCH_DEBUG)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from farwatch.events import Change, Key, Mask, Place, Record

log = logging.getLogger(__name__)


def show(records: Sequence[Record], changes: Sequence[Change]) -> None:
    """One batch, each record and each change in a line of its own."""
    for record in records:
        kinds = Mask(record.mask)
        log.debug(
            "read %s %s -> %s of %s by %d",
            kinds,
            _short(record.place),
            _short(record.new_place),
            _short_key(record.node),
            record.thread,
        )
    for change in changes:
        log.debug(
            "settled %s %s -> %s of %s",
            change.kind.name,
            _short(change.place),
            _short(change.new_place),
            _short_key(change.node),
        )


def _short(place: Place | None) -> str:
    return "-" if place is None else f"{_short_key(place.directory)}/{place.name!r}"


def _short_key(key: Key | None) -> str:
    return "-" if key is None else key[-8:].hex()
