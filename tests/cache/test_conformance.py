"""The conformance cases with the ways of caching that are not the default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.stage import FarwatchStage, NativeStage

CASES = all_cases()
EACH = 12
"""One case in so many is run with every short run of the tests."""

pytestmark = pytest.mark.root


class Stages:
    """A mount for each way of caching, with and without watches for reading, when asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._made: dict[tuple[str, bool], FarwatchStage] = {}

    def get(self, cache: str, *, reading: bool) -> FarwatchStage:
        at = (cache, reading)
        if at not in self._made:
            stage = FarwatchStage(("--cache", cache), reading=reading)
            self._made[at] = self._stack.enter_context(stage)
        return self._made[at]


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with ExitStack() as stack:
        yield Stages(stack)


@pytest.mark.parametrize("cache", ["auto", "never"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if number % EACH == 0 else pytest.mark.long)
        for number, case in enumerate(CASES)
    ],
    ids=str,
)
def test_paced(case: Case, cache: str, native: NativeStage, stages: Stages) -> None:
    stage = stages.get(cache, reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)
