"""Several clients of one server: what each is told of the others, and that it is told once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import pytest

from farwatch.abi.fsnotify import Mode, Source
from farwatch.client.kernel import Kernel
from farwatch.events import Key
from farwatch.session.fsnotify.telling import Telling
from tests.simulator import facts
from tests.simulator.disk import WatchedDisk
from tests.simulator.exhaustive import explore
from tests.simulator.expected import exactly, nothing_is_left
from tests.simulator.facts import Fact
from tests.simulator.queue import Queue
from tests.simulator.scenario import Part, Scenario
from tests.simulator.shrinking import checked
from tests.simulator.world import FIRST_THREAD, World, making

MODES = [Mode.REMOTE, Mode.MERGED, None]
IDS = ["remote", "merged", "local"]
OWN = ["unlink f", "create g", "chmod f", "open h f w; write h; close h", "rename f g"]


def completely(world: World) -> list[str]:
    return exactly(world) or nothing_is_left(world)


# Who has made it


@pytest.mark.parametrize("mine", MODES, ids=IDS)
@pytest.mark.parametrize("theirs", MODES, ids=IDS)
def test_each_is_told_once_of_itself_and_of_the_other(
    mine: Mode | None, theirs: Mode | None
) -> None:
    """In local mode of itself alone; an event says which client has made it."""
    scenario = Scenario(
        "create f", (Part(mine, ("f",), "chmod f"), Part(theirs, (".",), "mkdir g"))
    )
    make = making(scenario, completely)
    checked(make, explore(make, most=150), scenario)


@pytest.mark.long
@pytest.mark.parametrize("mine", MODES, ids=IDS)
@pytest.mark.parametrize("theirs", MODES, ids=IDS)
def test_the_same_in_many_more_orders(mine: Mode | None, theirs: Mode | None) -> None:
    parts = (Part(mine, (".", "f"), "chmod f; create h"), Part(theirs, (".", "f"), "rename f g"))
    scenario = Scenario("create f", parts, host="setxattr f")
    make = making(scenario, completely)
    checked(make, explore(make, most=1500), scenario)


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.MERGED], ids=["remote", "merged"])
@pytest.mark.parametrize("program", OWN)
def test_what_a_client_does_itself_is_told_once(mode: Mode, program: str) -> None:
    scenario = Scenario("create f", (Part(mode, (".", "f"), program),))
    make = making(scenario, completely)
    checked(make, explore(make, most=200), scenario)


@pytest.mark.parametrize("program", OWN)
def test_a_server_that_does_not_know_its_threads_tells_all_twice(program: str) -> None:
    scenario = Scenario("create f", (Part(Mode.MERGED, (".", "f"), program),))
    with mock.patch.object(Telling, "_origin", return_value=(Source.REMOTE, 0)):
        assert explore(making(scenario, exactly), most=200).failure is not None


# What the server does for itself

SILENT = Scenario(
    "mkdir d; create d/f; symlink d/f l",
    (
        Part(Mode.REMOTE, (".", "d", "d/f"), "stat d/f; watch x d/f all"),
        Part(Mode.MERGED, (".", "d", "d/f"), "unwatch d/f"),
    ),
)


def silence(world: World) -> list[str]:
    found = [f"the disk told of {fact}" for fact in world.facts]
    for client in world.clients:
        heard = client.told()
        found += [f"{client.name} heard {e}" for e in heard if not e.mask & facts.IGNORED]
    return found


def test_walking_looking_and_watching_make_no_events() -> None:
    make = making(SILENT, silence)
    checked(make, explore(make, most=200), SILENT)


@contextmanager
def looking_as(thread: int) -> Iterator[None]:
    """Whoever looks at the disk for the source opens the directory to do so."""
    real = WatchedDisk.node_at

    def node_at(self: WatchedDisk, directory: Key, name: bytes) -> Key | None:
        for listener in self.listeners:
            queue = getattr(listener, "__self__", None)
            if isinstance(queue, Queue):
                for kind in (facts.OPEN, facts.CLOSE_NOWRITE):
                    queue.hear(Fact(kind | facts.ISDIR, directory, None, thread))
        return real(self, directory, name)

    with mock.patch.object(WatchedDisk, "node_at", node_at):
        yield


LOOKED_AT = Scenario(
    "mkdir d", (Part(Mode.REMOTE, (".",)),), host="create g; unlink g", merges=True
)


def no_opens(world: World) -> list[str]:
    heard = world.clients[0].told()
    return [f"heard {event}" for event in heard if event.mask & facts.OPEN]


def test_what_the_source_does_itself_is_nobodys() -> None:
    with looking_as(threading.get_native_id()):
        make = making(LOOKED_AT, no_opens)
        checked(make, explore(make), LOOKED_AT)


def test_were_it_anybodys_it_would_be_heard() -> None:
    with looking_as(FIRST_THREAD + 99):
        assert explore(making(LOOKED_AT, no_opens)).failure is not None


# Held open

HELD = Scenario(
    "create f",
    (
        Part(Mode.REMOTE, ("f",), "unlink f"),
        Part(Mode.REMOTE, ("f",), "close h", before="open h f w"),
    ),
)


def test_a_file_that_another_client_holds_open() -> None:
    """Its end is when the last of all clients lets go of it, for all of them, once.

    Whoever has removed it waits for that in limbo.
    """
    make = making(HELD, completely)
    checked(make, explore(make, most=300), HELD)


@pytest.mark.long
def test_a_file_that_another_client_holds_open_in_all_orders() -> None:
    make = making(HELD, completely)
    checked(make, explore(make, most=4000), HELD)


def test_merged_the_client_takes_its_own_removal_for_the_end() -> None:
    """As every network file system does: it knows of its own openers only.  Once, even so."""
    scenario = HELD._replace(parts=(HELD.parts[0]._replace(mode=Mode.MERGED), HELD.parts[1]))

    def told_apart(world: World) -> list[str]:
        mine, other = world.clients
        heard = [facts.kinds(event.mask) for event in mine.told()]
        found = []
        if heard.count("DELETE_SELF") != 1 or heard.count("IGNORED") != 1 or heard[-1] != "IGNORED":
            found.append(f"A: {heard}")
        told, truth = other.told(), world.truth[other.name].told
        if [e.plain for e in told] != [e.plain for e in truth]:
            found.append(f"B: {told}, truth {truth}")
        return found or nothing_is_left(world)

    make = making(scenario, told_apart)
    checked(make, explore(make, most=300), scenario)


def test_by_handles_nothing_is_held_open_by_the_server() -> None:
    """The end is told when it is there, and not when the server has let go of a descriptor."""
    make = making(ON_TIME, on_time)
    checked(make, explore(make, most=300), ON_TIME)


def test_a_server_that_holds_descriptors_would_hold_up_the_end() -> None:
    """The RFC's server had one of every inode that its client knew."""
    found = explore(making(ON_TIME, on_time, hold_what_is_known), most=300)
    assert found.failure is not None


ON_TIME = Scenario("create f", (Part(Mode.REMOTE, ("f",)),), host="unlink f")


def on_time(world: World) -> list[str]:
    heard = [facts.kinds(event.mask) for event in world.clients[0].told()]
    return [] if heard == ["ATTRIB", "DELETE_SELF", "IGNORED"] else [f"heard {heard}"]


def hold_what_is_known(world: World) -> None:
    sides = [client.side for client in world.clients]
    world.disk.keeps = lambda key: any(key in side.session.view.nodes.by_key for side in sides)


# The same race the other way round, in merged mode

MINE = Scenario("create f", (Part(Mode.MERGED, (".", "f"), "unlink f"),))


def test_merged_the_servers_word_of_the_end_may_be_first() -> None:
    make = making(MINE, completely)
    checked(make, explore(make), MINE)


def test_were_it_heard_before_the_answer_the_clients_own_events_would_be_lost() -> None:
    with mock.patch.object(Kernel, "leaving", return_value=nullcontext()):
        assert explore(making(MINE, exactly)).failure is not None
