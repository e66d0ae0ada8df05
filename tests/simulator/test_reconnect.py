"""A connection that is lost: the watches are placed again, and what nobody told is made good."""

from __future__ import annotations

from unittest import mock

import pytest

from farwatch.abi.fsnotify import Mode
from farwatch.client.places import Place
from tests.simulator import facts
from tests.simulator.exhaustive import explore
from tests.simulator.expected import ends_once
from tests.simulator.histories import Op
from tests.simulator.scenario import Part, Scenario
from tests.simulator.scheduler import Failure, Make, run
from tests.simulator.shrinking import checked
from tests.simulator.world import World, making

_COMES = facts.CREATE | facts.MOVED_TO
_GOES = facts.DELETE | facts.MOVED_FROM
GAPS = [
    "create a",
    "unlink f",
    "truncate f",
    "rename f a",
    "rename g f",
    "unlink g; create g",
]


def lost_once(host: str) -> Scenario:
    part = Part(Mode.REMOTE, (".", "f"), losses=1)
    return Scenario("create f; create g", (part,), host=host)


def made_good(world: World) -> list[str]:
    """Who goes by the events knows what is there; and hears what comes after."""
    (client,) = world.clients
    for number in range(2):
        world.host.do(Op("create", (f"after{number}",)))
        world.settle()
    heard = client.told()
    known = {b"f", b"g"}
    found = ends_once(client.name, heard)
    for event in heard:
        if event.watch == "." and event.mask & (_COMES | _GOES):
            comes = bool(event.mask & _COMES)
            if comes == (event.name in known) and not event.mask & facts.MOVED_TO:
                found.append(f"{event} twice: {heard}")
            known = known | {event.name} if comes else known - {event.name}
    there = set(world.disk.root.children)
    if known != there and not any(event.mask & facts.Q_OVERFLOW for event in heard):
        found.append(f"by the events there is {known}, and there is {there}: {heard}")
    changed = any(fact.mask & facts.MODIFY for fact in world.facts)
    if changed and not any(event.mask & facts.MODIFY for event in heard):
        found.append(f"no word of the change: {heard}")
    gone = any(fact.mask & facts.DELETE_SELF for fact in world.facts)
    if gone and "f" not in {name.decode() for name in there}:
        ends = [event for event in heard if event.watch == "f" and event.mask & facts.IGNORED]
        if len(ends) != 1:
            found.append(f"the end of f: {heard}")
    return found


@pytest.mark.parametrize("host", GAPS)
def test_what_happens_around_the_loss_is_made_good(host: str) -> None:
    make = making(lost_once(host), made_good)
    checked(make, explore(make, most=80), host)


@pytest.mark.long
@pytest.mark.parametrize("host", GAPS)
def test_what_happens_around_the_loss_is_made_good_in_all_orders(host: str) -> None:
    make = making(lost_once(host), made_good)
    checked(make, explore(make, most=1500), host)


def test_were_nothing_compared_it_would_be_missed() -> None:
    make = making(lost_once("create a"), made_good)
    in_the_gap = ["host", "A.lose"]
    assert not run(make, in_the_gap).faults
    with mock.patch("farwatch.client.places.compare"):
        assert run(make, in_the_gap).faults


def at_each_moment(make: Make) -> list[Failure]:
    """The host comes at any one moment of an otherwise plain run."""
    plain = [name for name in run(make).choices if name != "host"]
    return [run(make, [*plain[:at], "host", *plain[at:]]) for at in range(len(plain) + 1)]


def test_at_no_moment_of_it_is_anything_missed() -> None:
    make = making(lost_once("create a"), made_good)
    assert [failure for failure in at_each_moment(make) if failure.faults] == []


def test_were_it_looked_at_once_a_change_right_after_would_be_missed() -> None:
    def believes_the_first(first: Place, second: Place) -> bool:
        second.seen, second.names = first.seen, first.names
        return True

    make = making(lost_once("create a"), made_good)
    with mock.patch("farwatch.client.places._same", believes_the_first):
        assert any(failure.faults for failure in at_each_moment(make))
