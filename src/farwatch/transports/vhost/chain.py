"""One request in a ring: what the device may read, and what it may write to.

All of it is the guest's memory, which the guest may change at any moment.  So what is
looked at is copied first, once; only content goes to and from files as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from farwatch.linux.pages import Pages
from farwatch.session.request import Payload, Views


class Chain:
    """A chain of descriptors, as views of the guest's memory.

    ``head``      its first descriptor's index, by which the driver knows it
    ``readable``  the request
    ``writable``  room for the reply
    ``length``    bytes of the request
    ``room``      bytes of the room
    ``sent``      what the request has behind that: the content of a large WRITE
    ``space``     what the room has behind that: where the content of a large READ goes
    """

    __slots__ = ("head", "length", "readable", "room", "sent", "space", "writable")

    def __init__(
        self,
        head: int,
        readable: list[memoryview],
        writable: list[memoryview],
        length: int,
        room: int,
        sent: Pages | None = None,
        space: Pages | None = None,
    ) -> None:
        self.head = head
        self.readable = readable
        self.writable = writable
        self.length = length
        self.room = room
        self.sent = sent
        self.space = space

    def request(self) -> bytes:
        """A copy of the request."""
        return b"".join(_joined(self.readable, self.sent))

    def split(self, size: int) -> tuple[bytes, Views]:
        """A copy of the request's first ``size`` bytes, and the others where they are."""
        before, behind = _divided(self.readable, self.sent, size)
        return b"".join(before), behind

    def room_behind(self, size: int) -> Views:
        """The room without its first ``size`` bytes."""
        return _divided(self.writable, self.space, size)[1]

    def write(self, parts: Sequence[Payload]) -> None:
        """Writes a reply, which must not be larger than the room."""
        data = b"".join(parts)
        size = len(data)
        done = 0
        for view in _joined(self.writable, self.space):
            end = done + len(view)
            if end >= size:
                view[: size - done] = data[done:]
                return
            view[:] = data[done:end]
            done = end


def _joined(views: list[memoryview], pages: Pages | None) -> Iterable[memoryview]:
    return views if pages is None else chain(views, pages)


def _divided(
    views: list[memoryview], pages: Pages | None, size: int
) -> tuple[Sequence[memoryview], Views]:
    """The first ``size`` bytes of both, and what is behind these."""
    left = size
    for place, view in enumerate(views):
        if left <= len(view):
            behind = views[place + 1 :]
            if left < len(view):
                behind.insert(0, view[left:])
            if pages is not None:
                return [*views[:place], view[:left]], [*behind, *pages] if behind else pages
            return [*views[:place], view[:left]], behind
        left -= len(view)
    if pages is None:
        return views, []
    return _divided([*views, *pages], None, size)
