"""Random histories: what is told, against what truly happened.

``FARWATCH_HISTORIES`` is the number of histories for each property (a few
hundred unless told).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.events import Change, Key, Kind, Place
from farwatch.sources.settling import exchanges
from farwatch.sources.settling.entries import Entries
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.memory import Anticipated
from farwatch.sources.settling.nameless import Nameless
from tests.sources.settling.history import ALL, Operation, Run, pairs, play, unknowable

OWN = 7
STRUCTURE = ("create", "mkdir", "link", "remove", "rename", "exchange")
FILES = ("create", "link", "remove", "rename")

histories = settings(
    max_examples=int(os.environ.get("FARWATCH_HISTORIES", "250")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

small = st.integers(0, 3)
kind = st.integers(0, len(ALL) - 1)
name = st.integers(0, 2)
operations = st.tuples(kind, small, small, name, small, name)
crowded = st.tuples(kind, small, st.just(0), st.integers(0, 1), st.just(0), small)
scripts = st.one_of(
    st.lists(operations, min_size=1, max_size=24), st.lists(crowded, min_size=1, max_size=24)
)
pauses = st.lists(st.integers(0, 10), max_size=5)
worlds = st.sampled_from(
    [
        {"kinds": FILES},
        {"kinds": STRUCTURE, "threads": (1, 2)},
        {"kinds": ALL, "threads": (1, 2, 3)},
        {"kinds": STRUCTURE, "threads": (1, 2), "racing": True},
        {"kinds": ALL, "threads": (1, 2, 3), "racing": True},
    ]
)


def check_names(run: Run) -> None:
    """Each name's own sequence is the true one, and a file system could have made it."""
    loose = unknowable(run)
    for place, truth in run.world.names.items():
        if place not in loose:
            told = run.client.names.get(place, [])
            assert told == truth, f"{place}: {list(pairs(told))} is not {list(pairs(truth))}"
    assert not [why for place, why in run.client.illegal if place not in loose]


def check_end(run: Run) -> None:
    """The last word about each name agrees with the disk."""
    for place, node in run.client.holds.items():
        assert run.world.node_at(place) == node, place
    assert not run.settler.carrying


def check_others(run: Run, own: tuple[int, ...] = ()) -> None:
    """Every other kind is told at least once for each node and name."""
    told = {(change.kind, change.place, change.node) for change in run.client.changes}
    for event in run.world.truth:
        if event.what in ("MODIFY", "ATTRIB", "CLOSE_WRITE") and event.thread not in own:
            kind = Kind[event.what]
            nameless = (kind, None, event.node) in told and bool(own)
            assert (kind, event.place, event.node) in told or nameless, event


def check_counts(run: Run) -> None:
    """Link counts are all explained, unless by what merging hid; every death is told once, last."""
    hidden = unknowable(run)
    if not hidden:
        assert not [c for c in run.client.changes if c.kind is Kind.ATTRIB and c.linked]
    died = [event.node for event in run.world.truth if event.what == "DEATH"]
    dead = [change.node for change in run.client.changes if change.kind is Kind.DEATH]
    assert Counter(died) == Counter(dead)
    gone: set[Key | None] = set()
    for change in run.client.changes:
        if change.kind is Kind.DEATH:
            gone.add(change.node)
        elif change.kind in (Kind.CREATE, Kind.RENAME):
            assert hidden or change.node not in gone, change


def check(run: Run) -> None:
    check_names(run)
    check_end(run)
    check_others(run)
    check_counts(run)


@histories
@given(scripts, pauses, worlds)
def test_any_batches(script: list[Operation], waits: list[int], world: dict[str, object]) -> None:
    check(play(script, waits, **world))  # type: ignore[arg-type]


def native(run: Run) -> list[tuple[Kind, Place | None, Key | None]]:
    """What a queue that is read at once holds, without what other events raise again."""
    expected: list[tuple[Kind, Place | None, Key | None]] = []
    moving: tuple[Place | None, Key] | None = None
    deaths: list[Key] = []
    truth = run.world.truth
    for index, event in enumerate(truth):
        what = event.what
        if what == "F":
            moving = (event.place, event.node)
        elif what == "T" and moving is not None:
            expected.append((Kind.RENAME, *moving))
            moving = None
        elif what == "T" and index and truth[index - 1].what == "T" and truth[index - 1].half:
            expected.append((Kind.EXCHANGE, event.place, truth[index - 1].node))
        elif what == "DEATH":
            deaths.append(event.node)
        elif what not in ("T", "linkcount"):
            name = {"C": "CREATE", "D": "DELETE"}.get(what, what)
            expected.append((Kind[name], event.place, event.node))
        follows = truth[index + 1] if index + 1 < len(truth) else None
        if deaths and not (follows and follows.what == "D" and follows.node in deaths):
            expected += [(Kind.DEATH, None, node) for node in deaths]
            deaths.clear()
    return expected


