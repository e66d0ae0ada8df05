"""What no two starts of a server may have in common."""

from __future__ import annotations

from farwatch.abi.control import is_name
from farwatch.export.nodes import FIRST_ID
from farwatch.serving.start import this_start


def test_every_start_is_another_one() -> None:
    starts = [this_start() for _ in range(200)]
    assert len({start.base for start in starts}) == len(starts)
    assert len({start.hidden_name for start in starts}) == len(starts)
    for start in starts:
        assert start.base % (1 << 32) == 0
        assert FIRST_ID < start.base < 1 << 63
        assert 0 <= start.generation < 1 << 32
        assert is_name(start.hidden_name)
