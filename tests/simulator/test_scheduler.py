"""The scheduler, on worlds whose orders can be counted by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import comb

import pytest

from tests.simulator.exhaustive import explore
from tests.simulator.scheduler import Choice, World, at_random, run
from tests.simulator.shrinking import checked, shrunk

Step = tuple[str, ...]
"""What it touches."""


class Counters:
    """Actors with a number of steps each, which write down who came when to each thing."""

    def __init__(
        self, actors: Mapping[str, Sequence[Step]], is_wrong: Callable[[str], bool]
    ) -> None:
        self._actors = {name: list(steps) for name, steps in actors.items()}
        self._is_wrong = is_wrong
        self.seen: dict[str, str] = {}

    def choices(self) -> list[Choice]:
        return [Choice(name, frozenset(steps[0])) for name, steps in self._actors.items() if steps]

    def take(self, name: str) -> None:
        for what in self._actors[name].pop(0):
            thing = what.rstrip("!")
            who = name if what.endswith("!") else name.upper()
            self.seen[thing] = self.seen.get(thing, "") + who

    def end(self) -> str:
        # Who reads first, between two writers, makes no difference.
        return " ".join(
            f"{what}=" + re.sub("[A-Z]+", lambda readers: "".join(sorted(readers[0])), by)
            for what, by in sorted(self.seen.items())
        )

    def faults(self) -> list[str]:
        return [self.end()] if self._is_wrong(self.end()) else []


Made = Callable[[], AbstractContextManager[World]]


def making(
    actors: Mapping[str, Sequence[Step]],
    ends: set[str],
    is_wrong: Callable[[str], bool] = lambda _: False,
) -> Made:
    @contextmanager
    def make() -> Iterator[World]:
        world = Counters(actors, is_wrong)
        yield world
        if not world.choices():
            ends.add(world.end())

    return make


def test_without_reduction_every_order_is_tried() -> None:
    actors = {"a": [("x!",)] * 3, "b": [("y!",)] * 4}
    assert explore(making(actors, set()), reduced=False).runs == comb(7, 3)


def test_steps_with_nothing_in_common_are_tried_in_one_order() -> None:
    actors = {"a": [("x!",)] * 3, "b": [("y!",)] * 4}
    found = explore(making(actors, set()))
    assert (found.runs, found.is_whole) == (1, True)


def test_reading_is_nothing_in_common() -> None:
    assert explore(making({"a": [("x",)] * 3, "b": [("x",)] * 3}, set())).runs == 1
    assert explore(making({"a": [("x!",)] * 3, "b": [("x",)] * 3}, set())).runs == comb(6, 3)


@pytest.mark.parametrize(
    "actors",
    [
        {"a": [("x!",), ("z!",)], "b": [("y!",), ("x!",)], "c": [("z!",), ("y!", "x!")]},
        {"a": [("x!",), ("x",), ("y!",)], "b": [("x",), ("y",)], "c": [("x!",)]},
        {"a": [("x",)] * 2, "b": [("x!", "y!")], "c": [("y",), ("x",)], "d": [("y!",)]},
    ],
)
def test_reduction_misses_no_end(actors: dict[str, list[Step]]) -> None:
    whole, reduced = set[str](), set[str]()
    every = explore(making(actors, whole), reduced=False)
    fewer = explore(making(actors, reduced))
    assert whole == reduced
    assert fewer.runs < every.runs


def test_what_is_found_is_replayed_and_shrunk() -> None:
    actors = {"a": [("x!",)] * 6, "b": [("x!",)] * 2}
    make = making(actors, set(), lambda end: "aba" in end)
    found = at_random(make, range(200))
    assert found.failure is not None
    assert run(make, found.failure.choices) == found.failure
    smallest = shrunk(make, found.failure)
    assert smallest.faults
    with pytest.raises(AssertionError, match="replay: 'a"):
        checked(make, found, "a world")


def test_the_one_order_that_fails_is_found() -> None:
    actors = {"a": [("x!",)] * 4, "b": [("x!",)] * 4}
    found = explore(making(actors, set(), lambda end: end == "x=abbabaab"))
    assert found.failure is not None
    assert "".join(found.failure.choices) == "abbabaab"


def test_a_step_that_raises_is_a_fault() -> None:
    class Broken(Counters):
        def take(self, name: str) -> None:
            raise KeyError(name)

    @contextmanager
    def make() -> Iterator[World]:
        yield Broken({"a": [("x!",)]}, lambda _: False)

    failure = explore(make).failure
    assert failure is not None
    assert failure.faults[0].startswith("KeyError: 'a' (test_scheduler.py:")


@pytest.mark.parametrize("seed", range(40))
def test_reduction_misses_no_end_of_random_worlds(seed: int) -> None:
    chance = random.Random(seed)
    things = ["x", "x!", "y", "y!", "z", "z!"]
    actors: dict[str, list[Step]] = {
        name: [tuple(chance.sample(things, chance.choice((1, 1, 2))))] * chance.randint(1, 2)
        + [(chance.choice(things),)]
        for name in "abcd"[: chance.randint(2, 3)]
    }
    whole, reduced = set[str](), set[str]()
    explore(making(actors, whole), reduced=False)
    explore(making(actors, reduced))
    assert whole == reduced
