"""The conformance cases, paced, with changes heard by inotify in place of fanotify."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterator

import pytest

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
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


class Stages:
    """Mounts that live as long as the module's tests, one on which reading is watched."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._mounted: dict[bool, FarwatchStage] = {}

    def mounted(self, *, reading: bool) -> FarwatchStage:
        if reading not in self._mounted:
            stage = InotifyStage(reading=reading)
            self._mounted[reading] = self._stack.enter_context(stage)
        return self._mounted[reading]


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with contextlib.ExitStack() as stack:
        yield Stages(stack)


def paced(native: NativeStage, stages: Stages, case: Case) -> None:
    stage = stages.mounted(reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_paced(case: Case, native: NativeStage, stages: Stages) -> None:
    paced(native, stages, case)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in SHORT], ids=str)
def test_paced_rest(case: Case, native: NativeStage, stages: Stages) -> None:
    paced(native, stages, case)
