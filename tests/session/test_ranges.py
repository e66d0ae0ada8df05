"""Ranges as the kernel keeps them: compared with its own, on a real file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farwatch.export import locks
from farwatch.export.locks import LAST
from farwatch.session.ranges import Range, Ranges

_BYTES = [*range(8), LAST - 1, LAST]
_RANGES = st.builds(
    lambda two, kind: Range(min(two), max(two), kind),
    st.tuples(st.sampled_from(_BYTES), st.sampled_from(_BYTES)),
    st.sampled_from([F_RDLCK, F_WRLCK, F_UNLCK]),
)


def held_by_the_kernel(other: int) -> list[Range]:
    """All that stands against another owner's exclusive locks."""
    found = []
    start = 0
    while start <= LAST:
        conflict = locks.conflict(other, F_WRLCK, start, LAST)
        if conflict is None:
            break
        found.append(Range(conflict.start, conflict.end, conflict.kind))
        start = conflict.end + 1
    return found


@pytest.fixture(scope="module")
def memory() -> Iterator[int]:
    fd = os.memfd_create("farwatch-test")
    yield fd
    os.close(fd)


@settings(deadline=None)
@given(st.lists(_RANGES, max_size=12), _RANGES)
def test_as_the_kernel_keeps_them(memory: int, taken: list[Range], wanted: Range) -> None:
    one, other = locks.another(memory, os.O_RDWR), locks.another(memory, os.O_RDWR)
    try:
        ranges = Ranges()
        for each in taken:
            assert locks.set_lock(one, each.kind, each.start, each.end)
            ranges.put(each)
            assert sorted(held_by_the_kernel(other)) == ranges.all()
        assert len(ranges) == len(ranges.all())
        if wanted.kind != F_UNLCK:
            conflict = ranges.conflict(wanted)
            said = locks.conflict(other, wanted.kind, wanted.start, wanted.end)
            assert (conflict is None) == (said is None)
            if said is not None:
                assert Range(said.start, said.end, said.kind) in ranges.all()
    finally:
        os.close(one)
        os.close(other)
