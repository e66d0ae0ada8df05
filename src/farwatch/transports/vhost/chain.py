"""One request in a ring: what the device may read, and what it may write to.

All of it is the guest's memory, which the guest may change at any moment.  So what is
looked at is copied first, once; only content goes to and from files as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from farwatch.session.request import Payload


class Chain:
    """A chain of descriptors, as views of the guest's memory.

    ``head``      its first descriptor's index, by which the driver knows it
    ``readable``  the request
    ``writable``  room for the reply
    ``length``    bytes of the request
    ``room``      bytes of the room
    """

    __slots__ = ("head", "length", "readable", "room", "writable")

    def __init__(
        self,
        head: int,
        readable: list[memoryview],
        writable: list[memoryview],
        length: int,
        room: int,
    ) -> None:
        self.head = head
        self.readable = readable
        self.writable = writable
        self.length = length
        self.room = room

    def request(self) -> bytes:
        """A copy of the request."""
        return b"".join(self.readable)

    def split(self, size: int) -> tuple[bytes, list[memoryview]]:
        """A copy of the request's first ``size`` bytes, and views of the others."""
        before, behind = _divided(self.readable, size)
        return b"".join(before), behind

    def room_behind(self, size: int) -> list[memoryview]:
        """The room without its first ``size`` bytes."""
        first = self.writable[0]
        if len(first) == size:
            return self.writable[1:]
        return _divided(self.writable, size)[1]

    def write(self, parts: Sequence[Payload]) -> None:
        """Writes a reply, which must not be larger than the room."""
        data = b"".join(parts)
        views, size = self.writable, len(data)
        done = 0
        for view in views:
            end = done + len(view)
            if end >= size:
                view[: size - done] = data[done:]
                return
            view[:] = data[done:end]
            done = end


def _divided(
    views: Sequence[memoryview], size: int
) -> tuple[Sequence[memoryview], list[memoryview]]:
    for place, view in enumerate(views):
        if size < len(view):
            before = [*views[:place], view[:size]]
            return before, [view[size:], *views[place + 1 :]]
        size -= len(view)
    return views, []
