"""One request in a ring: what the device may read, and what it may write to."""

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

    def __init__(self, head: int) -> None:
        self.head = head
        self.readable: list[memoryview] = []
        self.writable: list[memoryview] = []
        self.length = 0
        self.room = 0

    def request(self, buffer: memoryview) -> memoryview:
        """The request in one piece.

        If it is in one piece already, that is the guest's memory itself, which may change
        at any moment; else a copy of it in ``buffer``.  The caller has seen to it that it fits.
        """
        if len(self.readable) == 1:
            return self.readable[0]
        end = 0
        for view in self.readable:
            start = end
            end += len(view)
            buffer[start:end] = view
        return buffer[:end]

    def write(self, parts: Sequence[Payload]) -> int:
        """Writes a reply, which must not be larger than the room; the bytes written."""
        written = 0
        views = iter(self.writable)
        view = next(views, None)
        used = 0
        for part in parts:
            size = len(part)
            done = 0
            while done < size and view is not None:
                step = min(size - done, len(view) - used)
                if step == size:
                    view[used : used + step] = part
                else:
                    view[used : used + step] = memoryview(part)[done : done + step]
                done += step
                used += step
                if used == len(view):
                    view = next(views, None)
                    used = 0
            written += done
        return written
