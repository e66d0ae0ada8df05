"""A run that fails, with all that it can do without taken out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.simulator.scheduler import Explored, Failure, Make, run


def shrunk(make: Make, failure: Failure) -> Failure:
    """The failure with as few choices as can be had by leaving some out."""
    best = failure
    size = max(len(best.choices) // 2, 1)
    while size:
        for shorter in _without(best.choices, size):
            again = run(make, shorter)
            if again.faults and _rank(again) < _rank(best):
                best = again
                break
        else:
            size //= 2
    return best


def _rank(failure: Failure) -> tuple[int, int]:
    """Shorter is better, then fewer changes from one actor to another."""
    made = failure.choices
    return len(made), sum(one != two for one, two in itertools.pairwise(made))


def _without(choices: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(choices), size):
        yield [*choices[:start], *choices[start + size :]]


def checked(make: Make, found: Explored, what: object) -> Explored:
    """Raises AssertionError with a shrunk run, if one has failed."""
    if found.failure is not None:
        raise AssertionError(f"{what}\n{shrunk(make, found.failure)}")
    return found
