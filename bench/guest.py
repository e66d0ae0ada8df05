"""The benchmark's part in a guest: operations with each way of caching, and events."""

from __future__ import annotations

from collections.abc import Iterator

from bench import guest_events, guest_work
from bench.guest_machine import guest, image
from bench.sides import Sides

CACHES = ("none", "auto")
Row = guest_work.Row | guest_events.Row


def measure(sides: Sides, samples: int, files: int, rounds: int) -> Iterator[Row]:
    """``files`` are in the tree that git and find look at.  Raises Deaf or Failure."""
    with image() as made:
        for cache in CACHES:
            with guest(made, sides, cache) as running:
                guest_work.prepare(running, files)
                yield from guest_work.measure(running, cache, samples, rounds)
                if cache == "auto":
                    native = sides.native.outside / "events"
                    native.mkdir()
                    yield from guest_events.measure(running, native, samples // 4, rounds)
