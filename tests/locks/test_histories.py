"""The same random history of locking, in a plain directory and across a mount.

Three processes open one file, lock, unlock, ask and close.  In the plain directory that is
the kernel's own business; across the mount one of them is on SRC and two are on MNT, or the
other way round.  Each step must end in the same way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.locks.locker import Locker
from tests.mounting.mounted import Area

pytestmark = pytest.mark.root

_PROCESSES = 3
_SORTS = st.sampled_from(["flock", "posix", "posix", "ofd"])
_NAMES = st.sampled_from(["a", "b"])
_BYTE = st.integers(0, 5)
_LENGTH = st.integers(0, 4)


class Step(NamedTuple):
    who: int
    order: tuple[Any, ...]


_ORDERS = st.one_of(
    st.tuples(st.just("open"), _NAMES, st.sampled_from(["r", "w", "rw", "rw"])),
    st.tuples(st.just("close"), _NAMES),
    st.tuples(
        st.just("lock"), _NAMES, _SORTS, st.sampled_from(["read", "write", "none"]), _BYTE, _LENGTH
    ),
    st.tuples(
        st.just("ask"),
        _NAMES,
        st.sampled_from(["posix", "ofd"]),
        st.sampled_from(["read", "write"]),
        _BYTE,
        _LENGTH,
    ),
)
_HISTORIES = st.lists(st.builds(Step, st.integers(0, _PROCESSES - 1), _ORDERS), max_size=25)


class World:
    """Processes for a plain directory, and as many for both sides of a mount."""

    def __init__(self, area: Area, stack: ExitStack) -> None:
        self._area = area
        self._plain = area.home / "plain"
        self._plain.mkdir()
        self._numbers = itertools.count()
        self._native = [stack.enter_context(Locker()) for _ in range(_PROCESSES)]
        self._across = [stack.enter_context(Locker()) for _ in range(_PROCESSES)]

    def run(self, history: list[Step], sides: list[Path]) -> None:
        name = f"f{next(self._numbers)}"
        is_open: set[tuple[int, str]] = set()
        (self._area.src / name).touch()
        (self._plain / name).touch()
        for step in history:
            what, file = step.order[:2]
            if (what == "open") == ((step.who, file) in is_open):
                continue
            native = self._do(self._native, step, self._plain / name)
            across = self._do(self._across, step, sides[step.who] / name)
            assert across == native, step
            if what == "open":
                is_open.add((step.who, file))
            elif what == "close":
                is_open.remove((step.who, file))
        for who, file in is_open:
            self._do(self._native, Step(who, ("close", file)), self._plain)
            self._do(self._across, Step(who, ("close", file)), self._plain)
        (self._area.src / name).unlink()
        (self._plain / name).unlink()

    def _do(self, processes: list[Locker], step: Step, path: Path) -> tuple[int, object]:
        what, *arguments = step.order
        if what == "open":
            arguments.insert(1, str(path))
        error, value = processes[step.who].try_(what, *arguments)
        if what == "close":
            # What the last close ends is told to the server without anybody waiting for it;
            # but before the next request.
            os.path.lexists(self._area.mnt / f"barrier{next(self._numbers)}")
        if what == "ask":
            return error, value is not None
        return error, value


@pytest.fixture(scope="module")
def world(area: Area) -> Iterator[World]:
    with ExitStack() as stack, Locker() as first:
        # From now on each close of a file that is open for reading is told as well.
        (area.src / "first").touch()
        first.do("open", "f", str(area.mnt / "first"), "r")
        first.do("lock", "f", "posix", "read")
        yield World(area, stack)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=_HISTORIES, of_src=st.integers(1, (1 << _PROCESSES) - 2))
def test_the_same_on_both_sides(world: World, area: Area, history: list[Step], of_src: int) -> None:
    sides = [area.src if of_src >> who & 1 else area.mnt for who in range(_PROCESSES)]
    world.run(history, sides)


@pytest.mark.long
@settings(
    deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=_HISTORIES, of_src=st.integers(0, (1 << _PROCESSES) - 1))
def test_the_same_on_both_sides_many_times(
    world: World, area: Area, history: list[Step], of_src: int
) -> None:
    sides = [area.src if of_src >> who & 1 else area.mnt for who in range(_PROCESSES)]
    world.run(history, sides)
