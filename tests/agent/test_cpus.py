"""The scanning thread leaves the CPU of the replays, and no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import pytest

from farwatch.agent.watching import _leave_the_cpu


def left(bound: Iterable[int]) -> set[int]:
    """Where a thread that was bound to these CPUs may run afterwards."""
    found: list[set[int]] = []

    def run() -> None:
        os.sched_setaffinity(0, bound)
        _leave_the_cpu()
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
