"""The conformance cases with the ways of caching that are not the default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.kept import Kept
from tests.stage import FarwatchStage, NativeStage

CASES = all_cases()
EACH = 12
"""One case in so many is run with every short run of the tests."""

pytestmark = pytest.mark.root


Stages = Kept[tuple[str, bool], FarwatchStage]
"""By the way of caching, and whether reading is watched."""


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with Stages(lambda key: FarwatchStage(("--cache", key[0]), reading=key[1])) as made:
        yield made


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
    stage = stages.of((cache, reads(case.steps)))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)
