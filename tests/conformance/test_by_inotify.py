"""The conformance cases, paced, with changes heard by inotify in place of fanotify."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator

import pytest

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.kept import Kept
from tests.ordinary.stage import inotify_masks
from tests.stage import FarwatchStage, NativeStage

pytestmark = pytest.mark.root

CASES = all_cases()
SHORT = CASES[::9]
"""Of each subject some: their names begin with it."""


class InotifyStage(FarwatchStage):
    """``farwatch mount --events inotify`` as root."""

    name = "farwatch by inotify"

    def __init__(self, *, reading: bool = False) -> None:
        super().__init__(["--events", "inotify"], reading=reading)

    def source_mask(self) -> int:
        """What any mark of the server's asks for."""
        masks = (mask for pid in self.processes() for mask in inotify_masks(pid))
        return functools.reduce(operator.or_, masks, 0)


Stages = Kept[bool, InotifyStage]
"""By whether reading is watched."""


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with Stages(lambda reading: InotifyStage(reading=reading)) as made:
        yield made


def paced(native: NativeStage, stages: Stages, case: Case) -> None:
    stage = stages.of(reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_paced(case: Case, native: NativeStage, stages: Stages) -> None:
    paced(native, stages, case)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in SHORT], ids=str)
def test_paced_rest(case: Case, native: NativeStage, stages: Stages) -> None:
    paced(native, stages, case)
