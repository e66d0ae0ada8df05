"""What is read from an inotify descriptor: inotify(7)."""

from __future__ import annotations

import struct
from typing import NamedTuple

_EVENT = struct.Struct("=iIII")


class InotifyEvent(NamedTuple):
    """``struct inotify_event``; ``name`` without its padding, ``b""`` for none."""

    wd: int
    mask: int
    cookie: int
    name: bytes


def parse(data: bytes) -> list[InotifyEvent]:
    """Every event of one read.  Raises ValueError for a torn event."""
    events: list[InotifyEvent] = []
    offset, size = 0, len(data)
    while offset < size:
        if size - offset < _EVENT.size:
            raise ValueError("torn inotify event")
        watch, mask, cookie, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        end = offset + length
        if end > size:
            raise ValueError("torn inotify event")
        name = data[offset:end].rstrip(b"\0") if length else b""
        events.append(InotifyEvent(watch, mask, cookie, name))
        offset = end
    return events
