"""The harness itself: every comparison can fail.

A conformance suite that cannot fail proves nothing.  So each recorded case is
damaged in every way that a wrong delivery would damage it, and each damage must
be found; and whole stages that lose, double, delay or swap events must fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.conformance.broken import BrokenStage
from tests.conformance.client import RawEvent, Silence
from tests.conformance.play import Speed, play
from tests.conformance.script import Case, all_cases, event_of, expected_outcome, parse_script
from tests.conformance.stream import (
    NAMES,
    Event,
    Outcome,
    compare_full,
    compare_paced,
    doubled,
    events_of,
    fold,
    incoherence,
    per_watch,
)
from tests.stage import NativeStage, Stage

CASES = all_cases()


def stream(*lines: str) -> Outcome:
    return Outcome(tuple(map(event_of, lines)))


def damaged(events: Sequence[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Every single damage to a stream that is more than folding hides."""
    for index, event in enumerate(events):
        rest = [*events[:index], *events[index + 1 :]]
        yield f"without {event}", rest
        for wrong in (
            event._replace(name=event.name + "?"),
            event._replace(kinds=event.kinds + "|ISDIR"),
            event._replace(watch=event.watch + "?"),
            event._replace(partner=event.partner + "?"),
        ):
            yield f"{wrong} for {event}", [*events[:index], wrong, *events[index + 1 :]]
        if index:
            swapped = [*events[: index - 1], event, events[index - 1], *events[index + 1 :]]
            yield f"{event} before {events[index - 1]}", swapped


@pytest.mark.parametrize("case", CASES, ids=str)
def test_paced_comparison_finds_any_damage(case: Case) -> None:
    spec = expected_outcome(case)
    for name, events in damaged(spec.events):
        if per_watch(events) != per_watch(spec.events):
            assert compare_paced(spec, spec._replace(events=tuple(events))), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_full_speed_comparison_finds_what_is_lost_doubled_or_invented(case: Case) -> None:
    spec = expected_outcome(case)
    for index, event in enumerate(spec.events):
        without = [*spec.events[:index], *spec.events[index + 1 :]]
        if event.kind in {"CREATE", "DELETE", "MOVED_FROM", "MOVED_TO"} or event not in without:
            assert compare_full(spec, spec._replace(events=tuple(without))), f"without {event}"
        twice = [*spec.events[: index + 1], *spec.events[index:]]
        if event.kind in {"CREATE", "DELETE", "MOVED_FROM", "MOVED_TO", "DELETE_SELF", "IGNORED"}:
            assert compare_full(spec, spec._replace(events=tuple(twice))), f"{event} twice"
        elsewhere = [*spec.events, event._replace(name=event.name + "?")]
        assert compare_full(spec, spec._replace(events=tuple(elsewhere))), f"{event} elsewhere"


def test_every_expected_part_can_be_read_back() -> None:
    for case in CASES:
        spec = expected_outcome(case)
        assert [str(event) for event in spec.events] == [
            line for line in case.expected if not line.startswith("?")
        ]


def test_identical_neighbours_are_folded_and_others_are_not() -> None:
    one, two = event_of("d: MODIFY x"), event_of("d: MODIFY y")
    assert fold([one, one, two, two, one]) == [one, two, one]


def test_cookies_become_partners() -> None:
    raw = [
        RawEvent("a", "d", 0x40, 7, "x", 0),
        RawEvent("a", "e", 0x80, 7, "y", 0),
        RawEvent("b", "f", 0x80, 7, "y", 0),
        RawEvent("a", "d", 0x40, 8, "x", 0),
    ]
    assert list(map(str, events_of(raw))) == [
        "d: MOVED_FROM x > e/y",
        "e: MOVED_TO y < d/x",
        "f: MOVED_TO y < -",
        "d: MOVED_FROM x > -",
    ]


