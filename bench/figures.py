"""Numbers that stand for many: medians, tails, spreads and ratios."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple


class Latency(NamedTuple):
    """A distribution of times in microseconds."""

    median: float
    p99: float
    lowest_round: float
    """The lowest and the highest median of a round: how much rounds differ."""
    highest_round: float
    samples: int


def latency(rounds: Sequence[Sequence[int]]) -> Latency:
    """The distribution of nanoseconds measured in several rounds."""
    everything = [value / 1000 for values in rounds for value in values]
    medians = [median(values) / 1000 for values in rounds]
    p99 = quantiles(everything, n=100, method="inclusive")[98]
    return Latency(median(everything), p99, min(medians), max(medians), len(everything))


class Spread(NamedTuple):
    """One figure a round: the median round, the lowest and the highest."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of one figure over rounds."""
    return Spread(median(values), min(values), max(values))
