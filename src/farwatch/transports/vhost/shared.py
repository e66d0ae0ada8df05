"""The front end's side of the memory: regions that it shares, and room in them.

User addresses and guest addresses are made up, far from each other, so that one taken for
the other is noticed.
"""

from __future__ import annotations

import mmap
import os
from bisect import insort
from collections.abc import Sequence

from farwatch.abi.vhost_user import MemoryRegion
from farwatch.transports.vhost.memory import Memory, map_region

_USER = 0x7F00_0000_0000
_GAP = 1 << 32
_UNIT = 64


class SharedMemory:
    """Regions in memory files of their own.  Owns the descriptors."""

    def __init__(self, sizes: Sequence[int], *, adjacent: bool = False) -> None:
        """One region for each size; ``adjacent`` ones follow each other in guest addresses.

        A size is rounded up to whole pages.
        """
        self.regions: list[tuple[MemoryRegion, int]] = []
        self._free: list[tuple[int, int]] = []
        guest = _GAP
        for number, size in enumerate(sizes):
            size += -size % mmap.PAGESIZE
            fd = os.memfd_create(f"guest-{number}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            offset = number * mmap.PAGESIZE
            os.ftruncate(fd, offset + size)
            place = MemoryRegion(guest, size, _USER + 7 * guest, offset)
            self.regions.append((place, fd))
            self._free.append((guest, size))
            guest += size if adjacent else _GAP + size
        self._join()
        self.memory = Memory([map_region(fd, place) for place, fd in self.regions])

    def allocate(self, size: int) -> int:
        """The guest address of so many free bytes.  Raises MemoryError."""
        size += -size % _UNIT
        for place, (start, room) in enumerate(self._free):
            if room >= size:
                if room == size:
                    del self._free[place]
                else:
                    self._free[place] = (start + size, room - size)
                return start
        raise MemoryError(f"no {size} bytes of guest memory left")

    def allocate_ring(self, size: int) -> int:
        """The same, within one region."""
        for place, _ in self.regions:
            wanted = size + -size % _UNIT
            for at, (start, room) in enumerate(self._free):
                first = max(start, place.guest_address)
                last = min(start + room, place.guest_address + place.size)
                if last - first >= wanted:
                    del self._free[at]
                    for rest in (
                        (start, first - start),
                        (first + wanted, start + room - first - wanted),
                    ):
                        if rest[1]:
                            insort(self._free, rest)
                    return first
        raise MemoryError(f"no {size} bytes of guest memory left")

    def free(self, address: int, size: int) -> None:
        """Give back what ``allocate`` gave."""
        insort(self._free, (address, size + -size % _UNIT))
        self._join()

    def user(self, address: int) -> int:
        """The user address of a guest address."""
        for place, _ in self.regions:
            if place.guest_address <= address < place.guest_address + place.size:
                return address - place.guest_address + place.user_address
        raise ValueError(f"{address:#x} is no guest address")

    def write(self, address: int, data: bytes) -> None:
        """Writes to the guest's memory."""
        done = 0
        for view in self.memory.guest(address, len(data)):
            view[:] = data[done : done + len(view)]
            done += len(view)

    def read(self, address: int, size: int) -> bytes:
        """Reads from it."""
        return b"".join(self.memory.guest(address, size))

    def _join(self) -> None:
        joined: list[tuple[int, int]] = []
        for start, size in sorted(self._free):
            if joined and sum(joined[-1]) == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((start, size))
        self._free = joined

    def close(self) -> None:
        """Close the descriptors and let go of the memory; it goes with its last view.

        At once, that is: who still refers to this may be left to the garbage collector.
        """
        for _, fd in self.regions:
            os.close(fd)
        self.regions.clear()
        self._free.clear()
        self.memory = Memory()
