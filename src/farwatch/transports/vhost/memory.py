"""The guest's memory: regions that the front end shares, and views of what is in them.

Two address spaces lead into it: *guest* addresses stand in descriptors, *user* addresses
(the front end's own) say where the rings are.  An address is good if every byte from
there on lies in a region; nothing is ever read or written by address.

A table is never changed: another one takes its place.  A region stays mapped while a view
of it exists, so what is under way when the table changes stays what it was.

The front end could cut a region's file short, and the next access would kill the process;
it can only do that to the server of its own guest.
"""

from __future__ import annotations

import mmap
import os
import stat
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple, Self

from farwatch.abi.vhost_user import MemoryRegion
from farwatch.linux.pages import Area
from farwatch.transports.vhost.errors import BadAddress, ProtocolError

MAX_SLOTS = 509
"""Regions that a table may have."""
_NOWHERE = (1 << 64, 1 << 64, memoryview(bytearray(1)))
"""Behind every address."""


class Region(NamedTuple):
    """A region, mapped."""

    place: MemoryRegion
    view: memoryview
    """Its bytes, readable and writable."""


def map_region(fd: int, place: MemoryRegion) -> Region:
    """Maps a region.  ``fd`` stays the caller's.

    Raises ProtocolError if the file is not a shared memory that has such a part.
    """
    view = map_file(fd, place.mmap_offset, place.size)
    return Region(place, view)


def map_file(fd: int, offset: int, size: int) -> memoryview:
    """``size`` bytes of a file at ``offset``, readable and writable.  Raises ProtocolError."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ProtocolError("a descriptor is no memory")
    if offset + size > status.st_size:
        raise ProtocolError(
            f"{size:#x} bytes at offset {offset:#x} of a file of {status.st_size:#x}"
        )
    # Huge pages are mapped and unmapped whole: their file system's block is the page.
    page = max(mmap.ALLOCATIONGRANULARITY, status.st_blksize)
    start = offset - offset % page
    end = min(status.st_size, offset + size + -(offset + size) % page)
    try:
        mapped = mmap.mmap(fd, end - start, offset=start)
    except (OSError, ValueError, OverflowError) as error:
        raise ProtocolError(f"{size:#x} bytes at offset {offset:#x}: {error}") from None
    return memoryview(mapped)[offset - start : offset - start + size]


class Memory:
    """A table of regions, none of which overlaps another in either address space."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        """Raises ProtocolError."""
        self._regions = sorted(regions, key=lambda region: region.place.guest_address)
        if len(self._regions) > MAX_SLOTS:
            raise ProtocolError(f"{len(self._regions)} regions")
        by_guest = [
            (place.guest_address, place.guest_address + place.size, view)
            for place, view in self._regions
        ]
        by_user = sorted(
            (
                (place.user_address, place.user_address + place.size, view)
                for place, view in self._regions
            ),
            key=lambda region: region[:2],
        )
        for spans in (by_guest, by_user):
            for (_, end, _), (start, _, _) in pairwise(spans):
                if start < end:
                    raise ProtocolError(f"two regions share address {start:#x}")
        self._by_guest = by_guest
        self._by_user = by_user
        self._guest_starts = [start for start, _, _ in by_guest]
        self._user_starts = [start for start, _, _ in by_user]
        start, _, view = max(by_guest, key=lambda span: span[1] - span[0], default=_NOWHERE)
        self.largest = Area(view, start)
        """The largest region, by its guest addresses."""

    def __len__(self) -> int:
        return len(self._regions)

    def with_region(self, region: Region) -> Self:
        """A table with one more region.  Raises ProtocolError."""
        return type(self)([*self._regions, region])

    def without(self, place: MemoryRegion) -> Self:
        """A table with one region less; its mmap offset does not count.  Raises ProtocolError."""
        left = [region for region in self._regions if region.place[:3] != place[:3]]
        if len(left) == len(self._regions):
            raise ProtocolError(f"no region at guest address {place.guest_address:#x}")
        return type(self)(left)

    def guest(self, address: int, length: int) -> list[memoryview]:
        """What is at a guest address: the views that make it up, mostly one.

        Raises BadAddress.
        """
        place = bisect_right(self._guest_starts, address) - 1
        if place < 0:
            raise BadAddress("guest", address, length)
        start, end, view = self._by_guest[place]
        if address + length <= end:
            return [view[address - start : address - start + length]]
        found = []
        at, left = address, length
        while left:
            if place == len(self._by_guest):
                raise BadAddress("guest", address, length)
            start, end, view = self._by_guest[place]
            if not start <= at < end:
                raise BadAddress("guest", address, length)
            size = min(left, end - at)
            found.append(view[at - start : at - start + size])
            at += size
            left -= size
            place += 1
        return found

    def user(self, address: int, length: int) -> memoryview:
        """What is at a user address, within one region.  Raises BadAddress."""
        place = bisect_right(self._user_starts, address) - 1
        if place >= 0:
            start, end, view = self._by_user[place]
            if address + length <= end:
                return view[address - start : address - start + length]
        raise BadAddress("user", address, length)
