"""A removal's events and the answer to it, in every order: what stopped the RFC.

A client in remote mode removes a file that it watches.  The answer to its UNLINK and the
server's events travel apart.  As the RFC had it, the inode's marks end when the removal is
answered, which loses the events of it that are heard later.  Here the marks wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from farwatch.abi.fsnotify import Mode
from farwatch.client.fsnotify import Fsnotify, NodeId
from tests.simulator import facts
from tests.simulator.exhaustive import explore
from tests.simulator.expected import each_name, exactly, nothing_is_left
from tests.simulator.scenario import Part, Scenario
from tests.simulator.scheduler import run
from tests.simulator.shrinking import checked
from tests.simulator.world import World, making

UNLINK = Scenario("create f", (Part(Mode.REMOTE, (".", "f"), "unlink f"),))
REMOVALS = [
    ("create f", "", "unlink f", (".", "f")),
    ("mkdir f", "", "rmdir f", (".", "f")),
    ("create f; create g", "", "rename g f", ("f",)),
    ("create f", "open h f w; unlink f", "close h", (".", "f")),
    ("create f; link f g", "unlink f", "unlink g", (".", "f")),
    ("create f", "", "rename f g; unlink g", ("f",)),
]
LONG = [
    ("create f", "open h f w", "unlink f; close h", (".", "f")),
    ("create f; link f g", "", "unlink f; unlink g", (".", "f")),
    ("create f", "", "unlink f; create f; unlink f", (".", "f")),
    ("mkdir d; create d/f", "", "unlink d/f; rmdir d", (".", "d", "d/f")),
    ("create f; create g", "", "rename g f; unlink f", (".", "f", "g")),
]


@contextmanager
def as_the_rfc() -> Iterator[None]:
    """Marks end where the inode is removed, as they do in the VFS of the client."""

    def forget(self: Fsnotify, node: NodeId) -> tuple[NodeId, ...]:
        self.forget_inode(node)
        return ()

    with mock.patch.object(Fsnotify, "enter_limbo", forget):
        yield


def completely(world: World) -> list[str]:
    return exactly(world) or nothing_is_left(world)


def completely_by_name(world: World) -> list[str]:
    return each_name(world) or nothing_is_left(world)


def scenario(setup: str, before: str, program: str, watches: tuple[str, ...]) -> Scenario:
    return Scenario(setup, (Part(Mode.REMOTE, watches, program, before),))


def test_the_rfc_loses_the_end_of_what_the_client_removes() -> None:
    """Steps A to E of the discussion: it is a matter of the order alone."""
    told: dict[bool, int] = {True: 0, False: 0}

    def note(world: World) -> list[str]:
        heard = [event.mask & facts.ALL for event in world.clients[0].told()]
        told[facts.DELETE_SELF in heard] += 1
        return []

    with as_the_rfc():
        found = explore(making(UNLINK, exactly))
        explore(making(UNLINK, note))
    assert told[True], "where the events are heard first nothing is lost"
    assert told[False], "where the answer is, DELETE_SELF is"
    assert found.failure is not None
    made, faults = found.failure
    assert "A.notice" in made[made.index("A.source") :]
    assert "IGNORED" in faults[0]
    assert run(making(UNLINK, exactly), made).faults == ()


@pytest.mark.parametrize("way", ["two ways", "one way", "merging"])
@pytest.mark.parametrize("removal", REMOVALS, ids=[removal[2] for removal in REMOVALS])
def test_all_is_told_once_in_every_order(
    removal: tuple[str, str, str, tuple[str, ...]], way: str
) -> None:
    made = scenario(*removal)._replace(one_way=way == "one way", merges=way == "merging")
    make = making(made, completely_by_name if way == "merging" else completely)
    found = checked(make, explore(make, most=600), made)
    assert found.runs > 3


@pytest.mark.long
@pytest.mark.parametrize("merges", [False, True], ids=["read at once", "merging"])
@pytest.mark.parametrize("removal", LONG, ids=[removal[2] for removal in LONG])
def test_all_is_told_once_in_every_order_of_more(
    removal: tuple[str, str, str, tuple[str, ...]], merges: bool
) -> None:
    made = scenario(*removal)._replace(merges=merges)
    make = making(made, completely_by_name if merges else completely)
    checked(make, explore(make, most=4000), made)


def test_reduction_misses_no_outcome() -> None:
    """Every single order of a small history, and the reduced ones, end in the same ways."""
    ends: list[set[str]] = []
    for reduced in (True, False):
        seen = set[str]()

        def note(world: World, seen: set[str] = seen) -> list[str]:
            seen.add(" ".join(f"{event}/{event.by}" for event in world.clients[0].told()))
            return []

        small = Scenario("create f", (Part(Mode.MERGED, (".",), "unlink f"),), host="create g")
        assert explore(making(small, note), reduced=reduced, most=30_000).is_whole
        ends.append(seen)
    assert ends[0] == ends[1]
    assert len(ends[0]) > 1


def test_without_a_word_of_the_end_the_marks_would_stay() -> None:
    """A removal of which no DELETE_SELF is asked for: it is ENDED that ends the watch."""
    part = Part(Mode.REMOTE, ("f",), "unlink f", mask=f"{facts.MODIFY:x}")
    made = Scenario("create f", (part,))
    make = making(made, completely)
    checked(make, explore(make), made)
    with mock.patch.object(Fsnotify, "ended", return_value=None):
        assert explore(make).failure is not None


@pytest.mark.parametrize(
    ("setup", "watches", "host"),
    [
        ("create b; create e; mkdir d; create d/f", (".", "d", "d/f"), "rename d/f b; rename e b"),
        ("create f; create x", ("f", "x"), "rename f g; link x y"),
        ("create f", ("f",), "rename f g; link f h; unlink g"),
    ],
)
def test_what_a_rename_replaces_is_not_what_happens_next(
    setup: str, watches: tuple[str, ...], host: str
) -> None:
    """What was at the new name is not known; the link count that is next is another's."""
    made = Scenario(setup, (Part(Mode.REMOTE, watches),), host=host)
    make = making(made, completely)
    checked(make, explore(make, most=100), made)