@histories
@given(scripts, st.sampled_from(["operation", "event"]))
def test_a_queue_that_is_read_at_once(script: list[Operation], batch: str) -> None:
    """Every operation, or every single event, is a batch of its own: the native order."""
    waits = [1] * 200 if batch == "event" else []
    run = play(script, waits, each=batch == "operation", threads=(1, 2))
    told = [(change.kind, change.place, change.node) for change in run.client.changes]
    assert told == native(run)
    assert not run.client.illegal


@histories
@given(scripts, pauses, st.sampled_from([STRUCTURE, ALL]), st.booleans(), st.booleans())
def test_the_servers_own(
    script: list[Operation], waits: list[int], kinds: tuple[str, ...], racing: bool, early: bool
) -> None:
    run = play(script, waits, kinds=kinds, threads=(1, OWN), own=(OWN,), racing=racing, early=early)
    loose = unknowable(run)
    for place, node in run.client.holds.items():
        if place not in loose:
            assert run.world.node_at(place) == node, place
    check_others(run, (OWN,))
    mine = [change for change in run.client.changes if change.thread == OWN]
    assert all(change.kind is Kind.DEATH for change in mine)


@histories
@given(scripts, pauses)
def test_only_the_servers_own(script: list[Operation], waits: list[int]) -> None:
    assert play(script, waits, threads=(OWN,), own=(OWN,)).client.changes == []


# Each rule, switched off: then some history fails.

OFF: dict[str, tuple[object, Callable[..., object]]] = {
    "ends_in_half": (exchanges, lambda *_: False),
    "other_half": (exchanges, lambda *_: None),
    "not_anticipated": (Anticipated, lambda _, bits, name, node: bits),
    "_creates_here": (Entries, lambda *_: True),
    "make_free": (Ledger, lambda *_: None),
    "make_hold": (Ledger, lambda _, name, node: setattr(name, "holds", node)),
    "_pay_all": (Ledger, lambda _, name, target: name.owed.clear()),
    "demand": (Ledger, lambda *_: None),
    "empty_directory": (Ledger, lambda *_: None),
    "_explanations": (Nameless, lambda *_: set()),
    "_may_be_explained": (Nameless, lambda *_: False),
}


def some_histories(count: int = 4000) -> list[tuple[list[Operation], list[int], dict[str, object]]]:
    """The same ones each time."""
    chance = random.Random(2021)
    found = []
    for _ in range(count):
        directories, names = chance.choice((1, 1, 2, 60)), chance.choice((1, 2, 3))
        script = [
            (
                chance.randrange(60),
                chance.randrange(60),
                chance.randrange(directories),
                chance.randrange(names),
                chance.randrange(directories),
                chance.randrange(max(names, 2)),
            )
            for _ in range(chance.randrange(1, 24))
        ]
        waits = [chance.randrange(10) for _ in range(chance.randrange(5))]
        world: dict[str, object] = {
            "kinds": chance.choice((FILES, STRUCTURE, ALL)),
            "threads": chance.choice(((1,), (1, 2))),
            "racing": chance.random() < 0.5,
        }
        found.append((script, waits, world))
    return found


@pytest.mark.parametrize("rule", [None, *OFF])
def test_without_a_rule_histories_fail(rule: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule is not None:
        owner, instead = OFF[rule]
        monkeypatch.setattr(owner, rule, instead)

    def some_fails() -> bool:
        for script, waits, world in some_histories():
            try:
                check(play(script, waits, **world))  # type: ignore[arg-type]
            except (AssertionError, RecursionError):
                return True
        return False

    assert some_fails() == (rule is not None)


def test_changes_are_told_by_whom() -> None:
    run = play([(0, 1, 0, 0, 0, 0)], [], threads=(1, 2))
    assert run.client.changes == [
        Change(Kind.CREATE, Place(b"root", b"a"), b"i1", thread=2),
    ]
