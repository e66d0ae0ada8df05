"""The guest's clock told from the host's, by a page of memory that both see.

The guest's memory is a file in memory that QEMU shares with its daemons, and at a guest
physical address lies what is at that offset of it (as long as it is below 2 GiB).  A program
in the guest writes the time into a page, as fast as it can; this side reads the page and
the time of its own.  What it reads was written a moment before, so the least difference of
many is the difference of the clocks, but for the few microseconds from one time to the next.

The guest's clock also runs at another speed, by what its kernel has measured at its start:
two comparisons tell that, and a third says how far they can be believed.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple

from bench.guest_machine import Guest
from farwatch.cli.failure import Failure

MILLISECONDS = 40
APART_SECONDS = 2.0
_ATTEMPTS, _AGREEING = 10, 100
_CLOSE = 20_000
"""Nanoseconds: twice what the guest needs from one time to the next."""
_LINK = "/memfd:"
_FIRST_SECONDS = 10.0


class Comparison(NamedTuple):
    """Of the clocks at one moment, nanoseconds."""

    guest: int
    difference: int
    """The host's CLOCK_MONOTONIC less the guest's."""


class Clock:
    """Turns the guest's times into the host's."""

    def __init__(self, guest: Guest) -> None:
        """Takes two seconds.  Raises Failure."""
        self._worker = guest.worker
        self._page = _page_of(guest.machine.pid, guest.worker.page)
        self.largest_error = 0
        """Nanoseconds: the most that a comparison was off what the two before it said."""
        first = self._compare()
        time.sleep(APART_SECONDS)
        self._last = first, self._compare()

    def compare(self) -> None:
        """Compare again; to be done every few seconds."""
        new = self._compare()
        error = self.host(new.guest) - (new.guest + new.difference)
        self.largest_error = max(self.largest_error, abs(error))
        if new.guest - self._last[1].guest > APART_SECONDS * 1e9 / 2:
            self._last = self._last[1], new

    def host(self, at: int) -> int:
        """The host's time when it was ``at`` in the guest (both CLOCK_MONOTONIC, ns)."""
        first, second = self._last
        speed = (second.difference - first.difference) / (second.guest - first.guest)
        return at + second.difference + round(speed * (at - second.guest))

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()

    def _compare(self) -> Comparison:
        """The closest of some attempts, the first good one if there is any."""
        found = []
        for _ in range(_ATTEMPTS):
            found.append(self._attempt())
            if found[-1][1] >= _AGREEING:
                return found[-1][0]
        return min((comparison for comparison, _ in found), key=lambda each: each.difference)

    def _attempt(self) -> tuple[Comparison, int]:
        """One comparison, and how many of the guest's times agree with it.

        On a busy machine it may be that no time was read while it was fresh.
        """
        with memoryview(self._page) as whole, whole[:8] as place, place.cast("Q") as page:
            before = page[0]
            self._worker.begin("clock", count=MILLISECONDS)
            deadline = time.monotonic() + _FIRST_SECONDS
            while page[0] == before:
                if time.monotonic() > deadline:
                    raise Failure("the guest's page is not seen from outside")
                time.sleep(0.001)
            now = time.monotonic_ns
            found = []
            end = now() + MILLISECONDS * 500_000
            while now() < end:
                at = page[0]
                found.append((now() - at, at))
            self._worker.end()
        difference, at = min(found)
        agreeing = {seen for other, seen in found if other < difference + _CLOSE}
        return Comparison(at, difference), len(agreeing)


def _page_of(pid: int, address: int) -> mmap.mmap:
    """The page of QEMU's guest memory."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = Path(f"/proc/{pid}/fd/{name}")
        try:
            is_memory = os.readlink(path).startswith(_LINK)
        except FileNotFoundError:
            continue
        if is_memory:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=address)
            finally:
                os.close(fd)
    raise Failure("QEMU's memory is not found")
