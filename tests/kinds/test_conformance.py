"""The conformance cases with SRC on each kind of file system, watched natively there as well.

``submount-…``: SRC is on the disk, and what is watched is on a file system mounted below it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.conformance.play import compared_full, compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.kept import Kept
from tests.kinds.places import KINDS, place
from tests.kinds.stages import SubmountStage
from tests.stage import FarwatchStage, NativeStage

pytestmark = pytest.mark.root

CASES = all_cases()
SHORT = [
    case
    for case in CASES
    if case.path.stem
    in (
        "delete-tree",
        "held-open-by-remote-then-deleted",
        "local-basic",
        "rename-directory-across",
    )
]
SUBMOUNTS = ("submount-tmpfs", "submount-subvolume", "submount-bind")
IMPOSSIBLE = {("overlayfs", "rename-whiteout")}
"""What the file system itself refuses (EINVAL)."""


class Stages:
    """A native stage and mounts on one new file system, which live as long as their tests."""

    def __init__(self, kind: str, stack: contextlib.ExitStack) -> None:
        self.kind = kind
        at = stack.enter_context(place(kind.removeprefix("submount-")))
        made = SubmountStage if kind in SUBMOUNTS else FarwatchStage
        self.native = stack.enter_context(NativeStage(place=at))
        self.mounted = stack.enter_context(
            Kept[bool, FarwatchStage](lambda reading: made(reading=reading, place=at))
        )
        """By whether reading is watched (see ``tests.stage``)."""


@pytest.fixture(scope="module", params=(*KINDS, *SUBMOUNTS))
def stages(request: pytest.FixtureRequest) -> Iterator[Stages]:
    with contextlib.ExitStack() as stack:
        yield Stages(request.param, stack)


def paced(stages: Stages, case: Case) -> None:
    if (stages.kind, case.path.stem) in IMPOSSIBLE:
        pytest.skip("not possible there")
    stage = stages.mounted.of(reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(stages.native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_paced(case: Case, stages: Stages) -> None:
    paced(stages, case)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_paced_all(case: Case, stages: Stages) -> None:
    paced(stages, case)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case.full != "no"], ids=str)
def test_at_full_speed(case: Case, stages: Stages) -> None:
    if (stages.kind, case.path.stem) in IMPOSSIBLE:
        pytest.skip("not possible there")
    stage = stages.mounted.of(reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_full(stages.native, stage, case.steps, compare).require_equal(stage.name)
