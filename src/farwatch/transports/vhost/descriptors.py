"""Lists of descriptors, in a ring's table or an indirect one: walked, or known at sight.

The driver is hostile: whatever is not exactly as it should be is found here, and a walk ends
after as many descriptors as there are.
"""

from __future__ import annotations

from farwatch.abi import virtio
from farwatch.abi.virtio import Descriptor
from farwatch.linux.pages import PAGE
from farwatch.transports.vhost.errors import BrokenRing

MOST = 1024
"""Descriptors in an indirect table, whatever the queue's size: what other devices take."""
BULK = 16
"""Descriptors from which on it is worth a look whether they are pages."""
SIZE = virtio.DESCRIPTOR.size
LENGTH = 0xFFFF_FFFF
"""Of a descriptor's second half: the length.  Above it are the flags, and the next one."""
_NEXT = int(Descriptor.NEXT)
_WRITE = int(Descriptor.WRITE)
_ORDINARY = _NEXT | _WRITE
_UNUSUAL = 0xFFFF & ~_NEXT
"""What changes if not only one more piece follows: the flags but for NEXT."""
_entries = virtio.DESCRIPTOR.iter_unpack
_FOLLOWED = {
    flags: [flags | index + 1 << 16 for index in range(MOST)] for flags in (_NEXT, _NEXT | _WRITE)
}
"""Flags and next of descriptors that are each followed by the next in the table."""
_PAGES = {flags: [PAGE | each << 32 for each in some] for flags, some in _FOLLOWED.items()}
"""The same with their lengths, for whole pages: the second halves of descriptors."""

Special = tuple[int, int, int]
"""Address, length and flags of a descriptor that is not for a piece of memory."""


def are_pages(kinds: list[int], start: int, end: int, is_read: bool) -> bool:
    """Whether a table is that of a READ or WRITE with pages from ``start`` to before ``end``.

    ``kinds`` are the second halves of its descriptors.
    """
    flags, last = _NEXT | _WRITE if is_read else _NEXT, end - 1
    if kinds[start:last] != _PAGES[flags][start:last] or not 0 < kinds[last] & LENGTH <= PAGE:
        return False
    read, written = _FOLLOWED[_NEXT], _FOLLOWED[_NEXT | _WRITE]
    if kinds[0] >> 32 != read[0] or kinds[1] >> 32 != read[1] or kinds[-1] >> 32 & 0xFFFF != _WRITE:
        return False
    if is_read:
        return kinds[2] >> 32 == written[2]
    return kinds[last] >> 32 == read[last] and kinds[end] >> 32 == written[end]


def follow(
    readable: list[tuple[int, int]],
    writable: list[tuple[int, int]],
    table: memoryview | bytes,
    size: int,
    index: int,
) -> Special | None:
    """Adds what a chain names that begins at ``index`` in a table of ``size`` descriptors.

    Each piece of memory is a pair of guest addresses: the first, and the one behind.
    Returns the descriptor that ends the chain if that is not for a piece of memory.
    Raises BrokenRing.
    """
    walked = start = end = 0
    some, is_writable = (writable, _WRITE) if writable else (readable, 0)
    while True:
        first = index
        # They mostly follow each other in the table; and what lies one behind the other in
        # memory becomes one piece.
        for address, length, flags, following in _entries(table[SIZE * index :]):
            index += 1
            if address != end or flags & _UNUSUAL != is_writable:
                if start != end:
                    some.append((start, end))
                start = end = address
                if flags & ~_ORDINARY:
                    return address, length, flags
                if flags & _WRITE != is_writable:
                    if is_writable:
                        raise BrokenRing("something to read behind what is to be written")
                    some, is_writable = writable, _WRITE
            end += length
            if following != index or not flags & _NEXT:
                break
        if not flags & _NEXT:
            if start != end:
                some.append((start, end))
            return None
        walked += index - first
        if following >= size or walked >= size:
            raise BrokenRing(f"a chain goes on to {following}, and should have ended")
        index = following
