"""Watches that are placed, changed and removed, and nodes forgotten, while events are under way."""

from __future__ import annotations

from unittest import mock

from farwatch.abi.fsnotify import Mode
from farwatch.client.fsnotify import Group, NodeId
from farwatch.client.watches import Watches
from farwatch.session.fsnotify.marks import Marks
from tests.simulator import facts
from tests.simulator.exhaustive import explore
from tests.simulator.expected import ends_once, exactly, is_among, nothing_is_left
from tests.simulator.native import Told
from tests.simulator.scenario import Part, Scenario
from tests.simulator.shrinking import checked
from tests.simulator.world import World, making

_ATTRIB = f"{facts.ATTRIB:x}"
_MODIFY = f"{facts.MODIFY:x}"


def completely(world: World) -> list[str]:
    return exactly(world) or nothing_is_left(world)


# Placed

PLACED = Scenario(
    "create f", (Part(Mode.REMOTE, (".",), "watch f f all"),), host="chmod f; truncate f"
)


def test_a_new_watch_hears_what_comes_after_it_and_nothing_before() -> None:
    make = making(PLACED, completely)
    checked(make, explore(make, most=1500), PLACED)


def test_without_the_sequence_of_its_answer_it_hears_what_was_before() -> None:
    real = Group.add_watch

    def forgetful(self: Group, node: NodeId, mask: int, *, is_dir: bool, after: int = 0) -> int:
        return real(self, node, mask, is_dir=is_dir, after=0)

    with mock.patch.object(Group, "add_watch", forgetful):
        found = explore(making(PLACED, exactly))
    assert found.failure is not None


def test_a_watch_that_is_placed_on_what_is_just_removed() -> None:
    """It is refused, or told the end; it never stays on nothing."""
    scenario = Scenario("create f", (Part(Mode.REMOTE, (), "watch f f all"),), host="unlink f")

    def at_an_end(world: World) -> list[str]:
        (client,) = world.clients
        refused = bool(client.errors)
        ended = any(event.mask & facts.IGNORED for event in client.told())
        found = [] if refused != ended else [f"refused: {refused}, ended: {ended}"]
        return found or completely(world)

    make = making(scenario, at_an_end)
    checked(make, explore(make), scenario)


# Changed

CHANGED = Scenario(
    "create f",
    (Part(Mode.REMOTE, ("f",), f"watch f f {_MODIFY}", mask=_ATTRIB),),
    host="chmod f; truncate f; setxattr f",
)


def changed(world: World) -> list[str]:
    """What was added is heard from the change on, all of it; what was taken away until then.

    The change is made at the server before the client knows: of what is taken away, and
    happens in between, either is right.
    """
    (client,) = world.clients
    heard, truth = client.told(), world.truth[client.name].told
    found: list[str] = []
    added = [[e for e in events if e.mask & facts.MODIFY] for events in (heard, truth)]
    if [*map(str, added[0])] != [*map(str, added[1])]:
        found.append(f"added: heard {added[0]}, truth {added[1]}")
    late = [e for e in heard[client.boundaries["f"] :] if not e.mask & facts.MODIFY]
    found += [f"{event} after it was taken away" for event in late]
    kinds = [fact.mask for fact in world.facts]
    taken = [e for e in heard if e.mask & facts.ATTRIB]
    if not is_among(taken, [Told("f", mask, 0, b"") for mask in kinds]):
        found.append(f"taken away: heard {taken} of {kinds}")
    return found


def test_a_watch_that_is_changed() -> None:
    make = making(CHANGED, changed)
    checked(make, explore(make, most=400), CHANGED)


def test_a_client_that_does_not_see_to_what_was_taken_away() -> None:
    with mock.patch("farwatch.client.fsnotify.mark.Mark.hears", return_value=True):
        found = explore(making(CHANGED, changed), most=1500)
    assert found.failure is not None


# Removed

REMOVED = Scenario(
    "create f", (Part(Mode.REMOTE, ("f",), "unwatch f"),), host="chmod f; truncate f; unlink f"
)


def removed(world: World) -> list[str]:
    """Up to its end a watch hears the truth, and then no more."""
    (client,) = world.clients
    heard, truth = client.told(), world.truth[client.name].told
    found = ends_once(client.name, heard)
    if not heard or not heard[-1].mask & facts.IGNORED:
        return [*found, f"no end: {heard}"]
    before = [event.plain for event in heard[:-1]]
    if before != [event.plain for event in truth[: len(before)]]:
        found.append(f"heard {heard}, truth {truth}")
    return found or nothing_is_left(world)


def test_a_watch_that_is_removed() -> None:
    make = making(REMOVED, removed)
    checked(make, explore(make, most=1500), REMOVED)


# Forgotten

FORGOTTEN = Scenario(
    "create f; create g",
    (Part(Mode.REMOTE, (".", "f"), "stat f; stat g"),),
    host="chmod g; chmod f; unlink f",
)


def test_nodes_are_forgotten_while_events_of_them_are_under_way() -> None:
    make = making(FORGOTTEN, completely)
    checked(make, explore(make, most=250), FORGOTTEN)


SHORT = Scenario("create f", (Part(Mode.REMOTE, ("f",), ""),), host="chmod f; unlink f")


def test_the_server_keeps_what_is_watched_though_the_client_forgets_it() -> None:
    with mock.patch.object(Watches, "_keep", return_value=None):
        make = making(SHORT, exactly)
        checked(make, explore(make), SHORT)


def test_were_it_not_kept_its_events_would_be_lost() -> None:
    with mock.patch.object(Watches, "_keep", return_value=None):
        with mock.patch.object(Marks, "place", _place_without_pin):
            assert explore(making(SHORT, exactly)).failure is not None


def _place_without_pin(self: Marks, node: object, mask: int) -> None:
    with mock.patch.object(self._nodes, "pin", return_value=None):
        _real_place(self, node, mask)  # type: ignore[arg-type]


_real_place = Marks.place
