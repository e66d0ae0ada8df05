"""Replays known by the agent's thread, with all else as root has it.

So faster sources than an ordinary user's are followed, and batches are long: each case at full
speed, and with server and agent held up at random.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.conformance.held_up import HeldUp
from tests.conformance.play import Speed, Verdict, compared_full, compared_paced, play
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.conformance.test_cases import as_recorded
from tests.kept import Kept
from tests.stage import PROJECT, FarwatchStage, NativeStage

CASES = all_cases()
SHORT = CASES[4::24]
REST = [case for case in CASES if case not in SHORT]


class ByThreadStage(FarwatchStage):
    """``farwatch`` as in ``by_thread.py``."""

    name = "farwatch, by thread"

    def __init__(self, *, reading: bool) -> None:
        super().__init__(reading=reading)
        self._environment["PYTHONPATH"] += f":{PROJECT}"

    def _run(self, command: list[str], seconds: float) -> int | str:
        assert command[:3] == [sys.executable, "-m", "farwatch"]
        return super()._run(
            [sys.executable, "-m", "tests.ordinary.by_thread", *command[3:]], seconds
        )


Stages = Kept[bool, ByThreadStage]
"""By whether reading is watched."""


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with Stages(lambda reading: ByThreadStage(reading=reading)) as made:
        yield made


def check(case: Case, native: NativeStage, stage: ByThreadStage) -> None:
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)
    if case.full == "no":
        return
    compared_full(native, stage, case.steps, compare).require_equal(stage.name)
    spec = as_recorded(case, native)
    with HeldUp(stage, str(case)):
        seen = play(stage, case.steps, Speed.FULL)
    Verdict(compare(spec, seen), spec, seen, 0).require_equal(stage.name)


@pytest.mark.root
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_cases(case: Case, native: NativeStage, stages: Stages) -> None:
    check(case, native, stages.of(reads(case.steps)))


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("case", REST, ids=str)
def test_cases_rest(case: Case, native: NativeStage, stages: Stages) -> None:
    check(case, native, stages.of(reads(case.steps)))
