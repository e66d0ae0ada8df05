"""Whose turn it is: a world that is stepped by choices, and its runs.

The same choices give the same run, so a run is its list of
choices, by name, and is repeated from the start.

    exhaustive.py   every order that makes a difference
    at_random       some of them, by seed
    shrinking.py    a run that fails, with all that it can do without taken out

``touches`` of a choice says what it reads ("x") and writes ("x!").  Two that follow one
another and have nothing in common can as well be made the other way round.

A list of choices is replayed leniently: one that cannot be made is left out, and when the
list is over the first that can be made is, until there is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

MOST_STEPS = 5_000
"""A run that is longer does not end."""


class Choice(NamedTuple):
    """One step that the world can make next."""

    name: str
    touches: frozenset[str]

    def commutes_with(self, other: Choice) -> bool:
        """Whether it makes no difference which of the two is first."""
        return _commute(self.touches, other.touches)


@lru_cache(maxsize=4096)
def _commute(one: frozenset[str], other: frozenset[str]) -> bool:
    return not any(
        what.endswith("!") and (what in touched or what[:-1] in touched)
        for touches, touched in ((one, other), (other, one))
        for what in touches
    )


class World(Protocol):
    """What is stepped."""

    def choices(self) -> list[Choice]:
        """What can be done next, in a fixed order; none: it is over."""

    def take(self, name: str) -> None:
        """Do it."""

    def faults(self) -> list[str]:
        """What was not as it must be; asked when it is over."""


Make = Callable[[], AbstractContextManager[World]]


class Failure(NamedTuple):
    """A run with faults."""

    choices: tuple[str, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        lines = [*self.faults, "replay: " + repr(" ".join(self.choices))]
        return "\n".join(lines)


@dataclass
class Explored:
    """How far an exploration came."""

    runs: int = 0
    """Orders that were tried to their end."""
    steps: int = 0
    is_whole: bool = True
    """Whether that was all of them."""
    failure: Failure | None = None
    """The first one."""


def run(make: Make, choices: Sequence[str] = ()) -> Failure:
    """Replays a list of choices; the choices that were made, and what was wrong."""
    made: list[str] = []
    with make() as world:
        try:
            for name in choices:
                if any(choice.name == name for choice in world.choices()):
                    made.append(name)
                    world.take(name)
            while options := world.choices():
                count_steps(made)
                made.append(options[0].name)
                world.take(options[0].name)
        except Exception as error:  # noqa: BLE001 - it is the run's fault
            return Failure(tuple(made), (told(error),))
        return Failure(tuple(made), tuple(world.faults()))


def count_steps(made: Sequence[str]) -> None:
    """Raises RuntimeError for a run that does not end."""
    if len(made) > MOST_STEPS:
        raise RuntimeError(f"it does not end: {' '.join(made[-12:])}")


def told(error: Exception) -> str:
    """What a run has raised, and where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        where = f" ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
    return f"{type(error).__name__}: {error}{where}"


# By seed


def at_random(make: Make, seeds: Sequence[int] | range) -> Explored:
    """One run a seed, until one fails."""
    found = Explored(is_whole=False)
    for seed in seeds:
        failure = run_random(make, seed)
        found.runs += 1
        found.steps += len(failure.choices)
        if failure.faults:
            found.failure = failure
            break
    return found


def run_random(make: Make, seed: int) -> Failure:
    """One run.  Each seed prefers some choices to others, so that queues grow long."""
    chance = random.Random(seed)
    weights: dict[str, float] = {}
    made: list[str] = []
    with make() as world:
        try:
            while options := world.choices():
                count_steps(made)
                for choice in options:
                    weights.setdefault(choice.name, chance.choice((0.02, 0.3, 1.0, 3.0)))
                share = [weights[choice.name] for choice in options]
                made.append(chance.choices(options, share)[0].name)
                world.take(made[-1])
        except Exception as error:  # noqa: BLE001 - it is the run's fault
            return Failure(tuple(made), (told(error),))
        return Failure(tuple(made), tuple(world.faults()))
