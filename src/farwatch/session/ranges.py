"""What one owner has locked of a file: byte ranges, each shared or exclusive."""

from __future__ import annotations

from bisect import bisect_left
from fcntl import F_UNLCK, F_WRLCK
from typing import NamedTuple


class Range(NamedTuple):
    """From the first byte to the last, both included; F_RDLCK or F_WRLCK."""

    start: int
    end: int
    kind: int


class Ranges:
    """Ranges in order, none of which overlap; neighbours of one kind are one range."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[Range] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def all(self) -> list[Range]:
        """All of them, in order."""
        return list(self._ranges)

    def put(self, new: Range) -> None:
        """What fcntl(2) makes of a lock, or with F_UNLCK of its end: the newest counts."""
        ranges = self._ranges
        start, end, kind = new
        low = self._first(start - 1)
        high = low
        pieces: list[Range] = []
        while high < len(ranges) and ranges[high].start <= end + 1:
            old = ranges[high]
            high += 1
            if old.kind == kind:
                start, end = min(start, old.start), max(end, old.end)
                continue
            if old.start < new.start:
                pieces.append(Range(old.start, min(old.end, new.start - 1), old.kind))
            if old.end > new.end:
                pieces.append(Range(max(old.start, new.end + 1), old.end, old.kind))
        if kind != F_UNLCK:
            pieces.append(Range(start, end, kind))
            pieces.sort()
        ranges[low:high] = pieces

    def conflict(self, wanted: Range) -> Range | None:
        """The first range that stands against another owner's lock."""
        ranges = self._ranges
        for index in range(self._first(wanted.start), len(ranges)):
            held = ranges[index]
            if held.start > wanted.end:
                return None
            if F_WRLCK in (held.kind, wanted.kind):
                return held
        return None

    def _first(self, byte: int) -> int:
        """The index of the first range that ends at this byte or behind it."""
        return bisect_left(self._ranges, byte, key=lambda held: held.end)
