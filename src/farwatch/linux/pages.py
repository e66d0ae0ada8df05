"""Memory in many pieces, moved to and from a file by one preadv(2) or pwritev(2).

Python's own calls want a view of each piece.  To make 256 of them, for a request of 1 MiB,
takes about as long as to copy what is in them; here an ``iovec`` is two numbers.
"""

from __future__ import annotations

import ctypes
import errno
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from farwatch.linux.libc import declare, fail

PAGE = 4096
MOST = 1024
"""IOV_MAX of ``linux/uio.h``: what one preadv(2) or pwritev(2) takes."""

_ENTRIES = array("Q", [0, PAGE] * MOST)
"""``struct iovec`` of uio.h, so many times: address and length."""


def _vector_io(name: str) -> Callable[..., int]:
    return declare(
        name,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int64,
        result=ctypes.c_ssize_t,
        checked=False,
    )


_preadv, _pwritev = _vector_io("preadv"), _vector_io("pwritev")


class Area:
    """Writable memory whose bytes have numbers: ``start`` and so on, up to ``end``."""

    __slots__ = ("_base", "end", "start", "view")

    def __init__(self, view: memoryview, start: int) -> None:
        """The view holds at least one byte."""
        self.view = view
        self.start = start
        self.end = start + len(view)
        # Of byte 0, were there one.  It stays there for as long as the view does.
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(view)) - start

    def pages(self, places: list[int], last: int) -> Pages | None:
        """A page at each of at most MOST places, but of the last one only ``last`` bytes.

        None unless each is in the area as a whole page.
        """
        if min(places) < self.start or max(places) + PAGE > self.end:
            return None
        return Pages(self, self._base, places, last)


class Pages:
    """Pieces of an area, made by it."""

    __slots__ = ("_area", "_base", "_last", "_places", "size")

    def __init__(self, area: Area, base: int, places: list[int], last: int) -> None:
        self._area = area
        self._base = base
        self._places = places
        self._last = last
        self.size = PAGE * (len(places) - 1) + last
        """Bytes in all."""

    def first(self, size: int) -> Pages:
        """The first ``size`` bytes, at least 1: less if there are not so many."""
        if size >= self.size:
            return self
        count = -(-size // PAGE)
        return Pages(self._area, self._base, self._places[:count], size - PAGE * (count - 1))

    def read(self, fd: int, offset: int) -> int:
        """Fills them from a file: the bytes read.  Raises OSError."""
        return self._moved(_preadv, fd, offset)

    def write(self, fd: int, offset: int) -> int:
        """Writes them to a file: the bytes written.  Raises OSError."""
        return self._moved(_pwritev, fd, offset)

    def _moved(self, move: Callable[..., int], fd: int, offset: int) -> int:
        count, base = len(self._places), self._base
        entries = _ENTRIES[: 2 * count]
        entries[::2] = array("Q", [base + place for place in self._places])
        entries[-1] = self._last
        address: Any = entries.buffer_info()[0]
        while (moved := move(fd, address, count, offset)) < 0:
            if ctypes.get_errno() != errno.EINTR:
                fail()
        return moved

    def __iter__(self) -> Iterator[memoryview]:
        """A view of each."""
        view, start = self._area.view, self._area.start
        left = self.size
        for place in self._places:
            yield view[place - start : place - start + min(PAGE, left)]
            left -= PAGE

    def __len__(self) -> int:
        return len(self._places)
