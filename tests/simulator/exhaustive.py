"""Every order that makes a difference.

Depth first over the choices; a run is repeated from the start for each.  Of runs that differ
only in the order of neighbours that have nothing in common one is made: by sleep sets
(Godefroid 1996) and source sets (Abdulla, Aronis, Jonsson and Sagonas 2014).

    sleeping   what need not be tried in a state: it was, before what led here, and commutes
    wanted     what is to be tried in a state: a step that was made later could have been
               made before the one that was made here, and has something in common with it
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulator.scheduler import Choice, Explored, Failure, Make, count_steps, told


class _Node:
    """One state on the way: what can be done, what is to be tried, what need not be."""

    def __init__(self, options: list[Choice], sleeping: dict[str, Choice], whole: bool) -> None:
        self.options = {choice.name: choice for choice in options}
        self.sleeping = sleeping
        self.wanted = dict.fromkeys(self.options if whole else ())
        if not whole:
            awake = [name for name in self.options if name not in sleeping]
            self.wanted.update(dict.fromkeys(awake[:1]))
        self.taken: Choice | None = None

    def next(self) -> Choice | None:
        if self.taken is not None:
            self.sleeping[self.taken.name] = self.taken
        name = next((name for name in self.wanted if name not in self.sleeping), None)
        self.taken = None if name is None else self.options[name]
        return self.taken

    def asleep_after(self) -> dict[str, Choice]:
        taken = self.taken
        assert taken is not None
        return {n: c for n, c in self.sleeping.items() if c.commutes_with(taken)}


class _Past:
    """The steps of one run, and which of them had to be before which."""

    def __init__(self) -> None:
        self.steps: list[Choice] = []
        self._before: list[int] = []
        self._own: dict[str, int] = {}
        self._enabled: dict[str, int] = {}

    def enabled(self, options: list[Choice]) -> None:
        """What can be done now; what could not before, the last step has made possible."""
        last = len(self.steps) - 1
        cause = self._before[last] | 1 << last if last >= 0 else 0
        self._enabled = {choice.name: self._enabled.get(choice.name, cause) for choice in options}

    def before(self, choice: Choice) -> int:
        """Steps that are before this one, if it is made now, as bits."""
        before = self._own.get(choice.name, 0) | self._enabled.get(choice.name, 0)
        for index in range(len(self.steps) - 1, -1, -1):
            if not before >> index & 1 and not choice.commutes_with(self.steps[index]):
                before |= self._before[index] | 1 << index
        return before

    def add(self, choice: Choice) -> None:
        """It is made now."""
        before = self.before(choice)
        self._own[choice.name] = before | 1 << len(self.steps)
        self._enabled.pop(choice.name, None)
        self.steps.append(choice)
        self._before.append(before)

    def want_races(self, choice: Choice, path: Sequence[_Node]) -> None:
        """Have it tried to make the choice before each step that it could have come before."""
        fixed = self._own.get(choice.name, 0) | self._enabled.get(choice.name, 0)
        before = self.before(choice)
        for index, step in enumerate(self.steps):
            if fixed >> index & 1 or choice.commutes_with(step):
                continue
            between = (later for later in range(index + 1, len(self.steps)) if before >> later & 1)
            if not any(self._before[later] >> index & 1 for later in between):
                self._want(index, choice, before, path[index])

    def _want(self, index: int, choice: Choice, before: int, node: _Node) -> None:
        """Something at the beginning of what can be done without this step, and the choice."""
        without, first = 0, dict[str, None]()
        for later in range(index + 1, len(self.steps)):
            if not self._before[later] >> index & 1:
                if not self._before[later] & without:
                    first[self.steps[later].name] = None
                without |= 1 << later
        if not before & without:
            first[choice.name] = None
        ways = [name for name in first if name in node.options]
        if not any(name in node.wanted for name in ways):
            node.wanted.update(dict.fromkeys(ways[:1] or node.options))


def explore(make: Make, *, most: int = 1_000_000, reduced: bool = True) -> Explored:
    """Every order, until one fails or ``most`` were tried; ``reduced``: see the top."""
    found = Explored()
    path: list[_Node] = []
    while found.runs < most:
        failure, ended = _descend(make, path, reduced)
        found.steps += len(failure.choices)
        found.runs += ended
        if failure.faults:
            found.failure = failure
            return found
        while path and path[-1].next() is None:
            path.pop()
        if not path:
            return found
    found.is_whole = False
    return found


def _descend(make: Make, path: list[_Node], reduced: bool) -> tuple[Failure, bool]:
    """Repeats the path, and goes on to an end.  False: every way from here is another's."""
    past = _Past()
    names = [step.name for step in past.steps]
    with make() as world:
        try:
            repeated = len(path)
            while options := world.choices():
                count_steps(names)
                past.enabled(options)
                depth = len(past.steps)
                if depth >= repeated:
                    asleep = path[-1].asleep_after() if path and reduced else {}
                    node = _Node(options, asleep, not reduced)
                    if reduced:
                        for choice in options:
                            past.want_races(choice, path)
                    if node.next() is None:
                        return Failure(tuple(names), ()), False
                    path.append(node)
                taken = path[depth].taken
                assert taken is not None
                names.append(taken.name)
                past.add(taken)
                world.take(taken.name)
        except Exception as error:  # noqa: BLE001 - it is the run's fault
            return Failure(tuple(names), (told(error),)), True
        return Failure(tuple(names), tuple(world.faults())), True
