"""Makes each change on both sides and waits until each watcher has heard of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from farwatch.cli.demo.changes import ACTS, Act, mark
from farwatch.cli.demo.comparison import streams
from farwatch.cli.demo.observer import Heard
from farwatch.cli.demo.stage import Side, Stage
from farwatch.cli.failure import Failure

ARRIVAL_SECONDS = 3.0
"""After this an event counts as lost."""
STEP_SECONDS = 0.003
"""Between the steps of one act, as between two programs that take turns."""
WARMING = 5
"""Marks before each act: an idle processor and cold caches would otherwise
make the side that happens to go first look several times slower."""

Shown = Callable[["Outcome"], None]


@dataclass
class Hearing:
    """What one watcher heard of one act."""

    events: list[Heard] = field(default_factory=list)
    started: int = 0
    """CLOCK_MONOTONIC just before the act's first system call, nanoseconds."""
    complete: bool = False
    """Whether the mark behind the act arrived too: nothing is still on its way."""

    @property
    def latency(self) -> int | None:
        """Nanoseconds from just before the act to the first event in the watcher's hands."""
        return self.events[0].at - self.started if self.events else None


@dataclass
class Outcome:
    """One act, as both watchers heard it."""

    title: str
    plain: Hearing = field(default_factory=Hearing)
    behind: Hearing = field(default_factory=Hearing)
    finished: bool = False
    """Whether nothing is waited for any more."""

    @property
    def complete(self) -> bool:
        """Whether both watchers have heard all of it."""
        return self.plain.complete and self.behind.complete

    @property
    def equal(self) -> bool:
        """Whether both heard the same: per watch, in order, names and cookies included."""
        return self.complete and streams(self.plain.events) == streams(self.behind.events)


def rehearse(stage: Stage, pause: float, shown: Shown) -> Iterator[Outcome]:
    """Each act's outcome, with ``pause`` seconds between acts.

    ``shown`` is called with the unfinished outcome whenever it grows.  Failure
    if a watcher is deaf from the start.
    """
    for name, side in (("the plain directory", stage.plain), ("the mount", stage.behind)):
        if not _marked(side, "start", lambda _: None):
            raise Failure("no event arrives", name)
    for number, act in enumerate(ACTS, 1):
        if number > 1:
            time.sleep(pause)
        outcome = Outcome(act.title)
        shown(outcome)
        sides = [(stage.plain, outcome.plain), (stage.behind, outcome.behind)]
        # Taking turns, so that neither side always finds the caches warm.
        for side, hearing in sides if number % 2 else reversed(sides):
            _perform(act, number, side, hearing, lambda: shown(outcome))  # noqa: B023 - used at once
        outcome.finished = True
        yield outcome


def _perform(
    act: Act, number: int, side: Side, hearing: Hearing, grown: Callable[[], None]
) -> None:
    def heard(event: Heard) -> None:
        hearing.events.append(event)
        grown()

    for turn in range(WARMING):
        _marked(side, f"{number}.{turn}", heard)
    hearing.started = time.monotonic_ns()
    for step in act.steps:
        step(side.top)
        time.sleep(STEP_SECONDS)
    hearing.complete = _marked(side, str(number), heard)


def _marked(side: Side, name: str, heard: Callable[[Heard], None]) -> bool:
    """Make a mark and listen until it is heard; False if it is not."""
    mark(side.top, name)
    return side.observer.until_mark(name, ARRIVAL_SECONDS, heard)
