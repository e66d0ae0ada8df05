"""The comparisons that only this suite has: each of them can fail."""

from __future__ import annotations

from itertools import cycle

import pytest

from farwatch.abi.fsnotify import Source
from tests.client_conformance.acted import CASES, by_the_client, has_both, stays_inside
from tests.client_conformance.compared import compare_merged, is_merged_of
from tests.client_conformance.test_cases import not_of
from tests.conformance.script import Case, event_of, expected_outcome, parse_step
from tests.conformance.stream import STRUCTURE, Event, Outcome

SIDES = (Source.LOCAL, Source.REMOTE)


def events(*lines: str) -> list[Event]:
    return list(map(event_of, lines))


def test_a_sequence_is_merged_of_two_only_if_each_keeps_its_order() -> None:
    one = events("d: CREATE x", "d: DELETE x")
    other = events("d: CREATE x", "d: MOVED_FROM x > d/y")
    first, second, third, fourth = one[0], one[1], other[0], other[1]
    assert is_merged_of([first, second, third, fourth], one, other)
    assert is_merged_of([first, third, fourth, second], one, other)
    assert is_merged_of([], [], [])
    assert not is_merged_of([second, first, third, fourth], one, other)
    assert not is_merged_of([first, second, fourth, third], one, other)
    assert not is_merged_of([first, second, third], one, other)
    assert not is_merged_of([first, second, third, fourth, fourth], one, other)


def half_and_half(case: Case) -> Outcome:
    """The native run, as if every second event were the client's own."""
    spec = expected_outcome(case)
    sides = cycle(SIDES)
    return spec._replace(sources=tuple(int(next(sides)) for _ in spec.events))


BOTH = [case for case in CASES if has_both(case)]


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_what_is_lost_doubled_or_invented_is_found(case: Case) -> None:
    spec = half_and_half(case)
    assert not compare_merged(spec, spec)
    for index, event in enumerate(spec.events):
        if event.kind not in STRUCTURE:
            continue
        rest = slice(index + 1, None)
        without = spec._replace(
            events=spec.events[:index] + spec.events[rest],
            sources=spec.sources[:index] + spec.sources[rest],
        )
        assert compare_merged(spec, without), f"without {event}"
        twice = spec._replace(
            events=(*spec.events[:index], event, *spec.events[index:]),
            sources=(*spec.sources[:index], spec.sources[index], *spec.sources[index:]),
        )
        assert compare_merged(spec, twice), f"{event} twice"
        other = event._replace(name=event.name + "?")
        elsewhere = spec._replace(
            events=(*spec.events[:index], other, *spec.events[index + 1 :]),
        )
        assert compare_merged(spec, elsewhere), f"{event} elsewhere"


def test_the_order_of_the_two_sides_may_differ_and_that_within_one_may_not() -> None:
    told = events("d: CREATE x", "d: DELETE x", "d: CREATE x", "d: MOVED_FROM x > -")
    local, remote = int(Source.LOCAL), int(Source.REMOTE)
    spec = Outcome(tuple(told), sources=(local, local, remote, remote))
    first, second, third, fourth = told
    late = Outcome((third, first, fourth, second), sources=(remote, local, remote, local))
    assert not compare_merged(spec, late)
    wrong = Outcome((first, second, fourth, third), sources=(local, local, remote, remote))
    assert compare_merged(spec, wrong)


def test_whose_doing_it_was_is_compared() -> None:
    told = events("d: CREATE x", "d: DELETE_SELF", "d: IGNORED")
    outcome = Outcome(tuple(told), sources=(2, 0, 0))
    assert not not_of(Source.REMOTE, outcome)
    assert not_of(Source.LOCAL, outcome) == ["<d: CREATE x> is said to be REMOTE, and not LOCAL"]
    assert not_of(Source.REMOTE, outcome._replace(sources=(0, 2, 0)))
    assert not_of(Source.REMOTE, outcome._replace(sources=(2, 1, 0)))


def test_a_case_is_done_by_the_client_alone() -> None:
    steps = [parse_step(line) for line in ("open h r d/x", "local open h r d/x", "unlink d/x")]
    acted = list(map(str, by_the_client(steps)))
    assert acted == ["local open remote-h r d/x", "local open h r d/x", "local unlink d/x"]
    assert all(
        step.verb != "change"
        for case in CASES
        if stays_inside(case)
        for step in by_the_client(case.steps)
    )
