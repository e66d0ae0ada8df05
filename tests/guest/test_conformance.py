"""The suite of cases with the watcher in a guest and the changes on the host.

Each case is compared with a native run on this machine, as behind ``farwatch mount``.
"""

from __future__ import annotations

import pytest

from tests.conformance.play import compared_full, compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.conformance.stream import events_of, mask_of
from tests.conformance.watcher import SENTINEL_WATCH
from tests.guest.conftest import Guests
from tests.guest.stage import GuestClient
from tests.stage import NativeStage

pytestmark = [pytest.mark.root, pytest.mark.guest]

CASES = all_cases()
AT_FULL_SPEED = [case for case in CASES if case.full != "no"]
TRUNCATING = "local-basic-all-kinds-of-events"
"""The client opens with O_TRUNC.  Its own kernel tells of that, and 6.1 in another order than
the kernel of this machine; see the test."""
WITH_LINUX_6_1 = [case for case in CASES if case.path.stem != TRUNCATING]
OF_EACH_FAMILY = list({case.path.stem.partition("-")[0]: case for case in WITH_LINUX_6_1}.values())
"""One case for each first word of a name."""


def paced(case: Case, native: NativeStage, guests: Guests, series: str = "6.12") -> None:
    stage = guests.stage(series, reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_paced(native, stage, case.steps, compare).require_equal(stage.name)


def at_full_speed(case: Case, native: NativeStage, guests: Guests, series: str = "6.12") -> None:
    stage = guests.stage(series, reading=reads(case.steps))
    compare = compare_at_full_speed(case)
    compared_full(native, stage, case.steps, compare).require_equal(stage.name)


@pytest.mark.parametrize("case", CASES[::10], ids=str)
def test_paced(case: Case, native: NativeStage, guests: Guests) -> None:
    paced(case, native, guests)


@pytest.mark.parametrize("case", AT_FULL_SPEED[::12], ids=str)
def test_at_full_speed(case: Case, native: NativeStage, guests: Guests) -> None:
    at_full_speed(case, native, guests)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_paced(case: Case, native: NativeStage, guests: Guests) -> None:
    paced(case, native, guests)


@pytest.mark.long
@pytest.mark.parametrize("case", AT_FULL_SPEED, ids=str)
def test_every_case_at_full_speed(case: Case, native: NativeStage, guests: Guests) -> None:
    at_full_speed(case, native, guests)


@pytest.mark.parametrize("case", OF_EACH_FAMILY[::2], ids=str)
def test_paced_with_linux_6_1(case: Case, native: NativeStage, guests: Guests) -> None:
    paced(case, native, guests, "6.1")


@pytest.mark.long
@pytest.mark.parametrize("case", WITH_LINUX_6_1, ids=str)
def test_every_case_with_linux_6_1(case: Case, native: NativeStage, guests: Guests) -> None:
    paced(case, native, guests, "6.1")
    if case.full != "no":
        at_full_speed(case, native, guests, "6.1")


@pytest.mark.parametrize("series", ["6.12", "6.1"])
def test_when_a_kernel_tells_of_truncating(series: str, guests: Guests) -> None:
    """On a tmpfs, without farwatch: why one case is left out with 6.1."""
    stage = guests.stage(series)
    stage.machine.check(["mkdir", "-p", f"/tmp/{SENTINEL_WATCH}"])
    client = GuestClient(stage.machine, "/tmp", "tmpfs")
    try:
        client.ask("start", base="")
        client.ask("act", words=["write", "x", "hello"])
        client.ask("group", group="a")
        client.ask("watch", watch="x", group="a", path="x", mask=mask_of("ALL"))
        client.ask("act", words=["write", "x"])
        client.ask("sentinel", name=f"end-{series}")
        client.wait_for_sentinel(f"end-{series}", ["a"])
        kinds = [event.kinds for event in events_of(client.events)]
    finally:
        client.close()
    expected = ["OPEN", "MODIFY"] if series == "6.12" else ["MODIFY", "OPEN"]
    assert kinds == [*expected, "CLOSE_WRITE"]
