"""Long random histories of several clients and the host, in random orders, by seed."""

from __future__ import annotations

import pytest

from farwatch.abi.fsnotify import Mode
from tests.simulator.expected import ends_once, exactly, nothing_is_left
from tests.simulator.random_histories import history
from tests.simulator.scenario import Part, Scenario
from tests.simulator.scheduler import at_random
from tests.simulator.shrinking import checked
from tests.simulator.world import Check, World, making

SETUP = "mkdir d; mkdir e; mkdir d/f; create a; create b; create d/a; create e/a"
WATCHES = (".", "d", "a", "d/a")
REMOTE, MERGED = Mode.REMOTE, Mode.MERGED


def scenario(seed: int, modes: tuple[Mode | None, ...], length: int, host: int) -> Scenario:
    parts = []
    for index, mode in enumerate(modes):
        # What is done to a file with several names comes to the server without a name, and
        # is told there by any of them; a client that tells it itself knows better.
        without = () if mode is REMOTE else ("link",)
        program = history(10 * seed + index, length, handle="ABCD"[index], without=without)
        parts.append(Part(mode, WATCHES, "; ".join(map(str, program))))
    by_host = history(10 * seed + 9, host, handle="H")
    return Scenario(SETUP, tuple(parts), "; ".join(map(str, by_host)))


def ends(world: World) -> list[str]:
    found = [f for client in world.clients for f in ends_once(client.name, client.told())]
    return found or nothing_is_left(world)


def completely(world: World) -> list[str]:
    return exactly(world, is_late=True) or nothing_is_left(world)


def try_seeds(
    seeds: range,
    modes: tuple[Mode | None, ...],
    length: int,
    host: int,
    check: Check,
    **options: object,
) -> None:
    for seed in seeds:
        made = scenario(seed, modes, length, host)._replace(**options)  # type: ignore[arg-type]
        make = making(made, check)
        checked(make, at_random(make, [seed]), made)


CASES = [
    pytest.param((REMOTE,), 10, 0, completely, {}, id="remote"),
    pytest.param((MERGED,), 10, 0, completely, {}, id="merged"),
    pytest.param((None,), 10, 0, exactly, {}, id="local"),
    pytest.param((REMOTE,), 0, 12, completely, {}, id="host"),
    pytest.param((REMOTE, REMOTE), 6, 5, completely, {}, id="two"),
    pytest.param((REMOTE, REMOTE), 6, 5, completely, {"one_way": True}, id="two, one way"),
    pytest.param((REMOTE, MERGED, None), 5, 4, ends, {}, id="of each mode"),
    pytest.param((REMOTE, MERGED), 6, 5, ends, {"merges": True}, id="read late"),
    pytest.param((REMOTE, MERGED), 6, 5, ends, {"room": 1, "outbox": 3}, id="too slow"),
]


@pytest.mark.parametrize(("modes", "length", "host", "check", "options"), CASES)
def test_a_few(
    modes: tuple[Mode | None, ...],
    length: int,
    host: int,
    check: Check,
    options: dict[str, object],
) -> None:
    try_seeds(range(50), modes, length, host, check, **options)


@pytest.mark.long
@pytest.mark.parametrize(("modes", "length", "host", "check", "options"), CASES)
def test_many(
    modes: tuple[Mode | None, ...],
    length: int,
    host: int,
    check: Check,
    options: dict[str, object],
) -> None:
    try_seeds(range(1000, 3000), modes, length, host, check, **options)
