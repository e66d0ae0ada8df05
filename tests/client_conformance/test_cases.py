"""The suite of cases with ``farwatch.client`` as the watcher, over a socket and over virtqueues.

What must hold, in which mode:

remote   All that the client hears comes from the server, in the order of the server's source,
         what it has done itself included.  Paced it equals the native stream.  At full speed
         what holds for any source that may lag (``compare_full``).
merged   What the client does itself it tells at the moment of the call, without the server:
         that equals the native stream at any speed.  What others do comes from the server.
         At full speed the two meet in an order that is not the native one, for the one is
         there at once and the other after a way through source and connection: where both
         sides change something each of the two is compared (``compare_merged``), and not
         which of them had the last word.
local    What the client does itself, as in merged.  Of what others do it hears nothing.

Each event says whose doing it was, which is compared where only one side does anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product

import pytest
from _pytest.mark import ParameterSet

from farwatch.abi.fsnotify import Source
from tests.client_conformance.acted import (
    AT_FULL_SPEED,
    CASES,
    INSIDE,
    REMOTE_ONLY,
    by_the_client,
    has_both,
    is_remote_only,
)
from tests.client_conformance.compared import compare_merged
from tests.client_conformance.conftest import Clients
from tests.client_conformance.stage import Mode, Transport
from tests.conformance.play import Speed, Verdict, compared_full, compared_paced, play
from tests.conformance.script import Case, reads
from tests.conformance.stream import (
    Comparison,
    Outcome,
    compare_full,
    compare_nothing,
    compare_paced,
)
from tests.stage import NativeStage

pytestmark = pytest.mark.root

TELLING = [Mode.REMOTE, Mode.MERGED]
UNMADE = {"IGNORED"}
"""What nobody has made: the client's own core says it of a watch that is no more."""


def not_of(source: Source, seen: Outcome) -> list[str]:
    """Events that say somebody else made them, a line each.

    Of an inode's end nobody may know who made it: it is the work of the last who held it.
    """
    return [
        f"<{event}> is said to be {Source(said).name}, and not {source.name}"
        for event, said in zip(seen.events, seen.sources, strict=True)
        if said != source
        and event.kind not in UNMADE
        and (event.kind, said) != ("DELETE_SELF", Source.UNKNOWN)
    ]


def require(verdict: Verdict, stage_name: str, source: Source | None) -> None:
    wrong = not_of(source, verdict.seen) if source is not None else []
    verdict._replace(problems=verdict.problems + wrong).require_equal(stage_name)


def maker(case: Case) -> Source | None:
    """Who makes all the events of a case, if that is one side alone."""
    return Source.REMOTE if is_remote_only(case) else None


def in_mode(mode: Mode, case: Case) -> Comparison:
    """How two runs of a case are compared at full speed; see the top of the file."""
    if mode is Mode.MERGED and has_both(case):
        return compare_merged
    if case.full == "no":
        return compare_nothing
    # One channel tells of both sides, so also what is compared by its end behind a mount.
    return compare_full


def paced(case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode) -> None:
    stage = clients.stage(where, mode, reading=reads(case.steps))
    verdict = compared_paced(native, stage, case.steps, in_mode(mode, case))
    require(verdict, stage.name, maker(case))


def at_full_speed(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    stage = clients.stage(where, mode, reading=reads(case.steps))
    verdict = compared_full(native, stage, case.steps, in_mode(mode, case))
    require(verdict, stage.name, maker(case))


def by_the_client_alone(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    """Everything done by the client, without a pause: it is told of at the moment of the call.

    But in remote mode the server tells of it, so what is compared is what a source owes.
    """
    steps = by_the_client(case.steps)
    stage = clients.stage(where, mode, reading=reads(steps))
    if mode is Mode.REMOTE:
        verdict = compared_paced(native, stage, steps)
    else:
        verdict = compared_full(native, stage, steps, compare_paced)
    require(verdict, stage.name, Source.LOCAL)


def hears_nobody(case: Case, clients: Clients, where: Transport, mode: Mode) -> None:
    stage = clients.stage(where, mode, reading=reads(case.steps))
    seen = play(stage, case.steps, Speed.FULL)
    said = [str(event) for event in seen.events if event.kind not in UNMADE]
    assert not said, said


def dealt(cases: Sequence[Case], modes: Sequence[Mode]) -> list[ParameterSet]:
    """Each case in one of the modes by one of the transports, in turn."""
    ways = list(product(modes, Transport))
    return [
        pytest.param(case, mode, where, id=f"{case}-{mode}-{where}")
        for case, (mode, where) in zip(cases, cycle(ways), strict=False)
    ]


def every(cases: Sequence[Case], modes: Sequence[Mode]) -> list[ParameterSet]:
    """Each case in all of the modes by all of the transports."""
    return [
        pytest.param(case, mode, where, id=f"{case}-{mode}-{where}")
        for case, mode, where in product(cases, modes, Transport)
    ]


@pytest.mark.parametrize(("case", "mode", "where"), dealt(CASES[::6], TELLING))
def test_paced(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    paced(case, native, clients, where, mode)


@pytest.mark.long
@pytest.mark.parametrize(("case", "mode", "where"), every(CASES, TELLING))
def test_every_case_paced(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    paced(case, native, clients, where, mode)


@pytest.mark.parametrize(("case", "mode", "where"), dealt(AT_FULL_SPEED[1::6], TELLING))
def test_at_full_speed(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    at_full_speed(case, native, clients, where, mode)


@pytest.mark.long
@pytest.mark.parametrize(("case", "mode", "where"), every(AT_FULL_SPEED, TELLING))
def test_every_case_at_full_speed(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    at_full_speed(case, native, clients, where, mode)


@pytest.mark.parametrize(("case", "mode", "where"), dealt(INSIDE[::4], list(Mode)))
def test_by_the_client_alone(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    by_the_client_alone(case, native, clients, where, mode)


@pytest.mark.long
@pytest.mark.parametrize(("case", "mode", "where"), every(INSIDE, list(Mode)))
def test_every_case_by_the_client_alone(
    case: Case, native: NativeStage, clients: Clients, where: Transport, mode: Mode
) -> None:
    by_the_client_alone(case, native, clients, where, mode)


@pytest.mark.parametrize(("case", "mode", "where"), dealt(REMOTE_ONLY[::4], [Mode.LOCAL]))
def test_in_local_mode_nobody_else_is_heard(
    case: Case, clients: Clients, where: Transport, mode: Mode
) -> None:
    hears_nobody(case, clients, where, mode)


@pytest.mark.long
@pytest.mark.parametrize(("case", "mode", "where"), every(REMOTE_ONLY, [Mode.LOCAL]))
def test_in_local_mode_nobody_else_is_heard_in_any_case(
    case: Case, clients: Clients, where: Transport, mode: Mode
) -> None:
    hears_nobody(case, clients, where, mode)
