"""Every case natively against its expected part, and behind a mount against the native run."""

from __future__ import annotations

import pytest

from tests.conformance.held_up import HeldUp
from tests.conformance.play import (
    Speed,
    Verdict,
    compared_full,
    compared_paced,
    play,
)
from tests.conformance.script import (
    Case,
    all_cases,
    compare_at_full_speed,
    expected_outcome,
    parse_script,
    reads,
)
from tests.conformance.stream import READING, Outcome, compare_paced
from tests.conftest import Mounts
from tests.stage import FarwatchStage, NativeStage, Stage

CASES = all_cases()
EXPORT_ROOT = """
watch root . CHANGES
mkdir d
write d/x hello
write x hello
append x more
chmod x 600
rename x y
rename d/x x
unlink y
rmdir d
local write z hello
sync
local unlink z
list .
"""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.root if case.needs_root else ()) for case in CASES],
    ids=str,
)
def test_natively(case: Case, native: NativeStage) -> None:
    spec, seen = expected_outcome(case), play(native, case.steps, Speed.FULL)
    Verdict(compare_paced(spec, seen), spec, seen, 0).require_equal("native")


@pytest.mark.root
@pytest.mark.parametrize("case", CASES, ids=str)
def test_paced(case: Case, native: NativeStage, mounts: Mounts) -> None:
    stage = mounts.stage(reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.root
@pytest.mark.parametrize("case", [case for case in CASES if case.full != "no"], ids=str)
def test_at_full_speed(case: Case, native: NativeStage, mounts: Mounts) -> None:
    stage = mounts.stage(reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_full(native, stage, case.steps, compare).require_equal(stage.name)


def as_recorded(case: Case, native: Stage) -> Outcome:
    """A native run that agrees with the case's expected part.

    The mounts of other tests watch the same file system: a server that looks at a directory
    keeps it alive for that moment, and its end may come after that of the run.
    """
    spec = play(native, case.steps, Speed.FULL)
    for _ in range(2):
        if not compare_paced(expected_outcome(case), spec):
            break
        spec = play(native, case.steps, Speed.FULL)
    return spec


def held_up(case: Case, native: Stage, stage: FarwatchStage, seed: str) -> None:
    spec = as_recorded(case, native)
    with HeldUp(stage, seed):
        seen = play(stage, case.steps, Speed.FULL)
    Verdict(compare_at_full_speed(case)(spec, seen), spec, seen, 0).require_equal(stage.name)


@pytest.mark.root
@pytest.mark.parametrize("case", [case for case in CASES if case.full != "no"][::3], ids=str)
def test_held_up_at_random(case: Case, native: NativeStage, mounts: Mounts) -> None:
    held_up(case, native, mounts.stage(reading=reads(case.steps)), str(case))


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case.full != "no"], ids=str)
def test_held_up_at_random_often(case: Case, native: NativeStage, mounts: Mounts) -> None:
    for number in range(20):
        held_up(case, native, mounts.stage(reading=reads(case.steps)), f"{case} {number}")


@pytest.mark.root
def test_watch_on_the_root_of_the_export() -> None:
    steps = parse_script(EXPORT_ROOT)
    with NativeStage() as native, FarwatchStage() as stage:
        # It cannot be played again with a longer pause: the root is no fresh directory.
        stage.paces = stage.paces[1:]
        compared_paced(native, stage, steps, base="").require_equal(stage.name)
    with NativeStage() as native, FarwatchStage() as stage:
        compared_full(native, stage, steps, base="").require_equal(stage.name)


@pytest.mark.root
def test_reading_is_asked_for_while_somebody_wants_it() -> None:
    steps = parse_script(
        """
        write x hello
        watch quiet x CHANGES
        read x
        watch x x ALL
        read x
        """
    )
    with NativeStage() as native, FarwatchStage() as stage:
        assert not stage.source_mask() & READING
        compared_full(native, stage, steps).require_equal(stage.name)
        stage.wait_for_no_reading()