def test_last_word_must_agree_with_the_disk() -> None:
    spec = stream("d: CREATE x", "d: DELETE x")._replace(
        disk={"d": []}, unknowable=frozenset({("d", "x")})
    )
    seen = stream("d: DELETE x", "d: CREATE x")._replace(disk={"d": []})
    assert compare_full(spec, seen) == ["d/x: last word CREATE, but on disk it is not"]
    assert not compare_full(spec, stream("d: DELETE x")._replace(disk={"d": []}))


def test_of_a_moved_directory_what_was_merged_may_be_missing_and_nothing_else() -> None:
    spec = stream("d: MOVED_TO|ISDIR x < -", "d: ATTRIB|ISDIR x")._replace(
        moved=frozenset({("d", "x")})
    )
    assert not compare_full(spec, stream("d: MOVED_TO|ISDIR x < -"))
    assert not compare_full(spec, spec)
    assert compare_full(spec._replace(moved=frozenset()), stream("d: MOVED_TO|ISDIR x < -"))
    assert compare_full(spec, stream("d: ATTRIB|ISDIR x"))
    assert compare_full(stream("d: MOVED_TO|ISDIR x < -")._replace(moved=spec.moved), spec)


def test_doubled_names_are_found() -> None:
    outcome = stream("d: CREATE x", "d: CREATE x", "d: DELETE x", "d: DELETE x")
    assert len(doubled(outcome, {"d": []})) == 2
    assert not doubled(stream("d: DELETE x", "d: CREATE x"), {"d": ["x"]})


def test_a_stale_view_is_found() -> None:
    assert incoherence(Outcome((), truth="x: size=5", seen="x: size=4"))
    assert compare_paced(Outcome((), answers=("look x: 5",)), Outcome((), answers=("look x: 4",)))


class DeafStage(NativeStage):
    """What is watched is not what is changed: no remote event ever arrives."""

    name = "deaf"

    def _start(self) -> None:
        (self._home / "elsewhere" / "sentinel").mkdir(parents=True)

    def fresh(self) -> str:
        name = super().fresh()
        (self._home / "elsewhere" / name).mkdir()
        return name

    @property
    def watching(self) -> str:
        return str(self._home / "elsewhere")


def lose_last(events: list[RawEvent]) -> None:
    del events[-1:]


def double_last(events: list[RawEvent]) -> None:
    """An echo: the last event once more, with another between."""
    if len(events) > 1:
        events += [events[-2], events[-1]]


def swap_last(events: list[RawEvent]) -> None:
    """It is called at every synchronisation: a rotation is not undone by the next."""
    events[:] = events[-1:] + events[:-1]


def lose_cookies(events: list[RawEvent]) -> None:
    events[:] = [event._replace(cookie=number) for number, event in enumerate(events)]


def lose_isdir(events: list[RawEvent]) -> None:
    isdir = next(bit for bit, name in NAMES.items() if name == "ISDIR")
    events[:] = [event._replace(mask=event.mask & ~isdir) for event in events]


SCRIPT = parse_script(
    """
    mkdir d
    watch d d CHANGES
    mkdir d/sub
    rename d/sub d/other
    write d/x hello
    """
)


@pytest.mark.parametrize(
    "damage",
    [lose_last, double_last, swap_last, lose_cookies, lose_isdir],
    ids=lambda f: f.__name__,
)
def test_a_broken_stage_fails(native: Stage, damage: Callable[[list[RawEvent]], None]) -> None:
    spec = play(native, SCRIPT, Speed.PACED)
    with BrokenStage(damage) as broken:
        assert compare_paced(spec, play(broken, SCRIPT, Speed.PACED))


def test_a_stage_that_hears_nothing_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conformance.client.ANSWER_SECONDS", 0.3)
    steps = parse_script("watch d . CHANGES\nmkfile x")
    with DeafStage() as deaf, pytest.raises(Silence, match="sentinel s"):
        play(deaf, steps, Speed.PACED)


def test_two_native_runs_are_equal(native: Stage) -> None:
    runs = [play(native, SCRIPT, speed) for speed in (Speed.PACED, Speed.FULL)]
    assert not compare_paced(*runs)
    assert not compare_full(*runs)
