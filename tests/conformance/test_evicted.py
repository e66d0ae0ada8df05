"""The conformance cases, paced, while memory is short on the client: it forgets what it can.

A watch keeps an inode, and neither its name nor the directory that it is in.  What is heard by
inotify has to go on being heard where only a forgotten directory's mark tells it; see
export/homes.py.  There not all cases: whoever hears by inotify is too slow for some of the
others now and then, when all caches are dropped many times a second; and how a file is open,
which an OPEN does not say, is looked for in a /proc that has to be read anew each time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.conformance.test_by_inotify import InotifyStage
from tests.kept import Kept
from tests.rules.test_evicted import evict_names
from tests.stage import FarwatchStage, NativeStage

pytestmark = pytest.mark.root

CASES = all_cases()
SHORT = CASES[::9]
BY_INOTIFY = [
    case
    for case in CASES
    if str(case).startswith(("attrib-", "content-", "move-", "watch-"))
    and "link" not in str(case)
    and "held" not in str(case)
    and not reads(case.steps)
]
_SECONDS = 0.03


@contextlib.contextmanager
def memory_is_short() -> Iterator[None]:
    stop = threading.Event()

    def evict() -> None:
        while not stop.wait(_SECONDS):
            evict_names()

    thread = threading.Thread(target=evict)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Stages(Kept[tuple[type[FarwatchStage], bool], FarwatchStage]):
    """Mounts that live as long as the module's tests."""

    def __init__(self) -> None:
        super().__init__(lambda key: key[0](reading=key[1]))


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with Stages() as made, memory_is_short():
        yield made


def play(native: NativeStage, stages: Stages, case: Case, kind: type[FarwatchStage]) -> None:
    stage = stages.of((kind, reads(case.steps)))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_by_fanotify(case: Case, native: NativeStage, stages: Stages) -> None:
    play(native, stages, case, FarwatchStage)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in SHORT], ids=str)
def test_by_fanotify_rest(case: Case, native: NativeStage, stages: Stages) -> None:
    play(native, stages, case, FarwatchStage)


@pytest.mark.parametrize("case", BY_INOTIFY, ids=str)
def test_by_inotify(case: Case, native: NativeStage, stages: Stages) -> None:
    play(native, stages, case, InotifyStage)
