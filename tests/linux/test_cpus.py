"""A thread that is to hold up no other leaves the CPU that its process is bound to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import pytest

from farwatch.linux.cpus import leave_the_cpu


def left(bound: Iterable[int]) -> set[int]:
    """Where a thread that was bound to these CPUs may run afterwards."""
    found: list[set[int]] = []

    def run() -> None:
        os.sched_setaffinity(0, bound)
        leave_the_cpu()
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_bound_to_one_it_may_run_on_all() -> None:
    allowed = os.sched_getaffinity(0)
    for cpu in allowed:
        assert left({cpu}) >= allowed


def test_whoever_has_chosen_several_is_left_there() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one CPU")
    assert left(allowed) == allowed
