"""A client that is slower than what happens: its notifications do not all fit."""

from __future__ import annotations

import itertools
from unittest import mock

from farwatch.abi.fsnotify import Ended, Mode
from farwatch.session.fsnotify.outbox import Outbox
from tests.simulator import facts
from tests.simulator.exhaustive import explore
from tests.simulator.expected import ends_once, is_among, nothing_is_left
from tests.simulator.histories import Op
from tests.simulator.scenario import Part, Scenario
from tests.simulator.scheduler import at_random
from tests.simulator.shrinking import checked
from tests.simulator.world import World, making

SLOW = Scenario(
    "create f",
    (Part(Mode.REMOTE, (".", "f")),),
    host="create a; create b; create c; unlink f; create d",
    room=1,
    outbox=2,
)


def is_told(world: World) -> list[str]:
    """What is heard is true; what is missing is made good by a Q_OVERFLOW; ends are told.

    And when all has been taken, events come again.
    """
    (client,) = world.clients
    heard = client.told()
    truth = list(world.truth[client.name].told)
    lost = [event for event in heard if event.mask & facts.Q_OVERFLOW]
    real = [event for event in heard if not event.mask & facts.Q_OVERFLOW]
    found = ends_once(client.name, heard)
    if sum(bool(event.mask & facts.IGNORED) for event in heard) != 1:
        found.append(f"the end of f: {heard}")
    if not is_among(real, truth):
        found.append(f"heard {heard}, truth {truth}")
    if len(real) != len(truth) and not lost:
        found.append(f"lost without a word: {heard}, truth {truth}")
    for one, other in itertools.pairwise(heard):
        if one.mask & other.mask & facts.Q_OVERFLOW:
            found.append("Q_OVERFLOW twice")
    world.host.do(Op("create", ("z",)))
    world.settle()
    if not any(event.name == b"z" for event in client.told()):
        found.append("after that nothing is heard any more")
    return found or nothing_is_left(world)


def test_one_word_of_what_is_lost_and_then_events_again() -> None:
    make = making(SLOW, is_told)
    found = checked(make, explore(make, most=300), SLOW)
    assert found.runs > 20


def test_some_of_that_overflows() -> None:
    def overflows(world: World) -> list[str]:
        events = world.clients[0].told()
        return ["overflow"] if any(event.mask & facts.Q_OVERFLOW for event in events) else []

    assert explore(making(SLOW, overflows), most=1500).failure is not None


def test_an_end_that_is_lost_with_the_rest_would_be_missed() -> None:
    real = Outbox.ended

    def lossy(self: Outbox, ended: Ended) -> None:
        if not self._is_overflowing:
            real(self, ended)

    with mock.patch.object(Outbox, "ended", lossy):
        found = at_random(making(SLOW, is_told), range(200))
    assert found.failure is not None


def test_a_queue_that_never_opens_again_would_be_seen() -> None:
    real = Outbox.event

    def closed(self: Outbox, event: object, **to: bool) -> None:
        if self._is_overflowing or getattr(self, "was_full", False):
            self.was_full = True  # type: ignore[attr-defined]
            return
        real(self, event, **to)  # type: ignore[arg-type]

    with mock.patch.object(Outbox, "event", closed):
        found = at_random(making(SLOW, is_told), range(200))
    assert found.failure is not None
